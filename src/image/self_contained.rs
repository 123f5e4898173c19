//! Formats whose headers name no file: only checks what makes QEMU refuse the image.

use std::io::{Read, Seek};

use crate::image::error::ImageError;
use crate::image::references::References;
use crate::image::window::{self, SECTOR, Window, c_string};

/// The start of a VHD footer.
pub(super) const VPC_MAGIC: &[u8] = b"conectix";
/// The start of the header of a dynamic or differencing VHD.
const VPC_DYNAMIC_MAGIC: &[u8] = b"cxsparse";
/// The little-endian signature at VDI_MAGIC_AT.
pub(super) const VDI_MAGIC: u32 = 0xbeda_107f;
/// The offset in bytes.
pub(super) const VDI_MAGIC_AT: usize = 64;
/// In bytes: QEMU reads the header as one sector.
pub(super) const VDI_HEADER_LENGTH: usize = 512;
/// Version 1.1 (VDI_VERSION_1_1 in block/vdi.c).
const VDI_VERSION: u32 = 0x0001_0001;
/// The offset in bytes of uuid_link, which uuid_parent follows.
const VDI_LINKS_AT: usize = 0x1a8;
/// In bytes: both identifiers.
const VDI_LINKS_LENGTH: usize = 32;
/// HEADER_MAGIC and HEADER_MAGIC2 in block/parallels.c.
const PARALLELS_MAGICS: [&[u8]; 2] = [b"WithoutFreeSpace", b"WithouFreSpacExt"];
/// Little-endian, after the magic number.
const PARALLELS_VERSION: u32 = 2;
/// The start of a LUKS volume (crypto/block-luks.c).
const LUKS_MAGIC: &[u8] = b"LUKS\xba\xbe";
/// Big-endian, after the magic number; QEMU does not support LUKS 2.
const LUKS_VERSION: u16 = 1;
/// The trailer of a DMG (block/dmg.c).
const DMG_TRAILER: &[u8] = b"koly";
/// In bytes: where QEMU looks for the trailer.
const DMG_TRAILER_AREA: usize = 515;
/// The start of that area, in bytes from the end.
const DMG_TRAILER_AT: u64 = 1023;
/// Magic, type and subtype (block/bochs.c): offset, length, value, which ends with a NUL.
const BOCHS_FIELDS: [(usize, usize, &[u8]); 3] = [
    (0, 32, b"Bochs Virtual HD Image"),
    (32, 16, b"Redolog"),
    (48, 16, b"Growing"),
];
/// Little-endian at 64.
const BOCHS_VERSIONS: [u32; 2] = [0x0002_0000, 0x0001_0000];
/// In bytes: MAX_BLOCK_SIZE in block/cloop.c.
const CLOOP_MAX_BLOCK: u32 = 64 << 20;

/// Checks a Virtual PC image; QEMU ignores parent names and locators (`vpc_open`, block/vpc.c).
pub(super) fn vpc(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let wrong = || ImageError::WrongMagic { format: "vpc" };
    let footer = Window::read(image, 0, 512)?;
    if footer.slice(0, 8) == VPC_MAGIC {
        // data_offset of the footer.
        let dynamic = Window::read(image, footer.be64(16), VPC_DYNAMIC_MAGIC.len())?;
        return none_if(dynamic.bytes() == VPC_DYNAMIC_MAGIC, wrong());
    }
    // Fixed disks have the footer in the last sector only.
    let size = window::size(image)?;
    let offset = size.checked_sub(SECTOR).ok_or_else(wrong)?;
    let footer = Window::read(image, offset, VPC_MAGIC.len())?;
    none_if(footer.bytes() == VPC_MAGIC, wrong())
}

/// Checks a VirtualBox image; QEMU refuses one that identifies another image (`vdi_open`,
/// block/vdi.c).
pub(super) fn vdi(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let header = Window::read(image, 0, VDI_HEADER_LENGTH)?;
    if header.le32(VDI_MAGIC_AT) != VDI_MAGIC {
        return Err(ImageError::WrongMagic { format: "vdi" });
    }
    let version = header.le32(68);
    if version != VDI_VERSION {
        return Err(ImageError::UnsupportedVersion {
            format: "vdi",
            version: version.into(),
        });
    }
    let links = header.slice(VDI_LINKS_AT, VDI_LINKS_LENGTH);
    none_if(
        links.iter().all(|byte| *byte == 0),
        ImageError::UnsupportedParent { format: "vdi" },
    )
}

/// Returns whether these are the first bytes of a Parallels image.
pub(super) fn is_parallels(header: &Window) -> bool {
    PARALLELS_MAGICS.contains(&header.slice(0, 16)) && header.le32(16) == PARALLELS_VERSION
}

/// Checks a Parallels image; only options can name a backing file.
pub(super) fn parallels(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let header = Window::read(image, 0, 20)?;
    none_if(
        is_parallels(&header),
        ImageError::WrongMagic {
            format: "parallels",
        },
    )
}

/// Returns whether these are the first bytes of a LUKS 1 volume.
pub(super) fn is_luks(header: &Window) -> bool {
    header.slice(0, 6) == LUKS_MAGIC && header.be16(6) == LUKS_VERSION
}

/// Checks a LUKS volume; only options can name a detached header.
pub(super) fn luks(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let header = Window::read(image, 0, 8)?;
    none_if(is_luks(&header), ImageError::WrongMagic { format: "luks" })
}

/// Checks an Apple disk image.
pub(super) fn dmg(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let offset = window::size(image)?.saturating_sub(DMG_TRAILER_AT);
    let area = Window::read(image, offset, DMG_TRAILER_AREA)?;
    let found = area
        .bytes()
        .windows(DMG_TRAILER.len())
        .any(|part| part == DMG_TRAILER);
    none_if(found, ImageError::WrongMagic { format: "dmg" })
}

/// Returns whether these are the first bytes of a Bochs growing disk.
pub(super) fn is_bochs(header: &Window) -> bool {
    BOCHS_FIELDS
        .iter()
        .all(|(at, len, value)| c_string(header.slice(*at, *len)) == *value)
        && BOCHS_VERSIONS.contains(&header.le32(64))
}

/// Checks a Bochs growing disk.
pub(super) fn bochs(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let header = Window::read(image, 0, 512)?;
    none_if(
        is_bochs(&header),
        ImageError::WrongMagic { format: "bochs" },
    )
}

/// Checks a compressed loop image; QEMU checks the block size, not the script at its start.
pub(super) fn cloop(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let block = Window::read(image, 128, 4)?.be32(0);
    none_if(
        block != 0 && block.is_multiple_of(512) && block <= CLOOP_MAX_BLOCK,
        ImageError::FieldOutOfRange {
            field: "block size",
            value: block.into(),
        },
    )
}

fn none_if(valid: bool, error: ImageError) -> Result<References, ImageError> {
    if valid {
        Ok(References::default())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn image(length: usize, fields: &[(usize, &[u8])]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; length];
        for (at, field) in fields {
            bytes[*at..][..field.len()].copy_from_slice(field);
        }
        Cursor::new(bytes)
    }

    #[test]
    fn vpc_footers() {
        assert!(
            vpc(&mut image(
                2048,
                &[(0, VPC_MAGIC), (22, &[2]), (512, VPC_DYNAMIC_MAGIC)]
            ))
            .is_ok()
        );
        assert!(vpc(&mut image(2048, &[(1536, VPC_MAGIC)])).is_ok());
        assert!(vpc(&mut image(1600, &[(1536, VPC_MAGIC)])).is_ok());
        assert!(vpc(&mut image(2048, &[(0, VPC_MAGIC)])).is_err());
        assert!(vpc(&mut image(0, &[])).is_err());
    }

    #[test]
    fn vdi_parents() {
        let good: &[(usize, &[u8])] = &[(64, &[0x7f, 0x10, 0xda, 0xbe]), (68, &[1, 0, 1, 0])];
        assert!(vdi(&mut image(512, good)).is_ok());
        for bad in [VDI_LINKS_AT, VDI_LINKS_AT + 31, 68] {
            let mut fields = good.to_vec();
            fields.push((bad, &[9]));
            assert!(vdi(&mut image(512, &fields)).is_err(), "byte {bad:#x}");
        }
    }

    #[test]
    fn magics() {
        assert!(luks(&mut image(512, &[(0, b"LUKS\xba\xbe\0\x01")])).is_ok());
        assert!(luks(&mut image(512, &[(0, b"LUKS\xba\xbe\0\x02")])).is_err());
        assert!(parallels(&mut image(64, &[(0, b"WithouFreSpacExt\x02")])).is_ok());
        assert!(parallels(&mut image(64, &[(0, b"WithoutFreeSpace\x01")])).is_err());
        assert!(dmg(&mut image(4096, &[(3584, b"koly")])).is_ok());
        assert!(dmg(&mut image(4096, &[(0, b"koly")])).is_err());
        assert!(cloop(&mut image(512, &[(128, &[0, 1, 0, 0])])).is_ok());
        assert!(cloop(&mut image(512, &[(128, &[0, 1, 0, 1])])).is_err());
        let bochs_image: &[(usize, &[u8])] = &[
            (0, b"Bochs Virtual HD Image"),
            (32, b"Redolog"),
            (48, b"Growing"),
            (66, &[2]),
        ];
        assert!(bochs(&mut image(512, bochs_image)).is_ok());
        assert!(bochs(&mut image(512, &bochs_image[..3])).is_err());
    }
}
