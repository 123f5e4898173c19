//! What a header makes QEMU open besides the image.

use serde::{Deserialize, Serialize};

/// The name of a backing file as the header has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingName {
    /// A file-name string: it may be relative to the image, have a protocol prefix or be `json:`.
    pub name: Vec<u8>,
    /// The driver to open it with. `None`: the header does not say, QEMU would probe.
    pub format: Option<Vec<u8>>,
}

/// What an image's header makes QEMU open besides the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    /// The backing file or parent.
    pub backing: Option<BackingName>,
    /// The external data file of a qcow2 image, taken literally by QEMU and relative to its working directory.
    pub data_file: Option<Vec<u8>>,
    /// The extents of a vmdk descriptor as written, each name once, relative to the descriptor's directory.
    pub extents: Vec<Vec<u8>>,
}

impl References {
    /// A backing file, and nothing else.
    pub(super) fn backing(name: Option<Vec<u8>>, format: Option<Vec<u8>>) -> Self {
        Self {
            backing: name.map(|name| BackingName { name, format }),
            ..Self::default()
        }
    }
}
