//! Original labels on disk: written and synced before the first label changes, removed when the last is
//! back.
//!
//! One JSON file a guest, in a directory of the user who started it (`journals`). That is opened once,
//! and files in it are reached through the descriptor only: its owner may put a link to another user's in
//! its place at any moment. Whoever reads an entry does not trust it: it says what to look at, not what
//! to do (`hold`).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use thiserror::Error;

use crate::host::owned_dir::OwnedDirectory;
use crate::restore::entry::{JournalEntry, MAX_ENTRY, MAX_RECORDS, VERSION};
use crate::text::escape::quoted;

/// Extensions of an entry, and of one that is being written.
const ENTRY: &str = "json";
const UNFINISHED: &str = "new";

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

/// A directory of entries. Paths of entries that it hands out are names for people and for others who look
/// for the same entry; only their last part is used, in the directory that was opened.
#[derive(Debug)]
pub struct Journal {
    directory: OwnedDirectory,
}

impl Journal {
    /// Makes it of a directory that was opened.
    pub fn of(directory: OwnedDirectory) -> Self {
        Self { directory }
    }

    /// Opens the one at a path, whoever's it is.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn at(directory: &Path) -> io::Result<Self> {
        OwnedDirectory::open(directory).map(Self::of)
    }

    /// Returns the user whose it is. Entries of others in it count for nothing.
    pub fn owner(&self) -> u32 {
        self.directory.owner()
    }

    /// Tells whether it is another user's: its entries are that user's word, and nothing is ever written
    /// or removed in it.
    pub fn is_anothers(&self) -> bool {
        self.owner() != Uid::effective().as_raw()
    }

    /// Returns the path by which it was opened.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the name of an entry in the directory.
    fn name<'p>(&self, path: &'p Path) -> io::Result<&'p OsStr> {
        match path.file_name() {
            Some(name) if self.holds(path) => Ok(name),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    /// Returns the same for whoever is to change it.
    fn own_name<'p>(&self, path: &'p Path) -> io::Result<&'p OsStr> {
        if self.is_anothers() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is another user's",
            ));
        }
        self.name(path)
    }

    /// Writes an entry so that it is on disk when this returns, whole or not at all.
    ///
    /// # Errors
    /// Those of open(2), write(2), fsync(2) and rename(2); an entry that nobody would read.
    pub fn write(&self, entry: &JournalEntry) -> Result<PathBuf, JournalError> {
        let name = format!("{}-{}.{ENTRY}", entry.pid, entry.started);
        let path = self.path().join(name);
        self.replace(&path, entry)?;
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
        let path = self.path().join(name);
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
        let name = self.own_name(path)?;
        let new = Path::new(name).with_extension(UNFINISHED);
        let mut text = serde_json::to_vec(entry)?;
        text.push(b'\n');
        if text.len() as u64 > MAX_ENTRY || entry.records.len() > MAX_RECORDS {
            return Err(io::Error::other(format!(
                "more than {MAX_RECORDS} files, or {} MiB of their names; label fewer in one launch",
                MAX_ENTRY >> 20
            )));
        }
        self.directory.put(name, new.as_os_str(), &text)?;
        self.directory.sync()
    }

    /// Opens an entry, whatever has been put in its place: no link is followed, and nothing waited for
    /// (FIFOs, leases of fcntl(2)).
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open_entry(&self, path: &Path) -> io::Result<File> {
        self.directory.open_file(self.name(path)?)
    }

    /// Reads an entry: a regular file of the directory's owner, with this one name, and no larger than
    /// [`MAX_ENTRY`].
    ///
    /// # Errors
    /// Those of open(2) and read(2), and text that is no entry of this program's.
    pub fn read(&self, path: &Path) -> Result<JournalEntry, JournalError> {
        let mut left = MAX_ENTRY;
        self.read_up_to(path, &mut left)
    }

    /// Reads an entry as [`Journal::read`] does, if it has no more bytes than `left`, from which they are
    /// taken.
    ///
    /// # Errors
    /// Those of [`Journal::read`]; EFBIG for one that is larger.
    pub fn read_up_to(&self, path: &Path, left: &mut u64) -> Result<JournalEntry, JournalError> {
        let mut read = || -> io::Result<JournalEntry> {
            let file = self.open_entry(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() || metadata.uid() != self.owner() || metadata.nlink() != 1 {
                return Err(io::Error::other(format!(
                    "it is no regular file of the directory's owner with one name, but of user {} with {}",
                    metadata.uid(),
                    metadata.nlink()
                )));
            }
            let most = MAX_ENTRY.min(*left);
            let mut text = Vec::new();
            let too_large = |size: u64| match size > most {
                true => Err(io::Error::from_raw_os_error(libc::EFBIG)),
                false => Ok(()),
            };
            too_large(metadata.len())?;
            // One byte more shows a file that has grown since.
            file.take(most.saturating_add(1)).read_to_end(&mut text)?;
            too_large(text.len() as u64)?;
            *left = left.saturating_sub(text.len() as u64);
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

    /// Tells whether a file of this name is there.
    pub fn has(&self, path: &Path) -> bool {
        self.name(path)
            .is_ok_and(|name| self.directory.look_at(name).is_ok())
    }

    /// Removes an entry for good.
    ///
    /// # Errors
    /// Those of unlink(2) and fsync(2).
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.directory.remove(self.own_name(path)?)?;
        self.directory.sync()
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
        Ok(self.first_entries(usize::MAX)?.0)
    }

    /// Returns so many entries at most, in no order, and whether there are more names than that, whatever
    /// they are of.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn first_entries(&self, most: usize) -> io::Result<(Vec<PathBuf>, bool)> {
        let mut found = Vec::new();
        let (mut names, mut more) = (0_usize, false);
        self.directory.each_name(&mut |name| {
            more = names >= most;
            names = names.saturating_add(1);
            if !more && Path::new(name).extension() == Some(OsStr::new(ENTRY)) {
                found.push(self.path().join(name));
            }
            !more
        })?;
        Ok((found, more))
    }

    /// Removes what writers left that were killed before an entry was whole: a file without its entry,
    /// whose launcher is not at work any more (`writes` of its PID and start time).
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn sweep(&self, writes: impl Fn(i32, u64) -> bool) -> io::Result<()> {
        let mut unfinished: Vec<OsString> = Vec::new();
        self.directory.each_name(&mut |name| {
            if Path::new(name).extension() == Some(OsStr::new(UNFINISHED)) {
                unfinished.push(name.to_owned());
            }
            true
        })?;
        for name in unfinished {
            let path = self.path().join(&name);
            let launcher = path
                .file_stem()
                .and_then(OsStr::to_str)
                // The process that writes comes last: [`Journal::write_more`].
                .and_then(|stem| stem.rsplit('+').next()?.split_once('-'))
                .and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
            if let Some((pid, started)) = launcher
                && !self.has(&path.with_extension(ENTRY))
                && !writes(pid, started)
            {
                let _ = self.directory.remove(&name);
            }
        }
        Ok(())
    }

    /// Locks the directory, waiting until nobody else has it locked; flock(2). Only who may read it can
    /// lock it: its owner, and root.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn lock_directory(&self) -> io::Result<Flock<File>> {
        Flock::lock(self.directory.reopen()?, FlockArg::LockExclusive)
            .map_err(|(_, error)| error.into())
    }

    /// Tells whether an entry lies in this directory.
    pub fn holds(&self, entry: &Path) -> bool {
        entry.parent() == Some(self.path())
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
