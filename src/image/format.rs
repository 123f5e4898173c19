//! The image formats by QEMU's names.

/// An image format, as QEMU names it in `format=`, `driver=` and backing format fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// No header: the guest sees every byte.
    Raw,
    /// QEMU copy on write, version 1.
    Qcow,
    /// QEMU copy on write, versions 2 and 3.
    Qcow2,
    /// QEMU enhanced disk.
    Qed,
    /// VMware.
    Vmdk,
    /// Virtual PC and Hyper-V, "VHD".
    Vpc,
    /// Hyper-V, "VHDX".
    Vhdx,
    /// VirtualBox.
    Vdi,
    /// Parallels.
    Parallels,
    /// Linux Unified Key Setup, version 1.
    Luks,
    /// Apple disk image.
    Dmg,
    /// Bochs growing disk.
    Bochs,
    /// Compressed loop.
    Cloop,
    /// Any other driver name, among them the protocol drivers (`file`, `nbd`, `host_device`).
    Other(Vec<u8>),
}

/// Formats that have a variant: QEMU's name (`.format_name` of each driver in block/*.c), variant.
const NAMED: &[(&str, ImageFormat)] = &[
    ("raw", ImageFormat::Raw),
    ("qcow", ImageFormat::Qcow),
    ("qcow2", ImageFormat::Qcow2),
    ("qed", ImageFormat::Qed),
    ("vmdk", ImageFormat::Vmdk),
    ("vpc", ImageFormat::Vpc),
    ("vhdx", ImageFormat::Vhdx),
    ("vdi", ImageFormat::Vdi),
    ("parallels", ImageFormat::Parallels),
    ("luks", ImageFormat::Luks),
    ("dmg", ImageFormat::Dmg),
    ("bochs", ImageFormat::Bochs),
    ("cloop", ImageFormat::Cloop),
];

/// Protocol and filter drivers, which QEMU accepts as a format and which read no header (`qemu-img
/// --help` of QEMU 10.0, BlockdevDriver in qapi/block-core.json).
const WITHOUT_HEADER: &[&str] = &[
    "blkdebug",
    "blklogwrites",
    "blkreplay",
    "blkverify",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "file",
    "ftp",
    "ftps",
    "gluster",
    "host_cdrom",
    "host_device",
    "http",
    "https",
    "io_uring",
    "iscsi",
    "iser",
    "nbd",
    "nfs",
    "null-aio",
    "null-co",
    "nvme",
    "nvme-io_uring",
    "preallocate",
    "quorum",
    "rbd",
    "replication",
    "snapshot-access",
    "ssh",
    "throttle",
    "virtio-blk-vfio-pci",
    "virtio-blk-vhost-user",
    "virtio-blk-vhost-vdpa",
    "vvfat",
];

impl ImageFormat {
    /// Returns the format of that name; QEMU's names are case-sensitive.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Self {
        NAMED
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map_or_else(|| Self::Other(name.to_vec()), |(_, format)| format.clone())
    }

    /// Returns QEMU's name of the format.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Raw => b"raw",
            Self::Qcow => b"qcow",
            Self::Qcow2 => b"qcow2",
            Self::Qed => b"qed",
            Self::Vmdk => b"vmdk",
            Self::Vpc => b"vpc",
            Self::Vhdx => b"vhdx",
            Self::Vdi => b"vdi",
            Self::Parallels => b"parallels",
            Self::Luks => b"luks",
            Self::Dmg => b"dmg",
            Self::Bochs => b"bochs",
            Self::Cloop => b"cloop",
            Self::Other(name) => name,
        }
    }
}

/// Returns whether a driver without a variant is known to read no header.
pub(super) fn is_without_header(name: &[u8]) -> bool {
    WITHOUT_HEADER.iter().any(|known| known.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_formats_are_a_bijection() {
        for (name, format) in NAMED {
            assert_eq!(ImageFormat::from_name(name.as_bytes()), *format);
            assert_eq!(format.name(), name.as_bytes());
        }
        for name in [&b"QCOW2"[..], b"", b"file", b"qcow3", b"raw\0"] {
            let format = ImageFormat::from_name(name);
            assert_eq!(format, ImageFormat::Other(name.to_vec()));
            assert_eq!(format.name(), name);
        }
    }
}
