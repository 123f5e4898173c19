//! svirt-exec runs one QEMU under SELinux with a pair of MCS categories of its own, without a daemon.
//!
//! # The wings
//!
//! Data flows one way. A wing imports only from wings that stand above it in this list, nearer the ground
//! (`tests/wings.rs` holds that). Each wing's `mod.rs` says what the wing is for and lists its files.
//!
//! | wing | what lives there | look here to change |
//! |---|---|---|
//! | [`sys`] | system calls; the only `unsafe` | how a process is started, how a descriptor is passed |
//! | `text` | messages, tables, escapes | how a refusal is printed |
//! | [`model`] | labels; what a guest uses of the host. Pure values | contexts, levels, pairs; classes of resources |
//! | [`selinux`] | libselinux; names of the module's types; advice | a type's name, a boolean to advise |
//! | [`image`] | image headers: untrusted bytes | an image format |
//! | [`qemu`] | QEMU's command line. Pure | which option or key names what: the list in `qemu/options/mod.rs` |
//! | [`host`] | what this machine has: /proc, /sys, files, the policy that is loaded | how a device's node is found |
//! | [`seclabel`] | which domain and which pair a guest gets | how a pair is drawn and claimed |
//! | [`plan`] | which label each resource gets, and whether the policy agrees | a label: `plan/decide.rs`; the class of a device's node: `plan/collect.rs` |
//! | `restore` | original labels: written down, held, put back; the keeper | what the keeper does when QEMU ends: `restore/keeper/main.rs` |
//! | [`cli`] | what can be typed. Imports only `model` | an option of svirt-exec |
//! | [`launch`] | a launch, step by step; hot-plug | the order of a launch: `launch/run.rs` |
//! | `observe` | commands that only look: list, verify, denials, doctor | a check of doctor: the list in `observe/doctor/mod.rs` |
//!
//! `program` decides by the program's name and arguments which of these runs; `version` prints versions.
//!
//! # The way of a launch
//!
//! `qemu` parses the command line; `plan::collect` looks at what it names on this host; `seclabel` chooses
//! the domain and claims a pair; `plan::decide` gives every resource its label and `plan::preflight` asks
//! the policy about all of it. Nothing has changed so far. `restore` writes the original labels down and
//! its keeper holds the files; `launch::apply` sets the labels; this process becomes QEMU.
//!
//! # Ten words
//!
//! * **label**, **context**: `user:role:type:level` of a file or a process
//! * **domain**: the type of a process
//! * **level**, **categories**: `s0:c1,c2`, a sensitivity and MCS categories
//! * **pair**: two categories that only one guest of this host has
//! * **overlapping**: one set of categories contains the other, so that a process with one may use what
//!   carries the other
//! * **resource**: a file, device, socket or directory that QEMU will touch
//! * **class**: which label a resource gets: keep, content, shared or exclusive. Its option says so in
//!   `qemu/options`; `plan` corrects it by what the host has
//! * **claim**: a context asked for with setexeccon(3), by which others see that its pair is in use
//! * **journal**: original labels on disk, an entry for each guest
//! * **keeper**: the process that holds a guest's files and puts their labels back at its end

pub mod cli;
#[cfg(test)]
mod golden_tests;
pub mod host;
pub mod image;
pub mod launch;
pub mod model;
pub(crate) mod observe;
pub mod plan;
mod program;
pub mod qemu;
pub(crate) mod restore;
pub mod seclabel;
pub mod selinux;
pub mod sys;
pub(crate) mod text;
pub(crate) mod version;

pub use program::run;
