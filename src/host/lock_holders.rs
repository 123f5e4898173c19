//! Who holds a lock of flock(2): whoever may read a file can lock it, for as long as he likes. Only the locks
//! of keepers say something about guests, and the kernel says who a lock's holder is (/proc/locks,
//! proc_locks(5)): the process that called flock(2), in this PID namespace.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::MetadataExt;

use nix::unistd::Pid;

use crate::host::procfs::Procfs;
use crate::selinux::names::KEEPER_DOMAIN;
use crate::sys;

/// Who has a file locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A keeper, or a process that does not show what it is.
    Keeper(Pid),
    /// Nobody that this process can see: in another PID namespace, or gone by now.
    Unseen,
    /// Only processes that keep nothing: what they lock says nothing about guests.
    Strangers,
}

/// Tells who has a file locked, which this process could not lock. A keeper comes before all others.
///
/// # Errors
/// Those of reading /proc/locks, and of fstat(2).
pub fn holder(procfs: &Procfs, file: &File) -> io::Result<Holder> {
    let found = file.metadata()?;
    let is_keeper = |pid: Pid| match procfs.labels_of(pid) {
        Some(labels) => labels
            .current
            .is_none_or(|context| context.type_ == KEEPER_DOMAIN),
        // Hidden (hidepid=), unless it is gone and has left its lock to a child, as no keeper does.
        None => !sys::pidfd(pid).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)),
    };
    // A line at a time: a user may hold as many locks as he likes.
    let locks = io::BufReader::new(File::from(procfs.open_file("locks")?));
    let (mut exact, mut similar) = (Found::default(), Found::default());
    for line in locks.lines() {
        let line = line?;
        let Some(lock) = Lock::parse(&line).filter(|lock| lock.ino == found.ino()) else {
            continue;
        };
        let at = if lock.dev
            == (
                nix::sys::stat::major(found.dev()),
                nix::sys::stat::minor(found.dev()),
            ) {
            &mut exact
        } else {
            &mut similar
        };
        if lock.pid.as_raw() > 0 && lock.pid != Pid::this() {
            at.note(lock.pid, &is_keeper);
        }
    }
    // btrfs and overlayfs show users of stat(2) another device number than the kernel's own.
    Ok(exact
        .holder()
        .or(similar.holder())
        .unwrap_or(Holder::Unseen))
}

/// The holders that were found.
#[derive(Default)]
struct Found {
    keeper: Option<Pid>,
    strangers: bool,
}

impl Found {
    fn note(&mut self, pid: Pid, is_keeper: &dyn Fn(Pid) -> bool) {
        if self.keeper.is_none() {
            if is_keeper(pid) {
                self.keeper = Some(pid);
            } else {
                self.strangers = true;
            }
        }
    }

    fn holder(&self) -> Option<Holder> {
        match self.keeper {
            Some(pid) => Some(Holder::Keeper(pid)),
            None => self.strangers.then_some(Holder::Strangers),
        }
    }
}

/// A line of /proc/locks that is of flock(2).
#[derive(Debug, PartialEq, Eq)]
struct Lock {
    pid: Pid,
    dev: (u64, u64),
    ino: u64,
}

impl Lock {
    /// Reads `12: FLOCK  ADVISORY  WRITE 708 00:1a:1234 0 EOF`. None for other locks, and for those that are
    /// waited for (`12: -> FLOCK …`).
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        if words.nth(1)? != "FLOCK" {
            return None;
        }
        let pid = words.nth(2)?.parse().ok()?;
        let mut file = words.next()?.split(':');
        let major = u64::from_str_radix(file.next()?, 16).ok()?;
        let minor = u64::from_str_radix(file.next()?, 16).ok()?;
        Some(Self {
            pid: Pid::from_raw(pid),
            dev: (major, minor),
            ino: file.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_locks() {
        let lock = Lock::parse("1: FLOCK  ADVISORY  WRITE 708 fd:1a:1234 0 EOF").unwrap();
        assert_eq!(
            lock,
            Lock {
                pid: Pid::from_raw(708),
                dev: (0xfd, 0x1a),
                ino: 1234
            }
        );
        for other in [
            "1: -> FLOCK  ADVISORY  WRITE 708 fd:1a:1234 0 EOF",
            "1: POSIX  ADVISORY  WRITE 708 fd:1a:1234 0 EOF",
            "1: OFDLCK ADVISORY  READ -1 fd:1a:1234 100 101",
            "1: FLOCK  ADVISORY  WRITE",
            "",
        ] {
            assert_eq!(Lock::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_lock_that_nobody_else_holds_has_no_holder() {
        let file = tempfile::tempfile().unwrap();
        let procfs = Procfs::open().unwrap();
        assert_eq!(holder(&procfs, &file).unwrap(), Holder::Unseen);
    }
}
