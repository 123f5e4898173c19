//! What the journal has of a guest: its process, and the labels to put back.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::host::pinned::Identity;
use crate::host::runtime_dir;
use crate::model::label::Context;
use crate::model::resource::Class;
use crate::text::hex::path_text;

/// Version of the entries that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// Bytes of the largest entry that is written and read: 10,000 files of a tree with names of 400 bytes
/// fit. With [`MAX_RECORDS`] it bounds what one entry takes in memory, about 25 MiB.
pub(crate) const MAX_ENTRY: u64 = 8 << 20;

/// Most records of an entry: three trees of 10,000 files (`plan::label_tree`), and some.
pub(crate) const MAX_RECORDS: usize = 32_768;

/// A label to put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where the file was, without symbolic links.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// Which file it was.
    pub identity: Identity,
    /// Which file system it is on, by a number that lasts longer than a boot (`f_fsid`, statfs(2)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<u64>,
    /// Whether it is a directory whose content was labelled too (`--label-tree`): what the guest made
    /// in it is to be labelled as the directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tree: bool,
    /// What the guest used it for.
    pub class: Class,
    /// Which of S_ISUID and S_ISGID its mode had (`st_mode`, inode(7)). None: nobody looked, and they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_id: Option<u32>,
    /// The label it had.
    pub original: String,
    /// The label it gets.
    pub label: String,
}

impl Record {
    /// Tells whether it is of content that only its guest reads still (`--private-content`).
    pub fn is_private_content(&self) -> bool {
        let given = self.label.parse::<Context>();
        self.class == Class::Content && given.is_ok_and(|given| !given.categories().is_empty())
    }
}

/// A guest and what was labelled for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// [`VERSION`].
    pub version: u32,
    /// Its name, for people.
    pub name: String,
    /// Process ID of the launcher, and then of QEMU.
    pub pid: i32,
    /// When that process started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub started: u64,
    /// Which boot of the host that was (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The guest's context.
    pub context: String,
    /// Its directory below /run (`--runtime-dir`), which is to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<runtime_dir::Directory>,
    /// What ends the name of its keeper's control socket, which others shall not be able to take before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// What to put back, in the order in which it was labelled.
    #[serde(deserialize_with = "records")]
    pub records: Vec<Record>,
}

/// Reads records, [`MAX_RECORDS`] at most: each takes more memory than its text.
fn records<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Record>, D::Error> {
    struct Bounded;
    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<Record>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{MAX_RECORDS} records at most")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<Vec<Record>, A::Error> {
            let mut found = Vec::new();
            while let Some(record) = records.next_element()? {
                if found.len() >= MAX_RECORDS {
                    return Err(serde::de::Error::invalid_length(found.len(), &self));
                }
                found.push(record);
            }
            Ok(found)
        }
    }
    deserializer.deserialize_seq(Bounded)
}

impl JournalEntry {
    /// Makes an entry of the current version without records.
    pub fn new(name: String, pid: i32, started: u64, boot: String, context: String) -> Self {
        Self {
            version: VERSION,
            name,
            pid,
            started,
            boot,
            context,
            runtime: None,
            control: None,
            records: Vec::new(),
        }
    }
}
