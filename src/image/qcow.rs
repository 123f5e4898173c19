//! QCOW version 1. All numbers are big-endian. Facts: `qcow_open` in block/qcow.c.

use std::io::{Read, Seek};

use crate::image::error::ImageError;
use crate::image::references::References;
use crate::image::window::{Window, is_readable, name};

/// `QFI\xfb`, as in qcow2.
pub(super) const MAGIC: u32 = 0x5146_49fb;
/// The only version of this format; 2 and 3 are qcow2.
pub(super) const VERSION: u32 = 1;
/// In bytes: sizeof(QCowHeader) in block/qcow.c.
const HEADER_LENGTH: usize = 48;
/// Exponents of two: `qcow_open` takes clusters of 512 bytes to 64 KiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u8> = 9..=16;
/// Exponents of two: an L2 table of 8-byte entries has 512 bytes to 64 KiB.
const L2_BITS: std::ops::RangeInclusive<u8> = 6..=13;
/// In bytes: `qcow_open` refuses longer backing file names.
const MAX_BACKING_NAME: u32 = 1023;
/// In bytes.
const L1_ENTRY_LENGTH: u64 = 8;
/// In entries: INT_MAX / sizeof(uint64_t) in `qcow_open`.
const MAX_L1_ENTRIES: u64 = 0x0fff_ffff;

/// Returns what the header names.
pub(super) fn references(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let header = Window::read(image, 0, HEADER_LENGTH)?;
    if header.be32(0) != MAGIC {
        return Err(ImageError::WrongMagic { format: "qcow" });
    }
    let version = header.be32(4);
    if version != VERSION {
        return Err(ImageError::UnsupportedVersion {
            format: "qcow",
            version: version.into(),
        });
    }
    check_geometry(&header)?;
    // Every system emulator refuses AES, the only method (qcow_open, bdrv_uses_whitelist).
    match header.be32(36) {
        0 => {}
        method => return Err(ImageError::UnsupportedEncryption { method }),
    }

    let offset = header.be64(8);
    if offset == 0 {
        return Ok(References::default());
    }
    let length = header.be32(16);
    if length > MAX_BACKING_NAME {
        return Err(ImageError::BackingNameTooLong {
            length: length.into(),
            limit: MAX_BACKING_NAME.into(),
        });
    }
    let length = usize::try_from(length).unwrap_or_default();
    let field = Window::read(image, offset, length)?;
    Ok(References::backing(name(field.bytes()), None))
}

fn check_geometry(header: &Window) -> Result<(), ImageError> {
    let size = header.be64(24);
    if size <= 1 {
        return Err(ImageError::FieldOutOfRange {
            field: "disk size",
            value: size,
        });
    }
    let cluster_bits = header.u8(32);
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(ImageError::FieldOutOfRange {
            field: "cluster size exponent",
            value: cluster_bits.into(),
        });
    }
    let l2_bits = header.u8(33);
    if !L2_BITS.contains(&l2_bits) {
        return Err(ImageError::FieldOutOfRange {
            field: "L2 table size exponent",
            value: l2_bits.into(),
        });
    }
    let mapped_by_entry = u64::from(cluster_bits)
        .checked_add(l2_bits.into())
        .and_then(|bits| 1_u64.checked_shl(u32::try_from(bits).ok()?));
    // QEMU refuses sizes that overflow when rounded up to whole entries.
    let entries = mapped_by_entry
        .filter(|bytes| size.checked_add(*bytes).is_some())
        .map(|bytes| size.div_ceil(bytes))
        .filter(|entries| *entries <= MAX_L1_ENTRIES);
    let Some(entries) = entries else {
        return Err(ImageError::FieldOutOfRange {
            field: "disk size",
            value: size,
        });
    };
    if is_readable(header.be64(40), entries.saturating_mul(L1_ENTRY_LENGTH)) {
        Ok(())
    } else {
        Err(ImageError::InvalidTable { table: "L1 table" })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn header(backing_offset: u64, backing_length: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_be_bytes());
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(backing_offset.to_be_bytes());
        bytes.extend(backing_length.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend((1_u64 << 20).to_be_bytes());
        bytes.extend([12, 9, 0, 0]);
        bytes.extend([0; 4]);
        bytes.extend(48_u64.to_be_bytes());
        bytes.extend(b"base.img\0tail");
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<References, ImageError> {
        references(&mut Cursor::new(bytes))
    }

    #[test]
    fn the_backing_format_is_never_stated() {
        let backing = read(header(48, 13)).unwrap().backing.unwrap();
        assert_eq!(backing.name, b"base.img");
        assert_eq!(backing.format, None);
    }

    #[test]
    fn no_name() {
        for (offset, length) in [(0, 8), (48, 0), (56, 4), (1 << 40, 8)] {
            assert_eq!(read(header(offset, length)).unwrap(), References::default());
        }
    }

    #[test]
    fn refused() {
        assert!(read(header(48, 1024)).is_err());
        assert!(read(header(u64::MAX, 8)).is_err());
        for (at, value) in [
            (0, 0),
            (7, 2),
            (24, 0xff),
            (32, 8),
            (32, 17),
            (33, 5),
            (33, 14),
            (39, 1),
            (40, 0x80),
        ] {
            let mut bytes = header(48, 8);
            bytes[at] = value;
            assert!(read(bytes).is_err(), "byte {at} = {value}");
        }
    }
}
