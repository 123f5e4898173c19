//! Reads a QEMU 10 command line and lists every host resource that it names.
//!
//! Pure: words and a few facts of the environment in, values out; no file is opened, nothing is
//! asked of the host. Facts come from the manual and the sources of QEMU 10.0.
//!
//! The words are split (`words`), each value is parsed by its option's syntax (`opts`, `keyval`,
//! `json`, `readconfig`) into one kind of tree (`tree`, `line`), and one module per family of
//! options says what the trees mean.
//!
//! Devices that the line names by address stay addresses (`HostDevice`): their nodes are the
//! host's to tell.

mod block;
mod command_line;

mod invocation;
mod options;
mod parse;
mod parsed_option;
mod requests;
mod run_mode;
mod syntax;
mod tables;

pub use block::backing::{BackingError, backing_requests};
pub use invocation::{
    Accelerator, ConfigFile, DEFAULT_CONFIG, Diagnostic, Environment, Invocation, RunMode,
};
pub use parse::{config_files, parse};
pub use syntax::argv::takes_value;
pub use tables::keys::{Family, ValueKind, family, knows, meaning, value_kind};
pub use tables::meaning::Meaning;

/// The syntaxes by themselves, for tests/checks only.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::qemu::syntax::json::{JsonError, Value, parse as json};
    pub use crate::qemu::syntax::keyval::parse as keyval;
    pub use crate::qemu::syntax::opts::Opts;
    pub use crate::qemu::syntax::readconfig::{Section, parse as readconfig};
    pub use crate::qemu::syntax::tree::{Scalar, Tree};
}
