//! What block options make QEMU open.

pub mod backing;
pub mod context;
pub mod drivers;
pub mod drives;
pub mod graph;
pub mod open;
pub mod protocol;
