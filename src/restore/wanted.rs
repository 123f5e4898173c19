//! A guest or a file that a person named.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::host::pinned::{self, Pinned};
use crate::restore::entry::{JournalEntry, Record};
use crate::restore::lookup::is_same;

/// A word that may be a guest's name, its process ID, or a path.
#[derive(Debug)]
pub struct Wanted {
    word: OsString,
    path: PathBuf,
    pinned: Option<Pinned>,
}

impl Wanted {
    /// Takes a word, and the absolute path that it is if it is one.
    pub fn new(word: OsString, path: PathBuf) -> Self {
        let pinned = pinned::pin(&path).ok();
        Self { word, path, pinned }
    }

    /// Returns the word as it was typed.
    pub fn word(&self) -> &OsStr {
        &self.word
    }

    /// Returns it as a path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells whether it is this guest, by name or process ID.
    pub fn names(&self, entry: &JournalEntry) -> bool {
        self.word == OsStr::new(&entry.name) || self.word == OsStr::new(&entry.pid.to_string())
    }

    /// Tells whether it is this file, by any of its names.
    pub fn is(&self, record: &Record) -> bool {
        self.path == record.path
            || self
                .pinned
                .as_ref()
                .is_some_and(|pinned| is_same(pinned, record))
    }

    /// Tells whether it is this guest, or a file that was labelled for it.
    pub fn is_of(&self, entry: &JournalEntry) -> bool {
        self.names(entry) || entry.records.iter().any(|record| self.is(record))
    }
}
