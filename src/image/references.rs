//! What a header names.

use serde::{Deserialize, Serialize};

/// The name of a backing file in a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingName {
    /// The file name: it may be relative to the image, have a protocol prefix or be `json:`.
    pub name: Vec<u8>,
    /// Its format; None if the header does not state it, so that QEMU would probe.
    pub format: Option<Vec<u8>>,
}

/// The files that a header makes QEMU open besides the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    /// The backing file or parent.
    pub backing: Option<BackingName>,
    /// The external data file of a qcow2 image: a plain path, relative to QEMU's working directory.
    pub data_file: Option<Vec<u8>>,
    /// The extents of a VMDK descriptor as written, each name once, relative to the descriptor's
    /// directory.
    pub extents: Vec<Vec<u8>>,
}

impl References {
    /// Returns a backing file and nothing else.
    pub(super) fn backing(name: Option<Vec<u8>>, format: Option<Vec<u8>>) -> Self {
        Self {
            backing: name.map(|name| BackingName { name, format }),
            ..Self::default()
        }
    }
}
