//! Which domain a guest runs in, which pair of categories is its own, and which labels follow from both.
//!
//! May import what stands nearer the ground, up to `host`.
//!
//! * `domain`: the domain and the image types, by the policy's own files and answers
//! * `mcs`: choosing a pair that nobody on the host has, and claiming it
//! * `pair_error`: why there is none
//! * `labels`: the labels of one guest
//! * `own_domain`: whether this process is in the domain that the module has for it

pub mod domain;
pub mod labels;
pub mod mcs;
pub(crate) mod own_domain;
pub mod pair_error;
