//! Disk image headers: which further files QEMU opens because of them.
//!
//! Everything here is a function from bytes to values; the only thing touched is the reader handed in. The bytes are
//! written by guests and therefore hostile: each read has an upper limit, each number is checked. The facts are those
//! of QEMU's drivers (`block/*.c`, version 10.0), tried against `qemu-img` in `tests/image_headers.rs`.
//!
//! The aim is to name exactly the files QEMU would open. A name too many would hand a host file to the guest; a
//! header QEMU refuses is therefore an error here and never "no references". Refusals that depend on more than the
//! header (damaged tables, snapshots or bitmaps; a missing secret) are left to QEMU.

mod error;
mod format;
mod probe;
mod qcow;
mod qcow2;
mod qed;
mod self_contained;
mod vhdx;
mod vmdk;
mod vmdk_descriptor;
mod window;

use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};

pub use error::ImageError;
pub use format::ImageFormat;
pub use probe::probe;

/// The name of a backing file as the header has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingName {
    /// A file-name string: it may be relative to the image, have a protocol prefix or be `json:`.
    pub name: Vec<u8>,
    /// The driver to open it with. `None`: the header does not say, QEMU would probe.
    pub format: Option<Vec<u8>>,
}

/// What an image's header makes QEMU open besides the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    /// The backing file or parent.
    pub backing: Option<BackingName>,
    /// The external data file of a qcow2 image, taken literally by QEMU and relative to its working directory.
    pub data_file: Option<Vec<u8>>,
    /// The extents of a vmdk descriptor as written, each name once, relative to the descriptor's directory.
    pub extents: Vec<Vec<u8>>,
}

impl References {
    fn backing(name: Option<Vec<u8>>, format: Option<Vec<u8>>) -> Self {
        Self {
            backing: name.map(|name| BackingName { name, format }),
            ..Self::default()
        }
    }
}

/// The format of an image, probed where none is stated, and what its header makes QEMU open.
///
/// # Errors
/// In words: when the file cannot be read, or when QEMU would refuse to open it.
pub fn header(
    stated: Option<ImageFormat>,
    image: &mut (impl Read + Seek),
    name: &[u8],
) -> Result<(ImageFormat, References), String> {
    let format = match stated {
        Some(format) => format,
        None => probe(image, name).map_err(|error| error.to_string())?,
    };
    let references = references(&format, image).map_err(|error| error.to_string())?;
    Ok((format, references))
}

/// Reads the header of an image whose format was stated.
///
/// # Errors
/// When the file cannot be read, or when QEMU would refuse to open it with that format.
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
