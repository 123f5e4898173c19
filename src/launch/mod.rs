//! The launch of a QEMU, and what is labelled for one that runs.
//!
//! May import what stands nearer the ground, up to `restore`, and the options of `cli`.
//!
//! * `run`: the launch, in the order in which it happens
//! * `settings`: options that stand in the environment and in the file of `--config`
//! * `config_text`, `planning`, `dry_run`: from the words of a line to a plan, and `svirt-exec plan`
//! * `chains`: what image headers name, against what is remembered of the disks
//! * `prepare`: everything that is decided before the first change
//! * `share_content`: content that another guest keeps private
//! * `apply`: the steps that change the host
//! * `inherited_fds`: descriptors that the caller hands down
//! * `exec`: finding QEMU, and becoming it
//! * `attach`: hot-plug

mod apply;
pub(crate) mod attach;
mod chains;
mod config_text;
pub mod dry_run;
pub(crate) mod exec;
mod inherited_fds;
mod planning;
mod prepare;
mod run;
pub mod settings;
mod share_content;

pub use run::launch;
