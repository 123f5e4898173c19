//! Which journals there are: root's, and those of other users below a directory in which every user may
//! make names.
//!
//! A user's journal is any directory there that he owns (`host::owned_dir`): somebody else may have taken
//! his number for a name. Nothing that a user writes costs others more than a bounded time and memory:
//! entries are read one at a time, and of other users only so many and so large ones as is stated here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::{Uid, User};

use crate::host::owned_dir::{MAX_OF_USER, OwnedDirectory, names_user};
use crate::restore::entry::JournalEntry;
use crate::restore::journal::{Journal, JournalError};
use crate::text::escape::quoted;

/// Where entries are; tmpfiles.d of the package makes it.
pub(crate) const STATE: &str = "/var/lib/svirt-exec";

/// Most users whose journals root reads, those with the smallest numbers: a user who may be others
/// (subuid(5)) has numbers above those of people and services.
const MAX_USERS: usize = 1024;

/// Most names in another user's journal, and bytes of the entries that are read there: 4,000 guests with
/// ten files each. Reading and looking up that much takes less than a minute.
const OF_ONE: Allowance = Allowance {
    entries: 4096,
    bytes: 16 << 20,
};

/// The same of all other users together.
const OF_ALL: Allowance = Allowance {
    entries: 16_384,
    bytes: 128 << 20,
};

/// Bytes of the longest guest's name, context and boot ID in an entry of another user's: they are kept
/// for every entry while a command looks at all of them.
const MAX_TEXT: usize = 512;

/// How much of what others wrote is read still.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    entries: usize,
    bytes: u64,
}

fn users() -> PathBuf {
    Path::new(STATE).join("users")
}

/// Returns the directory below the home that the password file states. It is used only if the package,
/// and with it the directory below /var/lib, is not installed.
///
/// Never below $HOME: libvirt gives its QEMU a HOME that it deletes.
fn below_home(uid: Uid) -> Option<PathBuf> {
    let user = User::from_uid(uid).ok()??;
    Some(user.dir.join(".local/state/svirt-exec"))
}

/// Opens the one of the user who runs this, and makes it if it is missing.
///
/// # Errors
/// Those of mkdir(2), and that it belongs to somebody else.
pub fn open() -> Result<Journal, JournalError> {
    let uid = Uid::effective();
    let cannot = |source| JournalError::Directory {
        path: directory_of(uid),
        source,
    };
    match own().map_err(cannot)?.into_iter().next() {
        Some(journal) => Ok(journal),
        None => make(uid).map_err(cannot),
    }
}

fn make(uid: Uid) -> io::Result<Journal> {
    if !uid.is_root()
        && let Ok(users) = OwnedDirectory::open_shared(&users())
    {
        return users.make_for(uid, Mode::S_IRWXU).map(Journal::of);
    }
    let path = directory_of(uid);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)?;
    let journal = Journal::at(&path)?;
    if journal.is_anothers() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("it belongs to user {}; root can remove it", journal.owner()),
        ));
    }
    Ok(journal)
}

/// Returns those of the user who runs this that are there, in an order that stays; makes none.
///
/// # Errors
/// Those of readdir(3), and a directory of all users that is not root's.
pub fn own() -> io::Result<Vec<Journal>> {
    let uid = Uid::effective();
    if !uid.is_root() {
        match OwnedDirectory::open_shared(&users()) {
            Ok(users) => return Ok(users.of_user(uid)?.into_iter().map(Journal::of).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let found = Journal::at(&directory_of(uid));
    Ok(found
        .into_iter()
        .filter(|journal| !journal.is_anothers())
        .collect())
}

/// Returns the journal of this user's that an entry lies in. None if it is none of his.
pub fn of_entry(entry: &Path) -> Option<Journal> {
    own().ok()?.into_iter().find(|journal| journal.holds(entry))
}

/// Returns where a user's journal is, if nobody else has taken its name.
pub fn directory_of(uid: Uid) -> PathBuf {
    let plain = || users().join(uid.to_string());
    if uid.is_root() {
        Path::new(STATE).join("guests")
    } else if users().is_dir() {
        plain()
    } else {
        below_home(uid).unwrap_or_else(plain)
    }
}

/// Returns those of all users but root: whose each is says the directory that was opened.
///
/// # Errors
/// Those of readdir(3), unless there is no directory for them.
pub fn of_users() -> io::Result<Vec<Journal>> {
    let users = match OwnedDirectory::open_shared(&users()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    Ok(below(&users)?.into_iter().map(Journal::of).collect())
}

/// Opens what users have below a directory of all: of [`MAX_USERS`] users, [`MAX_OF_USER`] directories
/// each.
fn below(users: &OwnedDirectory) -> io::Result<Vec<OwnedDirectory>> {
    let mut names: BTreeMap<u32, Vec<OsString>> = BTreeMap::new();
    users.each_name(&mut |name| {
        let owner = users.look_at(name).ok().map(|found| found.st_uid);
        // A name that is somebody else's is no journal of anybody's.
        if let Some(owner) = owner.filter(|owner| *owner != 0 && names_user(name) == Some(*owner)) {
            let his = names.entry(owner).or_default();
            his.push(name.to_owned());
            his.sort();
            his.truncate(MAX_OF_USER);
            if names.len() > MAX_USERS {
                names.pop_last();
            }
        }
        true
    })?;
    let opened = names
        .iter()
        .flat_map(|(owner, names)| names.iter().map(move |name| (*owner, name)))
        .filter_map(|(owner, name)| {
            let directory = users.child(name).ok()?;
            (directory.owner() == owner).then_some(directory)
        });
    Ok(opened.collect())
}

/// Reads journals, entry by entry, and keeps count of what others wrote.
pub struct Reader {
    all: Allowance,
}

impl Default for Reader {
    fn default() -> Self {
        Self { all: OF_ALL }
    }
}

impl Reader {
    /// Calls `visit` with every entry of a journal, and why it cannot be read, but for those that
    /// `skipped` holds for and those that are gone by then. Of another user's it reads so much as is
    /// stated above. Returns what it did not read, in words.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn read<'a>(
        &mut self,
        journal: &'a Journal,
        skipped: &dyn Fn(&Path) -> bool,
        visit: &mut dyn FnMut(&'a Journal, PathBuf, Result<JournalEntry, JournalError>),
    ) -> io::Result<Option<String>> {
        if !journal.is_anothers() {
            for path in journal.entries()? {
                if !skipped(&path) {
                    let entry = journal.read(&path);
                    if entry.is_ok() || journal.has(&path) {
                        visit(journal, path, entry);
                    }
                }
            }
            return Ok(None);
        }
        self.read_bounded(journal, visit)
    }

    fn read_bounded<'a>(
        &mut self,
        journal: &'a Journal,
        visit: &mut dyn FnMut(&'a Journal, PathBuf, Result<JournalEntry, JournalError>),
    ) -> io::Result<Option<String>> {
        let most = OF_ONE.entries.min(self.all.entries);
        let (paths, more) = journal.first_entries(most)?;
        self.all.entries = self.all.entries.saturating_sub(paths.len());
        let allowed = OF_ONE.bytes.min(self.all.bytes);
        let (mut left, mut unread) = (allowed, 0_usize);
        for path in paths {
            match journal.read_up_to(&path, &mut left) {
                Ok(entry) if has_short_texts(&entry) => visit(journal, path, Ok(entry)),
                Err(error) if !is_too_large(&error) => {
                    if journal.has(&path) {
                        visit(journal, path, Err(error));
                    }
                }
                Ok(_) | Err(_) => unread = unread.saturating_add(1),
            }
        }
        self.all.bytes = self.all.bytes.saturating_sub(allowed.saturating_sub(left));
        Ok((more || unread > 0).then(|| {
            format!(
                "not all entries of user {} in {} were read: {} files and {} MiB of them are, and names of \
                 {MAX_TEXT} bytes",
                journal.owner(),
                quoted(journal.path()),
                OF_ONE.entries,
                OF_ONE.bytes >> 20
            )
        }))
    }
}

fn is_too_large(error: &JournalError) -> bool {
    matches!(error, JournalError::Read { source, .. } if source.raw_os_error() == Some(libc::EFBIG))
}

fn has_short_texts(entry: &JournalEntry) -> bool {
    [&entry.name, &entry.context, &entry.boot]
        .iter()
        .all(|text| text.len() <= MAX_TEXT)
}

/// An entry of somebody's journal.
pub struct FoundEntry<'a> {
    /// The journal that it is in, whose owner's word it is.
    pub journal: &'a Journal,
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub entry: JournalEntry,
}

/// Calls `visit` with every entry that this user may see: his own first, and for root those of all users. What
/// users write is theirs to say: it counts for their own guests and files. What cannot be read is passed over.
///
/// # Errors
/// Those of listing the user's own journals.
pub fn each_entry(visit: &mut dyn FnMut(FoundEntry<'_>)) -> io::Result<()> {
    let mut reader = Reader::default();
    let mut journals = own()?;
    if Uid::effective().is_root() {
        journals.extend(of_users()?);
    }
    for journal in &journals {
        let done = reader.read(journal, &|_| false, &mut |journal, path, entry| {
            if let Ok(entry) = entry {
                visit(FoundEntry {
                    journal,
                    path,
                    entry,
                });
            }
        });
        if !journal.is_anothers() {
            done?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "journals_tests.rs"]
mod tests;
