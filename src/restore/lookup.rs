//! Files of a journal entry as they are found now, and the locks that tell who still uses them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::unistd::Pid;
use thiserror::Error;

use crate::host::image_lock;
use crate::host::pinned::{self, Kind, Pinned};
use crate::host::{Files, Policy, ProcessLabels, Processes, RealHost};
use crate::model::resource::Class;
use crate::restore::entry::{JournalEntry, Record};
use crate::restore::file_lock::{FileLock, NotLocked, Wait};
use crate::restore::liveness::is_of_this_boot;
use crate::seclabel::domain;
use crate::selinux;
use crate::sys::{self, LockKind};
use crate::text::escape::{quoted, shell_word};

/// A file that may have moved, or be gone, since it was labelled.
pub enum Lookup {
    /// Open, and locked: it is this file whatever its name has become.
    Locked(FileLock),
    /// A device, a socket or a directory: found by its path, and checked each time.
    Node,
    /// Not there now. It may come back: a file system that is not mounted yet.
    Absent,
    /// Gone for good, or another file in its place.
    Gone,
    /// Not to be had now, and why.
    Unusable(String),
}

/// Why a recorded file cannot be had.
#[derive(Debug, Error)]
pub enum LookupError {
    /// Another user's file, in the entry of a user who is not root.
    #[error(
        "it belongs to user {of_file}, and the entry to user {of_entry}: root touches nothing for a user \
         that is not his; restorecon -F {}, or --trust-user where only your guests are that user",
        shell_word(path)
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        of_file: u32,
        /// Whose entry has it.
        of_entry: u32,
    },
    /// It cannot be looked at.
    #[error("cannot look at {}: {source}", quoted(path))]
    Pin {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open {} to lock it: {source}", quoted(path))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another QEMU has it open.
    #[error("cannot label {}: {why}", quoted(path))]
    InUse {
        /// The file.
        path: PathBuf,
        /// Which QEMU, and what to do.
        why: String,
    },
    /// Another guest has labelled it since it was looked at.
    #[error(
        "cannot label {}: another guest that uses it has just started; start again",
        quoted(path)
    )]
    JustStarted {
        /// The file.
        path: PathBuf,
    },
    /// Another keeper holds it.
    #[error(
        "{} is locked by {}: a guest that svirt-exec started, whose keeper holds it until the label is back",
        quoted(path),
        process(*holder)
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// Which, if that can be seen.
        holder: Option<Pid>,
    },
}

fn process(holder: Option<Pid>) -> String {
    holder.map_or_else(
        || "a process that cannot be seen from here".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// Tells whether a file is the one that was recorded. Device numbers change with every boot, so they
/// count only if the file system keeps no birth times.
pub fn is_same(pinned: &Pinned, record: &Record) -> bool {
    let (now, then) = (pinned.identity, record.identity);
    now.ino == then.ino && now.born == then.born && (then.born.is_some() || now.dev == then.dev)
}

/// What a file is locked for.
#[derive(Clone, Copy, Debug)]
pub enum LockedFor {
    /// To be labelled for a guest: no other QEMU may have it open.
    Guest,
    /// To have its label put back. With an owner the entry is that user's word: no file of anybody else
    /// is touched.
    PuttingBack(Option<u32>),
}

/// Finds and locks the file of a record, if it is still the one.
///
/// # Errors
/// That somebody holds it, or that it cannot be had.
pub fn find(
    host: &RealHost,
    entry: &JournalEntry,
    record: &Record,
    purpose: LockedFor,
) -> Result<Lookup, LookupError> {
    let path = || record.path.clone();
    let owner = match purpose {
        LockedFor::Guest => None,
        LockedFor::PuttingBack(owner) => owner,
    };
    let pinned = match pinned::pin(&record.path) {
        Ok(pinned) if is_same(&pinned, record) => match owner {
            Some(owner) if owner != pinned.uid => {
                return Err(LookupError::Foreign {
                    path: path(),
                    of_file: pinned.uid,
                    of_entry: owner,
                });
            }
            _ => pinned,
        },
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(LookupError::Pin {
                path: path(),
                source,
            });
        }
        Ok(_) | Err(_) => return Ok(missing(host, entry, record)),
    };
    if pinned.kind != Kind::File {
        return Ok(Lookup::Node);
    }
    let file = host.open(&pinned).map_err(|source| LookupError::Open {
        path: path(),
        source,
    })?;
    if matches!(purpose, LockedFor::Guest) && record.label != record.original {
        check_unused(host, record, &pinned, &file)?;
    }
    let kind = match record.class {
        Class::Content if record.is_private_content() => LockKind::Alone,
        Class::Exclusive => LockKind::Alone,
        Class::Content | Class::Shared | Class::Keep => LockKind::Shared,
    };
    match FileLock::take(host, file, kind) {
        Ok(lock) => Ok(Lookup::Locked(lock)),
        Err(NotLocked::Held(holder)) => Err(LookupError::Locked {
            path: path(),
            holder,
        }),
        Err(NotLocked::Unsupported) => Ok(Lookup::Node),
    }
}

/// Tells a file that is gone for good from one whose file system is not there. If the nearest directory
/// above it is on its file system, the file was deleted or replaced.
fn missing(host: &RealHost, entry: &JournalEntry, record: &Record) -> Lookup {
    let above = record.path.ancestors().skip(1);
    let nearest = above.map(pinned::pin).find_map(|pinned| match pinned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.ok()),
    });
    let settled = nearest.flatten().is_some_and(|nearest| {
        if is_of_this_boot(host.procfs(), entry) {
            nearest.identity.dev == record.identity.dev
        } else {
            record.file_system.is_some() && nearest.file_system() == record.file_system
        }
    });
    if settled {
        Lookup::Gone
    } else {
        Lookup::Absent
    }
}

/// Checks that no other QEMU has a file open that is to be labelled.
fn check_unused(
    host: &RealHost,
    record: &Record,
    pinned: &Pinned,
    file: &File,
) -> Result<(), LookupError> {
    let Some(why) = image_lock::in_the_way(host, pinned, file, record.class) else {
        return Ok(());
    };
    let path = record.path.clone();
    let label = selinux::label_of_fd(file.as_fd()).ok().flatten();
    Err(
        if label.is_some_and(|label| label.to_string() != record.original) {
            LookupError::JustStarted { path }
        } else {
            LookupError::InUse { path, why }
        },
    )
}

/// Tells whether no guest reads a file that svirt-exec knows nothing of: content that libvirt's guests
/// use too has to keep its label.
///
/// QEMU's locks are those of a reader, which any reader can set: they count only while a confined guest
/// runs, and only such a guest is waited for.
///
/// # Errors
/// Those of flock(2), and of listing the processes.
pub fn is_unused(
    host: &RealHost,
    record: &Record,
    lock: &FileLock,
    wait: Wait,
) -> io::Result<bool> {
    let stated = host.virtual_contexts().unwrap_or_default();
    let is_guest = |process: &ProcessLabels| {
        let current = process.current.as_ref();
        process.hidden || current.is_some_and(|context| domain::is_among(&stated, context))
    };
    // If there are no such locks nothing is to be seen.
    while image_lock::is_used(lock.file()).unwrap_or(false) {
        if !host.processes()?.iter().any(is_guest) {
            return Ok(true);
        }
        // Guests that start meanwhile may use it.
        lock.share()?;
        let user = || {
            let pinned = pinned::pin(&record.path)
                .ok()
                .filter(|it| is_same(it, record))?;
            let (pid, _) = image_lock::user(host, &pinned)?;
            let labels = host.procfs().labels_of(pid)?;
            sys::pidfd(pid).ok().filter(|_| is_guest(&labels))
        };
        let Some(user) = (wait == Wait::ForOthers).then(user).flatten() else {
            return Ok(false);
        };
        sys::wait_for_exit(user.as_fd());
        if !lock.hold_alone(host, wait)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Finds and locks the files of these records, or says of each that is not to be had what is wrong.
///
/// # Errors
/// Each file that somebody holds or that cannot be opened.
pub fn find_all(
    host: &RealHost,
    entry: &JournalEntry,
    records: &[Record],
) -> Result<Vec<(Record, Lookup)>, Vec<LookupError>> {
    let mut found = Vec::with_capacity(records.len());
    let mut failures: Vec<LookupError> = Vec::new();
    for record in records {
        match find(host, entry, record, LockedFor::Guest) {
            Ok(it) => found.push((record.clone(), it)),
            Err(error) => failures.push(error),
        }
    }
    if failures.is_empty() {
        Ok(found)
    } else {
        Err(failures)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn recorded(path: &std::path::Path) -> (JournalEntry, Record) {
        let host = RealHost::new().unwrap();
        let boot = host.procfs().boot().unwrap().to_owned();
        let context = "u:r:svirt_t:s0:c1,c2".to_owned();
        let entry = JournalEntry::new("x".to_owned(), 1, 1, boot, context);
        let record = Record {
            path: path.to_path_buf(),
            identity: pinned::pin(path).unwrap().identity,
            file_system: None,
            tree: false,
            class: Class::Exclusive,
            set_id: None,
            original: "u:object_r:user_home_t:s0".to_owned(),
            label: "u:object_r:svirt_image_t:s0:c1,c2".to_owned(),
        };
        (entry, record)
    }

    /// libvirt removes a guest's directory with the key of its secrets in it.
    #[test]
    fn a_file_whose_directory_is_gone_too_is_gone_and_not_on_a_file_system_that_is_not_mounted() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("guest/keys");
        fs::create_dir_all(&below).unwrap();
        let path = below.join("key");
        fs::write(&path, "").unwrap();
        let host = RealHost::new().unwrap();
        let (entry, mut record) = recorded(&path);
        fs::remove_dir_all(directory.path().join("guest")).unwrap();
        let found = find(&host, &entry, &record, LockedFor::Guest).unwrap();
        assert!(matches!(found, Lookup::Gone));
        // What is left of the path is on another file system than the file was.
        record.identity.dev += 1;
        let found = find(&host, &entry, &record, LockedFor::Guest).unwrap();
        assert!(matches!(found, Lookup::Absent));
    }
}
