//! Directories that are known by who owns them, not by their names: opened once, looked at through the
//! descriptor, and used through it from then on.
//!
//! Every user may make names in the directory that users have theirs in (mode 1777), other users' numbers
//! included, and exchange a directory of his own for a link at any moment (renameat2(2)). So a name says
//! nothing: what counts is the owner of what was opened, and no path is walked a second time.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use crate::host::random;
use crate::text::escape::quoted;
use crate::text::hex;

/// Directories of one user below a directory of all users: his number's, and one with a name that nobody
/// could foresee; two more if two launches make one at the same time.
pub const MAX_OF_USER: usize = 4;

/// Bytes of the unforeseeable part of a name.
const RANDOM: usize = 8;

/// A directory that was opened, and whose it is.
#[derive(Debug)]
pub struct OwnedDirectory {
    fd: OwnedFd,
    path: PathBuf,
    owner: u32,
    mode: u32,
}

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// Tells whether what a look found is a directory.
fn is_directory(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

impl OwnedDirectory {
    /// Opens a directory by its path, whose last part may be no link.
    ///
    /// # Errors
    /// Those of open(2) and fstat(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::look(open(path, flags(), Mode::empty())?, path.to_path_buf())
    }

    fn look(fd: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let found = fstat(&fd)?;
        Ok(Self {
            fd,
            path,
            owner: found.st_uid,
            mode: found.st_mode,
        })
    }

    /// Opens one that all users share: root's, in which nobody can take another one's name away.
    ///
    /// # Errors
    /// Those of [`OwnedDirectory::open`], and that it is not so.
    pub fn open_shared(path: &Path) -> io::Result<Self> {
        let directory = Self::open(path)?;
        let others = Mode::S_IWGRP.bits() | Mode::S_IWOTH.bits();
        let is_safe = directory.mode & others == 0 || directory.mode & Mode::S_ISVTX.bits() != 0;
        if directory.owner == 0 && is_safe {
            return Ok(directory);
        }
        Err(io::Error::other(format!(
            "{} is not root's, or others may rename in it; systemd-tmpfiles --create",
            quoted(path)
        )))
    }

    /// Opens a directory in it, which may be no link.
    ///
    /// # Errors
    /// Those of openat(2) and fstat(2).
    pub fn child(&self, name: &OsStr) -> io::Result<Self> {
        Self::look(
            openat(&self.fd, name, flags(), Mode::empty())?,
            self.path.join(name),
        )
    }

    /// Returns the path by which it was opened: for messages and addresses, not to be opened again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its owner, as it was when it was opened.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Returns a second descriptor of it, with a position of its own: readdir(3), fsync(2), flock(2).
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn reopen(&self) -> io::Result<File> {
        Ok(openat(&self.fd, ".", flags(), Mode::empty())?.into())
    }

    /// Opens a file in it for reading, whatever has been put in its place: no link is followed, and nothing waited
    /// for (FIFOs, leases of fcntl(2)).
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// Puts a text in the place of a file, whole or not at all; it is called `new` until it is written. The name is
    /// on disk after [`OwnedDirectory::sync`].
    ///
    /// # Errors
    /// Those of openat(2), write(2), fsync(2) and renameat(2).
    pub fn put(&self, name: &OsStr, new: &OsStr, text: &[u8]) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let result = (|| {
            let file = openat(&self.fd, new, flags | OFlag::O_CLOEXEC, mode)?;
            let mut file = File::from(file);
            file.write_all(text)?;
            file.sync_all()?;
            Ok(renameat(&self.fd, new, &self.fd, name)?)
        })();
        if result.is_err() {
            let _ = self.remove(new);
        }
        result
    }

    /// Writes its names to disk; fsync(2).
    ///
    /// # Errors
    /// Those of openat(2) and fsync(2).
    pub fn sync(&self) -> io::Result<()> {
        self.reopen()?.sync_all()
    }

    /// Calls `visit` with each name in it, until that returns false; never with `.` and `..`.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn each_name(&self, visit: &mut dyn FnMut(&OsStr) -> bool) -> io::Result<()> {
        let mut directory = Dir::from_fd(self.reopen()?.into())?;
        for entry in directory.iter() {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if ![&b"."[..], b".."].contains(&name.to_bytes())
                && !visit(OsStr::from_bytes(name.to_bytes()))
            {
                break;
            }
        }
        Ok(())
    }

    /// Looks at what it has under a name, following no link.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn look_at(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Opens the directories in it that belong to a user and have his number, or it and an unforeseeable
    /// part, for a name: [`MAX_OF_USER`] at most, in the order of their names.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub fn of_user(&self, uid: Uid) -> io::Result<Vec<Self>> {
        let mut names: Vec<OsString> = Vec::new();
        self.each_name(&mut |name| {
            let his = names_user(name) == Some(uid.as_raw())
                && self
                    .look_at(name)
                    .is_ok_and(|found| found.st_uid == uid.as_raw() && is_directory(&found));
            if his {
                names.push(name.to_owned());
                names.sort();
                names.truncate(MAX_OF_USER);
            }
            true
        })?;
        let opened = names.iter().filter_map(|name| self.child(name).ok());
        Ok(opened
            .filter(|directory| directory.owner == uid.as_raw())
            .collect())
    }

    /// Makes a directory of this user's in it, by his number, or by a name that nobody could foresee if
    /// somebody else has taken that one.
    ///
    /// # Errors
    /// Those of mkdirat(2), and of reading random bytes.
    pub fn make_for(&self, uid: Uid, mode: Mode) -> io::Result<Self> {
        let plain = OsString::from(uid.to_string());
        for name in [plain, unforeseeable(uid)?.into()] {
            match mkdirat(&self.fd, name.as_os_str(), mode) {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            if let Ok(made) = self.child(&name)
                && made.owner == uid.as_raw()
            {
                return Ok(made);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to another user; root can remove it",
        ))
    }

    /// Takes a name away that is no directory's.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }
}

impl AsFd for OwnedDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the user whose number a name begins with: `UID`, or `UID.` and an unforeseeable part.
pub fn names_user(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let (number, rest) = name.split_once('.').unwrap_or((name, ""));
    let is_known = rest.is_empty() != name.contains('.')
        && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
        && [0, RANDOM.saturating_mul(2)].contains(&rest.len());
    // As the number is printed: no sign, no zeros before it.
    let uid: u32 = number.parse().ok().filter(|_| is_known)?;
    (uid.to_string() == number).then_some(uid)
}

/// Returns a name of a user's directory that nobody could make before.
///
/// # Errors
/// Those of reading random bytes.
pub fn unforeseeable(uid: Uid) -> io::Result<String> {
    Ok(format!("{uid}.{}", random_part()?))
}

/// Returns a part of a name that nobody can foresee, in hexadecimal.
///
/// # Errors
/// Those of reading random bytes.
pub fn random_part() -> io::Result<String> {
    let mut bytes = [0_u8; RANDOM];
    random::fill(&mut bytes)?;
    Ok(hex::encode(&bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_of_users_directories() {
        let named = |name: &str| names_user(name.as_ref());
        assert_eq!(named("1000"), Some(1000));
        assert_eq!(named("0"), Some(0));
        assert_eq!(named("1000.0123456789abcdef"), Some(1000));
        let made = unforeseeable(Uid::from_raw(7)).unwrap();
        assert_eq!(named(&made), Some(7));
        for other in [
            "",
            ".",
            "1000.",
            "1000.0",
            "+1",
            "01",
            "x",
            "-1",
            "1000.0123456789abcdeg",
            "4294967296",
            "1.0123456789abcdef.",
            "1000.0123456789abcdef0",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn a_directory_is_its_owners_by_what_was_opened_and_no_link_is_followed() {
        let top = tempfile::tempdir().unwrap();
        let own = Uid::effective();
        let users = OwnedDirectory::open(top.path()).unwrap();
        assert!(users.of_user(own).unwrap().is_empty());
        // Somebody has made something of another kind under the name already.
        symlink("/tmp", top.path().join(own.to_string())).unwrap();
        let made = users.make_for(own, Mode::S_IRWXU).unwrap();
        assert_ne!(made.path(), top.path().join(own.to_string()));
        let found = users.of_user(own).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path(), made.path());
        assert!(users.of_user(Uid::from_raw(54_321)).unwrap().is_empty());
        // The name leads elsewhere by now: what was opened is used.
        fs::rename(made.path(), top.path().join("moved")).unwrap();
        symlink("/", made.path()).unwrap();
        assert!(users.child(made.path().file_name().unwrap()).is_err());
        assert!(made.look_at("etc".as_ref()).is_err());
    }

    #[test]
    fn a_shared_directory_is_roots() {
        let top = tempfile::tempdir().unwrap();
        if !Uid::effective().is_root() {
            assert!(OwnedDirectory::open_shared(top.path()).is_err());
        }
        assert!(OwnedDirectory::open_shared(Path::new("/usr")).is_ok());
        assert!(OwnedDirectory::open_shared(Path::new("/tmp")).is_ok());
    }
}
