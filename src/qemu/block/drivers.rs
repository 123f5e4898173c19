//! The block drivers of QEMU 10, with their children and host paths.
//!
//! Pure data. Facts: qapi/block-core.json (`BlockdevOptions*`) and block/*.c.

use crate::qemu::usage::Usage;

/// What a driver does with its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Does not interpret its file, and uses it as its own users use it.
    Raw,
    /// Has a header, and writes its file if it is writable itself.
    Format,
    /// A format that QEMU can only read.
    ReadOnlyFormat,
    /// Passes everything on, including the header that is expected above it.
    Filter,
    /// Opens something outside QEMU.
    Protocol,
}

/// What a child is to its parent (`BdrvChildRole`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Contains the header of a format; never probed.
    Image,
    /// The node below a filter; probed if the filter would be.
    Filtered,
    /// Data outside the image that has the header; probed by default below filters only.
    Data,
    /// A backing file: read-only unless it says otherwise.
    Cow,
    /// Always written: a backup target or a log.
    Target,
}

/// A key that holds a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// `file`, `backing`, …; a list if it ends in `.`.
    pub key: &'static str,
    /// What the child is.
    pub role: Role,
    /// The key that holds a file name instead, as the driver's file name syntax sets it.
    pub legacy: Option<&'static str>,
}

/// A path key of a protocol driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The bytes of the disk; the graph decides the access.
    Disk(&'static str),
    /// Another file.
    Other(&'static str, Usage),
    /// The PCI address of a controller that QEMU drives itself.
    Pci(&'static str),
    /// The sysfs directory of such a device.
    Sysfs(&'static str),
    /// A `SocketAddress`.
    Socket(&'static str),
    /// A list of `SocketAddress`.
    Sockets(&'static str),
    /// The directory that vvfat shows as a disk.
    Fat(&'static str),
}

/// A block driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name in `driver=`.
    pub name: &'static str,
    /// What it does with its children.
    pub kind: Kind,
    /// The keys that hold children.
    pub children: &'static [Child],
    /// The keys that hold host paths.
    pub paths: &'static [Path],
}

const fn child(key: &'static str, role: Role) -> Child {
    Child {
        key,
        role,
        legacy: None,
    }
}

const fn legacy(key: &'static str, role: Role, legacy: &'static str) -> Child {
    Child {
        key,
        role,
        legacy: Some(legacy),
    }
}

const FILE: Child = child("file", Role::Image);
const BACKING: Child = child("backing", Role::Cow);
const FILTERED: Child = child("file", Role::Filtered);

const fn format(name: &'static str, children: &'static [Child]) -> Driver {
    Driver {
        name,
        kind: Kind::Format,
        children,
        paths: &[],
    }
}

const fn read_only(name: &'static str) -> Driver {
    Driver {
        name,
        kind: Kind::ReadOnlyFormat,
        children: &[FILE],
        paths: &[],
    }
}

const fn filter(name: &'static str, children: &'static [Child]) -> Driver {
    Driver {
        name,
        kind: Kind::Filter,
        children,
        paths: &[],
    }
}

const fn protocol(name: &'static str, paths: &'static [Path]) -> Driver {
    Driver {
        name,
        kind: Kind::Protocol,
        children: &[],
        paths,
    }
}

const CONNECT: Usage = Usage::connect("block device server");

/// Every block driver.
#[rustfmt::skip]
pub const DRIVERS: &[Driver] = &[
    Driver { name: "raw", kind: Kind::Raw, children: &[FILE], paths: &[] },
    format("qcow2", &[FILE, BACKING, child("data-file", Role::Data)]),
    format("qcow", &[FILE, BACKING]),
    format("qed", &[FILE, BACKING]),
    format("vmdk", &[FILE, BACKING, child("extents.", Role::Data)]),
    format("luks", &[FILE, child("header", Role::Data)]),
    format("parallels", &[FILE, BACKING]),
    format("vpc", &[FILE]),
    format("vdi", &[FILE]),
    format("vhdx", &[FILE]),
    read_only("dmg"),
    read_only("bochs"),
    read_only("cloop"),
    filter("throttle", &[FILTERED]),
    filter("compress", &[FILTERED]),
    filter("copy-on-read", &[FILTERED]),
    filter("preallocate", &[FILTERED]),
    filter("snapshot-access", &[FILTERED]),
    filter("replication", &[FILTERED]),
    filter("blkreplay", &[child("image", Role::Filtered)]),
    filter("copy-before-write", &[FILTERED, child("target", Role::Target)]),
    filter("blklogwrites", &[FILTERED, child("log", Role::Target)]),
    filter("quorum", &[child("children.", Role::Data)]),
    Driver {
        name: "blkdebug", kind: Kind::Filter,
        children: &[legacy("image", Role::Filtered, "x-image")],
        paths: &[Path::Other("config", Usage::content("rules of blkdebug"))],
    },
    filter("blkverify", &[legacy("raw", Role::Filtered, "x-raw"), legacy("test", Role::Data, "x-image")]),
    protocol("file", &[Path::Disk("filename")]),
    protocol("host_device", &[Path::Disk("filename")]),
    protocol("host_cdrom", &[Path::Disk("filename")]),
    protocol("io_uring", &[Path::Disk("filename")]),
    protocol("nvme-io_uring", &[Path::Disk("path")]),
    protocol("virtio-blk-vhost-vdpa", &[Path::Disk("path")]),
    protocol("virtio-blk-vhost-user", &[Path::Other("path", CONNECT)]),
    protocol("virtio-blk-vfio-pci", &[Path::Sysfs("path")]),
    protocol("vvfat", &[Path::Fat("dir")]),
    protocol("nbd", &[Path::Socket("server"), Path::Other("path", CONNECT)]),
    protocol("gluster", &[
        Path::Sockets("server"),
        Path::Other("logfile", Usage::create("log of gluster")),
    ]),
    protocol("rbd", &[Path::Other("conf", Usage::content("configuration of ceph"))]),
    protocol("nvme", &[Path::Pci("device")]),
    protocol("ssh", &[]),
    protocol("iscsi", &[]),
    protocol("iser", &[]),
    protocol("nfs", &[]),
    protocol("http", &[]),
    protocol("https", &[]),
    protocol("ftp", &[]),
    protocol("ftps", &[]),
    protocol("null-co", &[]),
    protocol("null-aio", &[]),
];

impl Driver {
    /// Returns whether a key names a host resource, or holds a child that may.
    pub fn names_resource(&self, key: &str) -> bool {
        let paths = self.paths.iter().any(|path| match path {
            Path::Disk(known)
            | Path::Other(known, _)
            | Path::Pci(known)
            | Path::Sysfs(known)
            | Path::Fat(known) => *known == key,
            // `tables::keys` knows the members of a SocketAddress.
            Path::Socket(_) | Path::Sockets(_) => false,
        });
        paths
            || self.children.iter().any(|child| {
                child.key.trim_end_matches('.') == key || child.legacy.is_some_and(|l| l == key)
            })
    }

    /// Returns the key that holds a `SocketAddress` or a list of them.
    pub fn address(&self) -> Option<&'static str> {
        self.paths.iter().find_map(|path| match path {
            Path::Socket(key) | Path::Sockets(key) => Some(*key),
            _ => None,
        })
    }
}

/// Returns the driver of that name.
pub fn lookup(name: &[u8]) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.name.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_once() {
        let mut names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
