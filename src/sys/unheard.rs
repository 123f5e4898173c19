//! What is said where the kernel took standard error away.
//!
//! At execve(2) it puts a null device in the place of each descriptor that the new domain may not use
//! (`flush_unauthorized_files`, security/selinux/hooks.c). A refusal that is written there reaches nobody.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::sys::stat::{SFlag, fstat};

/// The file system of the null device that the kernel puts in the place of a descriptor.
const SELINUXFS: &str = "/sys/fs/selinux";

/// The name that lines in the system's log have.
const NAME: &std::ffi::CStr = c"svirt-exec";

/// Tells whether the kernel took this descriptor away when this program was started.
pub fn was_taken_away(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = fstat(fd) else { return false };
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    kind == SFlag::S_IFCHR
        && std::fs::metadata(SELINUXFS).is_ok_and(|selinuxfs| selinuxfs.dev() == stat.st_dev)
}

/// Says lines to the controlling terminal, if there is one, and to the system's log; syslog(3).
pub(in crate::sys) fn say(text: &[u8]) {
    let terminal = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
        .open("/dev/tty");
    if let Ok(mut terminal) = terminal {
        let _ = terminal.write_all(text);
    }
    // SAFETY: the name lives as long as the program.
    unsafe { libc::openlog(NAME.as_ptr(), libc::LOG_PID, libc::LOG_USER) };
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_prefix(b"svirt-exec: ").unwrap_or(line);
        if let Ok(line) = CString::new(line)
            && !line.is_empty()
        {
            // SAFETY: both strings end with a zero, and the format takes one string.
            unsafe { libc::syslog(libc::LOG_ERR, c"%s".as_ptr(), line.as_ptr()) };
        }
    }
    // SAFETY: no pointers. QEMU does not inherit the log's socket.
    unsafe { libc::closelog() };
}
