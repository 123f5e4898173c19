//! What is known of every key.

pub mod keys;
pub mod meaning;
pub mod not_paths;
pub mod unknown;
