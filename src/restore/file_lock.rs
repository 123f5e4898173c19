//! The lock on a guest's file, flock(2), by which keepers know of each other: shared by those whose guests
//! read it, of one alone else.
//!
//! Whoever may read a file can lock it too. What others than keepers hold counts for nothing: it neither
//! stops a launch nor keeps a label. The file is used without a lock then: a second launch of the same
//! moment is held off by the label, which each launch looks at again after its keeper has taken the files
//! (`launch::apply::check_unchanged`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::host::RealHost;
use crate::host::lock_holders::{self, Holder};
use crate::sys::{self, LockKind};

/// Milliseconds after which a keeper that waits for another one's lock looks again: that one may give the
/// lock up before it ends.
const LOOK_AGAIN: u16 = 2000;

/// Whether to wait for other guests that use the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Leave it to a later time.
    Never,
    /// Until the last of them has ended.
    ForOthers,
}

/// A file of a guest, locked against other keepers.
#[derive(Debug)]
pub struct FileLock(File);

/// Why a file is not locked.
#[derive(Debug)]
pub enum NotLocked {
    /// A keeper has it, or somebody who cannot be seen.
    Held(Option<Pid>),
    /// There are no such locks on its file system, or only for who may write (NFS).
    Unsupported,
}

fn is_held(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl FileLock {
    /// Locks a file, beside whatever strangers hold.
    ///
    /// # Errors
    /// That another keeper has it, or that there are no locks.
    pub fn take(host: &RealHost, file: File, kind: LockKind) -> Result<Self, NotLocked> {
        match sys::flock(file.as_fd(), kind) {
            Ok(()) => Ok(Self(file)),
            Err(error) if is_held(&error) => match lock_holders::holder(host.procfs(), &file) {
                Ok(Holder::Strangers) => Ok(Self(file)),
                Ok(Holder::Keeper(pid)) => Err(NotLocked::Held(Some(pid))),
                Ok(Holder::Unseen) | Err(_) => Err(NotLocked::Held(None)),
            },
            Err(_) => Err(NotLocked::Unsupported),
        }
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Lets others share it.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn share(&self) -> io::Result<()> {
        match sys::flock(self.0.as_fd(), LockKind::Shared) {
            Err(error) if !is_held(&error) => Err(error),
            // A stranger has it for himself alone.
            _ => Ok(()),
        }
    }

    /// Tries to hold it alone. Returns false while other keepers hold it.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn hold_alone(&self, host: &RealHost, wait: Wait) -> io::Result<bool> {
        loop {
            match sys::flock(self.0.as_fd(), LockKind::Alone) {
                Ok(()) => return Ok(true),
                Err(error) if !is_held(&error) => return Err(error),
                Err(_) => {}
            }
            let other = match lock_holders::holder(host.procfs(), &self.0) {
                Ok(Holder::Strangers) => return Ok(true),
                Ok(Holder::Keeper(pid)) => sys::pidfd(pid).ok(),
                Ok(Holder::Unseen) | Err(_) => None,
            };
            if wait == Wait::Never {
                // A failed change of a lock drops it; flock(2).
                self.share()?;
                return Ok(false);
            }
            let mut end: Vec<PollFd<'_>> = other
                .iter()
                .map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN))
                .collect();
            let _ = poll(&mut end, PollTimeout::from(LOOK_AGAIN));
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Descriptors of the same description may be open still: to sync the file system by.
        let _ = sys::flock(self.0.as_fd(), LockKind::No);
    }
}

impl AsFd for FileLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without SELinux no process shows what it is: each counts as a keeper.
    #[test]
    fn what_another_description_holds_is_seen() {
        let host = RealHost::new().unwrap();
        let named = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(named.path()).unwrap();
        let first = FileLock::take(&host, open(), LockKind::Shared).unwrap();
        let second = FileLock::take(&host, open(), LockKind::Shared).unwrap();
        assert!(!first.hold_alone(&host, Wait::Never).unwrap());
        drop(second);
        assert!(first.hold_alone(&host, Wait::Never).unwrap());
        assert!(matches!(
            FileLock::take(&host, open(), LockKind::Shared),
            Err(NotLocked::Held(_))
        ));
        first.share().unwrap();
        assert!(FileLock::take(&host, open(), LockKind::Shared).is_ok());
    }
}
