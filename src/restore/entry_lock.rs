//! The lock by which a keeper shows that it is at work on a journal entry.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::restore::journal::Journal;

/// A lock of an entry, flock(2): while it is held, others need not look whether a keeper is at work on the
/// entry. Nothing depends on it: whoever finds none looks at the processes. Only who may read the entry can
/// lock it: its owner, and root.
#[derive(Debug)]
pub struct EntryLock {
    path: PathBuf,
    lock: Option<Flock<File>>,
}

impl EntryLock {
    /// Locks an entry of a journal.
    pub fn take(journal: &Journal, path: &Path) -> Self {
        let mut lock = Self {
            path: path.to_path_buf(),
            lock: None,
        };
        lock.renew(journal);
        lock
    }

    /// Locks what is there now: another version of the entry may have been put in its place.
    pub fn renew(&mut self, journal: &Journal) {
        let lock = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok();
        // If it is still the same file, the lock that this has would be in the way.
        self.lock = None;
        self.lock = journal.open_entry(&self.path).ok().and_then(lock);
    }
}

/// Tells whether a keeper shows that it is at work on an entry.
pub fn is_locked(journal: &Journal, path: &Path) -> bool {
    let locked = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
    journal
        .open_entry(path)
        .is_ok_and(|file| matches!(locked(file), Err((_, Errno::EWOULDBLOCK))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::entry::JournalEntry;

    fn entry(pid: i32) -> JournalEntry {
        let context = "u:r:svirt_t:s0:c1,c2".to_owned();
        JournalEntry::new(pid.to_string(), pid, 1, "boot".to_owned(), context)
    }

    #[test]
    fn an_entry_is_kept_while_its_keeper_says_so_whatever_version_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(directory.path()).unwrap();
        let path = journal.write(&entry(1)).unwrap();
        assert!(!is_locked(&journal, &path));
        let mut kept = EntryLock::take(&journal, &path);
        assert!(is_locked(&journal, &path));
        kept.renew(&journal);
        assert!(is_locked(&journal, &path));
        journal.replace(&path, &entry(1)).unwrap();
        assert!(!is_locked(&journal, &path));
        kept.renew(&journal);
        assert!(is_locked(&journal, &path));
        drop(kept);
        assert!(!is_locked(&journal, &path));
        assert!(!is_locked(&journal, &directory.path().join("absent")));
    }
}
