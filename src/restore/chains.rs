//! What image headers named when guests had the images last: a file for each image, beside the journal of the
//! user who launches.
//!
//! Not an extended attribute of the image: a guest may set attributes of its disk. One file for each image,
//! not one for all: launches at the same time wait for nobody, and none undoes what another has written.
//! Written by a launch, before QEMU runs; what is in a header when a guest ends is not believed.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::{Uid, getpid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::owned_dir::OwnedDirectory;
use crate::model::chain::{Chain, ChainFile, DiskKey};
use crate::restore::journals;
use crate::text::escape::quoted;

/// The directory's name in that of the journal.
const DIRECTORY: &str = "chains";

/// Extensions of a record, and of one that is being written.
const RECORD: &str = "json";
const UNFINISHED: &str = "new";

/// Version of the records that this program writes and reads.
const VERSION: u32 = 1;

/// Most records in a directory. The oldest go first: a disk that was not launched since the others is one of
/// which nothing is known.
const MAX_RECORDS: usize = 10_000;

/// How many are removed at once beyond that.
const SLACK: usize = MAX_RECORDS / 10;

/// Bytes of the largest record that is read: [`Chain::MAX_FILES`] names of PATH_MAX bytes in hexadecimal.
const LARGEST: u64 = 64 << 20;

/// How old the date of a record may be at a launch that finds nothing else to write.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// How old a file without a name has to be for its writer to be dead.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// A record.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    /// When the disk was launched last, give or take [`FRESH`], in seconds since 1970.
    used: u64,
    files: Vec<ChainFile>,
}

/// Why a chain cannot be remembered.
#[derive(Debug, Error)]
#[error(
    "cannot remember in {} what the headers of disks name: {source}; no label stays changed",
    quoted(path)
)]
pub struct RememberError {
    path: PathBuf,
    source: io::Error,
}

/// A directory of records.
#[derive(Clone, Debug)]
pub struct ChainStore {
    directory: PathBuf,
}

impl ChainStore {
    /// Names the one of the user who runs this, beside the journal that is there; makes nothing.
    pub fn own() -> Self {
        let journal = journals::own().ok().and_then(|own| own.into_iter().next());
        match journal {
            Some(journal) => Self::in_journal(journal.path()),
            None => Self::in_journal(&journals::directory_of(Uid::effective())),
        }
    }

    fn in_journal(directory: &Path) -> Self {
        Self {
            directory: directory.join(DIRECTORY),
        }
    }

    fn path_of(&self, key: &DiskKey) -> PathBuf {
        self.directory.join(format!("{key}.{RECORD}"))
    }

    /// Returns what the header of a disk named when a guest had it last. None if nothing is known.
    ///
    /// # Errors
    /// A record that cannot be read, or is somebody else's, in words.
    pub fn recall(&self, key: &DiskKey) -> Result<Option<Chain>, String> {
        let path = self.path_of(key);
        match self.read(&path) {
            Ok(document) => Ok(Some(Chain {
                files: document.files,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", quoted(&path))),
        }
    }

    /// Opens the directory, which has to be this user's own. Others may make one of its name, or a link, where
    /// everybody may.
    fn open(&self) -> io::Result<OwnedDirectory> {
        let own = Uid::effective();
        match OwnedDirectory::open(&self.directory) {
            Ok(directory) if directory.owner() == own.as_raw() => Ok(directory),
            Err(error) if error.kind() != io::ErrorKind::NotADirectory => Err(error),
            _ => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("its directory is none that belongs to user {own}"),
            )),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Document> {
        let file = self.open()?.open_file(name_of(path))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != Uid::effective().as_raw() {
            return Err(io::Error::other(format!(
                "it is no regular file of this user's, but of user {}",
                metadata.uid()
            )));
        }
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text)?;
        parse(&text)
    }

    /// Writes down what headers name now, so that it is on disk when this returns. What is known already is
    /// not written again.
    ///
    /// # Errors
    /// Those of mkdir(2), open(2), write(2), fsync(2) and rename(2).
    pub fn remember(&self, chains: &[(DiskKey, Chain)]) -> Result<(), RememberError> {
        let mut written = false;
        let mut made = false;
        for (key, chain) in chains {
            let path = self.path_of(key);
            let known = self.read(&path);
            if known.as_ref().is_ok_and(|known| known.still_says(chain)) {
                continue;
            }
            self.write(&path, chain).map_err(|source| RememberError {
                path: path.clone(),
                source,
            })?;
            written = true;
            made |= known.is_err();
        }
        if made {
            self.prune(MAX_RECORDS, SLACK);
        }
        if written {
            let synced = self.open().and_then(|directory| directory.sync());
            synced.map_err(|source| RememberError {
                path: self.directory.clone(),
                source,
            })?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, chain: &Chain) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        // Two launches may share a disk.
        let new = path.with_extension(format!("{}.{UNFINISHED}", getpid()));
        let mut text = serde_json::to_vec(&Document::of(chain))?;
        text.push(b'\n');
        self.open()?.put(name_of(path), name_of(&new), &text)
    }

    /// Removes the oldest records if there are more than `most`, `slack` more than it takes, and what writers
    /// left that were killed. What cannot be removed stays.
    fn prune(&self, most: usize, slack: usize) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let has = |path: &&PathBuf, extension: &str| {
            path.extension().is_some_and(|found| found == extension)
        };
        let changed = |path: &Path| fs::symlink_metadata(path).and_then(|file| file.modified());
        for path in paths.iter().filter(|path| has(path, UNFINISHED)) {
            let age = changed(path).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(path);
            }
        }
        let records: Vec<&PathBuf> = paths.iter().filter(|path| has(path, RECORD)).collect();
        let Some(excess) = records.len().checked_sub(most).filter(|excess| *excess > 0) else {
            return;
        };
        let mut aged: Vec<(SystemTime, &PathBuf)> = records
            .into_iter()
            .map(|path| (changed(path).unwrap_or(UNIX_EPOCH), path))
            .collect();
        aged.sort();
        for (_, path) in aged.iter().take(excess.saturating_add(slack)) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Document {
    fn of(chain: &Chain) -> Self {
        Self {
            version: VERSION,
            used: now(),
            files: chain.files.clone(),
        }
    }

    /// Tells whether there is nothing to write for a chain.
    fn still_says(&self, chain: &Chain) -> bool {
        let age = now().checked_sub(self.used);
        self.files == chain.files && age.is_some_and(|age| age < FRESH.as_secs())
    }
}

/// Returns the time in seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Returns the last part of a path of [`ChainStore::path_of`].
fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Reads the text of a record.
fn parse(text: &[u8]) -> io::Result<Document> {
    let document: Document = serde_json::from_slice(text)?;
    if document.version != VERSION {
        return Err(io::Error::other(format!(
            "version {} is not known to this svirt-exec",
            document.version
        )));
    }
    Ok(document)
}

#[cfg(test)]
#[path = "chains_tests.rs"]
mod tests;
