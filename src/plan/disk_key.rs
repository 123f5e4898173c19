//! What disks are remembered by: what a pinned file or device is, for longer than it has its name.

use std::path::{Path, PathBuf};

use crate::host::pinned::{Kind, Pinned};
use crate::host::sysfs::SystemFiles;
use crate::model::chain::{ChainFile, DiskKey};
use crate::model::resource::Access;
use crate::plan::resource::{FollowedHeader, Resource};

/// Where the kernel has block devices by their numbers.
const DEVICES: &str = "/sys/dev/block";

/// Names of block devices that outlast a boot: the file below a device's directory in sysfs, and what the key
/// calls it. Documentation/ABI/testing/sysfs-block-dm and sysfs-block in Linux; `loop_attr_backing_file_show`
/// (drivers/block/loop.c); the `wwid` of SCSI is its device's.
const DEVICE_NAMES: [(&str, &str); 5] = [
    ("dm/uuid", "dm"),
    ("loop/backing_file", "loop"),
    ("wwid", "wwid"),
    ("device/wwid", "wwid"),
    ("serial", "serial"),
];

/// Returns what a disk is remembered by.
pub fn key(system: &dyn SystemFiles, pinned: &Pinned) -> DiskKey {
    let identity = pinned.identity;
    let file = || DiskKey::file(identity.dev, identity.ino, identity.born);
    if pinned.kind == Kind::Block {
        device_key(system, pinned.device).unwrap_or_else(file)
    } else {
        file()
    }
}

/// Returns the key of a block device. None if it has no name but that of its node, which is another after
/// the next boot.
fn device_key(system: &dyn SystemFiles, device: u64) -> Option<DiskKey> {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let directory = Path::new(DEVICES).join(format!("{major}:{minor}"));
    let read = |file: PathBuf| Some(system.read(&file).ok()?.trim_ascii().to_vec());
    let part = read(directory.join("partition"));
    // The directory of a partition lies in that of its disk.
    let disk = match part {
        Some(_) => directory.join(".."),
        None => directory,
    };
    DEVICE_NAMES
        .iter()
        .find_map(|(file, kind)| DiskKey::device(kind, &read(disk.join(file))?, part.as_deref()))
}

/// Returns a resource as a chain has it. None for what has no name: a descriptor that the caller hands down.
pub fn chain_file(system: &dyn SystemFiles, resource: &Resource) -> Option<ChainFile> {
    let device = || Some(PathBuf::from(resource.host.as_ref()?.to_string()));
    Some(ChainFile {
        path: resource.path.clone().or_else(device)?,
        key: resource.pinned.as_ref().map(|pinned| key(system, pinned)),
        written: !matches!(resource.access, Access::Read | Access::Connect),
    })
}

/// Returns an image whose header is about to be followed, and names nothing so far.
pub fn followed(system: &dyn SystemFiles, resource: &Resource, pinned: &Pinned) -> FollowedHeader {
    FollowedHeader {
        key: key(system, pinned),
        identity: pinned.identity,
        name: resource.name(),
        path: pinned.path.clone(),
        origin: resource.origin.clone(),
        // Whether a descriptor is written to is not known.
        is_written: resource.fd.is_some() || resource.access != Access::Read,
        direct: Vec::new(),
        below: Vec::new(),
        replaced: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::sysfs::SysRoot;

    #[test]
    fn devices_are_known_by_what_outlasts_a_boot() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/devices/dm-0/dm/uuid", "LVM-abc\n");
        write("sys/devices/sda/device/wwid", "naa.5\n");
        write("sys/devices/sda/sda1/partition", "1\n");
        write("sys/devices/sda/sda2/partition", "2\n");
        write("sys/devices/loop0/loop/backing_file", "/srv/a b.img\n");
        write("sys/devices/vda/serial", "");
        fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        for (number, device) in [
            ("253:0", "dm-0"),
            ("8:0", "sda"),
            ("8:1", "sda/sda1"),
            ("8:2", "sda/sda2"),
            ("7:0", "loop0"),
            ("252:0", "vda"),
        ] {
            let at = root.path().join("sys/dev/block").join(number);
            symlink(format!("../../devices/{device}"), at).unwrap();
        }
        let system = SysRoot::root(root.path());
        let key = |major, minor| device_key(&system, nix::sys::stat::makedev(major, minor));
        assert_eq!(key(253, 0), DiskKey::device("dm", b"LVM-abc", None));
        assert_eq!(key(8, 0), DiskKey::device("wwid", b"naa.5", None));
        assert_eq!(key(8, 1), DiskKey::device("wwid", b"naa.5", Some(b"1")));
        assert_ne!(key(8, 1), key(8, 2));
        assert_eq!(key(7, 0), DiskKey::device("loop", b"/srv/a b.img", None));
        // No serial number, and not there.
        assert_eq!(key(252, 0), None);
        assert_eq!(key(1, 1), None);
    }
}
