//! Which journal entries keepers are at work on.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::journal::{self, Entry, Journal};

/// The lock by which a keeper shows that it is at work on an entry: others need not look whether it is.
/// It says no more than that, and nothing depends on it: who finds none looks at the processes.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    lock: Option<Flock<File>>,
}

impl Kept {
    /// Locks an entry.
    pub fn lock(path: &Path) -> Self {
        let mut kept = Self {
            path: path.to_path_buf(),
            lock: None,
        };
        kept.renew();
        kept
    }

    /// Locks what is there now: another version may have been put in its place.
    pub fn renew(&mut self) {
        let lock = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok();
        // Of one and the same file, the lock that it has would be in the way.
        self.lock = None;
        self.lock = journal::open(&self.path).ok().and_then(lock);
    }
}

/// Whether a keeper says that it is at work on an entry.
pub fn is_kept(path: &Path) -> bool {
    let locked = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
    journal::open(path).is_ok_and(|file| matches!(locked(file), Err((_, Errno::EWOULDBLOCK))))
}

/// Journal entries of which no keeper says that it is at work on them. The pair of one that does is
/// claimed, and found among the processes.
pub fn loose(journal: &Journal) -> Vec<Entry> {
    let paths = journal.entries().unwrap_or_default().into_iter();
    paths
        .filter(|path| !is_kept(path))
        .filter_map(|path| Journal::read(&path).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32) -> Entry {
        let context = "u:r:svirt_t:s0:c1,c2".to_owned();
        Entry::new(pid.to_string(), pid, 1, "boot".to_owned(), context)
    }

    #[test]
    fn an_entry_is_kept_while_its_keeper_says_so_whatever_version_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(directory.path().to_path_buf());
        let path = journal.write(&entry(1)).unwrap();
        journal.write(&entry(2)).unwrap();
        let pids = || {
            let mut pids: Vec<i32> = loose(&journal).iter().map(|entry| entry.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(), [1, 2]);
        let mut kept = Kept::lock(&path);
        assert_eq!(pids(), [2]);
        kept.renew();
        assert_eq!(pids(), [2]);
        journal.replace(&path, &entry(1)).unwrap();
        assert_eq!(pids(), [1, 2]);
        kept.renew();
        assert_eq!(pids(), [2]);
        drop(kept);
        assert_eq!(pids(), [1, 2]);
        assert!(!is_kept(&directory.path().join("absent")));
    }
}
