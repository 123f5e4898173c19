//! What a process has open and mapped, with the labels: `/proc/PID/fd`, `/proc/PID/maps`.
//!
//! Sockets and anonymous inodes are passed over: a socket is labelled as the process that made it,
//! and the kernel asks at every use; what stands behind neither is on disk.

use crate::host::RealHost;
use crate::host::mangle::{NEWLINE, unmangled};
use crate::host::pinned;
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

/// An object that a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Who holds it.
    pub pid: Pid,
    /// Its name as the kernel has it.
    pub path: PathBuf,
    /// Descriptor; none for what is mapped only.
    pub fd: Option<i32>,
    /// Whether what is written to it reaches the file.
    pub writes: bool,
    /// SELinux class.
    pub class: &'static str,
    /// Its label; none on a file system without labels.
    pub label: Option<Context>,
}

/// What could not be looked at, and why.
pub type Unread = (PathBuf, io::Error);

fn ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Everything that a process has open and mapped.
///
/// # Errors
/// Where the process cannot be looked into: it is another user's.
pub fn of(host: &RealHost, pid: Pid) -> io::Result<(Vec<OpenFile>, Vec<Unread>)> {
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    match descriptors(host, pid, &mut files, &mut unread)
        .and_then(|()| mapped(host, pid, &mut files, &mut unread))
    {
        Err(error) if !ended(&error) => Err(error),
        _ => Ok((files, unread)),
    }
}

/// Whether a name in `/proc/PID/fd` stands for something with a label that says anything.
fn is_labelled(target: &Path) -> bool {
    let name = target.as_os_str().as_bytes();
    name.starts_with(b"/") || name.starts_with(b"pipe:")
}

/// Whether descriptor flags, of `/proc/PID/fdinfo/N`, allow writing; proc(5).
fn writes(info: &str) -> bool {
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok())
        .unwrap_or(libc::O_RDWR);
    flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

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

fn descriptors(
    host: &RealHost,
    pid: Pid,
    files: &mut Vec<OpenFile>,
    unread: &mut Vec<Unread>,
) -> io::Result<()> {
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
            Err(error) if ended(&error) => continue,
            Err(error) => return Err(error),
        };
        let look = || -> io::Result<OpenFile> {
            Ok(OpenFile {
                pid,
                path: path.clone(),
                fd: Some(number),
                writes: writes(&host.procfs().read(&format!("{pid}/fdinfo/{number}"))?),
                class: class_of(&fs::metadata(&link)?),
                label: selinux::label_of_path_if_any(&link)?,
            })
        };
        match look() {
            Ok(file) => files.push(file),
            Err(error) if ended(&error) => {}
            Err(error) => unread.push((path, error)),
        }
    }
    Ok(())
}

/// A file in `/proc/PID/maps`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mapping {
    path: PathBuf,
    inode: u64,
    writes: bool,
}

/// Reads a line of `/proc/PID/maps`; none for memory without a file, or with a deleted one, which
/// only its descriptor leads to. Newlines in names are `\012`; proc(5).
fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let from = rest.get(start..)?;
        let end = from.iter().position(|byte| *byte == b' ')?;
        rest = from.get(end..)?;
        std::str::from_utf8(from.get(..end)?).ok()
    };
    let (_, permissions, _, _, inode) = (field()?, field()?, field()?, field()?, field()?);
    let start = rest.iter().position(|byte| *byte != b' ')?;
    let name = rest.get(start..)?;
    if !name.starts_with(b"/") || name.ends_with(b" (deleted)") {
        return None;
    }
    Some(Mapping {
        path: unmangled(name, NEWLINE).into(),
        inode: inode.parse().ok().filter(|inode| *inode != 0)?,
        writes: permissions.contains('w') && permissions.contains('s'),
    })
}

fn mapped(
    host: &RealHost,
    pid: Pid,
    files: &mut Vec<OpenFile>,
    unread: &mut Vec<Unread>,
) -> io::Result<()> {
    let maps = host.procfs().read_bytes(&format!("{pid}/maps"))?;
    let all: BTreeSet<Mapping> = maps
        .split(|byte| *byte == b'\n')
        .filter_map(mapping)
        .collect();
    for mapping in all {
        // In the process's own mount namespace: libvirt gives its guests one each.
        let mut inside = OsString::from(format!("/proc/{pid}/root"));
        inside.push(mapping.path.as_os_str());
        let look = || -> io::Result<Option<OpenFile>> {
            let pinned = pinned::pin(Path::new(&inside))?;
            // Replaced since, as by an upgrade: what is mapped has no name any more.
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
        match look() {
            Ok(file) => files.extend(file),
            Err(error) if ended(&error) => {}
            Err(error) => unread.push((mapping.path, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let read = |line: &str| mapping(line.as_bytes());
        let one = read("7f00-7f10 rw-s 00001000 fd:00 4711                       /srv/a b.img");
        assert_eq!(
            one,
            Some(Mapping {
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
            assert_eq!(writes(flags), expected, "{flags}");
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
