//! The vocabulary: labels, and what a guest uses of the host. Pure values.
//!
//! May import `text`.
//!
//! * `chain`: files that image headers name, as they are remembered
//! * `label`: contexts, levels, categories, pairs
//! * `resource`: requests of the command line, and their classes

pub(crate) mod chain;
pub mod label;
pub mod resource;
