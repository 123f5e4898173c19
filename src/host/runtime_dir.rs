//! `--runtime-dir`: a directory below /run that is one guest's own, for sockets, pid files and logs.
//!
//! What a guest makes there gets the guest's pair, whichever policy: in a directory at the bare
//! level Fedora's would give it none, and other guests could use it; /tmp is no place for a socket
//! on Debian. The keeper makes the directory, holds it locked as long as the guest runs, and removes
//! it with all that is in it: taking away what carries a pair is the keeper's alone.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::owned_dir::{self, OwnedDirectory};
use crate::host::policy::Policy;
use crate::model::label::Context;
use crate::selinux;
use crate::selinux::names::GUEST_RUNTIME_TYPE;
use crate::text::escape::{escaped, quoted};

/// Where the directories of root's guests are.
const ROOT: &str = "/run/svirt-exec";

/// Where those of other users are, each below the user's number, or below the name that root has made a
/// directory of.
const USERS: &str = "/run/svirt-exec/users";

/// Bytes of the longest name: sun_path of unix(7) has 108, of which a user's directory takes 39 at most.
const MAX_NAME: usize = 48;

/// Why a guest gets no directory.
#[derive(Debug, Error)]
pub enum RuntimeDirError {
    /// The guest has no name.
    #[error(
        "cannot make a directory for the guest (--runtime-dir): it has no name; give one with --name \
         NAME, or to QEMU with -name NAME"
    )]
    NoName,
    /// Its name cannot be one of a directory.
    #[error(
        "cannot make a directory for guest '{}' (--runtime-dir): its name has to be 1 to {MAX_NAME} of A-Z \
         a-z 0-9 . _ - without a dot at the beginning, and not 'users'; give another with --name",
        escaped(.0.as_bytes())
    )]
    BadName(String),
    /// QEMU is to become a user that does not exist.
    #[error(
        "cannot make a directory for the guest (--runtime-dir): there is no user '{}', whom QEMU is to \
         become",
        escaped(.0.as_bytes())
    )]
    NoUser(String),
    /// It cannot be made.
    #[error("cannot make {} (--runtime-dir): {why}", quoted(path))]
    Make {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It cannot be removed.
    #[error("cannot remove {}: {source}", quoted(path))]
    Remove {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory of one guest, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    name: String,
    /// The user whom QEMU is to become (`-run-with user=`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<u32>,
    /// The directory of this user's that it is in, if that is not called by his number: it is called as he is, or
    /// somebody else has taken his number for a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    below: Option<String>,
}

/// Tells whether a name may be one of a user, as useradd(8) takes them, and is short.
fn is_login(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    name.len() <= 16 && name.chars().all(good) && name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Returns the name of the directory that this user's are in, if it is not his number.
///
/// `login` only says which one to look at: it counts if it is his own. A service, which has to know the place before
/// it knows the number, has one from tmpfiles.d(5).
fn below(uid: Uid, login: Option<&OsStr>) -> Option<String> {
    let users = OwnedDirectory::open_shared(Path::new(USERS)).ok()?;
    if let Some(name) = login.and_then(OsStr::to_str).filter(|name| is_login(name))
        && users
            .child(name.as_ref())
            .is_ok_and(|found| found.owner() == uid.as_raw())
    {
        return Some(name.to_owned());
    }
    let plain = uid.to_string();
    let own = users.of_user(uid).ok()?.into_iter().next();
    let name = match own {
        Some(own) => own.path().file_name()?.to_str()?.to_owned(),
        None if users.look_at(plain.as_ref()).is_err() => return None,
        None => owned_dir::unforeseeable(uid).ok()?,
    };
    (name != plain).then_some(name)
}

impl Directory {
    /// Names the one for a guest of this name, which QEMU will use as `run_as`. `login` is what the environment says
    /// that the user is called (`LOGNAME`).
    ///
    /// # Errors
    /// That there is no name, or none for a directory, or no such user.
    pub fn new(
        name: Option<&str>,
        run_as: Option<&str>,
        login: Option<&OsStr>,
    ) -> Result<Self, RuntimeDirError> {
        let name = name.ok_or(RuntimeDirError::NoName)?;
        let directory = Self {
            name: name.to_owned(),
            owner: run_as.map(user).transpose()?,
            below: Some(Uid::effective())
                .filter(|uid| !uid.is_root())
                .and_then(|uid| below(uid, login)),
        };
        if directory.is_named_well() {
            return Ok(directory);
        }
        Err(RuntimeDirError::BadName(name.to_owned()))
    }

    fn is_named_well(&self) -> bool {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (1..=MAX_NAME).contains(&self.name.len())
            && self.name.chars().all(good)
            && !self.name.starts_with('.')
            && self.name != "users"
            && self.below.as_ref().is_none_or(|below| {
                is_login(below) || owned_dir::names_user(below.as_ref()).is_some()
            })
    }

    /// Says where it is, if that is not where its user expects it.
    pub fn displaced(&self) -> Option<String> {
        let uid = Uid::effective();
        let below = self.below.as_ref().filter(|below| !is_login(below));
        below.map(|_| {
            format!(
                "another user has taken the name {}: the guest's directory is {}; root can remove the \
                 other one",
                quoted(Path::new(USERS).join(uid.to_string())),
                quoted(self.path(uid))
            )
        })
    }

    /// Returns where it is, for a guest that this user starts.
    pub fn path(&self, uid: Uid) -> PathBuf {
        if uid.is_root() {
            Path::new(ROOT).join(&self.name)
        } else {
            let plain = || uid.to_string();
            let below = self.below.clone().unwrap_or_else(plain);
            Path::new(USERS).join(below).join(&self.name)
        }
    }

    /// Makes it, empty, for a guest of this context. What a guest left that has ended is removed.
    ///
    /// # Errors
    /// That a guest of this name runs, or that it cannot be made.
    pub fn make(
        &self,
        policy: &dyn Policy,
        guest: &Context,
    ) -> Result<HeldDirectory, RuntimeDirError> {
        let path = self.path(Uid::effective());
        let fail = |why: &dyn std::fmt::Display| RuntimeDirError::Make {
            path: path.clone(),
            why: why.to_string(),
        };
        if !self.is_named_well() {
            return Err(fail(&"that is no name for one"));
        }
        let label = label(guest);
        if !policy.is_valid(&label) {
            return Err(fail(&format!(
                "the policy does not know {label}; load the svirt_launcher module of this version"
            )));
        }
        parents(&path).map_err(|error| {
            fail(&format!(
                "{error}; the directory above it is made with systemd-tmpfiles --create"
            ))
        })?;
        remove(&path).map_err(|error| fail(&error))?;
        selinux::set_create_context(Some(&label)).map_err(|error| fail(&error))?;
        let made = DirBuilder::new().mode(0o700).create(&path);
        let _ = selinux::set_create_context(None);
        made.map_err(|error| fail(&error))?;
        let lock = lock(&path).map_err(|error| fail(&error))?;
        // Somebody may have taken it for a directory that was left, in the time in between.
        let (held, there) = (lock.metadata(), fs::symlink_metadata(&path));
        match (held, there) {
            (Ok(held), Ok(there)) if (held.dev(), held.ino()) == (there.dev(), there.ino()) => {}
            _ => return Err(fail(&"another guest of this name has been started")),
        }
        let held = HeldDirectory {
            path: path.clone(),
            _lock: lock,
        };
        if let Some(owner) = self
            .owner
            .filter(|owner| *owner != Uid::effective().as_raw())
            && let Err(error) = hand_over(&held.path, owner)
        {
            let why = format!("cannot give it to user {owner}: {error}");
            return Err(held.remove().map_or_else(|left| left, |()| fail(&why)));
        }
        Ok(held)
    }

    /// Removes what a guest has left that has ended.
    ///
    /// # Errors
    /// That another guest of this name runs, and those of removing it.
    pub fn clear(&self) -> io::Result<()> {
        if !self.is_named_well() {
            return Ok(());
        }
        remove(&self.path(Uid::effective()))
    }
}

/// Returns the label of the directory of a guest, and of what the guest makes in it.
pub fn label(guest: &Context) -> Context {
    let mut label = guest.with_type(GUEST_RUNTIME_TYPE).at(guest.level());
    "object_r".clone_into(&mut label.role);
    label
}

/// A directory that is there and locked.
#[derive(Debug)]
pub struct HeldDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl HeldDirectory {
    /// Removes it with everything in it.
    ///
    /// # Errors
    /// Those of removing it.
    pub fn remove(self) -> Result<(), RuntimeDirError> {
        remove_tree(&self.path).map_err(|source| RuntimeDirError::Remove {
            path: self.path.clone(),
            source,
        })
    }
}

/// Gives a directory to the user whom QEMU becomes. QEMU makes its sockets while it is root still,
/// without CAP_DAC_OVERRIDE in a guest's domain: the group stays, and may write.
fn hand_over(path: &Path, owner: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o770))?;
    Ok(nix::unistd::chown(path, Some(Uid::from_raw(owner)), None)?)
}

/// Finds the user that `-run-with user=` means: a name, or `UID:GID` (`os_parse_runas_uid_gid`,
/// os-posix.c).
fn user(text: &str) -> Result<u32, RuntimeDirError> {
    if let Ok(Some(user)) = User::from_name(text) {
        return Ok(user.uid.as_raw());
    }
    let pair = || {
        let (uid, gid) = text.split_once(':')?;
        gid.parse::<u32>().ok()?;
        uid.parse().ok()
    };
    pair().ok_or_else(|| RuntimeDirError::NoUser(text.to_owned()))
}

/// Makes what is above a guest's directory, where it is this user's to make.
fn parents(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new(ROOT));
    match DirBuilder::new().mode(0o711).create(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(parent)?;
    if metadata.is_dir() && metadata.uid() == Uid::effective().as_raw() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} is no directory of this user",
        quoted(parent)
    )))
}

/// Locks a directory, so that nobody takes it for one that was left.
fn lock(path: &Path) -> io::Result<Flock<File>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => io::Error::other(
            "a guest of this name runs, and its directory is in use; end it, or give the other one \
             another --name",
        ),
        error => error.into(),
    })
}

/// Removes a directory that no guest uses.
fn remove(path: &Path) -> io::Result<()> {
    match lock(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_lock) => remove_tree(path),
    }
}

/// Removes a directory and what is in it, following no link.
fn remove_tree(path: &Path) -> io::Result<()> {
    let own = Uid::effective();
    if fs::symlink_metadata(path).is_ok_and(|file| file.uid() != own.as_raw()) {
        // Only its owner may write in it: root here has no CAP_DAC_OVERRIDE.
        nix::unistd::fchownat(
            nix::fcntl::AT_FDCWD,
            path,
            Some(own),
            None,
            nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
        )?;
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_directories_below_ours() {
        for name in ["web", "a", "web-1.2_b", "9", &"x".repeat(MAX_NAME)] {
            let directory = Directory::new(Some(name), None, None).unwrap();
            assert_eq!(
                directory.path(Uid::from_raw(0)),
                Path::new("/run/svirt-exec").join(name)
            );
            assert_eq!(
                directory.path(Uid::from_raw(1000)),
                Path::new("/run/svirt-exec/users/1000").join(name)
            );
        }
        for name in [
            "",
            ".",
            "..",
            ".x",
            "users",
            "a/b",
            "a b",
            "ü",
            "x\n",
            &"x".repeat(MAX_NAME + 1),
        ] {
            assert!(Directory::new(Some(name), None, None).is_err(), "{name:?}");
        }
        let error = Directory::new(None, None, None).unwrap_err().to_string();
        assert!(error.contains("--name"), "{error}");
    }

    #[test]
    fn a_journal_cannot_name_a_directory_elsewhere() {
        for text in [
            r#"{"name":"../../etc"}"#,
            r#"{"name":"web","below":"../.."}"#,
            r#"{"name":"web","below":"1000.x"}"#,
            r#"{"name":"web","below":"a/b"}"#,
            r#"{"name":"web","below":".a"}"#,
            r#"{"name":"web","below":"Alice"}"#,
        ] {
            let directory: Directory = serde_json::from_str(text).unwrap();
            assert!(!directory.is_named_well(), "{text}");
            directory.clear().unwrap();
        }
    }

    #[test]
    fn whom_qemu_becomes() {
        assert_eq!(user("root").unwrap(), 0);
        assert_eq!(user("12:34").unwrap(), 12);
        for text in ["", "no-such-user", "12", "12:x", ":", "12:34:56"] {
            assert!(user(text).is_err(), "{text}");
        }
    }

    #[test]
    fn its_label_is_the_guests() {
        let guest: Context = "u:r:svirt_t:s0:c1,c2".parse().unwrap();
        assert_eq!(
            label(&guest).to_string(),
            "u:object_r:svirt_launcher_guest_runtime_t:s0:c1,c2"
        );
    }
}
