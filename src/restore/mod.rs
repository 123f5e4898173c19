//! Original labels: written down, held, put back.

pub mod command;
pub mod entry_file;
pub mod entry_lock;
pub mod hold;
pub mod journal;
pub mod keeper;
pub mod lookup;
pub mod notify;
pub mod running_guest;
pub mod share;
pub mod sweep;
