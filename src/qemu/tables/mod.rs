//! What is known of every key, and warnings about what is not.
//!
//! In reading order: `meaning` (what a key can be), `not_paths` (keys that name no resource),
//! `keys` (one answer from the tables of all families), `unknown` (the warnings).

pub mod keys;
pub mod meaning;
pub mod not_paths;
pub mod unknown;
