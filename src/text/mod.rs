//! What a person reads: messages, tables, names made harmless.

pub mod escape;
pub mod message;
pub mod progress;
pub mod table;
