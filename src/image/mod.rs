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
