//! Files of the host, as planning needs them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use thiserror::Error;

use crate::host::pinned::Pinned;
use crate::host::policy::Policy;
use crate::image::{self, ImageError, ImageFormat, References};
use crate::model::label::Context;

/// Why the header of an image cannot be read.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// QEMU would refuse it, or the file cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The process that reads headers says so, or has ended.
    #[error(transparent)]
    Probe(#[from] io::Error),
}

/// Files, their labels and their headers.
pub trait Files {
    /// Opens a path once; follows symbolic links.
    ///
    /// # Errors
    /// Those of open(2) with O_PATH.
    fn pin(&self, path: &Path) -> io::Result<Pinned>;

    /// Opens a pinned file for reading.
    ///
    /// # Errors
    /// Those of open(2), and that the process which does it cannot be started.
    fn open(&self, pinned: &Pinned) -> io::Result<File>;

    /// Returns the format of an image, and what its header makes QEMU open. `name` is the file's, by
    /// which QEMU guesses a format that nobody states.
    ///
    /// # Errors
    /// Those of [`image::header`], and of the process that reads it.
    fn header(
        &self,
        mut file: File,
        stated: Option<ImageFormat>,
        name: &OsStr,
    ) -> Result<(ImageFormat, References), HeaderError> {
        Ok(image::header(stated, &mut file, name.as_bytes())?)
    }

    /// Returns the label of a pinned file. None if its file system has no labels.
    ///
    /// # Errors
    /// Those of getfilecon(3).
    fn label_of(&self, pinned: &Pinned) -> io::Result<Option<Context>>;
}

/// What planning asks of the host: the policy, and files. Tests have one that keeps labels in a table.
pub trait Host: Policy + Files {}

impl<T: Policy + Files> Host for T {}
