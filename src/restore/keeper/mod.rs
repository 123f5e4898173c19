//! The keeper: the process that puts labels back.

pub mod client;
pub mod control;
pub mod job;
pub mod main;
pub mod relay;
pub mod wait;
