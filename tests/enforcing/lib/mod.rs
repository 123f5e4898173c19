//! What the tests of the bed have in common. It holds no test that needs the bed.
//!
//! In reading order: `support` has images, labels and guests, and is what nearly every test uses;
//! `observer` watches from outside which processes have overlapping MCS categories; `fixtures`,
//! `strace` and `planned` serve the differential test: the files of a case, what QEMU did, and what
//! the plan says.

pub mod fixtures;
pub mod observer;
pub mod planned;
pub mod strace;
pub mod support;

pub use support::*;
