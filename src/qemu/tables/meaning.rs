//! What the value of a key can be.
//!
//! Pure data.

/// What the value of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The name of a host resource: a path, a descriptor, a host device, a directory, a program.
    Resource,
    /// The id of something else on the line.
    Id,
    /// Something else.
    NoPath,
}
