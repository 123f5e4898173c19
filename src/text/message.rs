//! What is said on standard error: a problem and its remedy, and the exit status that goes with it.

use std::fmt;

use crate::text::escape;

/// Exit status when the launcher refused or failed, as of env(1) and timeout(1).
pub const REFUSED: u8 = 125;
/// Exit status when QEMU is there and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit status when there is no such QEMU.
pub const NOT_FOUND: u8 = 127;

/// What is wrong, and what to do about it. Printed as `problem; remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What was attempted, on which file, and why it failed.
    pub problem: String,
    /// What to do. None if the problem says it, or nothing can be done.
    pub remedy: Option<String>,
}

impl Message {
    /// Makes a message that says what to do.
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            remedy: Some(remedy.into()),
        }
    }
}

impl From<String> for Message {
    fn from(problem: String) -> Self {
        Self {
            problem,
            remedy: None,
        }
    }
}

impl From<&str> for Message {
    fn from(problem: &str) -> Self {
        problem.to_owned().into()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Joins messages to one line.
pub fn joined(messages: &[Message]) -> String {
    let messages: Vec<String> = messages.iter().map(Message::to_string).collect();
    messages.join("; ")
}

/// Why nothing was launched: one message a line, and the exit status.
#[derive(Debug)]
pub struct Refusal {
    /// Lines for standard error.
    pub messages: Vec<Message>,
    /// Exit status.
    pub status: u8,
}

impl Refusal {
    /// Gives several reasons, with status 125.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            status: REFUSED,
        }
    }
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        refuse(error.to_string())
    }
}

/// Gives one reason, with status 125.
pub fn refuse(message: impl Into<Message>) -> Refusal {
    Refusal::new(vec![message.into()])
}

/// Writes a line to standard error, with the program's name. A standard error that is closed or full
/// stops nothing.
pub fn say(message: impl fmt::Display) {
    let message = escape::one_line(&message.to_string());
    crate::sys::write_error(format!("svirt-exec: {message}\n").as_bytes());
}
