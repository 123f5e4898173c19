//! The files that a command line of a case names, made with qemu-img and by hand.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::succeeds;

/// Directories in which cases have their files.
const DIRECTORIES: [&str; 10] = [
    "/srv/vm",
    "/srv/iso",
    "/srv/fw",
    "/srv/cfg",
    "/srv/share",
    "/srv/mtp",
    "/srv/tftp",
    "/srv/hp",
    "/run/vm",
    "/var/log/vm",
];

/// The config file that QEMU reads unasked.
pub const DEFAULT_CONFIG: &str = "/etc/qemu/qemu.conf";

/// Size of a file in bytes if its case states none.
const SIZE: u64 = 1 << 20;

/// Removes what earlier cases left.
pub fn clear() {
    for directory in DIRECTORIES {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).unwrap();
    }
    let _ = fs::remove_file(DEFAULT_CONFIG);
}

/// Returns a string of a case as the operating system has it. JSON has only Unicode: if a case says
/// `latin1`, each character is one byte.
pub fn os(case: &Value, text: &str) -> OsString {
    if case["latin1"] == true {
        OsString::from_vec(text.chars().map(|c| u8::try_from(c).unwrap()).collect())
    } else {
        OsString::from(text)
    }
}

/// Makes the files of one case, in their order.
pub fn make(case: &Value) {
    for file in case["files"].as_array().into_iter().flatten() {
        let path = os(case, file["path"].as_str().unwrap());
        one(file, Path::new(&path));
    }
    // The vectors do not list every file that is only read.
    for expected in case["expect"].as_array().into_iter().flatten() {
        let path = Path::new(expected["path"].as_str().unwrap_or_default());
        if expected["access"] == "read" && path.starts_with("/srv") && !path.exists() {
            write(path, &[0; 4096]);
        }
    }
}

fn one(file: &Value, path: &Path) {
    let text = |key: &str| file[key].as_str();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if file["dir"] == true {
        fs::create_dir_all(path).unwrap();
    } else if file["fifo"] == true {
        succeeds(Command::new("mkfifo").arg(path));
    } else if let Some(target) = text("symlink") {
        symlink(target, path).unwrap();
    } else if let Some(text) = text("text") {
        write(path, &content(text));
    } else if let Some(hex) = text("hex") {
        write(path, &bytes(hex, file["size"].as_u64().unwrap_or_default()));
    } else if let Some(original) = text("copy") {
        fs::copy(newest(original), path).unwrap();
    } else {
        image(file, path);
    }
    if file["program"] == true {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Returns the last of the files `DIRECTORY/PREFIX*`, as kernels are named.
fn newest(pattern: &str) -> PathBuf {
    let Some(prefix) = pattern.strip_suffix('*') else {
        return PathBuf::from(pattern);
    };
    let directory = Path::new(prefix).parent().unwrap();
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().starts_with(prefix))
        .max()
        .unwrap()
}

fn image(file: &Value, path: &Path) {
    let text = |key: &str| file[key].as_str();
    let format = text("format").unwrap_or("raw");
    let size = file["size"].as_u64().unwrap_or(SIZE);
    if format == "raw" {
        write(path, b"");
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(size)
            .unwrap();
        return;
    }
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-u", "-f", format]);
    command.current_dir(path.parent().unwrap());
    if format == "luks" {
        let key = path.with_file_name("luks.key");
        command.arg("--object");
        command.arg(format!("secret,id=key,file={}", key.display()));
        command.args(["-o", "key-secret=key"]);
    }
    if let Some(subformat) = text("subformat") {
        command.arg("-o").arg(format!("subformat={subformat}"));
    }
    if let Some(data) = text("data_file") {
        command.arg("-o").arg(format!("data_file={data}"));
    }
    if let Some(backing) = text("backing") {
        command.args(["-b", backing]);
        if format != "vmdk" {
            // qemu-img demands a format. It is removed below if the case states none.
            command.args(["-F", text("backing_fmt").unwrap_or("raw")]);
        }
    }
    command.arg(path).arg(size.to_string());
    if let (Some(_), "vmdk") = (text("backing"), format) {
        // vmdk has no unsafe creation: qemu-img opens the parent.
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b"]);
        command.arg(text("backing").unwrap()).arg(path);
        command.current_dir(path.parent().unwrap());
        succeeds(&mut command);
        return;
    }
    succeeds(&mut command);
    if text("backing").is_some() && text("backing_fmt").is_none() && format == "qcow2" {
        forget_backing_format(path);
    }
}

/// Removes the backing format from a header by making the extension that has it (0xe2792aca) an
/// unknown one.
fn forget_backing_format(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let magic = 0xe279_2aca_u32.to_be_bytes();
    let at = bytes.windows(4).position(|part| part == magic).unwrap();
    bytes[at..at + 4].copy_from_slice(&0x1122_3344_u32.to_be_bytes());
    fs::write(path, bytes).unwrap();
}

/// Returns hexadecimal parts, each at its offset (`0:51 46, 200:00`), with zeros between them up to the
/// size: content that no program would write.
fn bytes(parts: &str, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    for part in parts.split(',') {
        let (at, hex) = part.split_once(':').unwrap();
        let at: usize = at.trim().parse().unwrap();
        let hex: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        for (index, pair) in hex.chunks(2).enumerate() {
            let byte = u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
            bytes[at + index] = byte;
        }
    }
    bytes
}

/// Returns the text of a file, or the binary content that the text names.
fn content(text: &str) -> Vec<u8> {
    match text {
        // hw/i386/multiboot.c: magic, flags with explicit addresses, checksum, and a load
        // address of 1 MiB after which the file ends.
        "multiboot1 header" => {
            let flags = 0x0001_0000_u32;
            let checksum = 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
            let start = 0x0010_0000_u32;
            let mut bytes = Vec::new();
            for word in [
                0x1bad_b002,
                flags,
                checksum,
                start,
                start,
                start + 4096,
                start + 4096,
                start,
            ] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            bytes.resize(4096, 0);
            bytes
        }
        _ => text.as_bytes().to_vec(),
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}
