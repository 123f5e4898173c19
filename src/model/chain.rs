//! Which files the header of a disk image has made QEMU open: what is remembered of a disk from one launch to
//! the next.
//!
//! Pure values; nothing here touches the host.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::text::hex::{self, path_text};

/// Bytes of the longest name of a device that makes a key: it is a file's name (255 bytes, NAME_MAX of
/// limits.h), in hexadecimal, with something before and after it.
const MAX_DEVICE_NAME: usize = 110;

/// Names a disk for longer than its path does.
///
/// A file has its inode number and its birth time: device numbers change with every boot, and a birth time
/// in nanoseconds is not had twice. Without a birth time it has its device and inode number: it is not known
/// any more once its device is numbered otherwise, and another file that has its inode number later is taken
/// for it, which may refuse a launch and gives nothing away.
///
/// The text is one file name of letters, digits and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiskKey(String);

impl DiskKey {
    /// Makes the key of a file.
    pub fn file(device: u64, inode: u64, born: Option<u64>) -> Self {
        Self(match born {
            Some(born) => format!("file-{inode:x}-{born:x}"),
            None => format!("file-{inode:x}-on-{device:x}"),
        })
    }

    /// Makes the key of a block device that has a name of its own, such as the UUID of a device-mapper
    /// volume. `part` is the number of a partition. None if the name is too long or empty.
    pub fn device(kind: &str, name: &[u8], part: Option<&[u8]>) -> Option<Self> {
        if name.is_empty() || name.len() > MAX_DEVICE_NAME {
            return None;
        }
        let part = part.map_or_else(String::new, |part| format!("-part{}", hex::encode(part)));
        Some(Self(format!("{kind}-{}{part}", hex::encode(name))))
    }
}

impl fmt::Display for DiskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file that a header names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainFile {
    /// Its name as QEMU opens it, absolute; for a device that is named by address, what a plan calls it.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// Which disk it is. None if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<DiskKey>,
    /// Whether the guest may write to it: a data file, an extent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub written: bool,
}

impl ChainFile {
    /// Tells whether this one being a guest's makes the other one its too: the same file, by its name or by
    /// what it is, and not to be written if this one was only read.
    pub fn covers(&self, other: &Self) -> bool {
        let is_same = self.path == other.path || (self.key.is_some() && self.key == other.key);
        is_same && (self.written || !other.written)
    }
}

/// The files that the header of a disk names, and those that the headers of these name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Each file once.
    pub files: Vec<ChainFile>,
}

impl Chain {
    /// Most files of a chain that are remembered: what lies beyond is refused at the next launch, as if it
    /// were new. A VMDK of 2 GiB extents has 8 TiB then.
    pub const MAX_FILES: usize = 4096;

    /// Tells whether a file was given by this chain.
    pub fn covers(&self, file: &ChainFile) -> bool {
        self.files.iter().any(|known| known.covers(file))
    }

    /// Adds a file, unless it is there.
    pub fn add(&mut self, file: ChainFile) {
        if self.files.len() < Self::MAX_FILES && !self.files.contains(&file) {
            self.files.push(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, key: Option<u64>, written: bool) -> ChainFile {
        ChainFile {
            path: path.into(),
            key: key.map(|inode| DiskKey::file(1, inode, Some(7))),
            written,
        }
    }

    #[test]
    fn a_file_is_known_by_name_or_identity_and_never_written_if_it_was_only_read() {
        let read = file("/a", Some(1), false);
        for (other, covered) in [
            (file("/a", Some(1), false), true),
            // Replaced by its owner under the same name.
            (file("/a", Some(2), false), true),
            // Named otherwise, as by the image below after a commit.
            (file("/x/../a", Some(1), false), true),
            (file("/a", None, false), true),
            (file("/b", Some(2), false), false),
            (file("/b", None, false), false),
            (file("/a", Some(1), true), false),
        ] {
            assert_eq!(read.covers(&other), covered, "{other:?}");
        }
        let written = file("/a", None, true);
        assert!(written.covers(&file("/a", None, false)));
        assert!(written.covers(&file("/a", Some(1), true)));
        assert!(!written.covers(&file("/b", None, true)));
    }

    #[test]
    fn keys_are_file_names_and_differ() {
        let keys = [
            DiskKey::file(1, 2, Some(3)),
            DiskKey::file(1, 2, None),
            DiskKey::file(2, 2, None),
            DiskKey::file(1, 3, Some(2)),
            DiskKey::device("dm", b"LVM-x/y", None).unwrap(),
            DiskKey::device("dm", b"LVM-x/y", Some(b"1")).unwrap(),
            DiskKey::device("loop", b"LVM-x/y", None).unwrap(),
        ]
        .map(|key| key.to_string());
        for (at, key) in keys.iter().enumerate() {
            assert!(
                key.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
                "{key}"
            );
            assert!(!keys[..at].contains(key), "{key}");
        }
        // The device number of a boot does not count where there is something better.
        assert_eq!(DiskKey::file(1, 2, Some(3)), DiskKey::file(9, 2, Some(3)));
        assert_eq!(DiskKey::device("dm", b"", None), None);
        assert_eq!(DiskKey::device("dm", &[b'x'; 111], None), None);
    }

    #[test]
    fn a_chain_has_an_end() {
        let mut chain = Chain::default();
        for number in 0..5000 {
            chain.add(file(&format!("/{number}"), None, false));
            chain.add(file("/0", None, false));
        }
        assert_eq!(chain.files.len(), Chain::MAX_FILES);
    }
}
