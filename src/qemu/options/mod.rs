//! Which host resources the options of a family name, one file a family.
//!
//! Each file has its tables, a function `names_resource` that answers for `tables::keys`, and a
//! function `add_requests`. `hostdev` has what several families share.

pub mod accel;
pub mod audio;
pub mod boot;
pub mod chardev;
pub mod device;
pub mod display;
pub mod fsdev;
pub mod hostdev;
pub mod net;
pub mod object;
pub mod process;
