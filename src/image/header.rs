//! The entry points for all formats.

use std::io::{Read, Seek};

use crate::image::error::ImageError;
use crate::image::format::{self, ImageFormat};
use crate::image::probe::probe;
use crate::image::references::References;
use crate::image::{qcow, qcow2, qed, self_contained, vhdx, vmdk};

/// Returns the format of an image, probed if none is stated, and what its header makes QEMU open.
/// `name` is the file name by which QEMU would open the image.
///
/// # Errors
/// [`ImageError::Read`] if the file cannot be read, else what QEMU would refuse.
pub fn header(
    stated: Option<ImageFormat>,
    image: &mut (impl Read + Seek),
    name: &[u8],
) -> Result<(ImageFormat, References), ImageError> {
    let format = match stated {
        Some(format) => format,
        None => probe(image, name)?,
    };
    let references = references(&format, image)?;
    Ok((format, references))
}

/// Returns what the header of an image of a stated format makes QEMU open.
///
/// # Errors
/// [`ImageError::Read`] if the file cannot be read, else what QEMU would refuse.
pub fn references(
    format: &ImageFormat,
    image: &mut (impl Read + Seek),
) -> Result<References, ImageError> {
    match format {
        ImageFormat::Raw => Ok(References::default()),
        ImageFormat::Qcow => qcow::references(image),
        ImageFormat::Qcow2 => qcow2::references(image),
        ImageFormat::Qed => qed::references(image),
        ImageFormat::Vmdk => vmdk::references(image),
        ImageFormat::Vpc => self_contained::vpc(image),
        ImageFormat::Vhdx => vhdx::references(image),
        ImageFormat::Vdi => self_contained::vdi(image),
        ImageFormat::Parallels => self_contained::parallels(image),
        ImageFormat::Luks => self_contained::luks(image),
        ImageFormat::Dmg => self_contained::dmg(image),
        ImageFormat::Bochs => self_contained::bochs(image),
        ImageFormat::Cloop => self_contained::cloop(image),
        ImageFormat::Other(name) if format::is_without_header(name) => Ok(References::default()),
        ImageFormat::Other(name) => Err(ImageError::UnknownFormat { name: name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A reader that must not be touched.
    struct Untouchable;

    impl Read for Untouchable {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("read")
        }
    }

    impl Seek for Untouchable {
        fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
            panic!("seek")
        }
    }

    #[test]
    fn formats_without_a_header_are_not_read() {
        for name in [&b"raw"[..], b"file", b"host_device", b"nbd"] {
            let found = references(&ImageFormat::from_name(name), &mut Untouchable).unwrap();
            assert_eq!(found, References::default());
        }
    }

    #[test]
    fn an_unknown_format_is_an_error() {
        let error = references(&ImageFormat::from_name(b"new\x1b"), &mut Untouchable).unwrap_err();
        assert_eq!(
            error.to_string(),
            r"format 'new\x1b' is not one that can be looked into"
        );
    }

    #[test]
    fn no_format_takes_another_ones_header() {
        for name in [
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
        ] {
            let format = ImageFormat::from_name(name.as_bytes());
            for bytes in [&b""[..], b"hello", &[0; 4096], &[0xff; 4096]] {
                assert!(
                    references(&format, &mut Cursor::new(bytes)).is_err(),
                    "{name}"
                );
            }
        }
    }
}
