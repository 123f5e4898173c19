//! Launches that are refused: what is said, and that nothing is left of them.

use std::path::Path;
use std::process::Output;

use super::*;

/// Checks that svirt-exec refused with status 125 and a message that has all of these parts. Returns
/// the message.
pub fn refused(output: &Output, parts: &[&str]) -> String {
    ended_with(output, 125, parts)
}

/// Checks that svirt-exec itself ended with a status and said nothing but one line, which has all of
/// these parts. Returns the line.
pub fn refused_in_one_line(output: &Output, status: i32, parts: &[&str]) -> String {
    let said = ended_with(output, status, parts);
    assert_eq!(stdout(output), "", "stdout is QEMU's");
    assert!(
        said.lines().all(|line| line.starts_with("svirt-exec: ")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// Checks the status of a command, and that standard error has all of these parts. Returns what is on
/// standard error.
pub fn ended_with(output: &Output, status: i32, parts: &[&str]) -> String {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    for part in parts {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
    said
}

/// Checks that nothing is left of a launch that was refused: no entry in the journal, no label.
pub fn nothing_happened(image: &Path, before: &str) {
    assert_eq!(label(image), before);
    let left = entries_naming(image);
    assert!(left.is_empty(), "{left:?}");
}
