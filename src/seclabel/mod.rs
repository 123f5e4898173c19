//! Which domain a guest runs in, and which pair of categories is its own.

pub mod domain;
pub mod mcs;
pub mod own_domain;
