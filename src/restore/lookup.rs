//! Files of a journal entry as they are found now, and the locks that say who still uses them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::host::image_lock;
use crate::host::pinned::{self, Kind, Pinned};
use crate::host::{Files, RealHost};
use crate::model::resource::Class;
use crate::restore::hold::Wait;
use crate::restore::journal::{Entry, Record};
use crate::restore::keeper::wait::wait_for_end;
use crate::selinux;
use crate::sys;
use crate::text::escape::{quoted, shell_word};

/// A file that may have moved, or be gone, since it was labelled.
pub enum Found {
    /// Open, and locked: it is this file whatever its name has become.
    Locked(Flock<File>),
    /// A device, a socket or a directory: by its path, checked each time.
    Node,
    /// Not there now. It may come back: a file system that is not mounted yet.
    Absent,
    /// Gone for good, or another file in its place.
    Gone,
    /// Not to be had now, and why.
    Unusable(String),
}

/// Whether a file is the one that was recorded. Device numbers change with every boot,
/// so they only count where the file system keeps no birth times.
pub fn same(pinned: &Pinned, record: &Record) -> bool {
    let (now, then) = (pinned.identity, record.identity);
    now.ino == then.ino && now.born == then.born && (then.born.is_some() || now.dev == then.dev)
}

/// What a file is locked for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// To be labelled for a guest: nobody's QEMU may have it open.
    Guest,
    /// To have its label put back. With an owner the entry is that user's word: nothing of anybody else
    /// is touched.
    PuttingBack(Option<u32>),
}

/// Finds and locks the file of a record, where it is still the one.
///
/// # Errors
/// Where somebody holds it, or it cannot be had, in words.
pub fn find(
    host: &RealHost,
    entry: &Entry,
    record: &Record,
    purpose: Purpose,
) -> Result<Found, String> {
    let name = || quoted(&record.path);
    let owner = match purpose {
        Purpose::Guest => None,
        Purpose::PuttingBack(owner) => owner,
    };
    let pinned = match pinned::pin(&record.path) {
        Ok(pinned) if same(&pinned, record) && owner.is_some_and(|owner| owner != pinned.uid) => {
            return Err(format!(
                "it belongs to user {}, and the entry to user {}: root touches nothing for a user that \
                 is not his; restorecon -F {}, or --trust-user where only your guests are that user",
                pinned.uid,
                owner.unwrap_or_default(),
                shell_word(&record.path)
            ));
        }
        Ok(pinned) if same(&pinned, record) => pinned,
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot look at {}: {error}", name()));
        }
        Ok(_) | Err(_) => {
            // The directory that it was in, or was below, is on its file system, and it is not in
            // it: deleted or replaced. Without its file system that cannot be told.
            let above = record.path.ancestors().skip(1);
            let nearest = above.map(pinned::pin).find_map(|pinned| match pinned {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                other => Some(other.ok()),
            });
            let settled = nearest.flatten().is_some_and(|nearest| {
                if this_boot(host, entry) {
                    nearest.identity.dev == record.identity.dev
                } else {
                    record.file_system.is_some() && nearest.file_system() == record.file_system
                }
            });
            return Ok(if settled { Found::Gone } else { Found::Absent });
        }
    };
    if pinned.kind != Kind::File {
        return Ok(Found::Node);
    }
    let file = host
        .open(&pinned)
        .map_err(|error| format!("cannot open {} to lock it: {error}", name()))?;
    if matches!(purpose, Purpose::Guest)
        && record.label != record.original
        && let Some(why) = image_lock::in_the_way(host, &pinned, &file, record.class)
    {
        let label = selinux::label_of_fd(file.as_fd()).ok().flatten();
        if label.is_some_and(|label| label.to_string() != record.original) {
            return Err(format!(
                "cannot label {}: another guest that uses it has just started; start again",
                name()
            ));
        }
        return Err(format!("cannot label {}: {why}", name()));
    }
    let how = match record.class {
        Class::Content if record.is_private_content() => FlockArg::LockExclusiveNonblock,
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

/// Whether every name still leads to the file that was recorded.
///
/// # Errors
/// Where one does not, in words.
pub fn all_there(found: &[(Record, Found)]) -> Result<(), String> {
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
pub fn free(host: &RealHost, found: &[(Record, Found)]) -> Result<(), String> {
    for (record, found) in found {
        let label = match found {
            Found::Locked(lock) => selinux::label_of_fd(lock.as_fd()),
            Found::Node => pinned::pin(&record.path).and_then(|pinned| host.label_of(&pinned)),
            Found::Absent | Found::Gone | Found::Unusable(_) => continue,
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
    host.procfs().boot().is_ok_and(|boot| boot == entry.boot)
}

/// Whether no QEMU reads a file that svirt-exec knows nothing of: content that libvirt's guests use
/// too has to keep its label.
pub fn unused(
    host: &RealHost,
    record: &Record,
    lock: &Flock<File>,
    wait: Wait,
) -> Result<bool, String> {
    // Where there are no such locks nothing is to be seen.
    while image_lock::is_used(lock).unwrap_or(false) {
        // Guests that start meanwhile may use it.
        lock.relock(FlockArg::LockShared)
            .map_err(|error| error.to_string())?;
        let user = || {
            let pinned = pinned::pin(&record.path)
                .ok()
                .filter(|it| same(it, record))?;
            let (pid, _) = image_lock::user(host, &pinned)?;
            sys::pidfd(pid).ok()
        };
        let Some(user) = (wait == Wait::ForOthers).then(user).flatten() else {
            return Ok(false);
        };
        wait_for_end(user.as_fd(), None, None, &mut |_| false);
        if !alone(lock, wait).map_err(|error| error.to_string())? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tries to hold a file alone. False while other guests hold it.
pub fn alone(lock: &Flock<File>, wait: Wait) -> io::Result<bool> {
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

    fn recorded(path: &std::path::Path) -> (Entry, Record) {
        let host = RealHost::new().unwrap();
        let boot = host.procfs().boot().unwrap().to_owned();
        let context = "u:r:svirt_t:s0:c1,c2".to_owned();
        let entry = Entry::new("x".to_owned(), 1, 1, boot, context);
        let record = Record {
            path: path.to_path_buf(),
            identity: pinned::pin(path).unwrap().identity,
            file_system: None,
            tree: false,
            class: Class::Exclusive,
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
        let found = find(&host, &entry, &record, Purpose::Guest).unwrap();
        assert!(matches!(found, Found::Gone));
        // What is left of the path is on another file system than the file was.
        record.identity.dev += 1;
        let found = find(&host, &entry, &record, Purpose::Guest).unwrap();
        assert!(matches!(found, Found::Absent));
    }
}
