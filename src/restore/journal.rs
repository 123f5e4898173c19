//! Original labels on disk: written and synced before the first label changes, removed when the last is
//! back.
//!
//! One JSON file a guest, in a directory of the user who started it. Whoever reads an entry does not
//! trust it: it says what to look at, not what to do (`hold`).

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::pinned::Identity;
use crate::host::runtime_dir;
use crate::model::label::Context;
use crate::model::resource::Class;
use crate::text::escape::quoted;
use crate::text::hex::path_text;

/// Version of the entries that this program writes and reads.
const VERSION: u32 = 1;

/// Where entries are; tmpfiles.d of the package makes it.
pub(crate) const STATE: &str = "/var/lib/svirt-exec";

/// Extensions of an entry, and of one that is being written.
const ENTRY: &str = "json";
const UNFINISHED: &str = "new";

/// Bytes of the largest entry that is read: 10,000 resources of 4 KiB names fit.
const LARGEST: u64 = 64 << 20;

/// Says what helps a systemd unit to which the directory is read-only; systemd.exec(5).
fn in_a_unit(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        "; a unit with ProtectSystem=strict or DynamicUser=yes needs ReadWritePaths=/var/lib/svirt-exec"
    } else {
        ""
    }
}

/// Why an entry could not be written or read.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The directory cannot be used.
    #[error(
        "cannot keep the original labels in {}: {source}; nothing was changed. The directory must \
         exist, belong to the user who runs svirt-exec, and be writable (systemd-tmpfiles --create{})",
        quoted(path),
        in_a_unit(source)
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry cannot be written.
    #[error(
        "cannot write the original labels to {}: {source}; no label stays changed{}",
        quoted(path),
        in_a_unit(source)
    )]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry cannot be removed.
    #[error("cannot remove {}: {source}", quoted(path))]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry cannot be read.
    #[error(
        "cannot read the original labels from {}: {source}; look which files it names, give them \
         their labels (restorecon -F), and remove it",
        quoted(path)
    )]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A label to put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where the file was, without symbolic links.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// Which file it was.
    pub identity: Identity,
    /// Which file system it is on, by a number that lasts longer than a boot (`f_fsid`, statfs(2)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<u64>,
    /// Whether it is a directory whose content was labelled too (`--label-tree`): what the guest made
    /// in it is to be labelled as the directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tree: bool,
    /// What the guest used it for.
    pub class: Class,
    /// The label it had.
    pub original: String,
    /// The label it gets.
    pub label: String,
}

impl Record {
    /// Tells whether it is of content that only its guest reads still (`--private-content`).
    pub fn is_private_content(&self) -> bool {
        let given = self.label.parse::<Context>();
        self.class == Class::Content && given.is_ok_and(|given| !given.categories().is_empty())
    }
}

/// A guest and what was labelled for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// [`VERSION`].
    pub version: u32,
    /// Its name, for people.
    pub name: String,
    /// Process ID of the launcher, and then of QEMU.
    pub pid: i32,
    /// When that process started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started: u64,
    /// Which boot of the host that was (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The guest's context.
    pub context: String,
    /// Its directory below /run (`--runtime-dir`), which is to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<runtime_dir::Directory>,
    /// What to put back, in the order in which it was labelled.
    pub records: Vec<Record>,
}

impl JournalEntry {
    /// Makes an entry of the current version without records.
    pub fn new(name: String, pid: i32, started: u64, boot: String, context: String) -> Self {
        Self {
            version: VERSION,
            name,
            pid,
            started,
            boot,
            context,
            runtime: None,
            records: Vec::new(),
        }
    }
}

/// Tells whether a path is a directory of this user.
fn belongs(path: &Path, uid: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_dir() && file.uid() == uid)
}

/// A directory of entries.
#[derive(Clone, Debug)]
pub struct Journal {
    directory: PathBuf,
}

impl Journal {
    /// Opens the one of the user who runs this, and makes it if it is missing.
    ///
    /// Never below $HOME: libvirt gives its QEMU a HOME that it deletes. The home that the password file
    /// states is used only if the package, and with it the directory below /var/lib, is not installed.
    ///
    /// # Errors
    /// Those of mkdir(2), and that it belongs to somebody else.
    pub fn open() -> Result<Self, JournalError> {
        let directory = Self::directory_of(Uid::effective());
        let journal = Self { directory };
        journal
            .prepare()
            .map_err(|source| JournalError::Directory {
                path: journal.directory.clone(),
                source,
            })?;
        Ok(journal)
    }

    /// Names the one in a directory that exists.
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns those that this user may read and that are there, with their owners; makes none. Root
    /// reads everybody's. What users write is theirs to say: it is shown for their own guests only.
    pub fn existing() -> Vec<(u32, Self)> {
        let uid = Uid::effective();
        let own = Self::directory_of(uid);
        let mut found = Vec::new();
        if belongs(&own, uid.as_raw()) {
            found.push((uid.as_raw(), Self::at(own)));
        }
        if uid.is_root() {
            found.extend(Self::of_users().unwrap_or_default());
        }
        found
    }

    /// Returns the directory of a user's journal, which need not be there.
    pub fn directory_of(uid: Uid) -> PathBuf {
        if uid.is_root() {
            Path::new(STATE).join("guests")
        } else if Path::new(STATE).join("users").is_dir() {
            Path::new(STATE).join("users").join(uid.to_string())
        } else {
            User::from_uid(uid)
                .ok()
                .flatten()
                .map(|user| user.dir.join(".local/state/svirt-exec"))
                .unwrap_or_else(|| Path::new(STATE).join("users").join(uid.to_string()))
        }
    }

    /// Returns those of all users but root, each with the user whose it is.
    ///
    /// # Errors
    /// Those of readdir(3), unless there is no directory for them.
    pub fn of_users() -> io::Result<Vec<(u32, Self)>> {
        let users = match fs::read_dir(Path::new(STATE).join("users")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        Ok(users
            .flatten()
            .filter_map(|user| {
                let uid: u32 = user.file_name().to_str()?.parse().ok()?;
                // Everybody may make a directory there: only its owner's own counts.
                belongs(&user.path(), uid).then(|| (uid, Self::at(user.path())))
            })
            .collect())
    }

    fn prepare(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let metadata = fs::symlink_metadata(&self.directory)?;
        if !metadata.is_dir() || metadata.uid() != Uid::effective().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("it belongs to user {}; root can remove it", metadata.uid()),
            ));
        }
        Ok(())
    }

    /// Writes an entry so that it is on disk when this returns, whole or not at all.
    ///
    /// # Errors
    /// Those of open(2), write(2), fsync(2) and rename(2).
    pub fn write(&self, entry: &JournalEntry) -> Result<PathBuf, JournalError> {
        let path = self
            .directory
            .join(format!("{}-{}.{ENTRY}", entry.pid, entry.started));
        let result = self.write_to(&path, entry);
        result.map_err(|source| JournalError::Write {
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// Writes an entry as [`Journal::write`] does, beside the one that the guest has already. `by` is the
    /// process that adds it, and when that started.
    ///
    /// # Errors
    /// Those of [`Journal::write`].
    pub fn write_more(
        &self,
        entry: &JournalEntry,
        by: (i32, u64),
    ) -> Result<PathBuf, JournalError> {
        let (pid, started) = by;
        let name = format!("{}-{}+{pid}-{started}.json", entry.pid, entry.started);
        let path = self.directory.join(name);
        self.replace(&path, entry)?;
        Ok(path)
    }

    /// Puts another version in the place of an entry, whole or not at all.
    ///
    /// # Errors
    /// Those of [`Journal::write`]; the old version stays then.
    pub fn replace(&self, path: &Path, entry: &JournalEntry) -> Result<(), JournalError> {
        self.write_to(path, entry)
            .map_err(|source| JournalError::Write {
                path: path.to_path_buf(),
                source,
            })
    }

    fn write_to(&self, path: &Path, entry: &JournalEntry) -> io::Result<()> {
        let new = path.with_extension(UNFINISHED);
        let result = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&new)?;
            let mut text = serde_json::to_vec(entry)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            self.sync()
        })();
        if result.is_err() {
            let _ = fs::remove_file(&new);
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// Those of open(2) and read(2), and text that is no entry of this program's.
    pub fn read(path: &Path) -> Result<JournalEntry, JournalError> {
        Self::read_of(path, None)
    }

    /// Reads an entry that must be a regular file of this user, if one is given.
    ///
    /// # Errors
    /// Those of [`Journal::read`].
    pub fn read_of(path: &Path, owner: Option<u32>) -> Result<JournalEntry, JournalError> {
        let read = || -> io::Result<JournalEntry> {
            use std::io::Read;
            let file = open(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() || owner.is_some_and(|owner| metadata.uid() != owner) {
                return Err(io::Error::other(format!(
                    "it is no regular file of the directory's owner, but of user {}",
                    metadata.uid()
                )));
            }
            let size = metadata.len().min(LARGEST);
            let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            file.take(LARGEST).read_to_end(&mut text)?;
            let entry: JournalEntry = serde_json::from_slice(&text)?;
            if entry.version != VERSION {
                return Err(io::Error::other(format!(
                    "version {} is not known to this svirt-exec",
                    entry.version
                )));
            }
            Ok(entry)
        };
        read().map_err(|source| JournalError::Read {
            path: path.to_path_buf(),
            source,
        })
    }

    /// Removes an entry for good.
    ///
    /// # Errors
    /// Those of unlink(2) and fsync(2).
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        self.sync()
    }

    /// Removes an entry for good, if it is there still.
    ///
    /// # Errors
    /// Those of unlink(2) and fsync(2).
    pub fn remove_if_there(&self, path: &Path) -> Result<(), JournalError> {
        match self.remove(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(JournalError::Remove {
                path: path.to_path_buf(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Returns every entry, in no order.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn entries(&self) -> io::Result<Vec<PathBuf>> {
        Ok(fs::read_dir(&self.directory)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == ENTRY))
            .collect())
    }

    /// Removes what writers left that were killed before an entry was whole: a file without its entry,
    /// whose launcher is not at work any more (`writes` of its PID and start time).
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn sweep(&self, writes: impl Fn(i32, u64) -> bool) -> io::Result<()> {
        for file in fs::read_dir(&self.directory)? {
            let path = file?.path();
            let launcher = path
                .file_stem()
                .and_then(OsStr::to_str)
                // The process that writes comes last: [`Journal::write_more`].
                .and_then(|stem| stem.rsplit('+').next()?.split_once('-'))
                .and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
            let unfinished = path.extension() == Some(OsStr::new(UNFINISHED));
            if let Some((pid, started)) = launcher.filter(|_| unfinished)
                && !path.with_extension(ENTRY).exists()
                && !writes(pid, started)
            {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Locks the directory, waiting until nobody else has it locked; flock(2).
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn lock_directory(&self) -> io::Result<Flock<File>> {
        Flock::lock(File::open(&self.directory)?, FlockArg::LockExclusive)
            .map_err(|(_, error)| error.into())
    }

    /// Tells whether an entry lies in this directory.
    pub fn holds(&self, entry: &Path) -> bool {
        entry.parent() == Some(&self.directory)
    }
}

/// Opens an entry, whatever has been put in its place.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
