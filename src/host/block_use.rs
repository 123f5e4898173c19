//! Block devices that this host itself uses: mounted, swapped to, or claimed by another device.
//!
//! The policy cannot tell the guest's disk from the disk of the host's root: both are block
//! devices of a type that may be given to guests. What the kernel says of them can:
//! `/proc/self/mountinfo` (proc_pid_mountinfo(5)), `/proc/swaps`, and in sysfs the partitions of a
//! disk, what holds a device (`holders`, device mapper and md) and what it lies on (`slaves`).
//! A mount in another namespace and a claim that sysfs does not show are found when the device is opened for
//! one user alone, after it was labelled (`launch::apply`).

use crate::host::io_error::is_absent;
use crate::host::mangle::{BLANKS, unmangled};
use crate::host::mountinfo::{self, MOUNTINFO, Mount};
use crate::host::sysfs::SystemFiles;
use crate::text::escape::{quoted, shell_word};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where sysfs lists block devices by number.
const DEVICES: &str = "/sys/dev/block";

/// The number of a block device, `MAJOR:MINOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    major: u64,
    minor: u64,
}

impl Number {
    /// Returns the number that `st_rdev` has.
    pub fn of(device: u64) -> Self {
        Self {
            major: nix::sys::stat::major(device),
            minor: nix::sys::stat::minor(device),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim_end();
        let (major, minor) = text.split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// How a device is used in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// A file system on it is mounted there.
    Mounted(OsString),
    /// It is swap space, under this name.
    Swap(OsString),
    /// Another device has claimed it, and nothing is known of that one's use.
    Held,
}

/// The way from one device to the next that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Partition,
    WholeDisk,
    Holder,
    Slave,
}

/// Who uses a device: the devices on the way there, and what is found at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    ways: Vec<(Way, Name)>,
    end: End,
}

/// What a device is called.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    /// By the kernel, which is also its node's name below /dev.
    kernel: OsString,
    /// By the device mapper.
    mapper: Option<OsString>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mapper {
            Some(mapper) => write!(f, "{} ({})", quoted(mapper), self.kernel.display()),
            None => f.write_str(&quoted(&self.kernel)),
        }
    }
}

impl fmt::Display for DeviceUse {
    /// Writes the end of a sentence about the device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (way, name)) in self.ways.iter().enumerate() {
            let first = index == 0;
            match way {
                Way::Partition if first => write!(f, "its partition {name} ")?,
                Way::Partition => write!(f, "has the partition {name}, which ")?,
                Way::WholeDisk => write!(f, "the disk {name} that it is a partition of ")?,
                Way::Holder if first => write!(f, "it is held by {name}")?,
                Way::Holder => write!(f, "is held by {name}")?,
                Way::Slave => write!(f, "the device {name} that it lies on ")?,
            }
            let last = self.ways.len() == index.saturating_add(1);
            if *way == Way::Holder && !(last && self.end == End::Held) {
                f.write_str(", which ")?;
            }
        }
        let it = if self.ways.is_empty() { "it " } else { "" };
        match &self.end {
            End::Mounted(point) => {
                write!(f, "{it}is mounted at {}; ", quoted(point))?;
                if point == "/" {
                    f.write_str("the host runs from it: name another disk")
                } else {
                    write!(f, "umount {}", shell_word(point))
                }
            }
            End::Swap(node) => {
                write!(f, "{it}is swap space; swapoff {}", shell_word(node))
            }
            End::Held => match self.ways.last() {
                Some((_, name)) => write!(f, "; {}", how_to_free(name)),
                None => Ok(()),
            },
        }
    }
}

/// Says what ends a claim.
fn how_to_free(name: &Name) -> String {
    let kernel = shell_word(&name.kernel);
    match &name.mapper {
        Some(mapper) => format!(
            "end that first: dmsetup remove {} (vgchange -an where it is a logical volume, \
             cryptsetup close where it is encrypted)",
            shell_word(mapper)
        ),
        None if name.kernel.as_bytes().starts_with(b"md") => {
            format!("end that first: mdadm --stop /dev/{kernel}")
        }
        None => format!("end that first (lsblk /dev/{kernel} shows what is on it)"),
    }
}

/// The search, and what it has seen of the host.
struct Search<'a> {
    files: &'a dyn SystemFiles,
    /// Device, mount point, and source if the file system has devices of its own (btrfs).
    mounts: Vec<(Number, OsString, Option<OsString>)>,
    swaps: Vec<OsString>,
    seen: BTreeSet<Number>,
}

/// Finds who uses a block device. None if nobody does that this host shows.
///
/// # Errors
/// Those of reading the kernel's tables: it is not known then.
pub fn user_of(files: &dyn SystemFiles, device: Number) -> io::Result<Option<DeviceUse>> {
    let mut search = Search {
        files,
        mounts: {
            let path = Path::new(MOUNTINFO);
            let table = files.read_table(path).map_err(|error| named(path, error))?;
            mountinfo::mounts(&table).map(use_of).collect()
        },
        swaps: match files.read_table(Path::new("/proc/swaps")) {
            Ok(table) => swaps(&table),
            // A kernel without swap.
            Err(error) if is_absent(&error) => Vec::new(),
            Err(error) => return Err(named(Path::new("/proc/swaps"), error)),
        },
        seen: BTreeSet::new(),
    };
    search.whole(device)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", quoted(path)))
}

impl Search<'_> {
    /// Looks at everything around the device that was asked about.
    fn whole(&mut self, device: Number) -> io::Result<Option<DeviceUse>> {
        let directory = directory(device);
        if !self.exists(&directory)? {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "there is no {}: the node has no device, or /sys is not mounted",
                    quoted(&directory)
                ),
            ));
        }
        if let Some(found) = self.upwards(device)? {
            return Ok(Some(found));
        }
        if self.exists(&directory.join("partition"))? {
            let disk = self.number(&directory.join("../dev"))?;
            if let Some(end) = self.direct(disk)? {
                let ways = vec![(Way::WholeDisk, self.name(disk)?)];
                return Ok(Some(DeviceUse { ways, end }));
            }
            if let Some(found) = self.holders(disk)? {
                return Ok(Some(self.by(Way::WholeDisk, disk, found)?));
            }
        }
        self.downwards(device)
    }

    /// Looks at what is on a device: itself, what holds it, its partitions.
    fn upwards(&mut self, device: Number) -> io::Result<Option<DeviceUse>> {
        if !self.seen.insert(device) {
            return Ok(None);
        }
        if let Some(end) = self.direct(device)? {
            return Ok(Some(DeviceUse {
                ways: Vec::new(),
                end,
            }));
        }
        if let Some(found) = self.holders(device)? {
            return Ok(Some(found));
        }
        let directory = directory(device);
        for name in self.list(&directory)? {
            let entry = directory.join(name);
            if self.exists(&entry.join("partition"))? {
                let partition = self.number(&entry.join("dev"))?;
                if let Some(found) = self.upwards(partition)? {
                    return Ok(Some(self.by(Way::Partition, partition, found)?));
                }
            }
        }
        Ok(None)
    }

    /// Looks at what has claimed a device: the first whose use is known, else the first.
    fn holders(&mut self, device: Number) -> io::Result<Option<DeviceUse>> {
        let directory = directory(device).join("holders");
        let mut first = None;
        for name in self.list(&directory)? {
            let holder = self.number(&directory.join(name).join("dev"))?;
            match self.upwards(holder)? {
                Some(found) => return Ok(Some(self.by(Way::Holder, holder, found)?)),
                None => first = first.or(Some(holder)),
            }
        }
        let Some(holder) = first else { return Ok(None) };
        Ok(Some(DeviceUse {
            ways: vec![(Way::Holder, self.name(holder)?)],
            end: End::Held,
        }))
    }

    /// Looks at what a device lies on. That it holds those is no use of its own.
    fn downwards(&mut self, device: Number) -> io::Result<Option<DeviceUse>> {
        let directory = directory(device).join("slaves");
        for name in self.list(&directory)? {
            let slave = self.number(&directory.join(name).join("dev"))?;
            if !self.seen.insert(slave) {
                continue;
            }
            if let Some(end) = self.direct(slave)? {
                let ways = vec![(Way::Slave, self.name(slave)?)];
                return Ok(Some(DeviceUse { ways, end }));
            }
            if let Some(found) = self.downwards(slave)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns a use that is reached through another device.
    fn by(&self, way: Way, device: Number, found: DeviceUse) -> io::Result<DeviceUse> {
        let mut ways = vec![(way, self.name(device)?)];
        ways.extend(found.ways);
        Ok(DeviceUse {
            ways,
            end: found.end,
        })
    }

    /// Tells whether the device itself is mounted or swap space.
    fn direct(&self, device: Number) -> io::Result<Option<End>> {
        let name = self.name(device)?;
        let mut nodes = vec![Path::new("/dev").join(&name.kernel)];
        nodes.extend(
            name.mapper
                .iter()
                .map(|mapper| Path::new("/dev/mapper").join(mapper)),
        );
        let is_it = |text: &OsString| nodes.iter().any(|node| node.as_os_str() == text);
        let mount = self
            .mounts
            .iter()
            .find(|(number, _, source)| *number == device || source.as_ref().is_some_and(is_it));
        if let Some((_, point, _)) = mount {
            return Ok(Some(End::Mounted(point.clone())));
        }
        Ok(self
            .swaps
            .iter()
            .find(|swap| is_it(swap))
            .cloned()
            .map(End::Swap))
    }

    fn name(&self, device: Number) -> io::Result<Name> {
        let directory = directory(device);
        let link = self
            .files
            .read_link(&directory)
            .map_err(|error| named(&directory, error))?;
        // The kernel writes a slash in a name as an exclamation mark there (kobject_set_name_vargs).
        let kernel = link.file_name().unwrap_or_default().as_bytes();
        let kernel = kernel.iter().map(|b| if *b == b'!' { b'/' } else { *b });
        let mapper = match self.files.read(&directory.join("dm/name")) {
            Ok(text) => Some(OsString::from_vec(text.trim_ascii_end().to_vec())),
            Err(_) => None,
        };
        Ok(Name {
            kernel: OsString::from_vec(kernel.collect()),
            mapper,
        })
    }

    fn number(&self, path: &Path) -> io::Result<Number> {
        let text = self.files.read(path).map_err(|error| named(path, error))?;
        Number::parse(&text)
            .ok_or_else(|| io::Error::other(format!("{} holds no device number", quoted(path))))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        match self.files.list(path) {
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            other => other.map_err(|error| named(path, error)),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.files.exists(path) {
            Err(error) if is_absent(&error) => Ok(false),
            other => other.map_err(|error| named(path, error)),
        }
    }
}

fn directory(device: Number) -> PathBuf {
    Path::new(DEVICES).join(device.to_string())
}

/// Returns what is mounted where. What file systems other than btrfs and bcachefs call their source is
/// whatever the caller of mount(2) wrote there.
fn use_of(mount: Mount<'_>) -> (Number, OsString, Option<OsString>) {
    let has_own_devices = matches!(mount.type_, b"btrfs" | b"bcachefs");
    (
        Number::of(mount.device),
        mount.point(),
        has_own_devices.then(|| mount.source()),
    )
}

/// Returns the partitions of /proc/swaps: a heading, then lines that begin with the name.
fn swaps(table: &[u8]) -> Vec<OsString> {
    table
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let mut fields = line
                .split(u8::is_ascii_whitespace)
                .filter(|field| !field.is_empty());
            let name = fields.next()?;
            (fields.next()? == b"partition").then(|| unmangled(name, BLANKS))
        })
        .collect()
}

#[cfg(test)]
#[path = "block_use_tests.rs"]
mod tests;
