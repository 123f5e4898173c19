//! QEMU's own locks on images, read and never set: a disk that another QEMU has open (libvirt's with
//! `<seclabel type='none'/>`, one that nobody confined, qemu-nbd) is not labelled under it.
//!
//! QEMU locks single bytes (`raw_apply_lock_bytes`, block/file-posix.c), with locks of the open file
//! description (F_OFD_SETLK, fcntl(2)): byte 100+N while it uses permission N, byte 200+N while it
//! does not share it with others. fcntl(2) with F_OFD_GETLK tells whether somebody does, and not which
//! process: that is looked for by what command lines name.

use crate::host::cmdline;
use crate::host::pinned::Pinned;
use crate::host::real::RealHost;
use crate::model::resource::Class;
use crate::selinux::names::OWN_DOMAIN;
use crate::text::escape::quoted;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of the permissions that are used, and of those that are not shared
/// (RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE).
const USED: (i64, i64) = (100, 8);

const NOT_SHARED: (i64, i64) = (200, 8);

/// All of these and the bytes between them: one question is enough if nobody has an image open.
const ANY: (i64, i64) = (100, 108);

/// Bytes of the permissions to write and to resize (BLK_PERM_WRITE to BLK_PERM_RESIZE,
/// block-common.h).
const WRITTEN: (i64, i64) = (101, 3);

/// Tells whether somebody else has locked one of these bytes.
fn locked(file: &File, (start, length): (i64, i64)) -> io::Result<bool> {
    let mut lock = libc::flock {
        // Any lock is in the way of this one; nothing is locked, so the file need not be writable.
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Tells whether another QEMU has an image open.
///
/// # Errors
/// Those of fcntl(2), for a file system without locks.
pub fn is_used(file: &File) -> io::Result<bool> {
    Ok(locked(file, ANY)? && (locked(file, USED)? || locked(file, NOT_SHARED)?))
}

/// Tells whether another QEMU has an image open in a way that does not go with this use of it.
fn is_in_the_way(file: &File, class: Class) -> io::Result<bool> {
    match class {
        Class::Keep => Ok(false),
        // Readers go on reading: content is every guest's to read.
        Class::Content => locked(file, WRITTEN),
        Class::Shared | Class::Exclusive => is_used(file),
    }
}

/// Finds a process whose command line names a file: the QEMU that has it open, most likely. Returns its
/// name, too.
pub fn user(host: &RealHost, file: &Pinned) -> Option<(Pid, Option<String>)> {
    let names = [file.path.clone(), file.real_path()];
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = cmdline::of_qemu(host.procfs(), Pid::from_raw(pid))?;
        // A launcher that names it has not opened it.
        let labels = host.procfs().labels_of(Pid::from_raw(pid));
        let current = labels.and_then(|labels| labels.current);
        if current.is_some_and(|context| context.type_ == OWN_DOMAIN) {
            return None;
        }
        let named = |path: PathBuf| {
            names.contains(&path) || fs::canonicalize(&path).is_ok_and(|real| names.contains(&real))
        };
        let mut paths = line.paths();
        paths.any(named).then(|| (Pid::from_raw(pid), line.name()))
    })
}

/// Says which QEMU has a file open that this guest is to use. None if none has, or if that cannot be told.
pub fn in_the_way(host: &RealHost, pinned: &Pinned, file: &File, class: Class) -> Option<String> {
    if !is_in_the_way(file, class).unwrap_or(false) {
        return None;
    }
    let path = pinned.real_path();
    Some(match user(host, pinned) {
        Some((pid, Some(name))) => format!(
            "guest {} (process {pid}) has it open; end that guest first",
            quoted(&name)
        ),
        Some((pid, None)) => format!("process {pid} has it open; end that first"),
        None => format!(
            "another QEMU has it open; end that first (fuser -v {} shows which)",
            quoted(Path::new(&path).as_os_str())
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Locks bytes as QEMU does.
    fn lock(file: &File, bytes: &[i64]) {
        for byte in bytes {
            let lock = libc::flock {
                l_type: i16::try_from(libc::F_RDLCK).unwrap(),
                l_whence: 0,
                l_start: *byte,
                l_len: 1,
                l_pid: 0,
            };
            fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        }
    }

    #[test]
    fn what_another_qemu_has_open() {
        for (bytes, used, written) in [
            (&[][..], false, false),
            // What a reader and a writer lock.
            (&[100, 203], true, false),
            (&[100, 101, 103, 201, 203], true, true),
            (&[201], true, false),
            // Somebody else's locks.
            (&[0, 99, 108, 199, 208], false, false),
        ] {
            let image = tempfile::NamedTempFile::new().unwrap();
            let theirs = File::open(image.path()).unwrap();
            lock(&theirs, bytes);
            let ours = File::open(image.path()).unwrap();
            assert_eq!(is_used(&ours).unwrap(), used, "{bytes:?}");
            for (class, in_the_way) in [
                (Class::Exclusive, used),
                (Class::Shared, used),
                (Class::Content, written),
                (Class::Keep, false),
            ] {
                assert_eq!(
                    is_in_the_way(&ours, class).unwrap(),
                    in_the_way,
                    "{bytes:?}"
                );
            }
            // One's own are no obstacle.
            assert!(!is_used(&theirs).unwrap(), "{bytes:?}");
        }
    }
}
