//! Why a header is refused. Each message is a clause that follows `cannot read the header of
//! '/path': `. Bytes that come from the image are escaped.

use std::io;

use thiserror::Error;

/// A header that QEMU would refuse, or that cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The magic number is not that of the format.
    #[error("it is not a {format} image")]
    WrongMagic {
        /// The stated format.
        format: &'static str,
    },
    /// This program has no parser for the format.
    #[error("format '{}' is not one that can be looked into", .name.escape_ascii())]
    UnknownFormat {
        /// The stated format.
        name: Vec<u8>,
    },
    /// QEMU does not support the version.
    #[error("{format} version {version} is not supported by QEMU")]
    UnsupportedVersion {
        /// The stated format.
        format: &'static str,
        /// The version in the header.
        version: u64,
    },
    /// QEMU does not know an incompatible feature.
    #[error("{format} feature bits {bits:#x} are not supported by QEMU")]
    UnsupportedFeatures {
        /// The stated format.
        format: &'static str,
        /// The unknown feature bits.
        bits: u64,
    },
    /// QEMU refuses the value of a header field.
    #[error("the {field} {value} is out of range")]
    FieldOutOfRange {
        /// What the field is for.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// No file has such an offset.
    #[error("offset {offset} lies beyond the end of any file")]
    OffsetBeyondAnyFile {
        /// In bytes.
        offset: u64,
    },
    /// The qcow2 header does not fit into the first cluster.
    #[error("the header of {length} bytes does not fit into the first cluster ({cluster} bytes)")]
    HeaderLength {
        /// In bytes.
        length: u64,
        /// In bytes.
        cluster: u64,
    },
    /// The backing file name starts after the first cluster.
    #[error("backing file name at offset {offset} lies beyond the first cluster ({cluster} bytes)")]
    BackingNameOutside {
        /// In bytes.
        offset: u64,
        /// In bytes.
        cluster: u64,
    },
    /// The backing file name is too long for QEMU, or extends beyond the header.
    #[error("backing file name of {length} bytes is longer than the {limit} bytes allowed there")]
    BackingNameTooLong {
        /// In bytes.
        length: u64,
        /// In bytes.
        limit: u64,
    },
    /// The name of the data file is longer than a path can be.
    #[error("data file name of {length} bytes is longer than the {limit} bytes of a path")]
    DataFileNameTooLong {
        /// In bytes.
        length: u64,
        /// In bytes.
        limit: u64,
    },
    /// A qcow2 header extension extends beyond the header area.
    #[error(
        "header extension at offset {offset} with {length} bytes leaves the header, which ends at {end}"
    )]
    ExtensionTooLarge {
        /// In bytes, from the start of the image.
        offset: u64,
        /// In bytes.
        length: u64,
        /// In bytes, from the start of the image.
        end: u64,
    },
    /// QEMU refuses the content of a qcow2 header extension.
    #[error("the {extension} header extension is invalid")]
    InvalidExtension {
        /// What the extension is for.
        extension: &'static str,
    },
    /// The image needs an external data file, which its header does not name.
    #[error(
        "it needs an external data file, and its header does not name one (state it with data-file=)"
    )]
    DataFileNotNamed,
    /// The data-file-raw bit is set without the data file bit.
    #[error("it is marked as having a raw data file without having a data file")]
    RawWithoutDataFile,
    /// QEMU refuses a table (L1, reference counts, snapshots).
    #[error("the {table} does not fit the image")]
    InvalidTable {
        /// Which table.
        table: &'static str,
    },
    /// QEMU's system emulators do not support the encryption.
    #[error("encryption method {method} is not supported by QEMU's emulators")]
    UnsupportedEncryption {
        /// The method in the header.
        method: u32,
    },
    /// The image is a difference to a parent, which QEMU does not support for this format.
    #[error("it depends on a parent image, which QEMU does not support for {format}")]
    UnsupportedParent {
        /// The stated format.
        format: &'static str,
    },
    /// A VMDK descriptor has no valid creation type.
    #[error("its descriptor has no valid createType")]
    CreateTypeMissing,
    /// QEMU does not support the VMDK creation type.
    #[error("createType '{}' is not supported by QEMU", .0.escape_ascii())]
    UnsupportedCreateType(Vec<u8>),
    /// QEMU refuses a VMDK extent line; the start of the line.
    #[error("its descriptor has an invalid extent line '{}'", .0.escape_ascii())]
    InvalidExtentLine(Vec<u8>),
    /// The parent name of a VMDK descriptor has no closing quote.
    #[error("the parentFileNameHint of its descriptor has no closing quote")]
    ParentNameUnterminated,
    /// A VMDK descriptor has no valid content identifier.
    #[error("its descriptor has no valid {key}")]
    ContentIdMissing {
        /// `CID` or `parentCID`.
        key: &'static str,
    },
    /// The footer of a VMDK that replaces its header is invalid.
    #[error("its footer is invalid")]
    InvalidFooter,
}
