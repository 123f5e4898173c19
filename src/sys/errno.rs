//! The C convention for errors: -1, and errno.

use std::io;

pub(in crate::sys) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
