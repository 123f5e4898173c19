//! Putting labels back, with the files locked.
//!
//! Runs in the keeper's domain. It does not trust the journal: it acts only on a file that
//! is still the one recorded and that still carries the guest's categories, or the label
//! that the launcher gave it; and it never gives a label with categories.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::escape::{quoted, shell_word};
use crate::host::{self, Host, Kind, Pinned, RealHost};
use crate::journal::{Entry, Journal, Record};
use crate::label::Context;
use crate::resource::Class;
use crate::selinux;

/// Whether to wait for other guests that use the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Leave it to a later time.
    Never,
    /// Until the last of them has ended.
    ForOthers,
}

/// A file that may have moved, or be gone, since it was labelled.
enum Found {
    /// Open, and locked: it is this file whatever its name has become.
    Locked(Flock<File>),
    /// A device, a socket or a directory: by its path, checked each time.
    Node,
    /// Not there now. It may come back: a file system that is not mounted yet.
    Absent,
    /// Gone for good, or another file in its place.
    Gone,
}

/// The files of a guest, locked: as long as they are, no other guest takes them and
/// nobody else puts their labels back.
pub struct Hold {
    entry: Entry,
    cage: crate::label::Categories,
    shared: bool,
    found: Vec<(Record, Found)>,
}

/// How a file's record stands.
enum Standing {
    Done,
    InUse,
    Later,
}

impl Hold {
    /// Locks every regular file of an entry.
    ///
    /// # Errors
    /// Where somebody holds one, or one cannot be opened.
    pub fn take(host: &RealHost, entry: Entry) -> Result<Self, String> {
        let cage = parse(&entry.context)?.cage();
        let mut found = Vec::with_capacity(entry.records.len());
        for record in &entry.records {
            found.push((record.clone(), find(host, &entry, record)?));
        }
        Ok(Self {
            entry,
            cage,
            shared: false,
            found,
        })
    }

    /// Locks the files of further records of the same guest.
    ///
    /// # Errors
    /// Where the entry is another guest's, or as [`Hold::take`]; nothing is held anew then.
    pub fn grow(&mut self, host: &RealHost, entry: Entry) -> Result<(), String> {
        let known = self.entry.records.len();
        let begins_alike = entry.records.get(..known) == Some(self.entry.records.as_slice());
        if entry.context != self.entry.context || !begins_alike {
            return Err("the entry is no longer that of this guest".to_owned());
        }
        let mut found = Vec::new();
        for record in entry.records.iter().skip(known) {
            found.push((record.clone(), find(host, &entry, record)?));
        }
        all_there(&found)?;
        if self.shared {
            free(host, &found)?;
        }
        self.found.append(&mut found);
        self.entry = entry;
        Ok(())
    }

    /// Whether every name still leads to the file that the launcher has looked at, and will label.
    /// One that does not would be labelled without a lock, and without a way back.
    ///
    /// # Errors
    /// Where one does not, in words.
    pub fn all_there(&self) -> Result<(), String> {
        all_there(&self.found)
    }

    /// Says that others are in the guest's cage (`--share-level`). A file that carries categories may
    /// be theirs then, so none that does is held, unless to keep the label that it has.
    ///
    /// # Errors
    /// Where a file that is held already is such a one, in words.
    pub fn share_cage(&mut self, host: &RealHost) -> Result<(), String> {
        self.shared = true;
        free(host, &self.found)
    }

    /// Whether nobody else holds a file of the entry, and will put its label back while this guest
    /// uses it without a keeper.
    ///
    /// # Errors
    /// Where somebody does, in words.
    pub fn stands_alone(&self) -> Result<(), String> {
        for (record, found) in &self.found {
            if let Found::Locked(lock) = found
                && record.class != Class::Exclusive
            {
                if alone(lock, Wait::Never).map_err(|error| error.to_string())? {
                    // Others may come from now on: they find the label that they need.
                    let _ = lock.relock(FlockArg::LockShared);
                    continue;
                }
                return Err(format!(
                    "another guest uses {} too, and its label goes back when that one ends; give it \
                     a lasting one (chcon {} {}), or launch without --no-restore",
                    quoted(&record.path),
                    record.label,
                    shell_word(record.path.as_os_str().as_bytes())
                ));
            }
        }
        Ok(())
    }

    /// Puts back every label that no other guest needs, and lets those files go.
    /// Returns what failed, a line each.
    pub fn put_back(&mut self, host: &RealHost, wait: Wait) -> Vec<String> {
        let mut failures = Vec::new();
        let mut touched: HashMap<u64, File> = HashMap::new();
        let mut left = Vec::new();
        for (record, found) in std::mem::take(&mut self.found).into_iter().rev() {
            match self.one(host, &record, &found, wait, &mut touched) {
                Ok(Standing::Done) => {}
                Ok(Standing::InUse | Standing::Later) => left.push((record, found)),
                Err(why) => {
                    failures.push(format!(
                        "cannot put back the label of {}: {why}",
                        quoted(&record.path)
                    ));
                    left.push((record, found));
                }
            }
        }
        left.reverse();
        self.found = left;
        // On disk before the entry that could repeat it is gone.
        for file in touched.values() {
            if let Err(error) = nix::unistd::syncfs(file) {
                failures.push(format!("cannot sync the labels to disk: {error}"));
            }
        }
        failures
    }

    fn one(
        &self,
        host: &RealHost,
        record: &Record,
        found: &Found,
        wait: Wait,
        touched: &mut HashMap<u64, File>,
    ) -> Result<Standing, String> {
        let (given, original) = (parse(&record.label)?, parse(&record.original)?);
        // Only its lock was needed.
        if given == original {
            return Ok(Standing::Done);
        }
        if !original.cage().is_empty() {
            return Err(format!("'{original}' carries categories"));
        }
        // restorecon on Debian resets the type and keeps the categories: still ours.
        let ours = |current: &Context| {
            *current != original
                && (*current == given
                    || record.class == Class::Exclusive
                        && current.cage() == self.cage
                        && !self.cage.is_empty())
        };
        let failed = |error: io::Error| format!("cannot set {original}: {error}");
        match found {
            Found::Gone => {}
            Found::Absent => return Ok(Standing::Later),
            Found::Locked(lock) => {
                if !alone(lock, wait).map_err(|error| error.to_string())? {
                    return Ok(Standing::InUse);
                }
                let label = selinux::label_of_fd(lock.as_fd()).map_err(|e| e.to_string())?;
                if label.is_some_and(|label| ours(&label)) {
                    selinux::set_label_of_fd(lock.as_fd(), &original).map_err(failed)?;
                    if let Ok(file) = lock.try_clone() {
                        touched.insert(record.identity.dev, file);
                    }
                }
            }
            Found::Node => {
                let pinned = match host::pin(&record.path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(Standing::Done);
                    }
                    other => other.map_err(|error| error.to_string())?,
                };
                let label = host.label_of(&pinned).map_err(|error| error.to_string())?;
                if same(&pinned, record) && label.is_some_and(|label| ours(&label)) {
                    host.set_label(&pinned, &original).map_err(failed)?;
                }
            }
        }
        Ok(Standing::Done)
    }

    /// Whether everything is back.
    pub fn is_done(&self) -> bool {
        self.found.is_empty()
    }

    /// Files that other guests still use, or that are not there now, in words.
    pub fn left(&self) -> Vec<String> {
        self.found
            .iter()
            .map(|(record, found)| {
                let why = match found {
                    Found::Absent => "it is not there now (a file system that is not mounted?)",
                    Found::Locked(_) | Found::Node | Found::Gone => "another guest still uses it",
                };
                format!("the label of {} is not back: {why}", quoted(&record.path))
            })
            .collect()
    }

    /// Brings the journal to what is left to do: nothing, or less than before.
    ///
    /// # Errors
    /// Where the journal cannot be changed.
    pub fn settle(&mut self, journal: &Journal, path: &Path) -> Result<(), String> {
        if self.is_done() {
            return match journal.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(format!("cannot remove {}: {error}", quoted(path)))
                }
                _ => Ok(()),
            };
        }
        if self.found.len() == self.entry.records.len() {
            return Ok(());
        }
        self.entry.records = self
            .found
            .iter()
            .map(|(record, _)| record.clone())
            .collect();
        journal
            .replace(path, &self.entry)
            .map_err(|error| error.to_string())
    }
}

fn parse(text: &str) -> Result<Context, String> {
    text.parse::<Context>().map_err(|error| error.to_string())
}

/// Whether a file is the one that was recorded. Device numbers change with every boot,
/// so they only count where the file system keeps no birth times.
pub fn same(pinned: &Pinned, record: &Record) -> bool {
    let (now, then) = (pinned.identity, record.identity);
    now.ino == then.ino && now.born == then.born && (then.born.is_some() || now.dev == then.dev)
}

fn find(host: &RealHost, entry: &Entry, record: &Record) -> Result<Found, String> {
    let name = || quoted(&record.path);
    let pinned = match host::pin(&record.path) {
        Ok(pinned) if same(&pinned, record) => pinned,
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot look at {}: {error}", name()));
        }
        Ok(_) | Err(_) => {
            // Its directory is where it was, and it is not in it: deleted or replaced.
            // After a reboot, or without its file system, that cannot be told.
            let parent = record.path.parent().and_then(|path| host::pin(path).ok());
            let settled = this_boot(host, entry)
                && parent.is_some_and(|parent| parent.identity.dev == record.identity.dev);
            return Ok(if settled { Found::Gone } else { Found::Absent });
        }
    };
    if pinned.kind != Kind::File {
        return Ok(Found::Node);
    }
    let file = host
        .open(&pinned)
        .map_err(|error| format!("cannot open {} to lock it: {error}", name()))?;
    let how = match record.class {
        Class::Exclusive => FlockArg::LockExclusiveNonblock,
        Class::Content | Class::Shared | Class::Keep => FlockArg::LockSharedNonblock,
    };
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Found::Locked(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(format!(
            "{} is locked by another process: a guest that svirt-exec started, whose keeper holds \
             it until the label is back (lslocks shows which)",
            name()
        )),
        // A file system without such locks, or one that wants a file open for writing (NFS).
        Err(_) => Ok(Found::Node),
    }
}

fn all_there(found: &[(Record, Found)]) -> Result<(), String> {
    let moved = |(_, found): &&(Record, Found)| matches!(found, Found::Absent | Found::Gone);
    match found.iter().find(moved) {
        None => Ok(()),
        Some((record, _)) => Err(format!(
            "{} was given another file while the launch was prepared; start again",
            quoted(&record.path)
        )),
    }
}

/// Whether none of these carries categories yet, apart from what keeps its label.
fn free(host: &RealHost, found: &[(Record, Found)]) -> Result<(), String> {
    for (record, found) in found {
        let label = match found {
            Found::Locked(lock) => selinux::label_of_fd(lock.as_fd()),
            Found::Node => host::pin(&record.path).and_then(|pinned| host.label_of(&pinned)),
            Found::Absent | Found::Gone => continue,
        };
        let label = label.map_err(|error| format!("{}: {error}", quoted(&record.path)))?;
        if let Some(label) = label
            && !label.cage().is_empty()
            && record.original != record.label
        {
            return Err(format!(
                "{} has label {label} already and may be in use by a guest of that level",
                quoted(&record.path)
            ));
        }
    }
    Ok(())
}

/// Whether an entry was written since this host was booted.
pub fn this_boot(host: &RealHost, entry: &Entry) -> bool {
    host.read_proc("sys/kernel/random/boot_id")
        .is_ok_and(|boot| boot.trim() == entry.boot)
}

/// Tries to hold a file alone. False while other guests hold it.
fn alone(lock: &Flock<File>, wait: Wait) -> io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_given_to_another_file_before_the_lock_is_no_file_to_label() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        fs::write(&path, "").unwrap();
        let host = RealHost::new().unwrap();
        let boot = host.read_proc("sys/kernel/random/boot_id").unwrap();
        let context = "u:r:svirt_t:s0:c1,c2".to_owned();
        let mut entry = Entry::new("x".to_owned(), 1, 1, boot.trim().to_owned(), context);
        entry.records.push(Record {
            path: path.clone(),
            identity: host::pin(&path).unwrap().identity,
            class: Class::Exclusive,
            original: "u:object_r:user_home_t:s0".to_owned(),
            label: "u:object_r:svirt_image_t:s0:c1,c2".to_owned(),
        });
        let there = || Hold::take(&host, entry.clone()).unwrap().all_there();
        there().unwrap();
        fs::rename(&path, path.with_extension("old")).unwrap();
        assert!(there().unwrap_err().contains("was given another file"));
        std::os::unix::fs::symlink(path.with_extension("old"), &path).unwrap();
        there().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        assert!(there().unwrap_err().contains("was given another file"));
    }
}
