//! Whether the guest of a journal entry still runs, and who is at work on its files.

use nix::unistd::Pid;

use crate::host::{ProcessLabels, Procfs};
use crate::model::label::Context;
use crate::restore::entry::JournalEntry;

/// Tells whether an entry was written since this host was booted.
pub fn is_of_this_boot(procfs: &Procfs, entry: &JournalEntry) -> bool {
    procfs.boot().is_ok_and(|boot| boot == entry.boot)
}

/// Tells whether the process that an entry was written for still runs, without looking at all others.
pub fn runs(procfs: &Procfs, entry: &JournalEntry) -> bool {
    is_of_this_boot(procfs, entry) && procfs.may_live(Pid::from_raw(entry.pid), entry.started)
}

/// Returns a process of the guest of an entry, or one that is at work on its files.
pub fn process_of(
    procfs: &Procfs,
    entry: &JournalEntry,
    processes: &[ProcessLabels],
) -> Option<Pid> {
    if runs(procfs, entry) {
        return Some(Pid::from_raw(entry.pid));
    }
    let context = Some(entry.context.parse::<Context>().ok()?);
    processes
        .iter()
        .find(|process| process.current == context || process.pending == context)
        .map(|process| process.pid)
}

/// Returns the keeper of an entry whose guest has ended, while it claims the guest's pair.
pub fn keeper_of(
    procfs: &Procfs,
    entry: &JournalEntry,
    processes: &[ProcessLabels],
) -> Option<Pid> {
    let context = Some(entry.context.parse::<Context>().ok()?);
    if runs(procfs, entry) || processes.iter().any(|process| process.current == context) {
        return None;
    }
    let keeper = processes
        .iter()
        .find(|process| process.pending == context)?;
    Some(keeper.pid)
}
