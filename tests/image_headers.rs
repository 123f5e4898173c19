//! Image headers against the real tool: images made, and damaged, are read here and by `qemu-img info`.
//! Without qemu-img only the properties are tested.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod checks;

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde_json::Value;
use svirt_exec::image::{BackingName, ImageFormat, References, probe, references};

/// format, options and, as "NAME" or "NAME=FORMAT", the backing file
const IMAGES: &[(&str, &str, &str)] = &[
    ("raw", "", ""),
    ("qcow", "", ""),
    ("qcow", "", "base.raw=raw"),
    ("qcow2", "", ""),
    ("qcow2", "compat=0.10", "base.raw=raw"),
    ("qcow2", "cluster_size=512", "base.raw=raw"),
    ("qcow2", "cluster_size=2M", "base.vmdk=vmdk"),
    (
        "qcow2",
        "extended_l2=on",
        "json:{\"driver\":\"raw\",\"file.filename\":\"base.raw\"}=raw",
    ),
    ("qcow2", "compression_type=zstd", ""),
    ("qcow2", "data_file=data.raw", ""),
    ("qcow2", "data_file=data2.raw,data_file_raw=on", ""),
    ("qed", "", ""),
    ("qed", "", "base.raw=raw"),
    ("qed", "", "base.vmdk=vmdk"),
    ("qed", "table_size=16,cluster_size=4096", "base.raw=raw"),
    ("vmdk", "subformat=monolithicSparse", ""),
    ("vmdk", "subformat=monolithicSparse", "base.vmdk=vmdk"),
    ("vmdk", "subformat=monolithicFlat", ""),
    ("vmdk", "subformat=twoGbMaxExtentFlat", ""),
    ("vmdk", "subformat=twoGbMaxExtentSparse", ""),
    ("vmdk", "subformat=twoGbMaxExtentSparse", "base.vmdk=vmdk"),
    ("vmdk", "subformat=streamOptimized", ""),
    ("vpc", "", ""),
    ("vpc", "subformat=fixed", ""),
    ("vhdx", "", ""),
    ("vdi", "", ""),
    ("parallels", "", ""),
];

/// Whether qemu-img is there; says so loudly when not.
fn has_qemu_img() -> bool {
    let found = Command::new("qemu-img")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!(
            "SKIPPED: qemu-img is not installed, image headers are NOT compared with QEMU's reading"
        );
    }
    found
}

fn create(dir: &Path, format: &str, options: &str, backing: &str, name: &str, size: &str) {
    let mut command = Command::new("qemu-img");
    command
        .current_dir(dir)
        .args(["create", "-q", "-f", format]);
    if !options.is_empty() {
        command.args(["-o", options]);
    }
    if let Some((file, format)) = backing.rsplit_once('=') {
        command.args(["-b", file, "-F", format]);
    }
    let status = command.args([name, size]).status().unwrap();
    assert!(status.success(), "{format} {options} {backing}");
}

/// A directory with the backing files.
fn with_bases() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path(), "raw", "", "", "base.raw", "1M");
    create(dir.path(), "vmdk", "", "", "base.vmdk", "1M");
    dir
}

/// `qemu-img info`, which opens no backing file; `None` when it refuses.
fn info(dir: &Path, name: &str, format: Option<&str>) -> Option<Value> {
    let mut command = Command::new("qemu-img");
    command.current_dir(dir).args(["info", "--output=json"]);
    if let Some(format) = format {
        command.args(["-f", format]);
    }
    let output = command.arg(name).output().unwrap();
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).unwrap())
}

/// What `qemu-img info` says as our type.
fn told(info: &Value, name: &str, ours: &References) -> References {
    let text = |value: &Value| {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(|text| text.as_bytes().to_vec())
    };
    let special = &info["format-specific"]["data"];
    let extents = special["extents"].as_array().into_iter().flatten();
    let extents = extents
        .filter_map(|extent| Path::new(extent["filename"].as_str()?).file_name())
        .filter(|file| *file != name)
        .map(|file| file.as_encoded_bytes().to_vec())
        .collect();
    References {
        backing: text(&info["backing-filename"]).map(|name| BackingName {
            name,
            format: text(&info["backing-filename-format"]),
        }),
        // qemu-img also shows a name that the feature bits make QEMU ignore.
        data_file: text(&special["data-file"]).filter(|_| ours.data_file.is_some()),
        extents,
    }
}

#[test]
fn images_made_by_qemu_img() {
    if !has_qemu_img() {
        return;
    }
    for (format, options, backing) in IMAGES {
        let dir = with_bases();
        let size = if options.contains("twoGb") {
            "5G"
        } else {
            "1M"
        };
        create(dir.path(), format, options, backing, "image", size);
        let mut file = File::open(dir.path().join("image")).unwrap();
        let found = references(&ImageFormat::from_name(format.as_bytes()), &mut file);
        let found = found.unwrap_or_else(|error| panic!("{format} {options}: {error}"));
        let info = info(dir.path(), "image", Some(format)).unwrap();
        assert_eq!(
            found,
            told(&info, "image", &found),
            "{format} {options} {backing}"
        );
        assert_eq!(
            found.backing.is_some(),
            !backing.is_empty(),
            "{format} {options}"
        );
        assert_eq!(
            found.data_file.is_some(),
            options.contains("data_file"),
            "{format} {options}"
        );
        assert_eq!(
            found.extents.is_empty(),
            !options.contains("Flat") && !options.contains("twoGb"),
            "{format} {options}"
        );
        assert_probed_alike(dir.path(), "image");
    }
}

fn assert_probed_alike(dir: &Path, name: &str) {
    let mut file = File::open(dir.join(name)).unwrap();
    let probed = probe(&mut file, name.as_bytes()).unwrap();
    if let Some(info) = info(dir, name, None) {
        assert_eq!(probed.name(), info["format"].as_str().unwrap().as_bytes());
    }
}

/// Damaged bytes: from where, how many, for each format.
const DAMAGE: &[(&str, &str, &str, usize, usize)] = &[
    ("qcow", "", "base.raw=raw", 0, 56),
    ("qcow2", "", "base.raw=raw", 0, 150),
    ("qcow2", "compat=0.10", "base.raw=raw", 0, 100),
    ("qed", "", "base.raw=raw", 0, 72),
    (
        "vmdk",
        "subformat=monolithicSparse",
        "base.vmdk=vmdk",
        0,
        80,
    ),
    (
        "vmdk",
        "subformat=monolithicSparse",
        "base.vmdk=vmdk",
        512,
        160,
    ),
    ("vmdk", "subformat=monolithicFlat", "", 0, 160),
    ("vdi", "", "", 64, 8),
    ("vdi", "", "", 0x1a4, 40),
];

/// Refusals of ours that qemu-img does not share: system emulators, other than the tools, refuse AES; only a real
/// opening refuses an image without its data file; QEMU lets sizes and offsets of a VMDK wrap around.
fn is_stricter_by_design(message: &str) -> bool {
    ["encryption", "data file", "grain directory"]
        .iter()
        .any(|part| message.contains(part))
}

#[test]
fn damaged_headers_are_read_as_qemu_img_does() {
    if !has_qemu_img() {
        return;
    }
    let mut differences = Vec::new();
    for (format, options, backing, from, count) in DAMAGE {
        let dir = with_bases();
        create(dir.path(), format, options, backing, "image", "1M");
        let good = fs::read(dir.path().join("image")).unwrap();
        let parsed = ImageFormat::from_name(format.as_bytes());
        for at in *from..from.saturating_add(*count) {
            // Both ends of most fields, and every byte of a text.
            let changes: &[u8] = if at % 4 == 0 { &[0x01, 0x80] } else { &[0x01] };
            for change in changes {
                // The contents of the snapshot table, which are not part of the header, decide here.
                if *format == "qcow2" && (60..72).contains(&at) {
                    continue;
                }
                let mut bad = good.clone();
                let Some(byte) = bad.get_mut(at) else {
                    continue;
                };
                *byte ^= change;
                fs::write(dir.path().join("bad"), &bad).unwrap();
                let ours = references(&parsed, &mut Cursor::new(&bad));
                let theirs = info(dir.path(), "bad", Some(format));
                let problem = match (ours, theirs) {
                    (Ok(ours), Some(info)) => {
                        let theirs = told(&info, "bad", &ours);
                        (!same(&ours, &theirs)).then(|| format!("{ours:?} but {theirs:?}"))
                    }
                    (Ok(ours), None) if names_existing_only(dir.path(), &ours) => {
                        (ours != References::default()).then(|| format!("{ours:?} but refused"))
                    }
                    (Err(error), Some(_)) if !is_stricter_by_design(&error.to_string()) => {
                        Some(format!("{error} but accepted"))
                    }
                    _ => None,
                };
                if let Some(problem) = problem {
                    differences.push(format!(
                        "{format} {options} byte {at} ^ {change:#x}: {problem}"
                    ));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// qemu-img fails for extents that are not there, which is no fault of the header.
fn names_existing_only(dir: &Path, found: &References) -> bool {
    found
        .extents
        .iter()
        .all(|name| str::from_utf8(name).is_ok_and(|name| dir.join(name).exists()))
}

/// Names that are no UTF-8 come out of qemu-img changed and are not compared.
fn same(ours: &References, theirs: &References) -> bool {
    let is_text = |name: &[u8]| name.is_ascii();
    let comparable = ours
        .backing
        .iter()
        .all(|backing| is_text(&backing.name) && backing.format.as_deref().is_none_or(is_text));
    !comparable || ours == theirs
}

/// Starts of valid headers, so that random bytes get past the magic.
const MAGICS: &[&[u8]] = &[
    b"",
    b"QFI\xfb\0\0\0\x01",
    b"QFI\xfb\0\0\0\x02",
    b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\x10\0\0\0\0\x09\0\0\0\x15\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\x01",
    b"QED\0\0\0\x01\0\x04\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0",
    b"KDMV\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
    b"COWD",
    b"CID=1\nparentCID=1\ncreateType=\"vmfs\"\nRW 1 VMFS \"",
    b"CID=1\nparentCID=1\nparentFileNameHint=\"",
    b"conectix",
    b"vhdxfile",
];

proptest! {
    #[test]
    fn random_bytes(start in prop::sample::select(MAGICS), tail in prop::collection::vec(any::<u8>(), 0..6000)) {
        let mut bytes = start.to_vec();
        bytes.extend(tail);
        checks::image::probe(&bytes);
    }

    #[test]
    fn random_descriptors(words in prop::collection::vec(prop::sample::select(vec![
        "RW", " ", "\n", "\"", "FLAT", "VMFS", "SPARSE", "1", "-", "0", "name", "\0", "CID", "parentCID", "=",
        "parentFileNameHint=\"", "createType=\"vmfs\"", "createType=\"", "\r", "RW 1 VMFS \"a",
    ]), 0..300)) {
        let mut bytes = b"createType=\"vmfs\" CID=1 parentCID=1\n".to_vec();
        bytes.extend(words.concat().bytes());
        checks::image::probe(&bytes);
    }
}

/// Mutations of what qemu-img makes.
#[test]
fn mutated_images_keep_the_limits() {
    if !has_qemu_img() {
        return;
    }
    let dir = with_bases();
    let mut images = Vec::new();
    for (number, (format, options, backing)) in IMAGES.iter().enumerate() {
        let name = format!("image{number}");
        create(dir.path(), format, options, backing, &name, "1M");
        let mut bytes = Vec::new();
        // VHDX has its tables in the first 4 MiB, all others their header in far less.
        let head = File::open(dir.path().join(&name)).unwrap();
        let length = if *format == "vhdx" { 4 << 20 } else { 64 << 10 };
        head.take(length).read_to_end(&mut bytes).unwrap();
        images.push(bytes);
    }
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8);
    let near = prop::sample::select(vec![64_usize, 160, 1200]);
    let config = ProptestConfig::with_cases(400);
    proptest!(config, |(image in prop::sample::select(images), changes in changes, near in near)| {
        let mut bytes = image;
        let reach = bytes.len().min(near);
        for (at, value) in changes {
            if reach > 0 && let Some(byte) = bytes.get_mut(at.index(reach)) {
                *byte = value;
            }
        }
        checks::image::probe(&bytes);
    });
}
