//! One file for each family of options.

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
