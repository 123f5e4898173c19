//! The commands that only look: `list`, `verify`, `denials`, `doctor`. They read /proc, the journal,
//! the audit log and the policy, and change nothing.
//!
//! The last of the wings: it may import from every other one. Only `program` and `version` import
//! from it.
//!
//! In reading order:
//!
//! * `commands`: the four commands, from options to exit status
//! * `guests`: the confined guests of this host
//! * `list`: `list`, as a table and as JSON
//! * `open_files`: what a process has open and mapped, with the labels
//! * `verify_facts`, `verify`, `verify_report`: whether each guest is confined
//! * `audit_record`: one line of the audit log
//! * `audit_log`: the places that such lines are read from
//! * `denial_facts`, `denial_advice`, `denials`, `denials_report`: what SELinux denied, why, and what to do
//! * `doctor`: whether this host can confine QEMU

mod audit_log;
pub(crate) mod audit_record;
mod commands;
mod denial_advice;
pub(crate) mod denial_facts;
mod denials;
pub(crate) mod denials_report;
pub(crate) mod doctor;
pub(crate) mod guests;
pub(crate) mod list;
mod open_files;
mod verify;
pub(crate) mod verify_facts;
pub(crate) mod verify_report;

pub(crate) use crate::observe::commands::{
    examine_host, explain_denials, list_guests, verify_guests,
};
