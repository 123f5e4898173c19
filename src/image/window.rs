//! Reading of an image file with an upper limit.
//!
//! QEMU's block layer pads reads after the end of a file with zeros (`bdrv_aligned_preadv`,
//! block/io.c), so that its drivers read zeros in a truncated header. Everything here reads so too:
//! no field is missing. Callers limit every length that they take from the image.

use std::io::{self, Read, Seek, SeekFrom};

use crate::image::error::ImageError;

/// In bytes: BDRV_SECTOR_SIZE, to which QEMU rounds file sizes up.
pub(super) const SECTOR: u64 = 512;

/// In bytes: BDRV_MAX_LENGTH, INT64_MAX rounded down to 1 GiB. Requests that end after it fail.
const MAX_OFFSET: u64 = 0x7fff_ffff_c000_0000;

/// In bytes: `char backing_file[PATH_MAX]` without the NUL (include/block/block_int-common.h).
pub(super) const MAX_NAME: usize = 4095;

/// A part of an image. All bytes after its end read as zeros.
pub(super) struct Window(Vec<u8>);

impl Window {
    /// Reads `len` bytes at `offset` of the image.
    ///
    /// # Errors
    /// [`ImageError::OffsetBeyondAnyFile`], and [`ImageError::Read`].
    pub(super) fn read(
        image: &mut (impl Read + Seek),
        offset: u64,
        len: usize,
    ) -> Result<Self, ImageError> {
        let wanted = length(len);
        if offset
            .checked_add(wanted)
            .is_none_or(|end| end > MAX_OFFSET)
        {
            return Err(ImageError::OffsetBeyondAnyFile { offset });
        }
        let mut bytes = Vec::new();
        image.seek(SeekFrom::Start(offset))?;
        image.by_ref().take(wanted).read_to_end(&mut bytes)?;
        bytes.resize(len, 0);
        Ok(Self(bytes))
    }

    /// Returns all bytes that were asked for.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns `len` bytes at `at`; fewer if the window ends before.
    pub(super) fn slice(&self, at: usize, len: usize) -> &[u8] {
        let tail = self.0.get(at..).unwrap_or_default();
        tail.get(..len).unwrap_or(tail)
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        for (to, from) in field.iter_mut().zip(self.slice(at, N)) {
            *to = *from;
        }
        field
    }

    /// Returns the byte at `at`.
    pub(super) fn u8(&self, at: usize) -> u8 {
        u8::from_ne_bytes(self.array(at))
    }

    /// Returns a big-endian number of two bytes.
    pub(super) fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    /// Returns a big-endian number of four bytes.
    pub(super) fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    /// Returns a big-endian number of eight bytes.
    pub(super) fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// Returns a little-endian number of two bytes.
    pub(super) fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    /// Returns a little-endian number of four bytes.
    pub(super) fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    /// Returns a little-endian number of eight bytes.
    pub(super) fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

/// Returns whether QEMU's block layer accepts a request for these bytes, in the file or after its
/// end.
pub(super) fn is_readable(offset: u64, length: u64) -> bool {
    offset
        .checked_add(length)
        .is_some_and(|end| end <= MAX_OFFSET)
}

/// Returns the size of the image for QEMU, rounded up to whole sectors, in bytes.
pub(super) fn size(image: &mut impl Seek) -> io::Result<u64> {
    let bytes = image.seek(SeekFrom::End(0))?;
    Ok(bytes.checked_next_multiple_of(SECTOR).unwrap_or(bytes))
}

/// Returns a length in memory as a length in the image.
pub(super) fn length(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Returns the bytes before the first NUL, which are the field as a C string.
pub(super) fn c_string(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Returns a file name field up to the first NUL; None if it is empty.
pub(super) fn name(field: &[u8]) -> Option<Vec<u8>> {
    let name = c_string(field);
    (!name.is_empty()).then(|| name.to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_short_image_reads_as_zeros() {
        let window = Window::read(&mut Cursor::new(b"ab"), 1, 4).unwrap();
        assert_eq!(window.bytes(), b"b\0\0\0");
        assert_eq!(window.le32(0), u32::from(b'b'));
        assert_eq!(window.be64(3), 0);
        assert_eq!(window.be64(usize::MAX), 0);
    }

    #[test]
    fn offsets_that_no_file_has_are_errors() {
        for offset in [MAX_OFFSET, u64::MAX, 1 << 63] {
            assert!(matches!(
                Window::read(&mut Cursor::new(b""), offset, 1),
                Err(ImageError::OffsetBeyondAnyFile { .. })
            ));
        }
    }

    #[test]
    fn sizes_are_whole_sectors() {
        for (bytes, sectors) in [(0, 0), (1, 512), (512, 512), (513, 1024)] {
            assert_eq!(size(&mut Cursor::new(vec![0; bytes])).unwrap(), sectors);
        }
    }

    #[test]
    fn names_end_at_the_nul() {
        assert_eq!(name(b"a\0b"), Some(b"a".to_vec()));
        assert_eq!(name(b"\0b"), None);
        assert_eq!(name(b""), None);
    }
}
