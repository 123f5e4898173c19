//! Reads what a process has open and mapped, with the labels: `/proc/PID/fd`, `/proc/PID/maps`.
//!
//! Sockets and anonymous inodes are left out: they are not on disk, and their label is that of the
//! process that made them.

use crate::host::mangle::{NEWLINE, unmangled};
use crate::host::mappings::{self, Mapping};
use crate::host::pinned;
use crate::host::{Procfs, RealHost};
use crate::model::label::Context;
use crate::selinux;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Objects that are looked at of a guest. A QEMU has some hundred libraries mapped, and its disks open; one that was
/// taken over can have half a million descriptors in each of its processes.
pub(crate) const MOST: usize = 2048;

/// The error of a process that has more.
fn too_many() -> io::Error {
    io::Error::other(format!("it has more than {MOST} files open or mapped"))
}

/// An object that a process has open or mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenFile {
    /// The process.
    pub(crate) pid: Pid,
    /// The object's name in /proc.
    pub(crate) path: PathBuf,
    /// The descriptor; None if the object is only mapped.
    pub(crate) fd: Option<i32>,
    /// Whether the process can write to the object through it.
    pub(crate) writes: bool,
    /// Its SELinux class.
    pub(crate) class: &'static str,
    /// Its label; None on a file system without labels.
    pub(crate) label: Option<Context>,
}

/// An object whose label cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The object's name in /proc.
    pub(crate) path: PathBuf,
    /// Why.
    pub(crate) error: io::Error,
}

/// What a process has open and mapped.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    /// The objects whose labels could be read.
    pub(crate) files: Vec<OpenFile>,
    /// The others.
    pub(crate) unreadable: Vec<Unreadable>,
}

impl OpenFiles {
    /// Adds an object, unless it or its process is gone.
    fn add(&mut self, path: PathBuf, read: io::Result<Option<OpenFile>>) {
        match read {
            Ok(file) => self.files.extend(file),
            Err(error) if Procfs::is_gone(&error) => {}
            Err(error) => self.unreadable.push(Unreadable { path, error }),
        }
    }
}

/// Reads everything that a process has open and mapped. A process that has ended has nothing.
///
/// # Errors
/// The process is another user's, and may not be looked into.
pub(crate) fn open_files_of(host: &RealHost, pid: Pid) -> io::Result<OpenFiles> {
    let mut found = OpenFiles::default();
    match descriptors(host, pid, &mut found).and_then(|()| mapped(host, pid, &mut found)) {
        Err(error) if !Procfs::is_gone(&error) => Err(error),
        _ => Ok(found),
    }
}

/// Tells whether a name in `/proc/PID/fd` is of a file or a pipe.
fn is_labelled(target: &Path) -> bool {
    let name = target.as_os_str().as_bytes();
    name.starts_with(b"/") || name.starts_with(b"pipe:")
}

/// Tells whether a descriptor can write, from its `/proc/PID/fdinfo/N`; proc(5).
fn writes(info: &[u8]) -> bool {
    // What follows may hold names of files (io_uring): bytes.
    let flags = info
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"flags:"))
        .and_then(|flags| std::str::from_utf8(flags).ok())
        .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok())
        .unwrap_or(libc::O_RDWR);
    flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// Returns the SELinux class of an object on disk.
fn class_of(metadata: &fs::Metadata) -> &'static str {
    let kind =
        nix::sys::stat::SFlag::from_bits_truncate(metadata.mode()) & nix::sys::stat::SFlag::S_IFMT;
    match kind {
        nix::sys::stat::SFlag::S_IFIFO => "fifo_file",
        nix::sys::stat::SFlag::S_IFCHR => "chr_file",
        nix::sys::stat::SFlag::S_IFBLK => "blk_file",
        nix::sys::stat::SFlag::S_IFDIR => "dir",
        _ => "file",
    }
}

/// Adds what a process has open.
fn descriptors(host: &RealHost, pid: Pid, found: &mut OpenFiles) -> io::Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let link = entry?.path();
        let Some(number) = link
            .file_name()
            .and_then(|name| name.to_str()?.parse::<i32>().ok())
        else {
            continue;
        };
        let path = match fs::read_link(&link) {
            Ok(path) if is_labelled(&path) => path,
            Ok(_) => continue,
            Err(error) if Procfs::is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let read = || -> io::Result<Option<OpenFile>> {
            Ok(Some(OpenFile {
                pid,
                path: path.clone(),
                fd: Some(number),
                writes: writes(
                    &host
                        .procfs()
                        .read_bytes(&format!("{pid}/fdinfo/{number}"))?,
                ),
                class: class_of(&fs::metadata(&link)?),
                label: selinux::label_of_path_if_any(&link)?,
            }))
        };
        let read = read();
        found.add(path, read);
        if found.files.len().saturating_add(found.unreadable.len()) > MOST {
            return Err(too_many());
        }
    }
    Ok(())
}

/// A file that is mapped.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MappedFile {
    path: PathBuf,
    inode: u64,
    writes: bool,
}

/// Returns the file of a mapping. None for memory without a file, or with a deleted one: only a descriptor leads
/// to that. Newlines in names are `\012`; proc(5).
fn mapped_file(mapping: &Mapping<'_>) -> Option<MappedFile> {
    if mapping.inode == 0
        || !mapping.name.starts_with(b"/")
        || mapping.name.ends_with(b" (deleted)")
    {
        return None;
    }
    Some(MappedFile {
        path: unmangled(mapping.name, NEWLINE).into(),
        inode: mapping.inode,
        writes: [b'w', b's']
            .iter()
            .all(|permission| mapping.permissions.contains(permission)),
    })
}

/// Adds what a process has mapped.
fn mapped(host: &RealHost, pid: Pid, found: &mut OpenFiles) -> io::Result<()> {
    let mut all = BTreeSet::new();
    mappings::each(host.procfs(), pid, &mut |mapping| {
        all.extend(mapped_file(mapping));
        all.len() <= MOST
    })?;
    if all.len() > MOST {
        return Err(too_many());
    }
    for mapping in all {
        // By the process's root: libvirt gives each guest a mount namespace.
        let mut inside = OsString::from(format!("/proc/{pid}/root"));
        inside.push(mapping.path.as_os_str());
        let read = || -> io::Result<Option<OpenFile>> {
            let pinned = pinned::pin(Path::new(&inside))?;
            // Replaced since, as by an upgrade: the mapped file has no name any more.
            if pinned.identity.ino != mapping.inode {
                return Ok(None);
            }
            Ok(Some(OpenFile {
                pid,
                path: mapping.path.clone(),
                fd: None,
                writes: mapping.writes,
                class: pinned.kind.class(),
                label: selinux::label_of_path_if_any(&pinned.proc_path())?,
            }))
        };
        let read = read();
        found.add(mapping.path, read);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let read = |line: &str| Mapping::parse(line.as_bytes()).and_then(|line| mapped_file(&line));
        let one = read("7f00-7f10 rw-s 00001000 fd:00 4711                       /srv/a b.img");
        assert_eq!(
            one,
            Some(MappedFile {
                path: "/srv/a b.img".into(),
                inode: 4711,
                writes: true
            })
        );
        let library = read("7f00-7f10 r-xp 00000000 fd:00 12 /usr/lib/x\\012y.so").unwrap();
        assert_eq!(library.path, Path::new("/usr/lib/x\ny.so"));
        assert!(!library.writes);
        for none in [
            "7f00-7f10 rw-p 00000000 00:00 0 ",
            "7f00-7f10 rw-p 00000000 00:00 0                  [heap]",
            "7f00-7f10 rw-s 00000000 00:01 9 /memfd:x (deleted)",
            "7f00-7f10 rw-s",
            "",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn flags_of_descriptors() {
        for (flags, expected) in [
            ("pos:\t0\nflags:\t0100002\n", true),
            ("flags:\t0100001", true),
            ("flags:\t0100000", false),
            // O_PATH: nothing passes through it.
            ("flags:\t012000002", false),
            // In doubt it writes.
            ("", true),
        ] {
            assert_eq!(writes(flags.as_bytes()), expected, "{flags}");
        }
    }

    #[test]
    fn sockets_and_anonymous_inodes_are_passed_over() {
        for (name, expected) in [
            ("/srv/a.img", true),
            ("pipe:[1]", true),
            ("socket:[1]", false),
            ("anon_inode:kvm-vm", false),
            ("anon_inode:[eventfd]", false),
        ] {
            assert_eq!(is_labelled(Path::new(name)), expected);
        }
    }
}
