//! Guests that run: finding one by what a person calls it, and whether the caller may act for it.

use std::ffi::OsStr;
use std::fmt;

use nix::unistd::{Pid, Uid};
use thiserror::Error;

use crate::host::{ProcessLabels, Processes, RealHost};
use crate::model::label::Context;
use crate::restore::entry::JournalEntry;
use crate::restore::journals;
use crate::restore::liveness;
use crate::seclabel::domain;
use crate::text::escape::quoted;
use crate::text::message::{Message, Refusal, refuse};

/// A process with a pair of its own.
#[derive(Clone, Debug)]
pub struct RunningGuest {
    /// For people.
    pub name: String,
    /// Its process.
    pub pid: Pid,
    /// When that started, in clock ticks since boot.
    pub started: u64,
    /// Its context, with a pair.
    pub context: Context,
}

impl fmt::Display for RunningGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest {} (process {})", quoted(&self.name), self.pid)
    }
}

/// Why nobody may act for a process as for a guest.
#[derive(Debug, Error)]
pub enum GuestError {
    /// It is gone.
    #[error("process {0} has ended")]
    Ended(Pid),
    /// It runs in another context.
    #[error("process {pid} does not run as {context}")]
    OtherContext {
        /// The process.
        pid: Pid,
        /// The context that it was to have.
        context: Box<Context>,
    },
    /// Its domain is none of guests, or it has fewer than two categories.
    #[error("process {pid} runs as {context}, which is no guest with a pair of categories")]
    NoGuest {
        /// The process.
        pid: Pid,
        /// Its context.
        context: Box<Context>,
    },
    /// It is another user's.
    #[error("process {pid} belongs to user {user}; only that user and root may label files for it")]
    Foreign {
        /// The process.
        pid: Pid,
        /// Its effective user.
        user: u32,
    },
}

/// Finds the guest that a word names, and checks that the caller may act for it: one that svirt-exec
/// started, by its name or process ID, or, if `any` is set, any guest of this host by its process ID.
///
/// # Errors
/// That none or several fit, or that it is somebody else's.
pub fn find(host: &RealHost, word: &OsStr, any: bool) -> Result<RunningGuest, Refusal> {
    let guest = if any {
        by_pid(host, word)?
    } else {
        by_name(host, word)?
    };
    verify(host, guest.pid, guest.started, &guest.context)?;
    Ok(guest)
}

/// Finds any process by its number.
fn by_pid(host: &RealHost, word: &OsStr) -> Result<RunningGuest, Refusal> {
    let cannot = |why: &str| refuse(format!("cannot find guest {}: {why}", quoted(word)));
    let number = word.to_str().and_then(|word| word.parse().ok());
    let pid = Pid::from_raw(number.ok_or_else(|| cannot("--pid needs a process ID"))?);
    let procfs = host.procfs();
    match (procfs.context_of(pid), procfs.start_time(pid)) {
        (Some(context), Some(started)) => Ok(RunningGuest {
            name: word.to_string_lossy().into_owned(),
            pid,
            started,
            context,
        }),
        _ => Err(cannot("no such process runs")),
    }
}

/// Finds a guest that svirt-exec started, by the name or the process ID that a journal has.
fn by_name(host: &RealHost, word: &OsStr) -> Result<RunningGuest, Refusal> {
    let name = quoted(word);
    let number: Option<i32> = word.to_str().and_then(|word| word.parse().ok());
    let mut found: Vec<RunningGuest> = Vec::new();
    let mut ended = false;
    let processes = host.processes()?;
    journals::each_entry(&mut |it| {
        let (owner, entry) = (it.journal.owner(), it.entry);
        if word != OsStr::new(&entry.name) && number != Some(entry.pid) {
            return;
        }
        let Ok(context) = entry.context.parse::<Context>() else {
            return;
        };
        let pid = process_of(host, &entry, &context, &processes);
        let procfs = host.procfs();
        let Some((pid, started)) = pid.and_then(|pid| Some((pid, procfs.start_time(pid)?))) else {
            ended = true;
            return;
        };
        let known = found.iter().any(|guest| guest.context == context);
        // A name that a user gave counts for that user's own processes only, and after root's.
        let his = owner == Uid::effective().as_raw()
            || found.is_empty() && procfs.user_of(pid) == Some(owner);
        if !known && his {
            found.push(RunningGuest {
                name: entry.name,
                pid,
                started,
                context,
            });
        }
    })?;
    match found.as_slice() {
        [guest] => Ok(guest.clone()),
        [] if ended => Err(refuse(Message::new(
            format!("cannot find guest {name}: it has ended"),
            "svirt-exec restore puts back what it left",
        ))),
        [] => Err(refuse(Message::new(
            format!(
                "cannot find guest {name}: svirt-exec has labelled nothing for a guest of this name or \
                 process ID"
            ),
            "with --pid any guest can be named by its process ID",
        ))),
        several => {
            let pids: Vec<String> = several.iter().map(|guest| guest.pid.to_string()).collect();
            Err(refuse(Message::new(
                format!(
                    "cannot tell which guest {name} is: processes {} have this name",
                    pids.join(", ")
                ),
                "name one of them",
            )))
        }
    }
}

/// Returns QEMU's own process, or the one that it left behind with `-daemonize`.
fn process_of(
    host: &RealHost,
    entry: &JournalEntry,
    context: &Context,
    processes: &[ProcessLabels],
) -> Option<Pid> {
    if liveness::runs(host.procfs(), entry) {
        return Some(Pid::from_raw(entry.pid));
    }
    let found = processes
        .iter()
        .find(|process| in_context(process, context));
    found.map(|process| process.pid)
}

fn in_context(process: &ProcessLabels, context: &Context) -> bool {
    process.current.as_ref() == Some(context)
}

/// Checks that a process is a guest in exactly this context, and that the caller may act for it: as the
/// user who runs it, or root.
///
/// # Errors
/// What is not so.
pub fn verify(
    host: &RealHost,
    pid: Pid,
    started: u64,
    context: &Context,
) -> Result<(), GuestError> {
    let procfs = host.procfs();
    if procfs.start_time(pid) != Some(started) {
        return Err(GuestError::Ended(pid));
    }
    if procfs.context_of(pid).as_ref() != Some(context) {
        return Err(GuestError::OtherContext {
            pid,
            context: Box::new(context.clone()),
        });
    }
    if !domain::is_guest(host, context) || context.categories().len() < 2 {
        return Err(GuestError::NoGuest {
            pid,
            context: Box::new(context.clone()),
        });
    }
    let own = Uid::effective();
    match procfs.user_of(pid) {
        Some(user) if own.is_root() || user == own.as_raw() => Ok(()),
        Some(user) => Err(GuestError::Foreign { pid, user }),
        None => Err(GuestError::Ended(pid)),
    }
}
