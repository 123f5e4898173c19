//! System calls that nix and std do not offer, one safe function for each: the only wing with `unsafe`.
//!
//! Imports nothing of this program.
//!
//! * `process`: starts a process that is nobody's child; limits, environment, the C `main`
//! * `fd`: descriptors that were handed down, and what is known of one
//! * `signal`: SIGTERM and its like, SIGPIPE
//! * `unheard`: what is said where the kernel took standard error away
//! * `proc_file`: files that the kernel makes up
//! * `errno`: errors of C functions
#![allow(unsafe_code)]

mod errno;
mod fd;
mod proc_file;
pub(crate) mod process;
mod signal;
mod unheard;

pub use fd::{
    LockKind, flock, handed_on, hold_standard_descriptors, inherited, mount_id, pidfd, place,
    receive, socket_domain,
};
pub use proc_file::{kernel_log, read_at_once, rest_at_once};
pub use process::{
    caller_environment, double_fork, drop_code_pages, raise_descriptor_limit,
    restore_descriptor_limit, start_detached, variable, wait_for_exit, wait_for_starters,
};
pub use signal::{heed_termination, ignore_termination, write_error};
pub use unheard::was_taken_away;
