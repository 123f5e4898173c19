//! VHDX. QEMU refuses an image that has a parent (`vhdx_parse_metadata` in block/vhdx.c fails with
//! ENOTSUP); any other names no file. All numbers are little-endian. Checksums are left to QEMU,
//! because nothing that is read here becomes a name.

use std::io::{Read, Seek};

use crate::image::error::ImageError;
use crate::image::references::References;
use crate::image::window::Window;

/// The start of the file.
pub(super) const MAGIC: &[u8] = b"vhdxfile";
/// The offset in bytes of the first region table, the only one that QEMU reads.
const REGION_TABLE_OFFSET: u64 = 192 * 1024;
/// In bytes: both tables have this length.
const TABLE_LENGTH: usize = 64 * 1024;
/// In entries (`vhdx_open_region_tables`).
const MAX_REGIONS: u32 = 2047;
/// In bytes: what precedes the first entry.
const REGION_HEADER: usize = 16;
/// In bytes: what precedes the first entry.
const METADATA_HEADER: usize = 32;
/// In bytes: an entry of either table, which starts with a GUID.
const ENTRY_LENGTH: usize = 32;

/// 8b7ca206-4790-4b9a-b8fe-575f050f886e.
const METADATA_REGION: [u8; 16] = [
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
];
/// caa16737-fa36-4d43-b3b6-33f0aa44e76b.
const FILE_PARAMETERS: [u8; 16] = [
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b,
];
/// a8d35f2d-b30b-454d-abf7-d3d84834ab0c.
const PARENT_LOCATOR: [u8; 16] = [
    0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c,
];
/// File parameters bit: differencing image.
const HAS_PARENT: u32 = 2;

/// Checks that the image has no parent.
pub(super) fn references(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    if Window::read(image, 0, MAGIC.len())?.bytes() != MAGIC {
        return Err(ImageError::WrongMagic { format: "vhdx" });
    }
    let invalid = |table| ImageError::InvalidTable { table };

    let regions = Window::read(image, REGION_TABLE_OFFSET, TABLE_LENGTH)?;
    let count = regions.le32(8);
    if regions.slice(0, 4) != b"regi" || count > MAX_REGIONS {
        return Err(invalid("region table"));
    }
    let metadata_offset = entries(&regions, REGION_HEADER, count)
        .find(|entry| entry.guid == METADATA_REGION)
        .map(|entry| regions.le64(entry.fields))
        .ok_or_else(|| invalid("region table"))?;

    let metadata = Window::read(image, metadata_offset, TABLE_LENGTH)?;
    if metadata.slice(0, 8) != b"metadata" {
        return Err(invalid("metadata table"));
    }
    let count = u32::from(metadata.le16(10));
    let items = || entries(&metadata, METADATA_HEADER, count);
    if items().any(|entry| entry.guid == PARENT_LOCATOR) {
        return Err(ImageError::UnsupportedParent { format: "vhdx" });
    }
    let parameters = items()
        .find(|entry| entry.guid == FILE_PARAMETERS)
        .map(|entry| u64::from(metadata.le32(entry.fields)))
        .and_then(|offset| offset.checked_add(metadata_offset))
        .ok_or_else(|| invalid("metadata table"))?;
    if Window::read(image, parameters, 8)?.le32(4) & HAS_PARENT != 0 {
        return Err(ImageError::UnsupportedParent { format: "vhdx" });
    }
    Ok(References::default())
}

/// A table entry: its GUID, and the offset of the fields after it.
struct TableEntry<'a> {
    guid: &'a [u8],
    fields: usize,
}

/// Returns the entries within the table.
fn entries(table: &Window, first: usize, count: u32) -> impl Iterator<Item = TableEntry<'_>> {
    (first..table.bytes().len())
        .step_by(ENTRY_LENGTH)
        .take(usize::try_from(count).unwrap_or(usize::MAX))
        .map(|at| TableEntry {
            guid: table.slice(at, 16),
            fields: at.saturating_add(16),
        })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn image(bits: u8, items: &[[u8; 16]]) -> Vec<u8> {
        let mut bytes = vec![0; 0x50000];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[0x30000..0x30004].copy_from_slice(b"regi");
        bytes[0x30008] = 1;
        bytes[0x30010..0x30020].copy_from_slice(&METADATA_REGION);
        bytes[0x30022] = 4; // metadata at 0x40000
        bytes[0x40000..0x40008].copy_from_slice(b"metadata");
        bytes[0x4000a] = u8::try_from(items.len()).unwrap();
        for (entry, guid) in bytes[0x40020..].chunks_exact_mut(32).zip(items) {
            entry[..16].copy_from_slice(guid);
            entry[17] = 0x80; // the item at 0x48000
        }
        bytes[0x48004] = bits;
        bytes
    }

    fn read(bytes: Vec<u8>) -> Result<References, ImageError> {
        references(&mut Cursor::new(bytes))
    }

    #[test]
    fn names_nothing() {
        assert_eq!(
            read(image(1, &[FILE_PARAMETERS])).unwrap(),
            References::default()
        );
    }

    #[test]
    fn a_parent_is_refused() {
        for bytes in [
            image(HAS_PARENT as u8, &[FILE_PARAMETERS]),
            image(0, &[FILE_PARAMETERS, PARENT_LOCATOR]),
        ] {
            assert!(matches!(
                read(bytes),
                Err(ImageError::UnsupportedParent { .. })
            ));
        }
    }

    #[test]
    fn damaged_tables_are_refused() {
        assert!(read(image(0, &[])).is_err());
        for at in [0, 0x30000, 0x30008, 0x30010, 0x30021, 0x40000] {
            let mut bytes = image(0, &[FILE_PARAMETERS]);
            bytes[at] = bytes[at].wrapping_sub(1);
            assert!(read(bytes).is_err(), "byte {at:#x}");
        }
    }
}
