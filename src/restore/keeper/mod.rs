//! The keeper: the process that holds a guest's files, and puts their labels back when it has ended.
//!
//! * `protocol`: what a keeper and its launcher say to each other
//! * `client`: the keeper as its launcher sees it
//! * `main`: what it does itself, from its entry to the last label
//! * `claim`: its own claim of the guest's context
//! * `wait`: what it waits for, and is asked for meanwhile
//! * `control`: the socket at which it is asked while its guest runs
//! * `job`: other work of its domain, for commands
//! * `relay`: its program as a copier between two pipes

mod claim;
pub(crate) mod client;
pub(crate) mod control;
pub(crate) mod job;
pub(crate) mod main;
pub(crate) mod protocol;
mod relay;
mod wait;
