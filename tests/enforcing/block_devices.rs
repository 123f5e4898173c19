//! Images on block devices: the device gets the guest's label first, then its header is read, and
//! what that names is labelled as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lib::*;

/// An overlay on a loop device of a type that is given to guests; its backing file is a file.
pub struct Overlay {
    device: PathBuf,
    base: PathBuf,
    _directory: tempfile::TempDir,
}

impl Overlay {
    pub fn new() -> Self {
        let directory = directory();
        let base = image(directory.path(), "base.raw");
        let overlay = directory.path().join("overlay.qcow2");
        let overlay = overlay.to_str().unwrap();
        let backing = base.to_str().unwrap();
        let make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"];
        run(&[&make[..], &["-b", backing, overlay]].concat());
        // A device of its own size, as a logical volume would have.
        fs::File::options()
            .write(true)
            .open(overlay)
            .unwrap()
            .set_len(4 << 20)
            .unwrap();
        let _ = Command::new("modprobe").arg("loop").status();
        let device = run(&["losetup", "--find", "--show", overlay]);
        let device = PathBuf::from(device.trim());
        // udev labels the node when it hears of the new disk.
        run(&["udevadm", "settle"]);
        chcon(&["-t", "removable_device_t"], &device);
        Self {
            device,
            base,
            _directory: directory,
        }
    }

    pub fn labels(&self) -> [String; 2] {
        [label(&self.device), label(&self.base)]
    }

    pub fn drive(&self) -> String {
        format!("file={},format=qcow2,if=virtio", self.device.display())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let device = self.device.to_str().unwrap();
        run(&["losetup", "--detach", device]);
        let _ = Command::new("restorecon").args(["-F", device]).status();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_the_header_of_a_device_names_is_labelled_too() {
    let overlay = Overlay::new();
    let before = overlay.labels();
    let guest = Guest::start_stub(svirt_exec([STUB, "-drive", &overlay.drive()]));
    let [device, base] = overlay.labels();
    assert_eq!(level(&device), level(&guest.label()));
    assert!(base.ends_with(":virt_content_t:s0"), "{base}");
    guest.end();
    assert_eq!(overlay.labels(), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_refusal_behind_a_device_puts_its_label_back() {
    let overlay = Overlay::new();
    fs::hard_link(&overlay.base, overlay.base.with_extension("link")).unwrap();
    let before = overlay.labels();
    let output = svirt_exec([STUB, "-drive", &overlay.drive()])
        .env("STUB", "wait")
        .output()
        .unwrap();
    refused(&output, &["hard links"]);
    assert_eq!(overlay.labels(), before);
    assert_eq!(entries(GUESTS).len(), 0);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_plan_says_that_the_chain_on_a_device_is_unknown() {
    let overlay = Overlay::new();
    let before = overlay.labels();
    let output = svirt_exec(["plan", "--json", STUB, "-drive", &overlay.drive()])
        .output()
        .unwrap();
    let plan = json(&output);
    let warnings = plan["warnings"].to_string();
    assert!(warnings.contains("chain unknown"), "{warnings}");
    let device = &plan["resources"][0];
    assert_eq!(Path::new(device["path"].as_str().unwrap()), overlay.device);
    assert_eq!(device["action"], "relabel");
    assert_eq!(overlay.labels(), before);
}

/// A partition table with one Linux partition, from 1 MiB to 7 MiB (sectors of 512 bytes): the
/// first entry at byte 446, the signature at 510.
fn partition_table() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    sector[458..462].copy_from_slice(&12288_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A loop device over a file of 8 MiB, of a type that is given to guests.
struct Disk {
    device: String,
    _directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        Self::of(&[])
    }

    fn of(start: &[u8]) -> Self {
        let directory = directory();
        let file = directory.path().join("disk.raw");
        fs::write(&file, start).unwrap();
        let size = fs::File::options().write(true).open(&file).unwrap();
        size.set_len(8 << 20).unwrap();
        let _ = Command::new("modprobe").arg("loop").status();
        let file = file.to_str().unwrap();
        let device = run(&["losetup", "--find", "--show", "--partscan", file]);
        let disk = Self {
            device: device.trim().to_owned(),
            _directory: directory,
        };
        disk.given_to_guests();
        disk
    }

    /// udev labels the node when it hears of a change.
    fn given_to_guests(&self) {
        run(&["udevadm", "settle"]);
        chcon(&["-t", "removable_device_t"], Path::new(&self.device));
    }

    fn label(&self) -> String {
        label(Path::new(&self.device))
    }

    /// Launches on it, and checks that this is refused with such words and no trace.
    fn is_refused(&self, words: &[&str]) {
        let before = self.label();
        let drive = format!("file={},format=raw,if=virtio", self.device);
        let output = svirt_exec([STUB, "-drive", &drive])
            .env("STUB", "exit 0")
            .output()
            .unwrap();
        refused_in_one_line(&output, 125, words);
        nothing_happened(Path::new(&self.device), &before);
    }

    /// Launches on it, and checks that the guest gets it.
    fn free(&self) {
        let before = self.label();
        let drive = format!("file={},format=raw,if=virtio", self.device);
        let guest = Guest::start_stub(svirt_exec([STUB, "-drive", &drive]));
        assert_eq!(level(&self.label()), level(&guest.label()));
        guest.end();
        assert_eq!(self.label(), before);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(&["losetup", "--detach", &self.device]);
        let _ = Command::new("restorecon")
            .args(["-F", &self.device])
            .status();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_that_is_mounted_is_the_hosts() {
    let disk = Disk::new();
    disk.free();
    run(&["mkfs.ext4", "-q", &disk.device]);
    let mounts = directory();
    let point = mounts.path().join("a b");
    fs::create_dir(&point).unwrap();
    let point = point.to_str().unwrap();
    run(&["mount", &disk.device, point]);
    disk.given_to_guests();
    disk.is_refused(&["this host uses the device", "mounted at", "a b'; umount '"]);
    // Nor is it given to a guest that runs.
    let own = image(mounts.path(), "own.img");
    let guest = Guest::stub(&own);
    let pid = guest.child.id().to_string();
    let attached = svirt_exec(["attach", &pid, &disk.device]).output().unwrap();
    refused(&attached, &["this host uses the device"]);
    guest.end();
    // To a plan it is a warning: it may be free by the time of the launch.
    let drive = format!("file={},format=raw,if=virtio", disk.device);
    let planned = svirt_exec(["plan", STUB, "-drive", &drive])
        .output()
        .unwrap();
    ended_with(&planned, 0, &["it is mounted at"]);
    run(&["umount", point]);
    disk.given_to_guests();
    disk.free();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_with_a_partition_in_use_is_the_hosts() {
    let disk = Disk::of(&partition_table());
    disk.free();
    let partition = format!("{}p1", disk.device);
    run(&["udevadm", "settle"]);
    run(&["mkfs.ext4", "-q", &partition]);
    let point = directory();
    run(&["mount", &partition, point.path().to_str().unwrap()]);
    disk.given_to_guests();
    let name = partition.strip_prefix("/dev/").unwrap();
    disk.is_refused(&[&format!("its partition '{name}' is mounted at '/root/")]);
    run(&["umount", &partition]);
    disk.given_to_guests();
    disk.free();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_that_is_swap_space_is_the_hosts() {
    let disk = Disk::new();
    run(&["mkswap", &disk.device]);
    run(&["swapon", &disk.device]);
    disk.given_to_guests();
    disk.is_refused(&["it is swap space; swapoff /dev/loop"]);
    run(&["swapoff", &disk.device]);
    disk.given_to_guests();
    disk.free();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_that_somebody_has_claimed_gets_its_label_back() {
    use std::os::unix::fs::OpenOptionsExt;
    let disk = Disk::new();
    let claim = fs::File::options()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(&disk.device)
        .unwrap();
    disk.is_refused(&["somebody has claimed it", "all labels are put back"]);
    drop(claim);
    disk.free();
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_hosts_own_root_is_never_given_away() {
    let source = run(&["findmnt", "-n", "-o", "SOURCE", "/"]);
    let source = source.trim();
    let before = label(Path::new(source));
    let drive = format!("file={source},format=raw,if=virtio");
    let output = svirt_exec([STUB, "-drive", &drive])
        .env("STUB", "exit 0")
        .output()
        .unwrap();
    refused(&output, &["the host runs from it"]);
    assert_eq!(label(Path::new(source)), before);
}
