//! Original labels: written down, held, put back.
//!
//! May import what stands nearer the ground, up to `seclabel`. It knows no plan: a launch tells it what
//! to keep.
//!
//! * `entry`, `journal`, `journals`: what is written down, where, and whose word it is
//! * `entry_file`, `entry_lock`: entries as they are listed, and which are at work on
//! * `chains`: what image headers named when guests had the images last
//! * `liveness`: whether the guest of an entry still runs
//! * `lookup`, `file_lock`, `hold`, `record_labels`, `sweep`, `error`: finding and locking recorded files, and
//!   putting their labels back
//! * `proof`: what another user's entry may have changed
//! * `set_id`: what a guest made setuid
//! * `running_guest`, `wanted`: guests and files by what a person calls them
//! * `release`, `share`: giving files back, or sharing them, while the guest runs
//! * `command`: `svirt-exec restore`
//! * `notify`: word to root of what a user could not put back
//! * `keeper`: the process that does it

pub(crate) mod chains;
pub(crate) mod command;
pub(crate) mod entry;
mod entry_file;
pub(crate) mod entry_lock;
mod error;
mod file_lock;
mod hold;
pub(crate) mod journal;
pub(crate) mod journals;
pub(crate) mod keeper;
pub(crate) mod liveness;
pub(crate) mod lookup;
mod notify;
mod proof;
mod record_labels;
mod release;
pub(crate) mod running_guest;
mod set_id;
mod share;
mod sweep;
mod wanted;
