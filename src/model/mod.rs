//! The vocabulary: labels, and what a guest uses of the host. Pure values.

pub mod label;
pub mod resource;
