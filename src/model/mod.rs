//! The vocabulary: labels, and what a guest uses of the host. Pure values.
//!
//! May import `text`.
//!
//! * `label`: contexts, levels, categories, pairs
//! * `resource`: requests of the command line, and their classes

pub mod label;
pub mod resource;
