//! The command lines of QEMUs that run, from `/proc/PID/cmdline`.
//!
//! What such a line says is the process's own to change: it is good for messages only.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::host::procfs::Procfs;
use crate::model::resource::Target;
use crate::qemu;

/// Bytes of a guest's name that are read of its command line, and of its program's: as of a file's name.
const LONGEST_NAME: usize = 255;

/// The command line of a QEMU that runs.
#[derive(Debug)]
pub struct RunningCommandLine(qemu::Invocation);

impl RunningCommandLine {
    /// Reads a command line. None if it has no words.
    pub fn parse(words: &[OsString]) -> Option<Self> {
        let (program, args) = words.split_first()?;
        let environment = qemu::Environment::default();
        let line = qemu::parse(program, args, &BTreeMap::new(), &environment);
        Some(Self(line))
    }

    /// Returns what `-name` says, [`LONGEST_NAME`] at most.
    pub fn name(&self) -> Option<String> {
        let name = self.0.name.as_ref()?.as_bytes();
        let name = name.get(..LONGEST_NAME).unwrap_or(name);
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// Returns what it names by an absolute path.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.0.requests.iter().filter_map(|request| {
            let Target::Path(path) = &request.target else {
                return None;
            };
            Path::new(path).is_absolute().then(|| path.into())
        })
    }
}

/// Words that are read of a command line: a guest with some thousand disks has fewer.
const MOST_WORDS: usize = 16_384;

/// Splits the bytes of `/proc/PID/cmdline`.
fn split(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes
        .split(|byte| *byte == 0)
        .take(MOST_WORDS)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// Returns the words of a process's command line; none if they cannot be read.
pub fn words(procfs: &Procfs, pid: Pid) -> Vec<OsString> {
    let bytes = procfs.read_bytes(&format!("{pid}/cmdline"));
    bytes.map(|bytes| split(&bytes)).unwrap_or_default()
}

/// Returns the file name of a process's program, as its command line has it.
pub fn program(words: &[OsString]) -> &OsStr {
    let name = words.first().and_then(|word| Path::new(word).file_name());
    let name = name.map_or(&b"?"[..], OsStr::as_bytes);
    OsStr::from_bytes(name.get(..LONGEST_NAME).unwrap_or(name))
}

/// Returns the command line of a process. None if it may not be read, or the program is not called as
/// QEMU's are.
pub fn of_qemu(procfs: &Procfs, pid: Pid) -> Option<RunningCommandLine> {
    let words = words(procfs, pid);
    program(&words)
        .as_bytes()
        .starts_with(b"qemu")
        .then(|| RunningCommandLine::parse(&words))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_command_lines_as_qemu_reads_them() {
        for (line, name) in [
            (&b"qemu-system-x86_64\0-name\0web\0"[..], Some("web")),
            (b"qemu\0-name\0guest=a,,b,debug-threads=on\0", Some("a,b")),
            (b"qemu\0-S\0", None),
            (b"", None),
        ] {
            let read = RunningCommandLine::parse(&split(line));
            assert_eq!(read.and_then(|line| line.name()).as_deref(), name);
        }
    }

    #[test]
    fn a_command_line_of_nothing_but_ends_of_words_has_a_bounded_number_of_them() {
        assert_eq!(split(&[0; 1 << 18]).len(), MOST_WORDS);
    }
}
