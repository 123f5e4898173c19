//! Small files that the kernel makes up, and its ring buffer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::errno::check;

/// Reads a small file that the kernel makes up, such as a label or a number below /proc and selinuxfs:
/// the kernel gives it whole to a read(2) with room for it.
///
/// # Errors
/// Those of openat(2) and read(2).
pub fn read_at_once(directory: BorrowedFd<'_>, name: &str) -> io::Result<Vec<u8>> {
    use nix::fcntl::{OFlag, openat};
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, nix::sys::stat::Mode::empty())?;
    rest_at_once(file.as_fd())
}

/// Reads the rest of a file that is open, as [`read_at_once`] does.
///
/// # Errors
/// Those of read(2).
pub fn rest_at_once(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut page = [0; 4096];
    let mut bytes = Vec::new();
    loop {
        let count = nix::unistd::read(file, &mut page)?;
        bytes.extend_from_slice(page.get(..count).unwrap_or_default());
        if count < page.len() {
            return Ok(bytes);
        }
    }
}

/// Returns the kernel's ring buffer, oldest first; klogctl(3).
///
/// # Errors
/// EPERM without CAP_SYSLOG if kernel.dmesg_restrict is set.
pub fn kernel_log() -> io::Result<Vec<u8>> {
    /// SYSLOG_ACTION_READ_ALL and SYSLOG_ACTION_SIZE_BUFFER of syslog(2).
    const READ_ALL: libc::c_int = 3;
    const SIZE: libc::c_int = 10;
    // SAFETY: this action takes no buffer.
    let size = check(libc::c_long::from(unsafe {
        libc::klogctl(SIZE, std::ptr::null_mut(), 0)
    }))?;
    let size = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX);
    let mut text = vec![0_u8; usize::try_from(size).unwrap_or_default()];
    // SAFETY: the kernel writes at most `size` bytes to the buffer, which is that large.
    let count = check(libc::c_long::from(unsafe {
        libc::klogctl(READ_ALL, text.as_mut_ptr().cast(), size)
    }))?;
    text.truncate(usize::try_from(count).unwrap_or_default());
    Ok(text)
}
