//! Random bytes.

use std::fs::File;
use std::io::{self, Read};

/// Fills a buffer with bytes that nobody can foresee; random(4).
///
/// # Errors
/// Those of open(2) and read(2).
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(bytes)
}
