//! What a block node has from its surroundings.
//!
//! Pure.

use crate::model::resource::Format;
use crate::qemu::requests::Requests;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::Leaf;

/// How the keys of a node are called in the line.
#[derive(Clone, Debug)]
pub enum KeyNames {
    /// All stem from one value: a file name.
    Fixed(String, Option<usize>),
    /// They have this before them.
    Below(String),
}

impl KeyNames {
    /// The full name of a key.
    pub fn key(&self, key: &str) -> String {
        match self {
            KeyNames::Fixed(name, _) => name.clone(),
            KeyNames::Below(prefix) => format!("{prefix}{key}"),
        }
    }

    /// The word of the `-set` that a value comes from.
    pub fn set_by(&self, leaf: Leaf<'_>) -> Option<usize> {
        match self {
            KeyNames::Fixed(_, set_by) => *set_by,
            KeyNames::Below(_) => leaf.set_by,
        }
    }

    /// The names of the keys below one.
    pub fn below(&self, key: &str) -> KeyNames {
        match self {
            KeyNames::Fixed(name, set_by) => KeyNames::Fixed(name.clone(), *set_by),
            KeyNames::Below(prefix) => KeyNames::Below(format!("{prefix}{key}.")),
        }
    }
}

/// What a node has from its surroundings.
#[derive(Clone, Debug)]
pub struct NodeContext<'c> {
    /// A legacy file name, in which prefixes count.
    pub filename: Option<(&'c [u8], Option<usize>)>,
    /// The names of its keys.
    pub keys: KeyNames,
    /// Inherited.
    pub read_only: bool,
    /// Inherited.
    pub auto_read_only: bool,
    /// A name without driver means a file, not a format to probe (`BDRV_O_PROTOCOL`).
    pub protocol: bool,
    /// What to say of a format that is not stated.
    pub unstated: Format,
    /// Levels above.
    pub depth: usize,
}

/// Where `create_tmp_file` (block.c) puts overlays: /tmp is replaced by /var/tmp.
pub fn overlay_start(requests: &Requests<'_>) -> Vec<u8> {
    let dir = requests.tmp_dir();
    let dir = if dir == b"/tmp" {
        b"/var/tmp"
    } else {
        dir.as_slice()
    };
    bytes::join(dir, b"vl.")
}
