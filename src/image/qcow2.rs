//! QCOW versions 2 and 3. All numbers are big-endian. Facts: `qcow2_do_open` and
//! `qcow2_read_extensions` in block/qcow2.c, docs/interop/qcow2.

use std::io::{Read, Seek};

use crate::image::error::ImageError;
use crate::image::qcow;
use crate::image::references::References;
use crate::image::window::{self, MAX_NAME, Window, c_string, name};

/// In bytes: sizeof(QCowHeader) in block/qcow2.h.
const HEADER_LENGTH: usize = 112;
/// In bytes: the offset of the extensions in version 2.
const V2_HEADER_LENGTH: u32 = 72;
/// In bytes: the shortest header of version 3.
const V3_MIN_HEADER_LENGTH: u32 = 104;
/// Exponents of two: MIN_CLUSTER_BITS and MAX_CLUSTER_BITS, 512 bytes to 2 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Extended L2 entries divide a cluster into 32, and a subcluster has at least 512 bytes.
const MIN_EXTENDED_L2_CLUSTER_BITS: u32 = 14;
/// Exponent of two: reference counts have at most 64 bits.
const MAX_REFCOUNT_ORDER: u32 = 6;
/// In bytes (`qcow2_do_open`).
const MAX_BACKING_NAME: u64 = 1023;
/// In bytes: `char backing_format[16]` in block_int-common.h without the NUL.
const MAX_BACKING_FORMAT: usize = 15;

/// In bytes (block/qcow2.h).
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// In bytes (block/qcow2.h).
const MAX_L1_TABLE: u64 = 32 << 20;
/// In bytes: sizeof(QCowSnapshotHeader).
const SNAPSHOT_HEADER: u64 = 40;
/// In bytes: QCOW_MAX_SNAPSHOTS headers.
const MAX_SNAPSHOT_TABLE: u64 = 65536 * SNAPSHOT_HEADER;
/// In entries: l1_vm_state_index must fit an int.
const MAX_L1_INDEX: u64 = 0x7fff_ffff;

/// Incompatible feature: the guest's data is in another file.
const EXTERNAL_DATA: u64 = 1 << 2;
/// Incompatible feature: the header names a compression type other than zlib.
const COMPRESSION: u64 = 1 << 3;
/// Incompatible feature: L2 entries of 16 bytes.
const EXTENDED_L2: u64 = 1 << 4;
/// QCOW2_INCOMPAT_MASK: these three, dirty (bit 0) and corrupt (bit 1). QEMU opens a corrupt image
/// read-only.
const KNOWN_FEATURES: u64 = 0b1_1111;
/// Autoclear feature: the bitmaps extension is valid.
const BITMAPS_VALID: u64 = 1 << 0;
/// Autoclear feature: the data file can be read as raw.
const DATA_FILE_RAW: u64 = 1 << 1;
/// Compression types 0 (zlib) and 1 (zstd).
const MAX_COMPRESSION_TYPE: u8 = 1;
/// A value of `crypt_method`.
const CRYPT_LUKS: u32 = 2;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_CRYPTO: u32 = 0x0537_be77;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
/// In bytes: longer than the extensions of images that QEMU creates.
const FIRST_READ: usize = 4096;
/// In bytes: type and length.
const EXTENSION_HEADER: usize = 8;

/// The checked fields that later steps need.
struct Header {
    cluster: u64,
    extensions: u64,
    backing_offset: u64,
    backing_length: u64,
    incompatible: u64,
    autoclear: u64,
    crypt_method: u32,
}

/// Returns what the header and its extensions name; reads at most one cluster.
pub(super) fn references(image: &mut (impl Read + Seek)) -> Result<References, ImageError> {
    let header = Header::parse(&Window::read(image, 0, HEADER_LENGTH)?)?;
    let end = match header.backing_offset {
        0 => header.cluster,
        offset => offset,
    };
    let extensions = Extensions::read(image, &header, usize::try_from(end).unwrap_or_default())?;

    let mut found = References::backing(read_backing(image, &header)?, extensions.backing_format);
    if header.incompatible & EXTERNAL_DATA != 0 {
        found.data_file = Some(extensions.data_file.ok_or(ImageError::DataFileNotNamed)?);
    } else if header.autoclear & DATA_FILE_RAW != 0 {
        return Err(ImageError::RawWithoutDataFile);
    }
    Ok(found)
}

impl Header {
    fn parse(bytes: &Window) -> Result<Self, ImageError> {
        let out_of_range = |field, value| ImageError::FieldOutOfRange { field, value };
        if bytes.be32(0) != qcow::MAGIC {
            return Err(ImageError::WrongMagic { format: "qcow2" });
        }
        let version = bytes.be32(4);
        if !matches!(version, 2 | 3) {
            return Err(ImageError::UnsupportedVersion {
                format: "qcow2",
                version: version.into(),
            });
        }
        let cluster_bits = bytes.be32(20);
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(out_of_range("cluster size exponent", cluster_bits.into()));
        }
        let cluster = 1_u64.checked_shl(cluster_bits).unwrap_or_default();
        let v3 = version == 3;
        let header_length = if v3 {
            bytes.be32(100)
        } else {
            V2_HEADER_LENGTH
        };
        if v3 && header_length < V3_MIN_HEADER_LENGTH || u64::from(header_length) > cluster {
            return Err(ImageError::HeaderLength {
                length: header_length.into(),
                cluster,
            });
        }
        let header = Self {
            cluster,
            extensions: header_length.into(),
            backing_offset: bytes.be64(8),
            backing_length: bytes.be32(16).into(),
            incompatible: if v3 { bytes.be64(72) } else { 0 },
            autoclear: if v3 { bytes.be64(88) } else { 0 },
            crypt_method: bytes.be32(32),
        };
        if header.backing_offset > cluster {
            return Err(ImageError::BackingNameOutside {
                offset: header.backing_offset,
                cluster,
            });
        }
        header.check_features(bytes, cluster_bits)?;
        let refcount_order = if v3 { bytes.be32(96) } else { 4 };
        if refcount_order > MAX_REFCOUNT_ORDER {
            return Err(out_of_range(
                "reference count width exponent",
                refcount_order.into(),
            ));
        }
        header.check_tables(bytes, cluster_bits)?;
        Ok(header)
    }

    fn check_features(&self, bytes: &Window, cluster_bits: u32) -> Result<(), ImageError> {
        let unknown = self.incompatible & !KNOWN_FEATURES;
        if unknown != 0 {
            return Err(ImageError::UnsupportedFeatures {
                format: "qcow2",
                bits: unknown,
            });
        }
        // Only a longer header has the compression type, which must agree with the feature bit.
        let compression = match self.extensions > V3_MIN_HEADER_LENGTH.into() {
            true => bytes.u8(104),
            false => 0,
        };
        if compression > MAX_COMPRESSION_TYPE
            || (compression != 0) != (self.incompatible & COMPRESSION != 0)
        {
            return Err(ImageError::FieldOutOfRange {
                field: "compression type",
                value: compression.into(),
            });
        }
        if self.incompatible & EXTENDED_L2 != 0 && cluster_bits < MIN_EXTENDED_L2_CLUSTER_BITS {
            return Err(ImageError::FieldOutOfRange {
                field: "cluster size exponent",
                value: cluster_bits.into(),
            });
        }
        // Every system emulator refuses AES (bdrv_uses_whitelist).
        match self.crypt_method {
            0 | CRYPT_LUKS => Ok(()),
            method => Err(ImageError::UnsupportedEncryption { method }),
        }
    }

    fn check_tables(&self, bytes: &Window, cluster_bits: u32) -> Result<(), ImageError> {
        let refcount_clusters = bytes.be32(56);
        let l1_entries = bytes.be32(36);
        let fits = |offset: u64, entries: u32, entry: u64, limit: u64| {
            // QEMU's limit for offsets is INT64_MAX (qcow2_validate_table).
            offset.is_multiple_of(self.cluster)
                && u64::from(entries).checked_mul(entry).is_some_and(|size| {
                    size <= limit
                        && offset
                            .checked_add(size)
                            .is_some_and(|end| end <= i64::MAX as u64)
                })
        };
        if refcount_clusters == 0
            || !fits(
                bytes.be64(48),
                refcount_clusters,
                self.cluster,
                MAX_REFCOUNT_TABLE,
            )
        {
            return Err(ImageError::InvalidTable {
                table: "reference count table",
            });
        }
        if !fits(
            bytes.be64(64),
            bytes.be32(60),
            SNAPSHOT_HEADER,
            MAX_SNAPSHOT_TABLE,
        ) {
            return Err(ImageError::InvalidTable {
                table: "snapshot table",
            });
        }
        // One L1 entry maps a cluster of L2 entries, which have 8 or 16 bytes each.
        let entry_bits = if self.incompatible & EXTENDED_L2 != 0 {
            4
        } else {
            3
        };
        let needed = cluster_bits
            .checked_mul(2)
            .and_then(|bits| bits.checked_sub(entry_bits))
            .and_then(|bits| 1_u64.checked_shl(bits))
            .map_or(u64::MAX, |mapped| bytes.be64(24).div_ceil(mapped));
        if needed > MAX_L1_INDEX
            || u64::from(l1_entries) < needed
            || !fits(bytes.be64(40), l1_entries, 8, MAX_L1_TABLE)
        {
            return Err(ImageError::InvalidTable { table: "L1 table" });
        }
        Ok(())
    }
}

/// What the header extensions say; the last one of a type counts.
#[derive(Default)]
struct Extensions {
    backing_format: Option<Vec<u8>>,
    data_file: Option<Vec<u8>>,
}

impl Extensions {
    /// Reads the extensions, which end with an end marker or at `end`. They are short and a cluster
    /// may have 2 MiB, so that the rest is only read if they do not end in its first bytes.
    fn read(
        image: &mut (impl Read + Seek),
        header: &Header,
        end: usize,
    ) -> Result<Self, ImageError> {
        let beginning = Window::read(image, 0, end.min(FIRST_READ))?;
        match Self::parse(&beginning, header, end)? {
            Some(found) => Ok(found),
            None => {
                let all = Window::read(image, 0, end)?;
                Ok(Self::parse(&all, header, end)?.unwrap_or_default())
            }
        }
    }

    /// Parses the extensions; None if they do not end in the bytes that were read.
    fn parse(area: &Window, header: &Header, end: usize) -> Result<Option<Self>, ImageError> {
        let mut found = Self::default();
        let mut at = usize::try_from(header.extensions).unwrap_or(end);
        let is_read = |at: usize| at <= area.bytes().len();
        while at < end {
            let header_end = at.saturating_add(EXTENSION_HEADER).min(end);
            if !is_read(header_end) {
                return Ok(None);
            }
            let kind = area.be32(at);
            let length = area.be32(at.saturating_add(4));
            let data_at = at.saturating_add(EXTENSION_HEADER);
            let data = match usize::try_from(length) {
                Ok(length) if end.checked_sub(data_at).is_some_and(|room| length <= room) => {
                    if kind != EXTENSION_END && !is_read(data_at.saturating_add(length)) {
                        return Ok(None);
                    }
                    area.slice(data_at, length)
                }
                _ => {
                    return Err(ImageError::ExtensionTooLarge {
                        offset: window::length(at),
                        length: length.into(),
                        end: window::length(end),
                    });
                }
            };
            if kind == EXTENSION_END {
                break;
            }
            found.take(kind, data, header)?;
            at = data_at.saturating_add(data.len().next_multiple_of(8));
        }
        Ok(Some(found))
    }

    fn take(&mut self, kind: u32, data: &[u8], header: &Header) -> Result<(), ImageError> {
        match kind {
            EXTENSION_BACKING_FORMAT if data.len() > MAX_BACKING_FORMAT => {
                return Err(ImageError::InvalidExtension {
                    extension: "backing format",
                });
            }
            EXTENSION_BACKING_FORMAT => self.backing_format = name(data),
            EXTENSION_DATA_FILE => {
                let length = c_string(data).len();
                if length > MAX_NAME {
                    return Err(ImageError::DataFileNameTooLong {
                        length: window::length(length),
                        limit: window::length(MAX_NAME),
                    });
                }
                self.data_file = name(data);
            }
            EXTENSION_CRYPTO if !is_crypto_valid(data, header) => {
                return Err(ImageError::InvalidExtension {
                    extension: "encryption",
                });
            }
            EXTENSION_BITMAPS if !is_bitmaps_valid(data, header) => {
                return Err(ImageError::InvalidExtension {
                    extension: "bitmaps",
                });
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns whether the extension has offset and length of the LUKS header, on a cluster boundary.
fn is_crypto_valid(data: &[u8], header: &Header) -> bool {
    header.crypt_method == CRYPT_LUKS
        && data.len() == 16
        && data
            .first_chunk()
            .is_some_and(|offset| u64::from_be_bytes(*offset).is_multiple_of(header.cluster))
}

/// Returns whether the extension has the number of bitmaps (1 to 65535), zeros, the size of the
/// directory (at most 64 MiB less 1 KiB) and its aligned offset. QEMU ignores it without the
/// autoclear bit.
fn is_bitmaps_valid(data: &[u8], header: &Header) -> bool {
    let Ok(data) = <&[u8; 24]>::try_from(data) else {
        return false;
    };
    if header.autoclear & BITMAPS_VALID == 0 {
        return true;
    }
    let number = |at: usize, len: usize| {
        data.iter()
            .skip(at)
            .take(len)
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    (1..=65535).contains(&number(0, 4))
        && number(4, 4) == 0
        && number(8, 8) <= 1024 * 65535
        && number(16, 8).is_multiple_of(header.cluster)
}

fn read_backing(
    image: &mut (impl Read + Seek),
    header: &Header,
) -> Result<Option<Vec<u8>>, ImageError> {
    if header.backing_offset == 0 {
        return Ok(None);
    }
    let room = header.cluster.saturating_sub(header.backing_offset);
    let limit = room.min(MAX_BACKING_NAME);
    if header.backing_length > limit {
        return Err(ImageError::BackingNameTooLong {
            length: header.backing_length,
            limit,
        });
    }
    let length = usize::try_from(header.backing_length).unwrap_or_default();
    Ok(name(
        Window::read(image, header.backing_offset, length)?.bytes(),
    ))
}

#[cfg(test)]
#[path = "qcow2_tests.rs"]
mod tests;
