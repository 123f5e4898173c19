//! The vocabulary between the QEMU command line and the plan: what a guest
//! uses of the host, how it uses it, and who said so.
//!
//! Pure values; nothing here touches the host.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What label a resource gets (design: "Words").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Not relabelled; access is checked against the label it has.
    Keep,
    /// The content type at the bare sensitivity: every guest may read it, none may write it.
    Content,
    /// The image type at the bare sensitivity: every guest may write it (`share-rw=on`).
    Shared,
    /// The image type with the guest's pair: this guest only.
    Exclusive,
}

/// What QEMU does with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Opened for reading.
    Read,
    /// Opened for writing too.
    Write,
    /// A file that QEMU makes.
    Create,
    /// A socket that QEMU makes.
    Bind,
    /// A socket that somebody else serves.
    Connect,
    /// A program that QEMU runs.
    Exec,
    /// A directory whose content QEMU hands on.
    Tree,
}

/// Who named a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// A word of the command line.
    Word {
        /// Position in QEMU's argument vector, QEMU itself being word 1; the word that holds the
        /// value, not the option before it.
        word: usize,
        /// The option as its manual spells it, with one dash; `"image"` for a positional image.
        option: String,
        /// The key inside the option's value; empty where the value is the path.
        key: String,
    },
    /// The header of an image names this as its backing file.
    BackingOf {
        /// The image whose header it is.
        backing_of: PathBuf,
    },
    /// The header of a qcow2 image names this as its data file.
    DataFileOf {
        /// The image whose header it is.
        data_file_of: PathBuf,
    },
    /// The descriptor of a vmdk image names this as an extent.
    ExtentOf {
        /// The image whose descriptor it is.
        extent_of: PathBuf,
    },
}

/// How the command line points at a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A path as QEMU passes it to open(2) or bind(2); relative to its working directory.
    Path(OsString),
    /// A name that QEMU looks up: as given, then in each `-L` directory, then in its data
    /// directories (`qemu_find_file`, system/datadir.c).
    DataFile(OsString),
    /// A name made by a template: the part before the first random or numbered character.
    /// Only the directory matters.
    Template(OsString),
    /// A descriptor that the caller hands down under this number.
    Fd(i32),
    /// A device on the host that is named by address, not by path, e.g. `pci:0000:06:12.1`.
    HostDevice(String),
}

/// Where an image's format comes from. QEMU probes what is not stated, and what it finds in a
/// probed header was possibly written by a guest (CVE-2008-2004, CVE-2010-2237).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The command line, or the header of the image above, says it.
    Stated(String),
    /// Nobody says it, and adding this to the option would say it (`format=`, `driver=`).
    Unstated {
        /// The word to add, up to and including the `=`, for the message.
        add: &'static str,
    },
    /// Nobody says it and this form cannot: `-hda`, `-cdrom`, the positional image.
    CannotState {
        /// `-drive` keys that replace the option, e.g. `index=0,media=disk`.
        instead: String,
    },
}

/// What decides the backing file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The image's own header; QEMU opens it read-only unless `writable`.
    FromHeader {
        /// `backing.driver=` replaces the format that the header states.
        format: Option<String>,
        /// `backing.read-only=off`.
        writable: bool,
    },
    /// The command line names another one (listed on its own) or says there is none.
    NotFromHeader,
}

/// An image whose header has to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where its format comes from.
    pub format: Format,
    /// Where its backing file comes from.
    pub backing: Backing,
    /// True when the command line gives the qcow2 data file, so that the header's is not used.
    pub data_file_given: bool,
}

/// One thing of the host that the command line makes QEMU use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub target: Target,
    /// Which label it needs.
    pub class: Class,
    /// What QEMU does with it.
    pub access: Access,
    /// Who said so.
    pub origin: Origin,
    /// In words, for the plan: "writable disk", "kernel".
    pub reason: &'static str,
    /// Set for disk images whose header may name further files.
    pub image: Option<Image>,
    /// False where QEMU goes on without it (`/etc/qemu/qemu.conf`, an optional ROM).
    pub required: bool,
}
