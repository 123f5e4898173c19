//! What a block node inherits from the option or node that opens it.
//!
//! Pure.

use crate::model::resource::Format;
use crate::qemu::requests::Requests;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::Leaf;

/// How the line writes the keys of a node.
#[derive(Clone, Debug)]
pub enum KeyNames {
    /// All come from one value, a file name: that key, and the word of the `-set` that gave it.
    Fixed(String, Option<usize>),
    /// Each with this prefix.
    Below(String),
}

impl KeyNames {
    /// Returns the full name of a key.
    pub fn key(&self, key: &str) -> String {
        match self {
            KeyNames::Fixed(name, _) => name.clone(),
            KeyNames::Below(prefix) => format!("{prefix}{key}"),
        }
    }

    /// Returns the word of the `-set` that gave a value.
    pub fn set_by(&self, leaf: Leaf<'_>) -> Option<usize> {
        match self {
            KeyNames::Fixed(_, set_by) => *set_by,
            KeyNames::Below(_) => leaf.set_by,
        }
    }

    /// Returns the names of the keys below a key.
    pub fn below(&self, key: &str) -> KeyNames {
        match self {
            KeyNames::Fixed(name, set_by) => KeyNames::Fixed(name.clone(), *set_by),
            KeyNames::Below(prefix) => KeyNames::Below(format!("{prefix}{key}.")),
        }
    }
}

/// What a node inherits from the option or node that opens it.
#[derive(Clone, Debug)]
pub struct NodeContext<'c> {
    /// A file name in which protocol prefixes count, and the word of the `-set` that gave it.
    pub filename: Option<(&'c [u8], Option<usize>)>,
    /// How the line writes its keys.
    pub keys: KeyNames,
    /// The inherited `read-only`.
    pub read_only: bool,
    /// The inherited `auto-read-only`.
    pub auto_read_only: bool,
    /// A name without driver means a file, not a format to probe (`BDRV_O_PROTOCOL`).
    pub protocol: bool,
    /// How to state the format if it is not stated.
    pub unstated: Format,
    /// The number of nodes above.
    pub depth: usize,
}

/// Returns the start of the names of temporary overlays (`create_tmp_file`, block.c): /tmp is
/// replaced by /var/tmp.
pub fn overlay_start(requests: &Requests<'_>) -> Vec<u8> {
    let dir = requests.tmp_dir();
    let dir = if dir == b"/tmp" {
        b"/var/tmp"
    } else {
        dir.as_slice()
    };
    bytes::join(dir, b"vl.")
}
