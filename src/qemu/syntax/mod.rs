//! How QEMU's words and values are written, one file a syntax.
//!
//! In reading order: `bytes` (helpers), `argv` (words to options), `opts`, `keyval`, `json`,
//! `readconfig`, `tree` (what all of them say, in one form), `value` (JSON or keyval), `filename`
//! (protocol prefixes and `json:`).

pub mod argv;
pub mod bytes;
pub mod filename;
pub mod json;
pub mod keyval;
pub mod opts;
pub mod readconfig;
pub mod tree;
pub mod value;
