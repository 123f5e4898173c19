//! Reads the headers of disk images and returns the further files that QEMU opens because of them.
//!
//! Pure: it reads from the reader that is passed and nothing else. Guests write the bytes, so they
//! are untrusted: each read has an upper limit, each number is checked. This wing imports no other
//! module of the program. Facts are those of QEMU's drivers (block/*.c, version 10.0), checked
//! against `qemu-img` in tests/image_headers.rs.
//!
//! It returns exactly the files that QEMU would open: one more would give a file of the host to the
//! guest. Therefore a header that QEMU refuses is an error, never "no references". Refusals that
//! depend on more than the header (damaged tables, snapshots or bitmaps; a missing secret) are left
//! to QEMU.
//!
//! In reading order:
//!
//! - `header`: the entry points, for a format that is stated or probed.
//! - `references`: what a header names.
//! - `format`: the formats by QEMU's names.
//! - `probe`: the format that QEMU would guess.
//! - `error`: why a header is refused.
//! - `window`: reading with an upper limit.
//! - `qcow`, `qcow2`, `qed`, `vhdx`, `vmdk` with `vmdk_descriptor`: one file a format.
//! - `self_contained`: the formats whose headers name no file.

mod error;
mod format;
mod header;
mod probe;
mod qcow;
mod qcow2;
mod qed;
mod references;
mod self_contained;
mod vhdx;
mod vmdk;
mod vmdk_descriptor;
mod window;

pub use error::ImageError;
pub use format::ImageFormat;
pub use header::{header, references};
pub use probe::probe;
pub use references::{BackingName, References};
