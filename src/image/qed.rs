//! QEMU enhanced disk. All numbers are little-endian. Facts: `bdrv_qed_do_open` in block/qed.c.

use std::io::{Read, Seek};

use crate::image::error::ImageError;
use crate::image::references::References;
use crate::image::window::{self, MAX_NAME, SECTOR, Window};

/// `QED\0`.
pub(super) const MAGIC: u32 = 0x0044_4551;
/// In bytes: sizeof(QEDHeader).
const HEADER_LENGTH: usize = 64;

/// Feature bit: the header names a backing file.
const BACKING_FILE: u64 = 1;
/// Feature bit: the image was not closed cleanly.
const NEED_CHECK: u64 = 2;
/// Feature bit: the backing file is raw and must not be probed.
const BACKING_IS_RAW: u64 = 4;

/// In bytes: QED_MIN_CLUSTER_SIZE and QED_MAX_CLUSTER_SIZE in block/qed.h.
const CLUSTER_SIZES: std::ops::RangeInclusive<u64> = 0x1000..=0x400_0000;
/// In clusters: QED_MIN_TABLE_SIZE and QED_MAX_TABLE_SIZE.
const TABLE_SIZES: std::ops::RangeInclusive<u64> = 1..=16;
/// In bytes.
const TABLE_ENTRY_LENGTH: u64 = 8;

/// Returns what the header names.
pub(super) fn references(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let header = Window::read(image, 0, HEADER_LENGTH)?;
    if header.le32(0) != MAGIC {
        return Err(ImageError::WrongMagic { format: "qed" });
    }
    let features = header.le64(16);
    let unknown = features & !(BACKING_FILE | NEED_CHECK | BACKING_IS_RAW);
    if unknown != 0 {
        return Err(ImageError::UnsupportedFeatures {
            format: "qed",
            bits: unknown,
        });
    }
    let header_bytes = check_geometry(&header, window::size(image)?)?;
    if features & BACKING_FILE == 0 {
        return Ok(References::default());
    }

    let offset = u64::from(header.le32(56));
    let length = u64::from(header.le32(60));
    if offset
        .checked_add(length)
        .is_none_or(|end| end > header_bytes)
    {
        return Err(ImageError::BackingNameOutside {
            offset,
            cluster: header_bytes,
        });
    }
    let field = match usize::try_from(length) {
        Ok(length) if length <= MAX_NAME => Window::read(image, offset, length)?,
        _ => {
            let limit = window::length(MAX_NAME);
            return Err(ImageError::BackingNameTooLong { length, limit });
        }
    };
    let format = (features & BACKING_IS_RAW != 0).then(|| b"raw".to_vec());
    Ok(References::backing(window::name(field.bytes()), format))
}

/// Checks the fields that QEMU checks and returns the size of the header in bytes.
fn check_geometry(header: &Window, file_size: u64) -> Result<u64, ImageError> {
    let out_of_range = |field, value| ImageError::FieldOutOfRange { field, value };

    let cluster = u64::from(header.le32(4));
    if !CLUSTER_SIZES.contains(&cluster) || !cluster.is_power_of_two() {
        return Err(out_of_range("cluster size", cluster));
    }
    let table = u64::from(header.le32(8));
    if !TABLE_SIZES.contains(&table) || !table.is_power_of_two() {
        return Err(out_of_range("table size", table));
    }
    // QEMU multiplies 32-bit numbers here; a product that would wrap there is refused.
    let clusters = u64::from(header.le32(12));
    let header_bytes = clusters
        .checked_mul(cluster)
        .filter(|bytes| u32::try_from(*bytes).is_ok())
        .ok_or_else(|| out_of_range("header size", clusters))?;

    let disk = header.le64(48);
    let table_bytes = table.saturating_mul(cluster);
    let entries = table_bytes
        .checked_div(TABLE_ENTRY_LENGTH)
        .unwrap_or_default();
    let mapped = entries.saturating_mul(entries).saturating_mul(cluster);
    if !disk.is_multiple_of(SECTOR) || disk > mapped {
        return Err(out_of_range("disk size", disk));
    }

    // The L1 table must be on whole clusters, after the header and within the file's whole
    // clusters.
    let l1 = header.le64(40);
    let last_cluster = table_bytes.saturating_sub(cluster);
    let whole_clusters = file_size & !cluster.saturating_sub(1);
    let fits = l1.is_multiple_of(cluster)
        && l1 >= header_bytes
        && l1
            .checked_add(last_cluster)
            .is_some_and(|end| end < whole_clusters);
    if fits {
        Ok(header_bytes)
    } else {
        Err(ImageError::InvalidTable { table: "L1 table" })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn image(features: u64, offset: u32, length: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC, 0x1000, 2, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for long in [features, 0, 0, 0x1000, 1 << 20] {
            bytes.extend(long.to_le_bytes());
        }
        bytes.extend(offset.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(b"base.img\0tail");
        bytes.resize(0x3000, 0);
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<References, ImageError> {
        references(&mut Cursor::new(bytes))
    }

    #[test]
    fn the_raw_bit_states_the_format() {
        let backing = |features| read(image(features, 64, 13)).unwrap().backing;
        assert_eq!(backing(0), None);
        assert_eq!(backing(BACKING_IS_RAW), None);
        let probed = backing(BACKING_FILE).unwrap();
        assert_eq!((&probed.name[..], probed.format), (&b"base.img"[..], None));
        let raw = backing(BACKING_FILE | BACKING_IS_RAW).unwrap();
        assert_eq!(raw.format, Some(b"raw".to_vec()));
    }

    #[test]
    fn refused() {
        for (offset, length) in [(64, 0xfc1), (u32::MAX, 8), (64, u32::MAX), (0x1001, 0)] {
            assert!(read(image(BACKING_FILE, offset, length)).is_err());
        }
        // magic, cluster size, table size, header size, features, L1 offset, disk size
        for (at, value) in [
            (0, 0),
            (5, 0x18),
            (5, 8),
            (8, 3),
            (8, 0),
            (14, 0x10),
            (16, 9),
            (40, 1),
            (41, 0x20),
            (48, 1),
        ] {
            let mut bytes = image(BACKING_FILE, 64, 8);
            bytes[at] = value;
            assert!(read(bytes).is_err(), "byte {at} = {value}");
        }
    }
}
