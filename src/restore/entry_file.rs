//! The file of a journal entry as it was listed: a keeper may change it until it is used.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::restore::journal::{Journal, JournalEntry, JournalError};

/// The file of an entry, and what it says.
pub struct EntryFile<'a> {
    /// The journal that it is in.
    pub journal: &'a Journal,
    /// The user who wrote it, if that is another one.
    pub owner: Option<u32>,
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub entry: JournalEntry,
    file: Option<Version>,
}

impl<'a> EntryFile<'a> {
    /// Reads an entry.
    ///
    /// # Errors
    /// Those of [`Journal::read_of`].
    pub fn read(
        journal: &'a Journal,
        owner: Option<u32>,
        path: &Path,
    ) -> Result<Self, JournalError> {
        let file = Version::of(path);
        Ok(Self {
            journal,
            owner,
            path: path.to_path_buf(),
            entry: Journal::read_of(path, owner)?,
            file,
        })
    }

    /// Reads it again if its file is another one by now.
    ///
    /// # Errors
    /// Those of [`Journal::read_of`], ENOENT among them.
    pub fn reread(mut self) -> Result<Self, JournalError> {
        if self.file.is_none() || self.file != Version::of(&self.path) {
            self.entry = Journal::read_of(&self.path, self.owner)?;
        }
        Ok(self)
    }
}

/// Which file a name leads to, and when it was last changed. rename(2) puts another file in the place of
/// an entry that changes.
#[derive(PartialEq, Eq)]
struct Version {
    inode: (u64, u64),
    changed: (i64, i64),
}

impl Version {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        Some(Self {
            inode: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
