//! Guests that run: finding one by what a person calls it, and whether the caller may act for it.

use std::ffi::OsStr;
use std::fmt;
use std::io;

use nix::unistd::{Pid, Uid};

use crate::host::{Processes, RealHost};
use crate::model::label::Context;
use crate::restore::command;
use crate::restore::journal::{Entry, Journal};
use crate::seclabel::domain;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse};

/// A process in a cage of its own.
#[derive(Clone, Debug)]
pub struct Guest {
    /// For people.
    pub name: String,
    /// Its process.
    pub pid: Pid,
    /// When that started; [`command::start_time`].
    pub started: u64,
    /// Its context, with a pair.
    pub context: Context,
}

impl Guest {
    /// As `attach --json` has it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "pid": self.pid.as_raw(), "context": self.context.to_string(),
        })
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest {} (process {})", quoted(&self.name), self.pid)
    }
}

/// Every entry that this user may see, with its owner and where it is: his own first, and for
/// root those of all users.
///
/// # Errors
/// Where the user's own journal cannot be listed.
pub fn entries() -> io::Result<Vec<(u32, std::path::PathBuf, Entry)>> {
    let own = Uid::effective();
    let mut journals = vec![(own.as_raw(), Journal::open().map_err(io::Error::other)?)];
    if own.is_root() {
        journals.extend(Journal::of_users()?);
    }
    let mut found = Vec::new();
    for (owner, journal) in journals {
        let entries = match journal.entries() {
            Err(_) if owner != own.as_raw() => continue,
            entries => entries?,
        };
        found.extend(entries.into_iter().filter_map(|path| {
            let entry = Journal::read_of(&path, Some(owner)).ok()?;
            Some((owner, path, entry))
        }));
    }
    Ok(found)
}

/// Finds the guest that a word names: one that svirt-exec started, by its name or process ID, or,
/// where `any` is set, any guest of this host by its process ID.
///
/// # Errors
/// Where none or several fit, or it is somebody else's.
pub fn find(host: &RealHost, word: &OsStr, any: bool) -> Result<Guest, Refusal> {
    let name = quoted(word);
    let number: Option<i32> = word.to_str().and_then(|word| word.parse().ok());
    if any {
        let pid = number.map(Pid::from_raw).ok_or_else(|| {
            refuse(format!(
                "cannot find guest {name}: --pid needs a process ID"
            ))
        })?;
        let context = host
            .procfs()
            .labels_of(pid)
            .and_then(|labels| labels.current);
        let (Some(context), Some(started)) = (context, command::start_time(host, pid.as_raw()))
        else {
            return Err(refuse(format!(
                "cannot find guest {name}: no such process runs"
            )));
        };
        verify(host, pid, started, &context).map_err(refuse)?;
        let name = word.to_string_lossy().into_owned();
        return Ok(Guest {
            name,
            pid,
            started,
            context,
        });
    }
    let mut found: Vec<(u32, Guest)> = Vec::new();
    let mut ended = false;
    let processes = host.processes()?;
    for (owner, _, entry) in entries()? {
        if word != OsStr::new(&entry.name) && number != Some(entry.pid) {
            continue;
        }
        let Ok(context) = entry.context.parse::<Context>() else {
            continue;
        };
        // QEMU's own process, or the one that it left behind with -daemonize.
        let launched = command::runs(host, &entry);
        let pid = if launched {
            Some(Pid::from_raw(entry.pid))
        } else {
            processes
                .iter()
                .find(|process| process.current.as_ref() == Some(&context))
                .map(|process| process.pid)
        };
        let Some((pid, started)) =
            pid.and_then(|pid| Some((pid, command::start_time(host, pid.as_raw())?)))
        else {
            ended = true;
            continue;
        };
        let known = found.iter().any(|(_, guest)| guest.context == context);
        // A name that a user gave counts for that user's own processes only, and after root's.
        let his = owner == Uid::effective().as_raw()
            || found.is_empty() && user_of(host, pid) == Some(owner);
        if !known && his {
            let name = entry.name;
            found.push((
                owner,
                Guest {
                    name,
                    pid,
                    started,
                    context,
                },
            ));
        }
    }
    let guest = match found.as_slice() {
        [(_, guest)] => guest.clone(),
        [] if ended => {
            return Err(refuse(format!(
                "cannot find guest {name}: it has ended; svirt-exec restore puts back what it left"
            )));
        }
        [] => {
            return Err(refuse(format!(
                "cannot find guest {name}: svirt-exec has labelled nothing for a guest of this name \
                 or process ID; with --pid any guest can be named by its process ID"
            )));
        }
        several => {
            let pids: Vec<String> = several.iter().map(|(_, g)| g.pid.to_string()).collect();
            return Err(refuse(format!(
                "cannot tell which guest {name} is: processes {} have this name; name one of them",
                pids.join(", ")
            )));
        }
    };
    verify(host, guest.pid, guest.started, &guest.context).map_err(refuse)?;
    Ok(guest)
}

/// Checks that a process is a guest in exactly this cage, and that the caller may act for it: as
/// the user who runs it, or root.
///
/// # Errors
/// What is not so.
pub fn verify(host: &RealHost, pid: Pid, started: u64, context: &Context) -> Result<(), String> {
    if command::start_time(host, pid.as_raw()) != Some(started) {
        return Err(format!("process {pid} has ended"));
    }
    let current = host
        .procfs()
        .labels_of(pid)
        .and_then(|labels| labels.current);
    if current.as_ref() != Some(context) {
        return Err(format!("process {pid} is not in the cage of {context}"));
    }
    if !domain::is_guest(host, context) || context.cage().len() < 2 {
        return Err(format!(
            "process {pid} runs as {context}, which is no guest with a pair of categories"
        ));
    }
    let own = Uid::effective();
    match user_of(host, pid) {
        Some(user) if own.is_root() || user == own.as_raw() => Ok(()),
        Some(user) => Err(format!(
            "process {pid} belongs to user {user}; only that user and root may label files for it"
        )),
        None => Err(format!("process {pid} has ended")),
    }
}

/// The effective user of a process; `Uid:` of /proc/PID/status, proc(5).
fn user_of(host: &RealHost, pid: Pid) -> Option<u32> {
    let status = host.procfs().read(&format!("{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
