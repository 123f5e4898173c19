//! Guests that have ended without having their labels put back: which ones they are, and doing it.
//!
//! Runs in the keeper's domain where it changes something.

use std::io;

use crate::host::{Host, ProcessLabels, RealHost};
use crate::journal::{Entry, Journal};
use crate::label::Context;
use crate::restore::{Hold, Wait, this_boot};

/// Whether the guest of an entry still runs, or somebody is at work on its files.
pub fn alive(host: &RealHost, entry: &Entry, processes: &[ProcessLabels]) -> bool {
    let context = entry.context.parse::<Context>().ok();
    let caged = processes
        .iter()
        .any(|process| process.current == context || process.pending == context);
    caged || runs(host, entry)
}

/// Whether the process that an entry was written for still runs, which is told without looking at
/// all the others.
fn runs(host: &RealHost, entry: &Entry) -> bool {
    this_boot(host, entry) && start_time(host, entry.pid) == Some(entry.started)
}

/// When a process started, in clock ticks since boot, unless it has ended and was not
/// waited for yet; fields 3 and 22 of `/proc/PID/stat`, proc(5).
pub fn start_time(host: &RealHost, pid: i32) -> Option<u64> {
    let stat = host.read_proc(&format!("{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields count from behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// Puts back what every guest that has ended left. Returns what is not back, and why.
///
/// # Errors
/// Where the journal or the processes cannot be listed.
pub fn put_back(host: &RealHost, journal: &Journal) -> io::Result<Vec<String>> {
    let mut left = Vec::new();
    let mut ended = Vec::new();
    for path in journal.entries()? {
        match Journal::read(&path) {
            Ok(entry) if runs(host, &entry) => {}
            Ok(entry) => ended.push((path, entry)),
            // Another keeper has removed it since the directory was read.
            Err(_) if !path.exists() => {}
            Err(error) => left.push(error.to_string()),
        }
    }
    // After the entries, since who wrote one had asked for its pair before. Once for all of them:
    // where many guests end together, every keeper finds the entries of all the others.
    let processes = match ended.is_empty() {
        true => Vec::new(),
        false => host.processes()?,
    };
    ended.retain(|(_, entry)| !alive(host, entry, &processes));
    for (path, _) in ended {
        // What another keeper has put back since is not touched again.
        let Ok(entry) = Journal::read(&path) else {
            continue;
        };
        match Hold::take(host, entry) {
            Ok(mut hold) => {
                left.extend(hold.put_back(host, Wait::Never));
                left.extend(hold.settle(journal, &path).err());
                left.extend(hold.left());
            }
            Err(why) => left.push(why),
        }
    }
    journal.sweep(|pid, began| start_time(host, pid) == Some(began))?;
    Ok(left)
}
