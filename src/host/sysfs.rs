//! /sys and /dev, as far as finding the node of a device needs them, and the kernel's tables.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where network interfaces are that exist.
pub const INTERFACES: &str = "/sys/class/net";

/// Bytes: an attribute in sysfs is a page at most (Documentation/filesystems/sysfs.rst in Linux).
pub(in crate::host) const MAX_ATTRIBUTE: u64 = 4096;

/// Bytes: /proc/self/mountinfo of 100,000 mounts, as many as a namespace may have
/// (fs.mount-max, Documentation/admin-guide/sysctl/fs.rst in Linux), is about that.
const MAX_TABLE: u64 = 32 << 20;

/// More entries than any directory of devices has: USB knows 64 buses of 127 devices
/// (drivers/usb/core/hcd.c in Linux).
const MAX_ENTRIES: usize = 1 << 16;

/// /sys and /dev, as far as finding a node needs them. Paths are absolute.
pub trait SystemFiles: fmt::Debug {
    /// Returns what a symbolic link says; links on the way to it are followed.
    ///
    /// # Errors
    /// Those of readlink(2).
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// Reads the first page of a small file.
    ///
    /// # Errors
    /// Those of open(2) and read(2).
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Reads the whole of one of the kernel's tables, which grow with the host.
    ///
    /// # Errors
    /// Those of open(2) and read(2), and a table of more than 32 MiB.
    fn read_table(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Returns the names in a directory, sorted.
    ///
    /// # Errors
    /// Those of readdir(3), and more than 65,536 entries.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Tells whether a path leads to something.
    ///
    /// # Errors
    /// Those of stat(2).
    fn exists(&self, path: &Path) -> io::Result<bool>;
}

/// The files below a directory, as if it were `/`.
#[derive(Debug)]
pub struct SysRoot {
    root: PathBuf,
}

impl SysRoot {
    /// Names this host's own files.
    pub fn host() -> Self {
        Self::root("/")
    }

    /// Names the files of a tree that is laid out like a host's.
    pub fn root(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl SystemFiles for SysRoot {
    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(self.path(path))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(self.path(path))?
            .take(MAX_ATTRIBUTE)
            .read_to_end(&mut text)?;
        Ok(text)
    }

    fn read_table(&self, path: &Path) -> io::Result<Vec<u8>> {
        // The kernel makes these up anew at each read: not by 32, 64, 128 … bytes.
        let mut text = Vec::with_capacity(16 << 10);
        File::open(self.path(path))?
            .take(MAX_TABLE)
            .read_to_end(&mut text)?;
        if text.len() as u64 >= MAX_TABLE {
            return Err(io::Error::other("too long"));
        }
        Ok(text)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(path))? {
            if names.len() >= MAX_ENTRIES {
                return Err(io::Error::other("too many entries"));
            }
            names.push(entry?.file_name());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.path(path).try_exists()
    }
}
