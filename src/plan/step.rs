//! What will be done to each resource, and all that a launch would do.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::model::label::Context;
use crate::model::resource::Class;
use crate::plan::resource::Resource;
use crate::seclabel::domain::Accelerator;
use crate::seclabel::labels::GuestLabels;
use crate::text::message::Message;

/// What will be done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its label is set.
    Relabel,
    /// It is made, with its label.
    Create,
    /// Nothing.
    None,
}

impl Action {
    /// Returns what the plan calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relabel => "relabel",
            Self::Create => "create",
            Self::None => "none",
        }
    }
}

/// A resource and what will be done to it.
#[derive(Debug)]
pub struct Step {
    /// The resource.
    pub resource: Resource,
    /// Its class; [`Class::Keep`] if the label that it has will do.
    pub class: Class,
    /// The label that it gets. None if it keeps its own, or the host has no SELinux.
    pub label: Option<Context>,
    /// What will be done.
    pub action: Action,
    /// In words.
    pub reason: String,
    /// Why its label cannot be set, if that is so (`unlabelled_fs`).
    pub fixed: Option<String>,
}

/// All that a launch would do.
#[derive(Debug)]
pub struct Plan {
    /// The real QEMU.
    pub program: PathBuf,
    /// What runs the guest's code.
    pub accelerator: Accelerator,
    /// The guest's labels. None if the host has no SELinux, or there is no guest.
    pub labels: Option<GuestLabels>,
    /// The user whom QEMU is to become (`-run-with user=`).
    pub becomes: Option<OsString>,
    /// Whether QEMU changes its root directory (`-run-with chroot=`).
    pub chroots: bool,
    /// The guest's own directory (`--runtime-dir`).
    pub runtime: Option<PathBuf>,
    /// Every resource.
    pub steps: Vec<Step>,
    /// What the caller may want to know.
    pub notes: Vec<Message>,
    /// What the caller should know.
    pub warnings: Vec<Message>,
    /// Why no host could launch this.
    pub errors: Vec<Message>,
    /// Why this host cannot launch this now.
    pub obstacles: Vec<Message>,
}

/// Whether labels are set at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relabel {
    /// As the classes say.
    Yes,
    /// `--no-relabel`: everything keeps the label it has.
    No,
}

/// What is decided for resources.
#[derive(Debug)]
pub struct Decision {
    /// What is done, for every resource.
    pub steps: Vec<Step>,
    /// As [`Plan::warnings`].
    pub warnings: Vec<Message>,
    /// As [`Plan::errors`].
    pub errors: Vec<Message>,
    /// As [`Plan::obstacles`].
    pub obstacles: Vec<Message>,
}
