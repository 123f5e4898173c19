//! Files of text that are part of a command line: `-readconfig`, `--config`.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::host::Files;
use crate::host::pinned::Kind;

/// Reads a file of text, up to `most` bytes. What is no regular file (a pipe of the shell's) is the
/// caller's, open already, and not for the domain that opens images.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read_text(files: &dyn Files, path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let pinned = files.pin(path)?;
    let file = if pinned.kind == Kind::File {
        files.open(&pinned)?
    } else {
        fs::File::open(path)?
    };
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}
