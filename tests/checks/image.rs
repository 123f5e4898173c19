//! Headers of images: whatever the bytes are, little is read, names are names, and a second
//! reading finds the same. Each format is also tried with its magic put in front.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use svirt_exec::image::{self, ImageFormat};

/// bytes that reading one header may take; a qcow2 cluster has 2 MiB
const READ_LIMIT: u64 = 4 << 20;
/// places that one header may send the reader to
const SEEK_LIMIT: u32 = 16;
/// bytes that probing looks at; QEMU's BLOCK_PROBE_BUF_SIZE
const PROBE_LIMIT: u64 = 512;
/// bytes; PATH_MAX without the NUL
const NAME_LIMIT: usize = 4095;

/// Formats with a header, some without, and one that QEMU does not have.
const FORMATS: &[&str] = &[
    "raw",
    "qcow",
    "qcow2",
    "qed",
    "vmdk",
    "vpc",
    "vhdx",
    "vdi",
    "parallels",
    "luks",
    "dmg",
    "bochs",
    "cloop",
    "file",
    "unknown",
];

/// bytes; a header and a table of four clusters with 64 KiB each, qemu-img's default, and some more
const QED_BYTES: usize = 512 << 10;
/// bytes; where QEMU has the first region table of VHDX
const VHDX_REGIONS: usize = 192 << 10;
/// bytes; where the corpus has the metadata table of VHDX
const VHDX_METADATA: usize = 256 << 10;
/// bytes of an input that become the region table; the rest is the metadata table
const VHDX_REGION_BYTES: usize = 256;

/// Counts what is taken from a reader.
struct Counting<R> {
    inner: R,
    taken: u64,
    seeks: u32,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken = self.taken.saturating_add(u64::try_from(read).unwrap());
        Ok(read)
    }
}

impl<R: Seek> Seek for Counting<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.seeks = self.seeks.saturating_add(1);
        self.inner.seek(to)
    }
}

fn counting(bytes: &[u8]) -> Counting<Cursor<&[u8]>> {
    Counting {
        inner: Cursor::new(bytes),
        taken: 0,
        seeks: 0,
    }
}

/// Reads the header of the named format.
fn references(format: &str, bytes: &[u8]) {
    let parsed = ImageFormat::from_name(format.as_bytes());
    let mut file = counting(bytes);
    let found = image::references(&parsed, &mut file);
    assert!(file.taken <= READ_LIMIT, "{format} read {}", file.taken);
    assert!(file.seeks <= SEEK_LIMIT, "{format} sought {}", file.seeks);
    let again = image::references(&parsed, &mut Cursor::new(bytes));
    match (found, again) {
        (Ok(found), Ok(again)) => {
            assert_eq!(found, again, "{format}");
            let backing = found.backing.iter().map(|backing| &backing.name);
            for name in backing.chain(&found.data_file).chain(&found.extents) {
                assert!(
                    !name.is_empty() && name.len() <= NAME_LIMIT && !name.contains(&0),
                    "{format} {}",
                    name.escape_ascii()
                );
            }
        }
        (Err(error), Err(again)) => {
            let error = error.to_string();
            assert_eq!(error, again.to_string(), "{format}");
            assert!(!error.contains(char::is_control), "{format} {error:?}");
        }
        (found, again) => panic!("{format}: {found:?}, then {again:?}"),
    }
}

/// The bytes as they are, and with `magic` over their start.
fn with_magic(format: &str, bytes: &[u8], magic: &[u8]) {
    references(format, bytes);
    if let Some(tail) = bytes.get(magic.len()..) {
        references(format, &[magic, tail].concat());
    }
}

/// qcow, version 1.
pub fn qcow(bytes: &[u8]) {
    with_magic("qcow", bytes, b"QFI\xfb\0\0\0\x01");
}

/// qcow2, versions 2 and 3.
pub fn qcow2(bytes: &[u8]) {
    with_magic("qcow2", bytes, b"QFI\xfb\0\0\0\x02");
    with_magic("qcow2", bytes, b"QFI\xfb\0\0\0\x03");
}

/// QED, also as the start of a file that is long enough for the tables of a small image.
pub fn qed(bytes: &[u8]) {
    with_magic("qed", bytes, b"QED\0");
    let mut padded = vec![0; QED_BYTES.max(bytes.len())];
    padded[..bytes.len()].copy_from_slice(bytes);
    references("qed", &padded);
}

/// VMDK: a descriptor alone, and behind either header.
pub fn vmdk(bytes: &[u8]) {
    with_magic("vmdk", bytes, b"KDMV");
    with_magic("vmdk", bytes, b"COWD");
}

/// VHDX: the bytes as they are, and as the two tables at their places.
pub fn vhdx(bytes: &[u8]) {
    with_magic("vhdx", bytes, b"vhdxfile");
    let (regions, metadata) = bytes.split_at(bytes.len().min(VHDX_REGION_BYTES));
    let mut placed = vec![0; VHDX_METADATA];
    placed[..8].copy_from_slice(b"vhdxfile");
    placed[VHDX_REGIONS..][..regions.len()].copy_from_slice(regions);
    placed.extend_from_slice(metadata);
    references("vhdx", &placed);
}

/// The formats whose headers name no file.
pub fn nameless(bytes: &[u8]) {
    with_magic("vpc", bytes, b"conectix");
    for format in ["vdi", "dmg"] {
        references(format, bytes);
    }
    with_magic("parallels", bytes, b"WithoutFreeSpace\x02\0\0\0");
    with_magic("luks", bytes, b"LUKS\xba\xbe\0\x01");
    with_magic("bochs", bytes, b"Bochs Virtual HD Image\0");
    with_magic("cloop", bytes, b"#!/bin/sh\n#V2.0 Format\n");
}

/// Probing, and then every format on the same bytes: that nobody states a format does not mean
/// that nobody states a wrong one.
pub fn probe(bytes: &[u8]) {
    for name in [&b"x"[..], b"x.dmg"] {
        let mut file = counting(bytes);
        let found = image::probe(&mut file, name).unwrap();
        assert!(file.taken <= PROBE_LIMIT, "probing read {}", file.taken);
        assert_eq!(image::probe(&mut Cursor::new(bytes), name).unwrap(), found);
    }
    for format in FORMATS {
        references(format, bytes);
    }
}
