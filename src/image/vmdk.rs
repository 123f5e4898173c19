//! VMDK: sparse files with an embedded descriptor, and plain descriptors. All numbers except the
//! magic number are little-endian. Facts: `vmdk_open` and `vmdk_open_vmdk4` in block/vmdk.c.
//!
//! QEMU does not open the extents of an embedded descriptor, which are the file itself, unless a
//! KDMV header has capacity 0.

use std::io::{Read, Seek};

use crate::image::error::ImageError;
use crate::image::references::{BackingName, References};
use crate::image::vmdk_descriptor as descriptor;
use crate::image::window::{self, SECTOR, Window};

/// Big-endian `KDMV`: VMware 4 and later.
pub(super) const MAGIC_4: u32 = 0x4b44_4d56;
/// Big-endian `COWD`: VMware 3.
pub(super) const MAGIC_3: u32 = 0x434f_5744;
/// In bytes: the magic number and the longer of the two headers.
const HEADER_LENGTH: usize = 79;
/// In bytes: `vmdk_read_desc` reads less than 1 MiB.
const MAX_DESCRIPTOR: u64 = (1 << 20) - 1;
/// In bytes: DESC_SIZE, the part of a descriptor in which QEMU looks for parent and content
/// identifiers.
const SHORT_DESCRIPTOR: usize = 20 * 512;
/// The offset in bytes of the embedded descriptor, for QEMU even if the header states another.
const EMBEDDED_OFFSET: u64 = 0x200;

/// The highest KDMV version that QEMU opens.
const MAX_VERSION: u32 = 3;
/// The gd_offset of files whose valid header is in their footer.
const FOOTER: u64 = u64::MAX;
/// In bytes: footer marker, footer, end-of-stream marker.
const FOOTER_LENGTH: usize = 3 * 512;
/// The type of the footer marker.
const MARKER_FOOTER: u32 = 3;
/// In entries.
const MAX_L2_ENTRIES: u32 = 512;
/// In sectors: 1 GiB for a cluster (`vmdk_add_extent`).
const MAX_GRAIN: u64 = 0x20_0000;
/// VMDK4_FLAG_RGD.
const REDUNDANT_DIRECTORY: u32 = 1 << 1;
/// In bytes.
const L1_ENTRY_LENGTH: u64 = 4;
/// In entries (`vmdk_add_extent`). QEMU computes the number in 32 bits; one that would wrap is
/// refused here.
const MAX_L1_ENTRIES: u64 = 32 << 20;

/// Returns what header and descriptor name.
pub(super) fn references(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let size = window::size(image)?;
    let header = Window::read(image, 0, HEADER_LENGTH)?;
    let (extents, text_offset) = match header.be32(0) {
        MAGIC_3 => {
            check_grains(header.le32(16).into(), header.le32(24).into())?;
            (Vec::new(), EMBEDDED_OFFSET)
        }
        MAGIC_4 => (sparse_extents(image, &header, size)?, EMBEDDED_OFFSET),
        _ if size == 0 => return Err(ImageError::WrongMagic { format: "vmdk" }),
        _ => (described_extents(image, 0, size)?, 0),
    };

    let text = Window::read(image, text_offset, SHORT_DESCRIPTOR)?;
    let parent = descriptor::parent(text.bytes())?;
    descriptor::check_content_ids(text.bytes())?;
    Ok(References {
        backing: parent.map(|name| BackingName {
            name,
            format: Some(b"vmdk".to_vec()),
        }),
        data_file: None,
        extents,
    })
}

/// Returns the extents of the descriptor at `offset`.
fn described_extents(
    image: &mut (impl Read + Seek),
    offset: u64,
    size: u64,
) -> Result<Vec<Vec<u8>>, ImageError> {
    let length = usize::try_from(size.min(MAX_DESCRIPTOR)).unwrap_or_default();
    let text = Window::read(image, offset, length)?;
    descriptor::check_create_type(text.bytes())?;
    descriptor::extents(text.bytes())
}

/// Returns the extents that a KDMV header makes QEMU open: none, unless its capacity is 0.
fn sparse_extents(
    image: &mut (impl Read + Seek),
    header: &Window,
    size: u64,
) -> Result<Vec<Vec<u8>>, ImageError> {
    let descriptor_sector = header.le64(28);
    if header.le64(12) == 0 && descriptor_sector != 0 {
        let offset =
            descriptor_sector
                .checked_mul(SECTOR)
                .ok_or(ImageError::OffsetBeyondAnyFile {
                    offset: descriptor_sector,
                })?;
        return described_extents(image, offset, size);
    }
    if header.le64(56) == FOOTER {
        let footer = read_footer(image, size)?;
        check_sparse(&footer, size)?;
    } else {
        check_sparse(header, size)?;
    }
    Ok(Vec::new())
}

/// Returns the header in the footer, from its magic number on.
fn read_footer(image: &mut (impl Read + Seek), size: u64) -> Result<Window, ImageError> {
    let offset = u64::try_from(FOOTER_LENGTH)
        .ok()
        .and_then(|length| size.checked_sub(length))
        .ok_or(ImageError::InvalidFooter)?;
    let footer = Window::read(image, offset, FOOTER_LENGTH)?;
    let valid = footer.le32(8) == 0
        && footer.le32(12) == MARKER_FOOTER
        && footer.be32(512) == MAGIC_4
        && footer.slice(1024, 16) == [0; 16];
    if !valid {
        return Err(ImageError::InvalidFooter);
    }
    let header = offset
        .checked_add(SECTOR)
        .ok_or(ImageError::InvalidFooter)?;
    Window::read(image, header, HEADER_LENGTH)
}

fn check_sparse(header: &Window, size: u64) -> Result<(), ImageError> {
    let version = header.le32(4);
    if version > MAX_VERSION {
        return Err(ImageError::UnsupportedVersion {
            format: "vmdk",
            version: version.into(),
        });
    }
    let l2_entries = header.le32(44);
    let grain = header.le64(20);
    // QEMU keeps the product in 32 bits.
    let mapped = u64::from(l2_entries)
        .checked_mul(grain)
        .filter(|sectors| (1..=u32::MAX.into()).contains(sectors));
    let Some(mapped) = mapped.filter(|_| l2_entries <= MAX_L2_ENTRIES) else {
        return Err(ImageError::FieldOutOfRange {
            field: "grain size",
            value: grain,
        });
    };
    let l1_entries = header.le64(12).div_ceil(mapped);
    check_grains(grain, l1_entries)?;
    // QEMU reads the directory and, if the flag is set, the redundant one when it opens the image.
    let has_redundant = header.le32(8) & REDUNDANT_DIRECTORY != 0;
    let redundant = if has_redundant { header.le64(48) } else { 0 };
    let is_directory = |sector: u64| {
        sector
            .checked_mul(SECTOR)
            .is_some_and(|at| window::is_readable(at, l1_entries.saturating_mul(L1_ENTRY_LENGTH)))
    };
    if !is_directory(header.le64(56)) || !is_directory(redundant) {
        return Err(ImageError::InvalidTable {
            table: "grain directory",
        });
    }
    let first_grain = header.le64(64);
    if size
        .checked_div(SECTOR)
        .is_none_or(|sectors| sectors < first_grain)
    {
        return Err(ImageError::FieldOutOfRange {
            field: "first grain's sector",
            value: first_grain,
        });
    }
    Ok(())
}

fn check_grains(grain: u64, l1_entries: u64) -> Result<(), ImageError> {
    if grain > MAX_GRAIN {
        return Err(ImageError::FieldOutOfRange {
            field: "grain size",
            value: grain,
        });
    }
    if l1_entries > MAX_L1_ENTRIES {
        return Err(ImageError::FieldOutOfRange {
            field: "grain directory size",
            value: l1_entries,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const IDS: &str = "CID=1\nparentCID=2\n";

    fn read(bytes: impl AsRef<[u8]>) -> Result<References, ImageError> {
        references(&mut Cursor::new(bytes))
    }

    /// A KDMV file with that text embedded.
    fn sparse(text: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x3000];
        let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
        put(0, b"KDMV");
        put(4, &1_u32.to_le_bytes());
        put(12, &2048_u64.to_le_bytes());
        put(20, &128_u64.to_le_bytes());
        put(28, &1_u64.to_le_bytes());
        put(44, &512_u32.to_le_bytes());
        put(56, &21_u64.to_le_bytes());
        put(0x200, text.as_bytes());
        bytes
    }

    #[test]
    fn a_plain_descriptor() {
        let text = format!(
            "{IDS}createType=\"twoGbMaxExtentFlat\"\nRW 8 FLAT \"a\" 0\nRW 8 FLAT \"b\" 0\nparentFileNameHint=\"p\"\n"
        );
        let found = read(text).unwrap();
        assert_eq!(found.extents, [b"a", b"b"]);
        let backing = found.backing.unwrap();
        assert_eq!(
            (&backing.name[..], &backing.format.unwrap()[..]),
            (&b"p"[..], &b"vmdk"[..])
        );
    }

    #[test]
    fn a_parent_is_not_looked_for_after_the_short_descriptor() {
        let text = format!(
            "{IDS}createType=\"vmfs\"\n{}\nparentFileNameHint=\"p\"\nRW 8 VMFS \"a\"\n",
            "#".repeat(SHORT_DESCRIPTOR)
        );
        let found = read(text).unwrap();
        assert_eq!(found.backing, None);
        assert_eq!(found.extents, [b"a"]);
    }

    #[test]
    fn embedded_extents_are_not_opened() {
        let text = format!(
            "{IDS}createType=\"monolithicSparse\"\nRW 2048 SPARSE \"/etc/shadow\"\nparentFileNameHint=\"p\"\n"
        );
        for magic in [b"KDMV", b"COWD"] {
            let mut bytes = sparse(&text);
            bytes[..4].copy_from_slice(magic);
            bytes[24..28].fill(0);
            let found = read(bytes).unwrap();
            assert_eq!(found.extents, <[Vec<u8>; 0]>::default());
            assert_eq!(found.backing.unwrap().name, b"p");
        }
    }

    #[test]
    fn capacity_zero_opens_extents() {
        let mut bytes = sparse(IDS);
        bytes[12..20].fill(0);
        bytes[28] = 8;
        bytes[0x1000..0x102f]
            .copy_from_slice(b"createType=\"vmfs\"\nRW 1 VMFS \"a\"\n###############");
        assert_eq!(read(&bytes).unwrap().extents, [b"a"]);
        bytes[35] = 0x80;
        assert!(read(&bytes).is_err());
        bytes[28..36].fill(0);
        assert_eq!(read(&bytes).unwrap(), References::default());
    }

    #[test]
    fn refused() {
        for (at, value) in [
            (4, 4),
            (22, 0x40),
            (26, 1),
            (20, 0),
            (45, 3),
            (47, 1),
            (44, 0),
            (70, 1),
            (17, 0xff),
            (0x200, b'x'),
            (56, 0),
        ] {
            let mut bytes = sparse(IDS);
            if at == 56 {
                bytes[56..64].fill(0xff);
            } else {
                bytes[at] = value;
                if at == 44 || at == 20 {
                    bytes[at + 1] = 0;
                }
            }
            let id_kept = at == 0x200; // "xID" leaves the CID of parentCID
            assert_eq!(read(bytes).is_ok(), id_kept, "byte {at} = {value}");
        }
        assert!(read("").is_err());
        assert!(read(IDS).is_err());
    }
}
