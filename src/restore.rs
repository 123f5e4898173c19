//! Putting labels back, with the files locked.
//!
//! Runs in the keeper's domain. It does not trust the journal: it acts only on a file that
//! is still the one recorded and that still carries the guest's categories, or the label
//! that the launcher gave it.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::host::{self, Host, Kind, RealHost};
use crate::journal::{Entry, Journal, Record};
use crate::label::Context;
use crate::resource::Class;

/// Whether to wait for other guests that use the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Take it as it is.
    Never,
    /// Until the last of them has ended.
    ForOthers,
}

/// Files of a guest that the keeper holds locked: as long as it does, no other
/// guest takes them and nobody changes their labels.
#[derive(Debug, Default)]
pub struct Locks(Vec<(usize, Flock<File>)>);

impl Locks {
    /// Locks every regular file of an entry.
    ///
    /// # Errors
    /// Where another guest holds one.
    pub fn take(host: &RealHost, entry: &Entry) -> Result<Self, String> {
        let mut locks = Self::default();
        for (index, record) in entry.records.iter().enumerate() {
            let Some(file) = openable(host, record) else {
                continue;
            };
            let how = match record.class {
                Class::Exclusive => FlockArg::LockExclusiveNonblock,
                Class::Content | Class::Shared | Class::Keep => FlockArg::LockSharedNonblock,
            };
            let lock = Flock::lock(file, how).map_err(|(_, error)| {
                format!(
                    "'{}' is in use by another guest that svirt-exec started ({error}); stop that \
                     guest first, or give this one a copy or an overlay",
                    record.path.display()
                )
            })?;
            locks.0.push((index, lock));
        }
        Ok(locks)
    }

    /// Tries to hold a file alone. False while other guests hold it.
    ///
    /// # Errors
    /// Where the lock cannot be asked for.
    pub fn alone(&self, index: usize, wait: Wait) -> io::Result<bool> {
        let Some((_, lock)) = self.0.iter().find(|(held, _)| *held == index) else {
            return Ok(true);
        };
        let how = match wait {
            Wait::Never => FlockArg::LockExclusiveNonblock,
            Wait::ForOthers => FlockArg::LockExclusive,
        };
        match lock.relock(how) {
            Ok(()) => Ok(true),
            Err(Errno::EWOULDBLOCK) => {
                // A failed change of a lock drops it; flock(2).
                lock.relock(FlockArg::LockShared)?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The file of a record, if it is still that file and regular.
fn openable(host: &RealHost, record: &Record) -> Option<File> {
    let pinned = host::pin(&record.path).ok()?;
    let same = pinned.identity == record.identity && pinned.kind == Kind::File;
    same.then(|| host.open(&pinned).ok()).flatten()
}

/// Puts back every label that no other guest needs. Returns the records that
/// others still use, and what failed.
pub fn put_back_own(host: &RealHost, entry: &Entry, locks: &Locks) -> (Vec<usize>, Vec<String>) {
    let mut shared = Vec::new();
    let mut failures = Vec::new();
    for (index, record) in entry.records.iter().enumerate().rev() {
        match locks.alone(index, Wait::Never) {
            Ok(true) => failures.extend(one_back(host, entry, record)),
            Ok(false) => shared.push(index),
            Err(error) => failures.push(format!("'{}': {error}", record.path.display())),
        }
    }
    (shared, failures)
}

/// Removes an entry once nothing of it is left to do.
pub fn forget(journal: &Journal, path: &Path, failures: &mut Vec<String>) {
    if failures.is_empty()
        && let Err(error) = journal.remove(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        failures.push(format!("cannot remove '{}': {error}", path.display()));
    }
}

/// Puts one label back, if the file is still the guest's. Returns what failed.
pub fn one_back(host: &RealHost, entry: &Entry, record: &Record) -> Option<String> {
    let back = || -> Result<(), String> {
        let pinned = match host::pin(&record.path) {
            Ok(pinned) => pinned,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let same = pinned.identity.ino == record.identity.ino
            && pinned.identity.born == record.identity.born;
        if !same {
            return Ok(());
        }
        let parse = |text: &str| text.parse::<Context>().map_err(|e| e.to_string());
        let (given, original) = (parse(&record.label)?, parse(&record.original)?);
        let cage = parse(&entry.context)?.cage();
        let Some(current) = host.label_of(&pinned).map_err(|e| e.to_string())? else {
            return Ok(());
        };
        // restorecon on Debian resets the type and keeps the categories: still ours.
        let ours = current == given
            || (record.class == Class::Exclusive && current.cage() == cage && !cage.is_empty());
        if current == original || !ours {
            return Ok(());
        }
        host.set_label(&pinned, &original)
            .map_err(|e| format!("cannot set {original}: {e}"))?;
        // On disk before the entry that could repeat it is gone. Device nodes are on no disk.
        if pinned.kind == Kind::File {
            match host.open(&pinned) {
                Ok(file) => {
                    nix::unistd::syncfs(&file).map_err(|e| format!("cannot sync: {e}"))?;
                }
                // A file that may not be opened, or not any more: everything, then.
                Err(_) => nix::unistd::sync(),
            }
        }
        Ok(())
    };
    back().err().map(|why| {
        format!(
            "cannot put back the label of '{}': {why}",
            record.path.display()
        )
    })
}
