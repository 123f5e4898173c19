//! What a person reads: messages, tables, names made harmless.
//!
//! May import `sys`.
//!
//! * `escape`: names in messages, without what a terminal would obey
//! * `message`: a problem and its remedy; a refusal with its exit status
//! * `progress`: the steps of `-v`, and a line a second during long work
//! * `table`: columns as ps(1) prints them
//! * `hex`: bytes that are not text
//! * `json`: documents for programs
//! * `output`: standard output

pub(crate) mod escape;
pub(crate) mod hex;
pub(crate) mod json;
pub(crate) mod message;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod table;
