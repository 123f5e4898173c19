//! Images, other files, and labels.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// Makes a directory of one test's own, in root's home, removed at its end.
pub fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new()
        .prefix("svirt-")
        .tempdir_in("/root")
        .unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Makes an empty raw image of 1 MiB.
pub fn image(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    path
}

/// Real mode code for a disk's first sector: says `Up` on the first serial port, and switches the
/// machine off when its power button is pressed. The registers are where SeaBIOS puts them for the
/// `pc` machine (PORT_ACPI_PM_BASE, 0x600).
const POWER_BUTTON: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'U', 0xee, 0xb0, b'p', 0xee, 0xb0, b'\n', 0xee, // mov al, …; out dx, al
    0xba, 0x02, 0x06, // mov dx, 0x602: PM1 enable
    0xb8, 0x00, 0x01, 0xef, // mov ax, 0x0100: PWRBTN_EN; out dx, ax
    0xfb, 0xf4, // wait: sti; hlt: until the next tick
    0xba, 0x00, 0x06, 0xed, // mov dx, 0x600: PM1 status; in ax, dx
    0xf6, 0xc4, 0x01, // test ah, 1: PWRBTN_STS
    0x74, 0xf5, // jz wait
    0xb8, 0x00, 0x01, 0xef, // mov ax, 0x0100; out dx, ax: seen
    0xba, 0x04, 0x06, // mov dx, 0x604: PM1 control
    0xb8, 0x00, 0x20, 0xef, // mov ax, 0x2000: SLP_EN, S5; out dx, ax
    0xf4, 0xeb, 0xfd, // hlt; jmp to it
];

/// Makes an image bootable, with code that switches the machine off at its power button.
pub fn boots(image: &Path) {
    write_boot_sector(image, POWER_BUTTON);
}

/// Writes code to the first sector of an image, so that the BIOS starts it. Returns the sector.
pub fn write_boot_sector(image: &Path, code: &[u8]) -> Vec<u8> {
    let mut sector = code.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    fs::File::options()
        .write(true)
        .open(image)
        .unwrap()
        .write_all(&sector)
        .unwrap();
    sector
}

/// Makes a file of 4 KiB that belongs to a user. It stays: users have their files outside the test's
/// own directory.
pub fn file_of(uid: u32, path: &Path) {
    fs::write(path, [0; 4096]).unwrap();
    chown(path, Some(uid), Some(uid)).unwrap();
}

/// Returns the SELinux label of a file, or of what a symbolic link itself has.
pub fn label(path: &Path) -> String {
    let label = succeeds(Command::new("stat").args(["-c", "%C"]).arg(path));
    label.trim().to_owned()
}

/// Returns the SELinux labels of many files.
pub fn labels(paths: &[PathBuf]) -> Vec<String> {
    let labels = succeeds(Command::new("stat").args(["-c", "%C"]).args(paths));
    labels.lines().map(ToOwned::to_owned).collect()
}

/// Returns the part of a label from the level on.
pub fn level(label: &str) -> String {
    label.splitn(4, ':').nth(3).unwrap_or_default().to_owned()
}

/// Polls until something holds, for two minutes at most.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2400 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("waited in vain: {what}");
}
