//! What this machine has: /proc and /sys, files that are opened once, and the policy that is loaded.
//!
//! May import `sys`, `text`, `model`, `selinux`, `image` and `qemu`. Changes nothing but labels and what
//! a process asks for at its next execve(2).
//!
//! * `policy`: questions to the policy, and its answers as clauses
//! * `files`, `pinned`: files behind one trait, and files that are opened once
//! * `owned_dir`: directories that are known by who owns them
//! * `procfs`, `process_labels`, `cmdline`: a checked /proc; every process with its labels; QEMUs that run
//! * `reserving`: whose categories keep others from a pair
//! * `mountinfo`, `mangle`: the table of mounts, and names as the kernel escapes them
//! * `mappings`: which files a process has mapped
//! * `sysfs`, `devices`, `block_use`: nodes of devices that are named by address; block devices that the
//!   host itself uses
//! * `image_lock`, `lock_holders`: QEMU's own locks on images; who holds a lock of flock(2)
//! * `runtime_dir`: a guest's own directory below /run
//! * `privsep`: processes that open and parse images, and can do nothing else
//! * `random`: random bytes
//! * `io_error`: errors of the system in words
//! * `real`: all of it, as this host has it

pub(crate) mod block_use;
pub(crate) mod cmdline;
pub(crate) mod devices;
pub(crate) mod files;
pub(crate) mod image_lock;
pub(crate) mod io_error;
pub(crate) mod lock_holders;
pub(crate) mod mangle;
pub(crate) mod mappings;
pub(crate) mod mountinfo;
pub(crate) mod owned_dir;
pub mod pinned;
pub(crate) mod policy;
pub mod privsep;
pub(crate) mod process_labels;
mod procfs;
pub(crate) mod random;
pub(crate) mod real;
mod reserving;
pub(crate) mod runtime_dir;
pub mod sysfs;

pub use files::{Files, Host};
pub use policy::{Policy, VirtualContexts};
pub use process_labels::{ProcessLabels, ProcessLook, Processes, Sought};
pub use procfs::Procfs;
pub use real::RealHost;
