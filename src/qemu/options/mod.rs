//! Which host resources the options of a family name, one file a family.
//!
//! Each file has its tables, a function `names_resource` that answers for `tables::keys`, and a
//! function `add_requests`. What is done to a resource follows from its `qemu::usage`.
//!
//! To add an option:
//!
//! 1. a row in `OPTIONS` of `qemu/syntax/argv.rs`: its name and how its value is written
//! 2. what it names, in the file below that has options of its kind: a row in a table, or an arm in
//!    `add_requests` and `names_resource`
//! 3. if it has keys, a row in `FAMILIES` of `qemu/tables/keys.rs`, and an arm in `lookup` there unless
//!    it is in `boot` or `process`; its keys that name nothing go into `qemu/tables/not_paths.rs`
//! 4. if its whole value is a name, a row in `RESOURCES` of `qemu/tables/keys.rs`, or in `PATHS` of
//!    `process`
//! 5. if `-readconfig` may set it, `CONFIG_GROUPS` of `qemu/command_line.rs`
//! 6. if no file below fits, a new one, and a line in `qemu/parse.rs`
//!
//! The files:
//!
//! * `boot`: `-kernel`, `-initrd`, `-dtb`, `-bios`, `-L`, `-option-rom`, `-fw_cfg`, `-acpitable`, `-smbios`
//! * `device`: `-device`, `-global`
//! * `object`: `-object`, `-tpmdev`, `-mem-path`
//! * `net`: `-netdev`, `-nic`, `-net`
//! * `chardev`: `-chardev`, `-serial`, `-monitor`, `-qmp` and others with their syntax
//! * `display`: `-vnc`, `-spice`, `-display`
//! * `listening`: consoles on TCP ports, which name nothing and are warned of
//! * `audio`: `-audiodev`, `-audio`
//! * `fsdev`: `-fsdev`, `-virtfs`
//! * `accel`: `-accel`, `-enable-kvm`, `-machine accel=`
//! * `process`: `-D`, `-pidfile`, `-trace`, `-incoming`, `-add-fd`, `-plugin` and others of the program
//! * `hostdev`: devices by address, for `device` and the block layer
//! * disks (`-drive`, `-blockdev`, `-hda`): `qemu::block`

pub mod accel;
pub mod audio;
pub mod boot;
pub mod chardev;
pub mod device;
pub mod display;
pub mod fsdev;
pub mod hostdev;
pub mod listening;
pub mod net;
pub mod object;
pub mod process;
