//! Tests of `busy`: trees that are laid out like /sys and /proc.

use super::*;
use crate::host::devices::tests::tree;
use crate::host::sysfs::SysRoot;

/// sda with two partitions, sda2 under vg-root and vg-spare, sdb whole under an md, sdc free,
/// loop0 on nothing, dm-2 on sdc's neighbour sdd, and a disk with a slash in its name.
const SYS: &[(&str, &str)] = &[
    ("sys/dev/block/8:0", "-> ../../devices/sda"),
    ("sys/dev/block/8:1", "-> ../../devices/sda/sda1"),
    ("sys/dev/block/8:2", "-> ../../devices/sda/sda2"),
    ("sys/devices/sda/dev", "8:0\n"),
    ("sys/devices/sda/holders/", ""),
    ("sys/devices/sda/slaves/", ""),
    ("sys/devices/sda/sda1/dev", "8:1\n"),
    ("sys/devices/sda/sda1/partition", "1\n"),
    ("sys/devices/sda/sda1/holders/", ""),
    ("sys/devices/sda/sda2/dev", "8:2\n"),
    ("sys/devices/sda/sda2/partition", "2\n"),
    ("sys/devices/sda/sda2/holders/dm-0", "-> ../../../dm-0"),
    ("sys/devices/sda/sda2/holders/dm-1", "-> ../../../dm-1"),
    ("sys/dev/block/254:0", "-> ../../devices/dm-0"),
    ("sys/devices/dm-0/dev", "254:0\n"),
    ("sys/devices/dm-0/dm/name", "vg-spare\n"),
    ("sys/devices/dm-0/slaves/sda2", "-> ../../sda/sda2"),
    ("sys/devices/dm-0/holders/", ""),
    ("sys/dev/block/254:1", "-> ../../devices/dm-1"),
    ("sys/devices/dm-1/dev", "254:1\n"),
    ("sys/devices/dm-1/dm/name", "vg-root\n"),
    ("sys/devices/dm-1/slaves/sda2", "-> ../../sda/sda2"),
    ("sys/dev/block/8:16", "-> ../../devices/sdb"),
    ("sys/devices/sdb/dev", "8:16\n"),
    ("sys/devices/sdb/holders/md0", "-> ../../md0"),
    ("sys/devices/sdb/sdb1/dev", "8:17\n"),
    ("sys/devices/sdb/sdb1/partition", "1\n"),
    ("sys/dev/block/8:17", "-> ../../devices/sdb/sdb1"),
    ("sys/dev/block/9:0", "-> ../../devices/md0"),
    ("sys/devices/md0/dev", "9:0\n"),
    ("sys/devices/md0/md0p1/dev", "259:0\n"),
    ("sys/devices/md0/md0p1/partition", "1\n"),
    ("sys/dev/block/259:0", "-> ../../devices/md0/md0p1"),
    ("sys/devices/md0/slaves/sdb", "-> ../../sdb"),
    ("sys/dev/block/8:32", "-> ../../devices/sdc"),
    ("sys/devices/sdc/dev", "8:32\n"),
    ("sys/dev/block/8:48", "-> ../../devices/sdd"),
    ("sys/devices/sdd/dev", "8:48\n"),
    ("sys/devices/sdd/holders/dm-2", "-> ../../dm-2"),
    ("sys/dev/block/254:2", "-> ../../devices/dm-2"),
    ("sys/devices/dm-2/dev", "254:2\n"),
    ("sys/devices/dm-2/dm/name", "over\n"),
    ("sys/devices/dm-2/slaves/sdd", "-> ../../sdd"),
    ("sys/dev/block/104:0", "-> ../../devices/cciss!c0d0"),
    ("sys/devices/cciss!c0d0/dev", "104:0\n"),
];

const NO_SWAP: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

/// What is said of a device, or "free".
fn said(mounts: &[&str], swaps: &[&str], device: &str) -> String {
    let mut entries = SYS.to_vec();
    let mounts = mounts.join("\n");
    let swaps = format!("{NO_SWAP}{}\n", swaps.join("\n"));
    entries.push(("proc/self/mountinfo", &mounts));
    entries.push(("proc/swaps", &swaps));
    let root = tree(&entries);
    let device = Number::parse(device.as_bytes()).unwrap();
    match user_of(&SysRoot::root(root.path()), device) {
        Ok(Some(found)) => found.to_string(),
        Ok(None) => "free".to_owned(),
        Err(error) => format!("unknown: {error}"),
    }
}

const ROOT: &str = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw";

#[test]
fn mounts_are_found_through_partitions_volumes_and_arrays() {
    for (mounts, device, want) in [
        (
            &[ROOT][..],
            "8:0",
            "its partition 'sda2' is held by 'vg-root' (dm-1), which is mounted at '/'; the host \
             runs from it: name another disk",
        ),
        (
            &[ROOT],
            "8:2",
            "it is held by 'vg-root' (dm-1), which is mounted at '/'; the host runs from it: name \
             another disk",
        ),
        (
            &[ROOT],
            "254:1",
            "it is mounted at '/'; the host runs from it: name another disk",
        ),
        (&[ROOT], "254:0", "free"),
        (&[ROOT], "8:1", "free"),
        (&[ROOT], "8:32", "free"),
        (
            &[ROOT, "30 22 8:1 /sub /mnt/a\\040b rw - ext4 /dev/sda1 rw"],
            "8:0",
            "its partition 'sda1' is mounted at '/mnt/a b'; umount '/mnt/a b'",
        ),
        (
            &["30 22 259:0 / /srv rw - xfs /dev/md0p1 rw"],
            "8:16",
            "it is held by 'md0', which has the partition 'md0p1', which is mounted at '/srv'; \
             umount /srv",
        ),
        (
            &["30 22 259:0 / /srv rw - xfs /dev/md0p1 rw"],
            "8:17",
            "the disk 'sdb' that it is a partition of is held by 'md0', which has the partition \
             'md0p1', which is mounted at '/srv'; umount /srv",
        ),
        (
            &["30 22 8:48 / /srv rw - xfs /dev/sdd rw"],
            "254:2",
            "the device 'sdd' that it lies on is mounted at '/srv'; umount /srv",
        ),
        // A file system with a number of its own, and sources that anybody may have written.
        (
            &["30 22 0:44 / /srv rw - btrfs /dev/sdc rw"],
            "8:32",
            "it is mounted at '/srv'; umount /srv",
        ),
        (
            &["30 22 0:45 / /home/u/x rw - fuse.x /dev/sdc rw"],
            "8:32",
            "free",
        ),
        (
            &["30 22 104:0 / /srv rw - ext4 /dev/cciss/c0d0 rw"],
            "104:0",
            "it is mounted at '/srv'; umount /srv",
        ),
    ] {
        assert_eq!(said(mounts, &[], device), want, "{device}");
    }
}

#[test]
fn a_holder_without_a_known_use_is_a_use() {
    for (device, want) in [
        (
            "8:2",
            "it is held by 'vg-spare' (dm-0); end that first: dmsetup remove vg-spare (vgchange \
             -an where it is a logical volume, cryptsetup close where it is encrypted)",
        ),
        (
            "8:16",
            "it is held by 'md0'; end that first: mdadm --stop /dev/md0",
        ),
        ("8:48", "it is held by 'over' (dm-2); end that first"),
        // It holds what it lies on itself.
        ("254:2", "free"),
        ("9:0", "free"),
    ] {
        let said = said(&[], &[], device);
        assert!(said.starts_with(want), "{device}: {said}");
    }
}

#[test]
fn swap_space_is_found_by_its_nodes_name() {
    let one = ["/dev/dm-0 partition 975868 0 -2"];
    assert_eq!(
        said(&[], &one, "254:0"),
        "it is swap space; swapoff /dev/dm-0"
    );
    assert_eq!(
        said(&[], &one, "8:0"),
        "its partition 'sda2' is held by 'vg-spare' (dm-0), which is swap space; swapoff /dev/dm-0"
    );
    let file = ["/dev/sdc file 975868 0 -2"];
    assert_eq!(said(&[], &file, "8:32"), "free");
}

#[test]
fn what_cannot_be_looked_up_is_not_free() {
    let said = said(&[], &[], "7:9");
    assert!(
        said.starts_with("unknown: there is no '/sys/dev/block/7:9'"),
        "{said}"
    );
    let root = tree(SYS);
    let device = Number::parse(b"8:32").unwrap();
    assert!(user_of(&SysRoot::root(root.path()), device).is_err());
}

#[test]
fn a_circle_of_holders_ends() {
    let root = tree(&[
        ("sys/dev/block/1:0", "-> ../../devices/a"),
        ("sys/dev/block/1:1", "-> ../../devices/b"),
        ("sys/devices/a/dev", "1:0"),
        ("sys/devices/b/dev", "1:1"),
        ("sys/devices/a/holders/b", "-> ../../b"),
        ("sys/devices/b/holders/a", "-> ../../a"),
        ("proc/self/mountinfo", ""),
    ]);
    let device = Number::parse(b"1:0").unwrap();
    let found = user_of(&SysRoot::root(root.path()), device).unwrap();
    assert!(found.is_some());
}
