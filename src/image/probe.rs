//! The format that QEMU guesses if none is stated. Facts: `find_image_format` and `bdrv_probe_all`
//! in block.c, and the probe function of each driver.

use std::io::{self, Read, Seek};

use crate::image::error::ImageError;
use crate::image::format::ImageFormat;
use crate::image::qcow;
use crate::image::qed;
use crate::image::self_contained;
use crate::image::vhdx;
use crate::image::vmdk;
use crate::image::window::{self, Window};

/// The bytes that are probed (BLOCK_PROBE_BUF_SIZE). Shorter images are padded with zeros.
const PROBED_LENGTH: usize = 512;
/// The suffix of a DMG; `dmg_probe` takes names that are longer.
const DMG_SUFFIX: &[u8] = b".dmg";
/// The start of a cloop image (block/cloop.c).
const CLOOP_MAGIC: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
/// First lines of a VMDK descriptor after comments, with either line end (`vmdk_probe`).
const VMDK_VERSIONS: [&[u8]; 6] = [
    b"version=1\n",
    b"version=2\n",
    b"version=3\n",
    b"version=1\r\n",
    b"version=2\r\n",
    b"version=3\r\n",
];

/// Returns the format that QEMU would guess; `name` is the file name by which QEMU would open the
/// image.
///
/// # Errors
/// Those of reading the file.
pub fn probe(image: &mut (impl Read + Seek), name: &[u8]) -> io::Result<ImageFormat> {
    if window::size(image)? == 0 {
        return Ok(ImageFormat::Raw);
    }
    let head = Window::read(image, 0, PROBED_LENGTH).map_err(|error| match error {
        ImageError::Read(error) => error,
        other => io::Error::other(other),
    })?;
    Ok(by_magic(&head)
        .or_else(|| by_weak_sign(&head, name))
        .unwrap_or(ImageFormat::Raw))
}

/// Returns the format if it has the full score of 100. A header may have both the VDI signature at
/// 64 and a magic number at 0; QEMU then takes the driver that is first in its list, as the order
/// here does (checked with qemu-img 10.0.2).
fn by_magic(head: &Window) -> Option<ImageFormat> {
    let version = head.be32(4);
    if head.slice(0, 8) == self_contained::VPC_MAGIC {
        Some(ImageFormat::Vpc)
    } else if is_vmdk(head) {
        Some(ImageFormat::Vmdk)
    } else if head.slice(0, 8) == vhdx::MAGIC {
        Some(ImageFormat::Vhdx)
    } else if self_contained::is_parallels(head) {
        Some(ImageFormat::Parallels)
    } else if head.le32(0) == qed::MAGIC {
        Some(ImageFormat::Qed)
    } else if head.le32(self_contained::VDI_MAGIC_AT) == self_contained::VDI_MAGIC {
        Some(ImageFormat::Vdi)
    } else if head.be32(0) == qcow::MAGIC && version > qcow::VERSION {
        Some(ImageFormat::Qcow2)
    } else if head.be32(0) == qcow::MAGIC && version == qcow::VERSION {
        Some(ImageFormat::Qcow)
    } else if self_contained::is_luks(head) {
        Some(ImageFormat::Luks)
    } else if self_contained::is_bochs(head) {
        Some(ImageFormat::Bochs)
    } else {
        None
    }
}

/// Returns the format if it has a score of 2, which is still above raw.
fn by_weak_sign(head: &Window, name: &[u8]) -> Option<ImageFormat> {
    if name.len() > DMG_SUFFIX.len() && name.ends_with(DMG_SUFFIX) {
        Some(ImageFormat::Dmg)
    } else if head.bytes().starts_with(CLOOP_MAGIC) {
        Some(ImageFormat::Cloop)
    } else {
        None
    }
}

fn is_vmdk(head: &Window) -> bool {
    matches!(head.be32(0), vmdk::MAGIC_3 | vmdk::MAGIC_4) || is_vmdk_descriptor(head.bytes())
}

/// Returns whether only comments and lines of blanks precede a version line.
fn is_vmdk_descriptor(head: &[u8]) -> bool {
    let mut rest = head;
    loop {
        let line_end = rest.iter().position(|byte| *byte == b'\n');
        let line = line_end.and_then(|end| rest.get(..end));
        let is_skipped = match rest.first() {
            Some(b'#') => true,
            Some(b' ') => line.is_some_and(is_blank_line),
            _ => {
                return VMDK_VERSIONS
                    .iter()
                    .any(|version| rest.starts_with(version));
            }
        };
        let next = line_end
            .and_then(|end| rest.get(end..))
            .and_then(<[u8]>::split_first);
        match next {
            Some((_, tail)) if is_skipped => rest = tail,
            _ => return false,
        }
    }
}

/// Returns whether a line has only blanks, and perhaps a carriage return at the end.
fn is_blank_line(line: &[u8]) -> bool {
    let blanks = line.strip_suffix(b"\r").unwrap_or(line);
    blanks.iter().all(|byte| *byte == b' ')
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn probed(bytes: &[u8], name: &str) -> String {
        let format = probe(&mut Cursor::new(bytes), name.as_bytes()).unwrap();
        String::from_utf8(format.name().to_vec()).unwrap()
    }

    #[test]
    fn table() {
        let mut polyglot = vec![0; 512];
        polyglot[64..68].copy_from_slice(&self_contained::VDI_MAGIC.to_le_bytes());
        let with = |magic: &[u8]| {
            let mut bytes = polyglot.clone();
            bytes[..magic.len()].copy_from_slice(magic);
            bytes
        };
        let table: &[(&[u8], &str, &str)] = &[
            (b"", "x", "raw"),
            (b"", "x.dmg", "raw"),
            (&[0; 600], "x", "raw"),
            (&[0; 600], "x.dmg", "dmg"),
            (&[0; 600], ".dmg", "raw"),
            (b"QFI\xfb\0\0\0\x01", "x", "qcow"),
            (b"QFI\xfb\0\0\0\x02", "x", "qcow2"),
            (b"QFI\xfb\0\0\0\x09", "x", "qcow2"),
            (b"QFI\xfb\0\0\0\0", "x", "raw"),
            (b"QED\0", "x", "qed"),
            (b"KDMV", "x", "vmdk"),
            (b"COWD", "x", "vmdk"),
            (b"# c\n   \n \r\nversion=3\r\n", "x", "vmdk"),
            (b"version=1\n", "x", "vmdk"),
            (b"version=4\n", "x", "raw"),
            (b"\nversion=1\n", "x", "raw"),
            (b" x\nversion=1\n", "x", "raw"),
            (b"# no line end", "x", "raw"),
            (b"conectix", "x", "vpc"),
            (b"vhdxfile", "x", "vhdx"),
            (b"WithoutFreeSpace\x02", "x", "parallels"),
            (b"WithoutFreeSpace\x03", "x", "raw"),
            (b"LUKS\xba\xbe\0\x01", "x", "luks"),
            (b"LUKS\xba\xbe\0\x02", "x", "raw"),
            (CLOOP_MAGIC, "x", "cloop"),
            (CLOOP_MAGIC, "x.dmg", "dmg"),
            (&with(b""), "x", "vdi"),
            (&with(b"QFI\xfb\0\0\0\x02"), "x", "vdi"),
            (&with(b"LUKS\xba\xbe\0\x01"), "x", "vdi"),
            (&with(b"QED\0"), "x", "qed"),
            (&with(b"KDMV"), "x", "vmdk"),
            (&with(b"conectix"), "x", "vpc"),
            (&with(b"vhdxfile"), "x", "vhdx"),
        ];
        for (bytes, name, expected) in table {
            assert_eq!(probed(bytes, name), *expected, "{}", bytes.escape_ascii());
        }
    }
}
