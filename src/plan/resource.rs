//! Resources as they are on this host, and what is known of them before they are planned for.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::host::pinned::{Identity, Kind, Pinned};
use crate::host::sysfs::SystemFiles;
use crate::model::chain::{ChainFile, DiskKey};
use crate::model::label::Context;
use crate::model::resource::{Access, Class, HostDevice, Image, Origin, Request};
use crate::text::escape::{escaped, quoted};
use crate::text::message::Message;

/// A resource as it is on this host.
#[derive(Debug)]
pub struct Resource {
    /// Absolute, as QEMU will resolve it, not canonicalised. None if the line gives no path.
    pub path: Option<PathBuf>,
    /// The inherited descriptor that it is.
    pub fd: Option<i32>,
    /// The device that it is, if the line names it by address.
    pub host: Option<HostDevice>,
    /// Which label it needs.
    pub class: Class,
    /// What QEMU does with it.
    pub access: Access,
    /// Who named it.
    pub origin: Origin,
    /// In words. Decides nothing.
    pub reason: &'static str,
    /// Whether QEMU maps it if it is a file.
    pub mapped: bool,
    /// Whether QEMU fails without it.
    pub required: bool,
    /// Whether `path` ends in characters that QEMU will choose.
    pub template: bool,
    /// Whether the caller has handed it over with `--label-tree`: a directory may be labelled then.
    pub handed_over: bool,
    /// What it is.
    pub kind: Kind,
    /// The file, unless there is none.
    pub pinned: Option<Pinned>,
    /// Its label now.
    pub current: Option<Context>,
}

impl Resource {
    /// Tells whether QEMU maps the file, which policies tell from reading it.
    pub fn is_mapped(&self) -> bool {
        self.kind == Kind::File && self.mapped
    }

    /// Returns what messages call it: the path, or what stands for it.
    pub fn name(&self) -> String {
        match (&self.path, self.fd, &self.host) {
            (Some(path), _, _) => quoted(path.as_os_str()),
            (None, Some(fd), _) => format!("descriptor {fd}"),
            (None, None, Some(device)) => escaped(device.to_string().as_bytes()),
            (None, None, None) => "nothing".to_owned(),
        }
    }
}

/// What was collected.
#[derive(Debug, Default)]
pub struct Collected {
    /// Every resource once, in the order of the line.
    pub resources: Vec<Resource>,
    /// What the caller should know.
    pub warnings: Vec<Message>,
    /// What no host could launch.
    pub errors: Vec<Message>,
    /// What stops a launch on this host as it is now; a plan goes on.
    pub obstacles: Vec<Message>,
    /// Block devices whose headers could not be read yet.
    pub deferred: Vec<DeferredHeader>,
    /// Images whose headers were read, and disks without a header.
    pub headers: Vec<FollowedHeader>,
    /// What is named by anything but a header.
    pub stated: Vec<ChainFile>,
}

impl Collected {
    /// Notes that a directory will be empty when QEMU comes to it: what it makes there is not there yet.
    pub fn empty(&mut self, directory: &Path) {
        for resource in &mut self.resources {
            let inside = |path: &PathBuf| path.starts_with(directory);
            if resource.path.as_ref().is_some_and(inside)
                && matches!(resource.access, Access::Create | Access::Bind)
            {
                resource.kind = Kind::Missing;
                resource.pinned = None;
                resource.current = None;
            }
        }
    }
}

/// A request on its way through the headers.
#[derive(Debug)]
pub struct QueuedRequest {
    /// What it asks for.
    pub request: Request,
    /// How many images are above it.
    pub depth: usize,
    /// Which ones.
    pub above: Vec<Identity>,
}

/// A block device whose header cannot be read before the device has the guest's label: the launcher may
/// not read what is not a guest's.
#[derive(Debug)]
pub struct DeferredHeader {
    /// What asks for it.
    pub pending: QueuedRequest,
    /// What is expected in it.
    pub image: Image,
    /// Which device it is.
    pub identity: Identity,
}

/// What a header calls a file that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A backing file.
    Backing,
    /// An external data file (qcow2).
    DataFile,
    /// An extent (VMDK).
    Extent,
    /// What the line names itself.
    Other,
}

impl Role {
    /// Returns the role of what was named so.
    pub fn of(origin: &Origin) -> Self {
        match origin {
            Origin::BackingOf { .. } => Self::Backing,
            Origin::DataFileOf { .. } => Self::DataFile,
            Origin::ExtentOf { .. } => Self::Extent,
            Origin::Word { .. } | Origin::TreeOf { .. } => Self::Other,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backing => "backing file",
            Self::DataFile => "data file",
            Self::Extent => "extent",
            Self::Other => "file",
        })
    }
}

/// An image whose header was read, or that has none, and what it names.
#[derive(Clone, Debug)]
pub struct FollowedHeader {
    /// Which image.
    pub key: DiskKey,
    /// The same, for as long as this process has it open.
    pub identity: Identity,
    /// What messages call it.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// What names it.
    pub origin: Origin,
    /// Whether the guest may write to it.
    pub is_written: bool,
    /// What the header itself names, and as what.
    pub direct: Vec<(ChainFile, Role)>,
    /// What the headers of those name.
    pub below: Vec<ChainFile>,
    /// What the header names and QEMU does not open, since the line has something in its place.
    pub replaced: Vec<PathBuf>,
}

/// What collecting needs to know besides the host.
#[derive(Debug)]
pub struct CollectContext<'a> {
    /// QEMU's working directory.
    pub cwd: &'a Path,
    /// The program, for the data directory beside it.
    pub program: &'a Path,
    /// `-L`.
    pub data_dirs: &'a [OsString],
    /// Where nodes of devices are looked up.
    pub system: &'a dyn SystemFiles,
}
