//! Files that are opened once, and are what they were checked to be from then on.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::fcntl::{OFlag, open, openat, readlink};
use nix::sys::stat::{Mode as FileMode, fstat};
use serde::{Deserialize, Serialize};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A directory.
    Dir,
    /// A socket.
    Socket,
    /// A named pipe.
    Fifo,
    /// Nothing yet.
    Missing,
}

impl Kind {
    /// Returns the SELinux class of such an object.
    pub fn class(self) -> &'static str {
        match self {
            Self::File | Self::Missing => "file",
            Self::Block => "blk_file",
            Self::Char => "chr_file",
            Self::Dir => "dir",
            Self::Socket => "sock_file",
            Self::Fifo => "fifo_file",
        }
    }
}

/// Which file it is, for as long as the host runs; with the birth time also after its inode number was given
/// to another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Device of the file system (`st_dev`); the same only within one boot.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth time in nanoseconds since 1970, if the file system keeps one.
    pub born: Option<u64>,
}

/// S_ISUID and S_ISGID of a file's mode; inode(7).
pub const SET_ID: u32 = 0o6000;

/// A file that was opened once, O_PATH, and is what it was checked to be from then on, whatever its path
/// comes to mean.
#[derive(Debug)]
pub struct Pinned {
    fd: OwnedFd,
    /// The path it was opened by.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Which it is.
    pub identity: Identity,
    /// Number of hard links.
    pub links: u64,
    /// Owner.
    pub uid: u32,
    /// Which of [`SET_ID`] it had.
    pub set_id: u32,
    /// Which device a node is (`st_rdev`).
    pub device: u64,
    real_path: OnceCell<PathBuf>,
}

impl Pinned {
    /// Returns the name by which system calls that take a path reach the pinned file.
    pub fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Returns the number of its file system (`f_fsid`, statfs(2)). None if that has none.
    pub fn file_system(&self) -> Option<u64> {
        let id = nix::sys::statvfs::fstatvfs(&self.fd).ok()?.filesystem_id();
        (id != 0).then_some(id)
    }

    /// Returns the mount that it was opened through, as mountinfo numbers them.
    pub fn mount_id(&self) -> Option<u64> {
        crate::sys::mount_id(self.fd.as_fd()).ok()
    }

    /// Returns its path without symbolic links, as the kernel knew it when it was asked first.
    pub fn real_path(&self) -> PathBuf {
        let ask = || readlink(&self.proc_path()).map_or_else(|_| self.path.clone(), PathBuf::from);
        self.real_path.get_or_init(ask).clone()
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn kind_of(metadata: &std::fs::Metadata) -> Kind {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Kind::Dir
    } else if kind.is_block_device() {
        Kind::Block
    } else if kind.is_char_device() {
        Kind::Char
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::File
    }
}

/// Opens a path once, O_PATH, and looks at what it opened.
///
/// # Errors
/// Those of open(2) and fstat(2).
pub fn pin(path: &Path) -> io::Result<Pinned> {
    let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, FileMode::empty())?;
    Ok(look_at(fd, path)?.0)
}

/// Opens what a directory has under a name. Returns also whether it is a symbolic link, which is not
/// followed.
///
/// # Errors
/// Those of openat(2) and fstat(2).
pub fn pin_below(directory: &Pinned, name: &OsStr) -> io::Result<(Pinned, bool)> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(&directory.fd, name, flags, FileMode::empty())?;
    look_at(fd, &directory.path.join(name))
}

/// Opens a file that this process has just made in a pinned directory. Whoever else may write to
/// the directory may have put another file in its place, or a link: that is an error.
///
/// # Errors
/// That it is not there, or is anything but an empty file of this user's with this one name.
pub fn pin_made(directory: &Pinned, name: &OsStr) -> io::Result<Pinned> {
    let (pinned, is_link) = pin_below(directory, name)?;
    let as_made = pinned.kind == Kind::File
        && !is_link
        && pinned.links == 1
        && fstat(&pinned.fd)?.st_size == 0
        && pinned.uid == nix::unistd::Uid::effective().as_raw();
    if !as_made {
        return Err(io::Error::other(
            "another file was put in its place, by somebody who may write to its directory",
        ));
    }
    Ok(pinned)
}

fn look_at(fd: OwnedFd, path: &Path) -> io::Result<(Pinned, bool)> {
    let file = File::from(fd);
    let metadata = file.metadata()?;
    let born = metadata
        .created()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|time| u64::try_from(time.as_nanos()).ok());
    let pinned = Pinned {
        path: path.to_path_buf(),
        kind: kind_of(&metadata),
        identity: Identity {
            dev: metadata.dev(),
            ino: metadata.ino(),
            born,
        },
        links: metadata.nlink(),
        uid: metadata.uid(),
        set_id: metadata.mode() & SET_ID,
        device: metadata.rdev(),
        real_path: OnceCell::new(),
        fd: file.into(),
    };
    Ok((pinned, metadata.is_symlink()))
}

/// Returns the first names in a directory, so many at most.
///
/// # Errors
/// Those of readdir(3).
pub fn names(directory: &Pinned, most: usize) -> io::Result<Vec<OsString>> {
    std::fs::read_dir(directory.proc_path())?
        .take(most)
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

/// Opens for reading what an O_PATH descriptor stands for.
///
/// # Errors
/// Those of open(2).
pub fn open_to_read(pinned: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    Ok(open(Path::new(&path), flags, FileMode::empty())?.into())
}

/// Opens a block device as a mount would, for itself alone (open(2), O_EXCL on block devices). It is closed
/// again: QEMU opens it by its own rules.
///
/// # Errors
/// Those of open(2); EBUSY if somebody has it so.
pub fn open_alone(pinned: &Pinned) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_EXCL | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(open(&pinned.proc_path(), flags, FileMode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_put_in_the_place_of_one_that_was_just_made_is_not_taken_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("victim"), "").unwrap();
        fs::write(at("made"), "").unwrap();
        fs::write(at("full"), "x").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        fs::hard_link(at("victim"), at("second")).unwrap();
        let parent = pin(directory.path()).unwrap();
        let made = |name: &str| pin_made(&parent, name.as_ref());
        assert_eq!(made("made").unwrap().kind, Kind::File);
        for name in ["full", "link", "second", "victim"] {
            let error = made(name).unwrap_err().to_string();
            assert!(
                error.contains("another file was put in its place"),
                "{name}: {error}"
            );
        }
        assert!(made("absent").is_err());
    }
}
