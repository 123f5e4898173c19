//! What is judged of each guest, and the judgement.

use crate::model::label::Context;
use crate::observe::guests::ConfinedGuest;
use crate::observe::open_files::OpenFile;
use std::io;
use std::path::PathBuf;

/// Asks the policy which of these permissions it denies to a source on a target of a class.
pub(crate) type Ask<'a> =
    &'a dyn for<'p> Fn(&Context, &Context, &str, &[&'p str]) -> io::Result<Vec<&'p str>>;

/// A problem with a guest or with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The guest; None if the problem is the host's.
    pub(crate) guest: Option<String>,
    /// QEMU's process ID.
    pub(crate) pid: Option<i32>,
    /// What is wrong.
    pub(crate) problem: String,
    /// What to do.
    pub(crate) fix: String,
}

/// What a guest may do to the resources of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    /// Anything: they are its own.
    Own,
    /// Nothing.
    None,
    /// Use resources that are shared on purpose: content, and disks with `share-rw=on`.
    Shared,
    /// Read a resource that is the other's alone.
    Read,
    /// Write to a resource that is the other's alone.
    Write,
}

impl Cell {
    /// Returns the mark in the matrix.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Own => "=",
            Self::None => "-",
            Self::Shared => "s",
            Self::Read => "r",
            Self::Write => "rw",
        }
    }
}

/// An object on disk that a guest uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectInUse {
    /// Its name.
    pub(crate) path: PathBuf,
    /// Its SELinux class.
    pub(crate) class: &'static str,
    /// Its label now.
    pub(crate) label: Context,
    /// Whether it is shared on purpose.
    pub(crate) shared: bool,
}

/// A guest, and what its processes have open.
#[derive(Clone, Debug)]
pub(crate) struct GuestFacts {
    /// The guest.
    pub(crate) guest: ConfinedGuest,
    /// The objects that are open and mapped.
    pub(crate) open: Vec<OpenFile>,
    /// What could not be looked at, and why.
    pub(crate) unread: Vec<String>,
}

/// What was found out about all guests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judgement {
    /// The problems.
    pub(crate) findings: Vec<Finding>,
    /// What each guest (row) may do to the resources of each guest (column).
    pub(crate) matrix: Vec<Vec<Cell>>,
}
