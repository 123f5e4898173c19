//! Why files cannot be held, and why labels cannot be put back.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::host::runtime_dir::RuntimeDirError;
use crate::model::label::{Context, LabelError};
use crate::restore::journal::JournalError;
use crate::restore::lookup::LookupError;
use crate::text::escape::{quoted, shell_word};

/// Why the files of a guest cannot be held.
#[derive(Debug, Error)]
pub enum HoldError {
    /// Files that are in use, or that cannot be opened.
    #[error("{}", joined(.0))]
    Files(Vec<LookupError>),
    /// The entry was replaced by another one.
    #[error("the entry is no longer that of this guest")]
    OtherGuest,
    /// A name leads to another file than the launcher has looked at.
    #[error(
        "{} was given another file while the launch was prepared; start again",
        quoted(.0)
    )]
    Replaced(PathBuf),
    /// Another guest's keeper will put its label back.
    #[error(
        "another guest uses {} too, and its label goes back when that one ends; give it a lasting one \
         (chcon {label} {}), or launch without --no-restore",
        quoted(path),
        shell_word(path)
    )]
    OtherHolder {
        /// The file.
        path: PathBuf,
        /// The label that this guest needs.
        label: String,
    },
    /// It may be in use by a guest with overlapping categories.
    #[error(
        "{} has label {label} already and may be in use by a guest of that level",
        quoted(path)
    )]
    HasCategories {
        /// The file.
        path: PathBuf,
        /// Its label.
        label: Box<Context>,
    },
    /// Its label cannot be read.
    #[error("{}: {source}", quoted(path))]
    Label {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The entry holds no context.
    #[error(transparent)]
    Context(#[from] LabelError),
    /// The entry, another user's word, is for something else than a guest.
    #[error("'{0}' is no context of a guest with categories of its own")]
    NoGuest(Box<Context>),
    /// The entry cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A lock cannot be had.
    #[error(transparent)]
    Lock(#[from] io::Error),
    /// The guest's own directory cannot be made.
    #[error(transparent)]
    Directory(#[from] RuntimeDirError),
}

fn joined(errors: &[LookupError]) -> String {
    let errors: Vec<String> = errors.iter().map(LookupError::to_string).collect();
    errors.join("; ")
}

/// Why the label of a file cannot be put back.
#[derive(Debug, Error)]
pub enum PutBackError {
    /// The journal's original label carries categories, which are never given.
    #[error("'{0}' carries categories")]
    HasCategories(Box<Context>),
    /// The journal's label is one that another guest has.
    #[error("'{0}' is not a label of this guest")]
    NotThisGuests(Box<Context>),
    /// It cannot be set.
    #[error("cannot set {label}: {source}")]
    Set {
        /// The label.
        label: Box<Context>,
        /// Why.
        source: io::Error,
    },
    /// It is setuid or setgid, and stays it.
    #[error("cannot take off what the guest has made setuid or setgid: {0}")]
    SetId(#[source] io::Error),
    /// Files below a directory, a message each.
    #[error("{}", .0.join("; "))]
    Tree(Vec<String>),
    /// The record holds no label.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The file cannot be looked at or locked.
    #[error(transparent)]
    File(#[from] io::Error),
}

impl PutBackError {
    /// Makes the error of a label that cannot be set.
    pub fn set(label: &Context, source: io::Error) -> Self {
        Self::Set {
            label: Box::new(label.clone()),
            source,
        }
    }
}

/// Why content stays private.
#[derive(Debug, Error)]
pub enum ShareError {
    /// The file cannot be labelled or locked for others.
    #[error("cannot share {}: {source}", quoted(path))]
    Share {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record holds no label.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The entry cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
