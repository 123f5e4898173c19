//! The file of a journal entry as it was listed: a keeper may change it until it is used.

use std::path::PathBuf;

use crate::restore::entry::JournalEntry;
use crate::restore::journal::{Journal, JournalError};
use crate::restore::wanted::Wanted;

/// The file of an entry, and what it says of its guest. Its records are read again when they are needed:
/// those of all entries at once may be more than memory has room for.
pub struct EntryFile<'a> {
    /// The journal that it is in.
    pub journal: &'a Journal,
    /// Its file.
    pub path: PathBuf,
    /// What it says, without records.
    pub entry: JournalEntry,
    /// For each that is wanted, whether it is this guest or a file of its records.
    pub is_of: Vec<bool>,
}

impl<'a> EntryFile<'a> {
    /// Notes an entry that was just read.
    pub fn new(
        journal: &'a Journal,
        path: PathBuf,
        mut entry: JournalEntry,
        wanted: &[Wanted],
    ) -> Self {
        let is_of = wanted.iter().map(|wanted| wanted.is_of(&entry)).collect();
        entry.records = Vec::new();
        Self {
            journal,
            path,
            entry,
            is_of,
        }
    }

    /// Reads it again, with its records.
    ///
    /// # Errors
    /// Those of [`Journal::read`], ENOENT among them; that it is another guest's by now.
    pub fn reread(mut self) -> Result<Self, JournalError> {
        let entry = self.journal.read(&self.path)?;
        let is_same = entry.context == self.entry.context
            && (entry.pid, entry.started) == (self.entry.pid, self.entry.started)
            && entry.boot == self.entry.boot;
        if !is_same {
            return Err(JournalError::Read {
                path: self.path,
                source: std::io::Error::other("it is another guest's by now"),
            });
        }
        self.entry = entry;
        Ok(self)
    }
}
