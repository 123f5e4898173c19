//! Which label each resource gets, and whether the policy agrees. Changes nothing.
//!
//! May import what stands nearer the ground, up to `seclabel`.
//!
//! * `resource`, `step`: a resource as it is on this host, and what will be done to it
//! * `collect`: from what the command line names to what is on the host
//! * `image_chain`, `label_tree`: further files, by image headers and in directories that are handed over
//! * `disk_key`: what disks are remembered by
//! * `remembered`: what headers name now, against what they named when a guest had the images last
//! * `protected`: the host's own files, which no guest is given
//! * `decide`: the label of each resource
//! * `create`, `unlabelled_fs`, `in_use`: files that QEMU makes; files whose labels cannot be set; files
//!   that the host or another QEMU uses
//! * `preflight`: what the policy will refuse
//! * `report`: the plan as JSON and as a table

pub mod collect;
pub(crate) mod create;
pub(crate) mod decide;
mod disk_key;
mod image_chain;
pub(crate) mod in_use;
mod label_tree;
pub mod preflight;
mod protected;
pub(crate) mod remembered;
pub mod report;
pub(crate) mod resource;
pub(crate) mod step;
pub(crate) mod unlabelled_fs;

pub use decide::{Running, decide};
pub use resource::{CollectContext, Collected, DeferredHeader, Resource};
pub use step::{Action, Decision, Plan, Relabel, Step};
