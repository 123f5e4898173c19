//! Finds the confined guests of this host: processes in one of the policy's domains for virtual
//! machines, at a low level with categories. Reads /proc and the journal, whoever started the guest.

use crate::host::cmdline::{self, RunningCommandLine};
use crate::host::pinned;
use crate::host::{Files, Policy, ProcessLabels, RealHost, Sought};
use crate::model::label::Context;
use crate::restore::entry::{JournalEntry, Record};
use crate::restore::journals;
use crate::restore::lookup;
use crate::seclabel::domain;
use crate::selinux::names;
use crate::text::escape::quoted;
use nix::unistd::{Pid, Uid, User};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where libvirt keeps the pid file of a running guest (virPidFileBuildPath, qemu_driver.c).
const LIBVIRT_STATE: &str = "/run/libvirt/qemu";

/// Process ID that is the parent of orphans.
const INIT: i32 = 1;

/// A process with categories, or in a guest's domain.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Process ID.
    pub(crate) pid: Pid,
    /// Process ID of its parent; `/proc/PID/stat`, field 4.
    pub(crate) parent: Pid,
    /// Its session; field 6.
    pub(crate) session: i32,
    /// Its start, in clock ticks since boot; field 22.
    pub(crate) started: u64,
    /// Its effective user.
    pub(crate) uid: u32,
    /// Its context; `attr/current`.
    pub(crate) context: Context,
    /// The file name of its program, as its command line has it.
    pub(crate) program: OsString,
}

/// Who started a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// svirt-exec: a journal has an entry for it.
    SvirtExec,
    /// libvirt: there is a pid file for a guest of this name.
    Libvirt,
    /// Neither.
    Other,
    /// Not known: it is another user's, whose journal cannot be read.
    Unknown,
}

impl Owner {
    /// Returns the name in the table and in the JSON document.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SvirtExec => "svirt-exec",
            Self::Libvirt => "libvirt",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}

/// The label that a file has now.
#[derive(Clone, Debug)]
pub(crate) enum CurrentLabel {
    /// The file has this label.
    Label(Box<Context>),
    /// The file system has no labels.
    Unlabelled,
    /// The file is gone, or another one is in its place.
    Gone,
    /// The label cannot be read, for this reason.
    Unknown(String),
}

/// A file or device that was labelled for a guest.
#[derive(Clone, Debug)]
pub(crate) struct LabelledResource {
    /// The journal's record of it.
    pub(crate) record: Record,
    /// Its SELinux class.
    pub(crate) class: &'static str,
    /// Its label now.
    pub(crate) now: CurrentLabel,
}

/// A QEMU and its helpers, which have the same categories.
#[derive(Clone, Debug)]
pub(crate) struct ConfinedGuest {
    /// Its name, from the journal or from `-name`.
    pub(crate) name: Option<String>,
    /// Its processes, QEMU first.
    pub(crate) processes: Vec<Process>,
    /// QEMU's process ID.
    pub(crate) pid: Pid,
    /// QEMU's effective user.
    pub(crate) uid: u32,
    /// QEMU's context.
    pub(crate) context: Context,
    /// Who started it.
    pub(crate) owner: Owner,
    /// The resources that were labelled for it; empty if its journal cannot be read.
    pub(crate) resources: Vec<LabelledResource>,
}

impl ConfinedGuest {
    /// Returns its name in quotes or, if it has none, its process ID.
    pub(crate) fn title(&self) -> String {
        match &self.name {
            Some(name) => quoted(name),
            None => self.pid.to_string(),
        }
    }

    /// Returns the name of its user, or the number if there is no name.
    pub(crate) fn user(&self) -> String {
        User::from_uid(Uid::from_raw(self.uid))
            .ok()
            .flatten()
            .map_or_else(|| self.uid.to_string(), |user| user.name)
    }

    /// Tells whether a word of the command line means this guest: its name, or a PID of its processes.
    pub(crate) fn is_meant(&self, word: &str) -> bool {
        self.name.as_deref() == Some(word)
            || word
                .parse::<i32>()
                .is_ok_and(|pid| self.processes.iter().any(|one| one.pid.as_raw() == pid))
    }
}

/// The processes of this host that have categories or are in a guest's domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The confined guests, in the order of their process IDs.
    pub(crate) guests: Vec<ConfinedGuest>,
    /// Processes in a guest's domain without categories.
    pub(crate) without_categories: Vec<Process>,
    /// Processes with categories that belong to no guest.
    pub(crate) others: Vec<Process>,
    /// Number of processes that do not show their labels.
    pub(crate) hidden: usize,
    /// Whether processes may have been missed.
    pub(crate) is_incomplete: bool,
}

/// Tells whether libvirt has a guest of this name.
fn is_libvirts(name: &str) -> bool {
    !name.contains('/')
        && Path::new(LIBVIRT_STATE)
            .join(format!("{name}.pid"))
            .exists()
}

/// Reads a process. None if it has ended.
fn read_process(host: &RealHost, labels: &ProcessLabels) -> Option<Process> {
    let pid = labels.pid;
    let stat = host.procfs().stat(pid)?;
    Some(Process {
        pid,
        parent: Pid::from_raw(stat.parent),
        session: stat.session,
        started: stat.started,
        uid: fs::metadata(format!("/proc/{pid}")).ok()?.uid(),
        context: labels.current.clone()?,
        program: cmdline::program(&cmdline::words(host.procfs(), pid)).to_owned(),
    })
}

/// Tells whether a process is a helper of this QEMU: its descendant, or an orphan of its session.
fn is_helper_of(process: &Process, main: &Process, all: &BTreeMap<Pid, Process>) -> bool {
    let mut one = process;
    for _ in 0..all.len() {
        if one.parent == main.pid {
            return true;
        }
        match all.get(&one.parent) {
            Some(parent) => one = parent,
            None => break,
        }
    }
    one.parent.as_raw() == INIT && one.session == main.session
}

/// Groups processes by guest: each QEMU with its helpers, QEMU first. Returns the groups, and the
/// processes that belong to none.
///
/// Of several processes with the same categories, QEMU is the one in a journal (`is_recorded`) or,
/// if none is, the oldest one.
fn group_by_guest(
    processes: Vec<Process>,
    is_guest: &dyn Fn(&Context) -> bool,
    is_recorded: &dyn Fn(&Process) -> bool,
) -> (Vec<Vec<Process>>, Vec<Process>) {
    let mut all: BTreeMap<Pid, Process> = processes.into_iter().map(|one| (one.pid, one)).collect();
    let mut groups = Vec::new();
    loop {
        let main = all
            .values()
            .filter(|one| is_guest(&one.context))
            .min_by_key(|one| (!is_recorded(one), one.started, one.pid))
            .cloned();
        let Some(main) = main else { break };
        let mut members = vec![main.clone()];
        members.extend(
            all.values()
                .filter(|one| {
                    one.pid != main.pid
                        && one.context.categories() == main.context.categories()
                        && is_helper_of(one, &main, &all)
                })
                .cloned(),
        );
        for member in &members {
            all.remove(&member.pid);
        }
        groups.push(members);
    }
    (groups, all.into_values().collect())
}

/// Looks at the label that a recorded file has now.
fn labelled_resource(host: &RealHost, record: &Record) -> LabelledResource {
    let (class, now) = match pinned::pin(&record.path) {
        Ok(pinned) if lookup::is_same(&pinned, record) => (
            pinned.kind.class(),
            match host.label_of(&pinned) {
                Ok(Some(label)) => CurrentLabel::Label(Box::new(label)),
                Ok(None) => CurrentLabel::Unlabelled,
                Err(error) => CurrentLabel::Unknown(error.to_string()),
            },
        ),
        Ok(_) => ("file", CurrentLabel::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => ("file", CurrentLabel::Gone),
        Err(error) => ("file", CurrentLabel::Unknown(error.to_string())),
    };
    LabelledResource {
        record: record.clone(),
        class,
        now,
    }
}

/// Returns the journal entries that can be read and may be of guests that run, each with its user.
fn journal_entries(host: &RealHost) -> Vec<(u32, JournalEntry)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    // If its own cannot be listed there are none to show.
    let _ = journals::each_entry(&mut |it| {
        let (owner, entry) = (it.journal.owner(), it.entry);
        let started = host.procfs().start_time(Pid::from_raw(entry.pid));
        // One of a guest that became a daemon, or has ended, is enough of a context.
        let process = (started == Some(entry.started)).then_some(entry.pid);
        if seen.insert((owner, entry.context.clone(), process)) {
            found.push((owner, entry));
        }
    });
    found
}

/// Finds everything that is confined on this host now.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn view(host: &RealHost) -> io::Result<View> {
    let stated = host.virtual_contexts().unwrap_or_default();
    let is_guest = |context: &Context| domain::is_among(&stated, context);
    let entries = journal_entries(host);
    let look = host.look_besides(None, Sought::Processes)?;
    let mut view = View {
        is_incomplete: !look.is_complete,
        ..View::default()
    };
    let mut confined = Vec::new();
    for labels in look.processes {
        view.hidden = view.hidden.saturating_add(usize::from(labels.hidden));
        let Some(context) = &labels.current else {
            continue;
        };
        // A keeper claims the pair of its guest.
        let own = [names::OWN_DOMAIN, names::KEEPER_DOMAIN].contains(&context.type_.as_str());
        // Nor do categories mean anything to a process that they do not confine.
        let counts =
            is_guest(context) || !context.categories().is_empty() && labels.reserves.current;
        if own || !counts {
            continue;
        }
        if let Some(process) = read_process(host, &labels) {
            if process.context.categories().is_empty() {
                view.without_categories.push(process);
            } else {
                confined.push(process);
            }
        }
    }
    let is_entry = |entry: &JournalEntry, process: &Process| {
        entry.pid == process.pid.as_raw() && entry.started == process.started
    };
    let is_recorded = |process: &Process| entries.iter().any(|(_, entry)| is_entry(entry, process));
    let (groups, others) = group_by_guest(confined, &is_guest, &is_recorded);
    view.others = others;
    for processes in groups {
        view.guests
            .extend(guest(host, processes, &entries, &is_entry));
    }
    view.guests.sort_by_key(|guest| guest.pid);
    Ok(view)
}

/// Returns the guest of a group of processes. `entries` are those of the journals.
fn guest(
    host: &RealHost,
    processes: Vec<Process>,
    entries: &[(u32, JournalEntry)],
    is_entry: &dyn Fn(&JournalEntry, &Process) -> bool,
) -> Option<ConfinedGuest> {
    let main = processes.first()?;
    let context = main.context.to_string();
    // A guest that has made itself a daemon is no longer the process that was launched.
    let entry = entries
        .iter()
        .filter(|(owner, entry)| (*owner == 0 || *owner == main.uid) && entry.context == context)
        .min_by_key(|(_, entry)| !processes.iter().any(|one| is_entry(entry, one)))
        .filter(|(_, entry)| {
            processes.iter().any(|one| is_entry(entry, one))
                || !host
                    .procfs()
                    .may_live(Pid::from_raw(entry.pid), entry.started)
        });
    let words = cmdline::words(host.procfs(), main.pid);
    let stated = RunningCommandLine::parse(&words).and_then(|line| line.name());
    let may_know = Uid::effective().is_root() || Uid::effective().as_raw() == main.uid;
    let owner = match (&entry, &stated) {
        (Some(_), _) => Owner::SvirtExec,
        (None, Some(name)) if is_libvirts(name) => Owner::Libvirt,
        (None, _) if may_know => Owner::Other,
        (None, _) => Owner::Unknown,
    };
    Some(ConfinedGuest {
        name: match entry {
            // The journal has the process ID of a guest without a name.
            Some((_, entry)) if entry.name != entry.pid.to_string() => Some(entry.name.clone()),
            _ => stated,
        },
        pid: main.pid,
        uid: main.uid,
        context: main.context.clone(),
        owner,
        // Also of the entries of `attach`, which have the same context.
        resources: entries
            .iter()
            .filter(|(owner, other)| {
                entry.is_some() && (*owner == 0 || *owner == main.uid) && other.context == context
            })
            .flat_map(|(_, entry)| &entry.records)
            .map(|one| labelled_resource(host, one))
            .collect(),
        processes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, session: i32, started: u64, context: &str) -> Process {
        Process {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(parent),
            session,
            started,
            uid: 0,
            context: context.parse().unwrap(),
            program: "qemu".into(),
        }
    }

    fn pids(processes: &[Process]) -> Vec<i32> {
        processes.iter().map(|one| one.pid.as_raw()).collect()
    }

    #[test]
    fn a_qemu_and_its_helpers_are_one_guest_and_nobody_else_is_of_it() {
        let (one, two) = ("u:r:svirt_t:s0:c1,c2", "u:r:svirt_t:s0:c3,c4");
        let processes = vec![
            process(10, 5, 5, 100, one),
            // Its helper, and the helper's; in another domain.
            process(11, 10, 5, 101, one),
            process(12, 11, 5, 102, "u:r:helper_t:s0:c1,c2"),
            // An orphan of its session.
            process(13, 1, 5, 103, one),
            // Another QEMU with the same categories.
            process(20, 6, 6, 200, one),
            process(30, 5, 5, 300, two),
            // Its categories overlap, and it is no guest.
            process(40, 5, 5, 400, "u:r:unconfined_t:s0:c1"),
        ];
        let is_guest = |context: &Context| context.type_ == "svirt_t";
        let (groups, others) = group_by_guest(processes.clone(), &is_guest, &|_| false);
        let groups: Vec<Vec<i32>> = groups.iter().map(|one| pids(one)).collect();
        assert_eq!(groups, [vec![10, 11, 12, 13], vec![20], vec![30]]);
        assert_eq!(pids(&others), [40]);
        // The journal knows better than the clock.
        let (groups, _) = group_by_guest(processes, &is_guest, &|one| one.pid.as_raw() == 20);
        assert_eq!(pids(&groups[0]), [20]);
    }
}
