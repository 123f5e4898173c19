//! What the tests of the bed have in common. Nothing in it is a test that needs the bed.
//!
//! In reading order: `support` has files and their labels; `command` runs programs, svirt-exec above
//! all, and reads what they print; `guest` has guests that run for as long as a test needs them,
//! `hostile` programs that try what they are told to; `processes` finds processes by their SELinux attributes; `journal` reads what svirt-exec writes
//! down; `refused` checks that a launch was refused and left no trace; `policy` turns booleans and
//! reads the audit log; `stated` reads the numbers of SECURITY.md; `sample`
//! draws what an ordinary run tries. `observer` watches from outside which processes have overlapping MCS
//! categories. `fixtures`, `strace` and `planned` serve the differential test: the files of a case,
//! what QEMU did, and what the plan says.
//!
//! The names of the first ten are handed out here; the others are named by their module.

mod command;
pub mod fixtures;
mod guest;
mod hostile;
mod journal;
pub mod observer;
pub mod planned;
mod policy;
mod processes;
mod refused;
mod sample;
mod stated;
pub mod strace;
mod support;

pub use command::*;
pub use guest::*;
pub use hostile::*;
pub use journal::*;
pub use policy::*;
pub use processes::*;
pub use refused::*;
pub use sample::*;
pub use stated::*;
pub use support::*;
