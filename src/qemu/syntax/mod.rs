//! The syntaxes of QEMU's values.

pub mod argv;
pub mod bytes;
pub mod filename;
pub mod json;
pub mod keyval;
pub mod opts;
pub mod readconfig;
pub mod tree;
pub mod value;
