//! An entry of the journal as it was listed, which a keeper may change until it is used.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::restore::journal::{Entry, Journal, JournalError};

/// An entry of a journal, and the user who wrote it where that is another one.
pub struct Listed<'a> {
    /// The journal that it is in.
    pub journal: &'a Journal,
    /// Whose it is, in the journals of all users.
    pub owner: Option<u32>,
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub entry: Entry,
    file: Option<Version>,
}

impl<'a> Listed<'a> {
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

    /// What it says now: read again where its file is another.
    ///
    /// # Errors
    /// Those of [`Journal::read_of`]: where it is gone, among others.
    pub fn as_it_is_now(mut self) -> Result<Self, JournalError> {
        if self.file.is_none() || self.file != Version::of(&self.path) {
            self.entry = Journal::read_of(&self.path, self.owner)?;
        }
        Ok(self)
    }
}

/// Which file a name leads to, and when that was last changed. A change of an entry is another file in
/// its place, by rename(2).
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
