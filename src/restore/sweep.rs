//! The sweep of a directory that was handed over (`--label-tree`): what the guest made in it, and what
//! was moved there, gets the label of the directory that it is in.
//!
//! The guest made the tree as deep, as broad and as full as it liked, so the way through it takes a bounded
//! number of descriptors, a bounded memory and no recursion; and whoever may write there still may lead it
//! nowhere, since each step is taken from a directory that is open.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::dir::{Dir, OwningIter};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::host::pinned::{self, Kind, Pinned};
use crate::host::{Files, RealHost};
use crate::model::label::{Categories, Context};
use crate::restore::entry::Record;
use crate::restore::lookup::{Lookup, is_same};
use crate::restore::set_id;
use crate::text::escape::quoted;

/// Directories that are open at a time, from the one where the way began down: a launch hands over no deeper
/// ones (`plan::label_tree`). What is below the last of them waits until these are done.
const MAX_OPEN: usize = 128;

/// Directories that wait. A chain of any depth needs one at a time.
const MAX_WAITING: usize = 256;

/// Failures that are said one by one, and files that were setuid.
const MAX_FAILURES: usize = 100;

/// Names looked at in all trees of one user's guests that have ended, by root: a minute's work.
pub const MAX_NAMES_OF_USER: usize = 200_000;

/// Names looked at in a tree of this user's own: an hour's work.
pub const MAX_NAMES: usize = 10_000_000;

/// What carries a label that its own record puts back, whatever other name it has in a tree.
#[derive(Debug, Default)]
pub struct Settled {
    files: HashSet<(u64, u64)>,
    nodes: HashSet<(u64, u64)>,
}

impl Settled {
    /// Finds the files of records: those that are held, and nodes that are still where they were.
    pub fn of(found: &[(Record, Lookup)]) -> Self {
        let mut settled = Self::default();
        for (record, found) in found {
            match found {
                Lookup::Locked(lock) => {
                    if let Ok(file) = lock.file().metadata() {
                        settled.files.insert((file.dev(), file.ino()));
                    }
                }
                Lookup::Node => {
                    if let Ok(pinned) = pinned::pin(&record.path)
                        && is_same(&pinned, record)
                    {
                        let it = pinned.identity;
                        settled.nodes.insert((it.dev, it.ino));
                    }
                }
                Lookup::Absent | Lookup::Gone | Lookup::Unusable(_) => {}
            }
        }
        settled
    }
}

/// A directory that is open, the label that things in it get, and the names that are still to be read.
struct Level {
    directory: Pinned,
    label: Context,
    names: OwningIter,
}

/// A sweep on its way.
pub struct Sweep<'a> {
    /// This host.
    pub host: &'a RealHost,
    /// The guest's: only what carries just these is labelled.
    pub categories: &'a Categories,
    /// Whose files alone are labelled. None: everybody's.
    pub owner: Option<u32>,
    /// What has a record of its own.
    pub settled: &'a Settled,
    /// How many names are looked at still.
    pub left: &'a mut usize,
    /// Where is noted what the guest had made setuid, a line each.
    pub notes: &'a mut Vec<String>,
}

impl Sweep<'_> {
    /// Gives what carries the guest's categories below a directory the label of the directory that it is
    /// in. Returns what failed, a line each.
    pub fn run(mut self, root: Pinned) -> Vec<String> {
        let mut failures = Failures::default();
        let top = root.path.clone();
        let mut waiting = vec![root];
        while let Some(directory) = waiting.pop() {
            let mut open = Vec::new();
            open.extend(self.enter(directory, &mut failures));
            while let Some(level) = open.last_mut() {
                let Some(name) = level.names.next() else {
                    open.pop();
                    continue;
                };
                let below = match self.look(level, name, &mut failures) {
                    Look::Nothing => continue,
                    Look::Directory(below) => below,
                    Look::Enough => return failures.all(),
                };
                if open.len() < MAX_OPEN {
                    open.extend(self.enter(below, &mut failures));
                } else if waiting.len() < MAX_WAITING {
                    waiting.push(shortened(below, &top));
                } else {
                    let why = io::Error::other("the tree is too deep; restorecon -RF it");
                    failures.note(&below.path, &why);
                }
            }
        }
        failures.all()
    }

    /// Opens a directory whose content is to be labelled. None if it is another guest's by now, or has no
    /// label.
    fn enter(&self, directory: Pinned, failures: &mut Failures) -> Option<Level> {
        let open = || -> io::Result<Option<(Context, OwningIter)>> {
            let label = self.host.label_of(&directory)?;
            let Some(label) = label.filter(|label| label.categories().is_empty()) else {
                return Ok(None);
            };
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let names = Dir::openat(directory.as_fd(), ".", flags, Mode::empty())?;
            Ok(Some((label, names.into_iter())))
        };
        match open() {
            Ok(opened) => opened.map(|(label, names)| Level {
                directory,
                label,
                names,
            }),
            Err(error) => {
                failures.note(&directory.path, &error);
                None
            }
        }
    }

    /// Looks at one name of a directory, and labels what it is.
    fn look(
        &mut self,
        level: &Level,
        name: nix::Result<nix::dir::Entry>,
        failures: &mut Failures,
    ) -> Look {
        use std::os::unix::ffi::OsStrExt;
        let directory = &level.directory;
        let name = match name {
            Ok(name) => name,
            Err(error) => {
                failures.note(&directory.path, &error.into());
                return Look::Nothing;
            }
        };
        let inode = name.ino();
        let name = std::ffi::OsStr::from_bytes(name.file_name().to_bytes());
        if name == "." || name == ".." {
            return Look::Nothing;
        }
        if *self.left == 0 {
            let why = io::Error::other("there are too many files in the tree; restorecon -RF it");
            failures.note(&directory.path, &why);
            return Look::Enough;
        }
        *self.left = self.left.saturating_sub(1);
        let device = directory.identity.dev;
        if self.settled.files.contains(&(device, inode)) {
            return Look::Nothing;
        }
        let entry = match pinned::pin_below(directory, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Nothing,
            Err(error) => {
                failures.note(&directory.path.join(name), &error);
                return Look::Nothing;
            }
            Ok((entry, _)) if entry.identity.dev != device => return Look::Nothing,
            Ok((entry, _)) => entry,
        };
        if let Err(error) = self.put_back(&entry, &level.label) {
            failures.note(&entry.path, &error);
            return Look::Nothing;
        }
        let is_his = self.owner.is_none_or(|owner| owner == entry.uid);
        match entry.kind {
            Kind::Dir if is_his => Look::Directory(entry),
            _ => Look::Nothing,
        }
    }

    /// Gives `entry` the type and user of the directory it is in, if it carries just these categories.
    fn put_back(&mut self, entry: &Pinned, parent: &Context) -> io::Result<()> {
        let it = entry.identity;
        if [&self.settled.files, &self.settled.nodes]
            .iter()
            .any(|settled| settled.contains(&(it.dev, it.ino)))
        {
            return Ok(());
        }
        let categories = self.categories;
        let own = self
            .host
            .label_of(entry)?
            .filter(|label| !categories.is_empty() && label.categories() == *categories);
        let Some(label) = own else { return Ok(()) };
        if let Some(owner) = self.owner.filter(|owner| *owner != entry.uid) {
            return Err(io::Error::other(format!(
                "it belongs to user {}, and the entry to user {owner}",
                entry.uid
            )));
        }
        if entry.kind == Kind::File {
            let taken = set_id::take_off(&entry.proc_path(), 0)?;
            if self.notes.len() < MAX_FAILURES {
                self.notes.extend(set_id::note(&entry.path, taken));
            }
        }
        let mut new = label.with_type(&parent.type_).bare();
        new.user.clone_from(&parent.user);
        self.host.set_label(entry, &new)
    }
}

/// What a name came to.
enum Look {
    Nothing,
    Directory(Pinned),
    Enough,
}

/// Calls a directory far below by a name of bounded length: for messages only.
fn shortened(mut directory: Pinned, top: &Path) -> Pinned {
    let last = directory.path.file_name().unwrap_or_default();
    directory.path = top.join("…").join(last);
    directory
}

/// What failed, as far as it is said.
#[derive(Default)]
struct Failures {
    lines: Vec<String>,
    further: usize,
}

impl Failures {
    fn note(&mut self, path: &Path, error: &io::Error) {
        if self.lines.len() < MAX_FAILURES {
            self.lines.push(format!(
                "cannot put back the label of {}: {error}",
                quoted(path)
            ));
        } else {
            self.further = self.further.saturating_add(1);
        }
    }

    fn all(mut self) -> Vec<String> {
        if self.further > 0 {
            self.lines
                .push(format!("and so it is of {} further files", self.further));
        }
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::fs::chown;

    use nix::fcntl::{open, openat};
    use nix::sys::stat::mkdirat;

    use super::*;
    use crate::selinux;

    const BARE: &str = "u:object_r:user_home_t:s0";
    const GUESTS: &str = "u:object_r:svirt_image_t:s0:c1,c2";

    /// Labels a file. False where only a kernel with SELinux lets labels be set: not as root here.
    fn set(fd: impl AsFd, label: &str) -> bool {
        selinux::set_label_of_fd(fd.as_fd(), &label.parse().unwrap()).is_ok()
    }

    fn now(path: &Path) -> String {
        let label = selinux::label_of_path(path).unwrap();
        label.unwrap().to_string()
    }

    fn sweep(root: &Path, owner: Option<u32>, settled: &Settled, left: &mut usize) -> Vec<String> {
        let host = RealHost::new().unwrap();
        let guest: Context = GUESTS.parse().unwrap();
        let sweep = Sweep {
            host: &host,
            categories: &guest.categories(),
            owner,
            settled,
            left,
            notes: &mut Vec::new(),
        };
        sweep.run(pinned::pin(root).unwrap())
    }

    fn directory(path: &Path) -> OwnedFd {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        open(path, flags, Mode::empty()).unwrap()
    }

    #[test]
    fn a_chain_of_ten_thousand_directories_takes_a_bounded_number_of_descriptors() {
        let top = tempfile::tempdir().unwrap();
        let mut at = directory(top.path());
        if !set(&at, BARE) {
            return;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut fds = Vec::new();
        for depth in 0..10_000 {
            mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(at.as_fd(), "d", flags, Mode::empty()).unwrap();
            assert!(set(&at, GUESTS));
            if depth % 1000 == 999 {
                fds.push(at.try_clone().unwrap());
            }
        }
        let mut left = MAX_NAMES;
        let failures = sweep(top.path(), None, &Settled::default(), &mut left);
        assert_eq!(failures, Vec::<String>::new());
        for fd in fds {
            let label = selinux::label_of_fd(fd.as_fd()).unwrap().unwrap();
            assert_eq!(label.to_string(), BARE);
        }
        let status = std::process::Command::new("rm")
            .arg("-rf")
            .arg(top.path())
            .status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn files_of_others_and_what_has_a_record_of_its_own_keep_their_labels() {
        let top = tempfile::tempdir().unwrap();
        if !set(directory(top.path()), BARE) {
            return;
        }
        let at = |name: &str| top.path().join(name);
        for name in ["his", "others", "disk"] {
            fs::write(at(name), "").unwrap();
            assert!(set(fs::File::open(at(name)).unwrap(), GUESTS));
            chown(at(name), Some(if name == "others" { 7 } else { 8 }), None).unwrap();
        }
        fs::hard_link(at("disk"), at("second")).unwrap();
        let disk = pinned::pin(&at("disk")).unwrap().identity;
        let settled = Settled {
            files: [(disk.dev, disk.ino)].into(),
            nodes: HashSet::new(),
        };
        let mut left = MAX_NAMES;
        let failures = sweep(top.path(), Some(8), &settled, &mut left);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(
            failures[0].contains("others") && failures[0].contains("user 7"),
            "{failures:?}"
        );
        let labels = ["his", "others", "disk", "second"].map(|name| now(&at(name)));
        assert_eq!(labels, [BARE, GUESTS, GUESTS, GUESTS]);
        // Nobody makes root look for longer than is stated.
        let mut left = 2;
        let failures = sweep(top.path(), None, &Settled::default(), &mut left);
        assert!(failures[0].contains("too many files"), "{failures:?}");
        assert_eq!(left, 0);
    }
}
