//! Which journal entries keepers are at work on.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::restore::journal;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::journal::{Entry, Journal};

    fn entry(pid: i32) -> Entry {
        let context = "u:r:svirt_t:s0:c1,c2".to_owned();
        Entry::new(pid.to_string(), pid, 1, "boot".to_owned(), context)
    }

    #[test]
    fn an_entry_is_kept_while_its_keeper_says_so_whatever_version_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(directory.path().to_path_buf());
        let path = journal.write(&entry(1)).unwrap();
        assert!(!is_kept(&path));
        let mut kept = Kept::lock(&path);
        assert!(is_kept(&path));
        kept.renew();
        assert!(is_kept(&path));
        journal.replace(&path, &entry(1)).unwrap();
        assert!(!is_kept(&path));
        kept.renew();
        assert!(is_kept(&path));
        drop(kept);
        assert!(!is_kept(&path));
        assert!(!is_kept(&directory.path().join("absent")));
    }
}
