//! What only a kernel with SELinux enforcing can decide. These tests run inside
//! the bed, as root in a login's domain: `make test` boots it and runs them
//! there. Everywhere else they are skipped, each by name.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod attach;
mod block_devices;
mod callers;
mod chain;
mod ci;
mod crowd;
mod differential;
mod emulator;
mod errors;
mod filesystems;
mod guests;
mod hostile;
mod hostile_users;
mod inherited;
mod keeper;
mod killed;
// Without the path, rustc takes the name for that of the crate's library (special_module_name).
#[path = "lib/mod.rs"]
mod lib;
mod libvirt;
mod migration;
mod module;
mod newcomer;
mod options;
mod preflight;
mod private;
mod quiet;
mod races;
mod released;
mod restore;
mod runtime;
mod schema;
mod service;
mod state;
mod stopped;
mod strangers;
mod survivors;
mod tables;
mod tree;
mod undo;
mod view;
mod wide_levels;
