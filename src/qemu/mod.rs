//! Reads a QEMU 10 command line and returns every host resource that it names.
//!
//! Pure: words and a few facts of the environment in, values out. No file is opened and the host is
//! asked nothing, so a device that the line names by address stays an address
//! ([`HostDevice`](crate::model::resource::HostDevice)). Facts come from the manual and the sources
//! of QEMU 10.0. This wing imports `model` and `text`, and nothing else of the program.
//!
//! In reading order:
//!
//! - `invocation`: what the parser is told, and what it returns.
//! - `parse`: the parser itself, one family of options after the other.
//! - `command_line`: the words as a list of options, with config files and `-set` applied.
//! - `parsed_option`: one option of that list.
//! - `run_mode`: whether the line starts a guest, a capability probe, or only prints something.
//! - `requests`, `usage`, `site`: the requests for host resources, how QEMU uses each, and where
//!   the line names it.
//! - `syntax`: how values are written, one file a syntax.
//! - `options`: which resources the options of a family name, one file a family.
//! - `block`: the graph of block nodes, and the names in headers of images.
//! - `tables`: what is known of every key, and warnings about what is not.

mod block;
mod command_line;
mod invocation;
mod options;
mod parse;
mod parsed_option;
mod requests;
mod run_mode;
mod site;
mod syntax;
mod tables;
mod usage;

pub use block::backing::{BackingError, backing_requests};
pub use invocation::{
    Accelerator, ConfigFile, Diagnostic, Environment, Invocation, RunMode, is_program_name,
};
pub use parse::{config_files, parse};
pub use syntax::argv::takes_value;
pub use tables::keys::{Family, ValueKind, family, knows, meaning, value_kind};
pub use tables::meaning::Meaning;

/// The parsers of each syntax, for tests/checks only.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::qemu::syntax::json::{JsonError, Value, parse as json};
    pub use crate::qemu::syntax::keyval::{KeyvalError, parse as keyval};
    pub use crate::qemu::syntax::opts::Opts;
    pub use crate::qemu::syntax::readconfig::{ConfigError, Section, parse as readconfig};
    pub use crate::qemu::syntax::tree::{Scalar, TooDeep, Tree};
}
