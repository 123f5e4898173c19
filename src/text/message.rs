//! Why nothing was launched: what is said, and with which status.

use std::fmt;

use crate::text::escape;

/// Exit status when the launcher refused or failed, as of env(1) and timeout(1).
pub const REFUSED: u8 = 125;
/// QEMU is there and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// There is no such QEMU.
pub const NOT_FOUND: u8 = 127;

/// Why nothing was launched: one message a line, and the exit status.
#[derive(Debug)]
pub struct Refusal {
    /// Lines for standard error.
    pub messages: Vec<String>,
    /// Exit status.
    pub status: u8,
}

impl Refusal {
    /// Several reasons, with status 125.
    pub fn new(messages: Vec<String>) -> Self {
        Self {
            messages,
            status: REFUSED,
        }
    }
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::new(vec![error.to_string()])
    }
}

/// One reason, with status 125.
pub fn refuse(message: impl Into<String>) -> Refusal {
    Refusal::new(vec![message.into()])
}

/// Writes a line to standard error, with the program's name; a closed or full standard error stops
/// nothing.
pub fn say(message: impl fmt::Display) {
    let message = escape::one_line(&message.to_string());
    crate::sys::write_error(format!("svirt-exec: {message}\n").as_bytes());
}
