//! What block options make QEMU open: the graph of block nodes.
//!
//! In reading order: `drivers` (the table of block drivers), `drives` (the options), `context`
//! (what a node inherits), `open` (from options to nodes), `protocol` (what a node opens on the
//! host), `graph` (who writes what), `backing` (names in headers of images).

pub mod backing;
pub mod context;
pub mod drivers;
pub mod drives;
pub mod graph;
pub mod open;
pub mod protocol;
