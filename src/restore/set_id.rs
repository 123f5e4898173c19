//! S_ISUID and S_ISGID of files that a guest could write to.
//!
//! A guest whose QEMU is root makes its disk setuid: chmod(2) asks for nothing but the owner. While the
//! disk has a guest's label nobody executes it (the constraint on `svirt_launcher_no_program` in
//! policy/svirt_launcher.cil). These bits go before that label does. File capabilities need CAP_SETFCAP,
//! which no guest has.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::host::pinned::SET_ID;
use crate::restore::entry::Record;
use crate::restore::error::PutBackError;
use crate::text::escape::quoted;

/// The bits of a mode; inode(7).
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;

/// Takes from a file the bits that it has now and had not `before`. `file` is a name below /proc/self/fd.
/// Returns those that were taken.
///
/// # Errors
/// Those of stat(2) and chmod(2).
pub fn take_off(file: &Path, before: u32) -> io::Result<u32> {
    let mode = fs::metadata(file)?.mode();
    let new = mode & SET_ID & !before;
    if new != 0 {
        fs::set_permissions(file, Permissions::from_mode(mode & 0o7777 & !new))?;
    }
    Ok(new)
}

/// Takes from a recorded file the bits that it had not when it was recorded. Returns what to say of it.
///
/// # Errors
/// Those of [`take_off`].
pub fn take_off_recorded(record: &Record, file: &File) -> Result<Option<String>, PutBackError> {
    let Some(before) = record.set_id else {
        return Ok(None);
    };
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let taken = take_off(Path::new(&name), before).map_err(PutBackError::SetId)?;
    Ok(note(&record.path, taken))
}

/// Says of a file that bits were taken, if any were.
pub fn note(path: &Path, taken: u32) -> Option<String> {
    let what = match taken {
        0 => return None,
        S_ISUID => "setuid",
        S_ISGID => "setgid",
        _ => "setuid and setgid",
    };
    let path = quoted(path);
    Some(format!(
        "the guest had made {path} {what}, which it is no more: it may have been taken over"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_were_there_before_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        fs::write(&path, "").unwrap();
        for (mode, before, taken, left) in [
            (0o644, 0, 0, 0o644),
            (0o4755, 0, 0o4000, 0o755),
            (0o6711, 0, 0o6000, 0o711),
            (0o6755, 0o4000, 0o2000, 0o4755),
            (0o4755, 0o4000, 0, 0o4755),
            (0o1755, 0o6000, 0, 0o1755),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(take_off(&path, before).unwrap(), taken, "{mode:o}");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, left);
        }
    }
}
