//! Original labels: written down, held, put back.
//!
//! May import what stands nearer the ground, up to `seclabel`. It knows no plan: a launch tells it what
//! to keep.
//!
//! * `journal`, `entry_file`, `entry_lock`: entries on disk, as they are listed, and which are at work on
//! * `liveness`: whether the guest of an entry still runs
//! * `lookup`, `hold`, `record_labels`, `sweep`, `error`: finding and locking recorded files, and putting
//!   their labels back
//! * `running_guest`, `wanted`: guests and files by what a person calls them
//! * `release`, `share`: giving files back, or sharing them, while the guest runs
//! * `command`: `svirt-exec restore`
//! * `notify`: word to root of what a user could not put back
//! * `keeper`: the process that does it

pub mod command;
pub mod entry_file;
pub mod entry_lock;
pub mod error;
pub mod hold;
pub mod journal;
pub mod keeper;
pub mod liveness;
pub mod lookup;
pub mod notify;
pub mod record_labels;
pub mod release;
pub mod running_guest;
pub mod share;
pub mod sweep;
pub mod wanted;
