//! Errors of the system in words, with what can be done about them.

use std::io;

/// Explains an OS error, with what can be done about it.
pub fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => {
            "permission denied; a directory on the way may not be searched by this user, or by \
             svirt_launcher_t (ausearch -m avc -ts recent)"
                .to_owned()
        }
        Some(libc::EMFILE) => {
            "too many files for one process; raise the hard limit (ulimit -Hn, LimitNOFILE=), one \
             for each disk and 100 more"
                .to_owned()
        }
        Some(libc::ELOOP) => "too many symbolic links".to_owned(),
        _ => error.to_string(),
    }
}

/// Tells whether there is no such file, or no directory on the way to it.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
