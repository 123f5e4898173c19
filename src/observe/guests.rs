//! The confined guests of this host, whoever started them: processes in a domain of the policy's
//! for virtual machines whose low level carries categories. Reads /proc and the journal, and
//! changes nothing.

use crate::host::cmdline::{self, RunningCommandLine};
use crate::host::pinned;
use crate::host::{Files, Policy, ProcessLabels, Processes, RealHost};
use crate::model::label::Context;
use crate::restore::command;
use crate::restore::journal::{Entry, Journal, Record};
use crate::restore::lookup;
use crate::seclabel::domain;
use crate::selinux::names;
use nix::unistd::{Pid, Uid, User};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where libvirt keeps the pid file of a running guest (virPidFileBuildPath, qemu_driver.c).
const LIBVIRT_STATE: &str = "/run/libvirt/qemu";

/// The first process of the host, which orphans become children of.
const INIT: i32 = 1;

/// A process that matters here.
#[derive(Clone, Debug)]
pub struct Process {
    /// Process ID.
    pub pid: Pid,
    /// `/proc/PID/stat`, field 4.
    pub parent: Pid,
    /// Session; field 6.
    pub session: i32,
    /// Start in clock ticks since boot; field 22.
    pub started: u64,
    /// Effective user.
    pub uid: u32,
    /// `attr/current`.
    pub context: Context,
    /// Its words; empty where they cannot be read.
    pub words: Vec<OsString>,
}

/// Who started a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// svirt-exec: a journal has it.
    SvirtExec,
    /// libvirt: it keeps a pid file for a guest of this name.
    Libvirt,
    /// Neither.
    Other,
    /// Another user's, whose journal is not ours to read.
    Unknown,
}

impl Owner {
    /// For people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::SvirtExec => "svirt-exec",
            Self::Libvirt => "libvirt",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}

/// What a file's label is now.
#[derive(Clone, Debug)]
pub enum Now {
    /// This.
    Label(Box<Context>),
    /// None: a file system without labels.
    Unlabelled,
    /// The file is gone, or another one is in its place.
    Gone,
    /// It could not be looked at.
    Unknown(String),
}

/// Something that was labelled for a guest.
#[derive(Clone, Debug)]
pub struct Resource {
    /// What the journal says.
    pub record: Record,
    /// The SELinux class of the object.
    pub class: &'static str,
    /// What is there now.
    pub now: Now,
}

/// A QEMU and its helpers, in one cage.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its name: the journal's, or what `-name` says.
    pub name: Option<String>,
    /// QEMU first.
    pub processes: Vec<Process>,
    /// QEMU's process ID.
    pub pid: Pid,
    /// QEMU's effective user.
    pub uid: u32,
    /// QEMU's context.
    pub context: Context,
    /// Who started it.
    pub owner: Owner,
    /// What was labelled for it, where its journal can be read.
    pub resources: Vec<Resource>,
}

impl Guest {
    /// Its name or, without one, its process ID.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("'{}'", crate::text::escape::escaped(name.as_bytes())),
            None => self.pid.to_string(),
        }
    }

    /// Name of its user, or the number.
    pub fn user(&self) -> String {
        User::from_uid(Uid::from_raw(self.uid))
            .ok()
            .flatten()
            .map_or_else(|| self.uid.to_string(), |user| user.name)
    }

    /// Whether a word of the command line means this guest: its name, or a PID of its processes.
    pub fn is_meant(&self, word: &str) -> bool {
        self.name.as_deref() == Some(word)
            || word
                .parse::<i32>()
                .is_ok_and(|pid| self.processes.iter().any(|one| one.pid.as_raw() == pid))
    }
}

/// What runs on this host.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Confined guests, by process ID.
    pub guests: Vec<Guest>,
    /// Processes in a guest's domain without categories.
    pub uncaged: Vec<Process>,
    /// Processes in cages that belong to no guest.
    pub others: Vec<Process>,
    /// How many processes do not show their labels.
    pub hidden: usize,
}

/// Whether libvirt has a guest of this name.
fn is_libvirts(name: &str) -> bool {
    !name.contains('/')
        && Path::new(LIBVIRT_STATE)
            .join(format!("{name}.pid"))
            .exists()
}

/// A caged process, or one in a guest's domain; none where it has ended.
fn look(host: &RealHost, labels: &ProcessLabels) -> Option<Process> {
    let pid = labels.pid;
    let stat = host.procfs().stat(pid)?;
    Some(Process {
        pid,
        parent: Pid::from_raw(stat.parent),
        session: stat.session,
        started: stat.started,
        uid: fs::metadata(format!("/proc/{pid}")).ok()?.uid(),
        context: labels.current.clone()?,
        words: cmdline::words(host.procfs(), pid),
    })
}

/// Whether a process is a helper of this QEMU: it descends from it, or is an orphan of its session.
fn belongs(process: &Process, main: &Process, all: &BTreeMap<Pid, Process>) -> bool {
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

/// Processes of cages put together: each QEMU and its helpers, QEMU first; and who is left over.
///
/// `known` are the process IDs that a journal has: where several processes share a cage, those are
/// the guest, and else it is the oldest.
pub fn group(
    processes: Vec<Process>,
    is_guest: &dyn Fn(&Context) -> bool,
    known: &dyn Fn(&Process) -> bool,
) -> (Vec<Vec<Process>>, Vec<Process>) {
    let mut all: BTreeMap<Pid, Process> = processes.into_iter().map(|one| (one.pid, one)).collect();
    let mut groups = Vec::new();
    loop {
        let main = all
            .values()
            .filter(|one| is_guest(&one.context))
            .min_by_key(|one| (!known(one), one.started, one.pid))
            .cloned();
        let Some(main) = main else { break };
        let mut members = vec![main.clone()];
        members.extend(
            all.values()
                .filter(|one| {
                    one.pid != main.pid
                        && one.context.cage() == main.context.cage()
                        && belongs(one, &main, &all)
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

fn resource(host: &RealHost, record: &Record) -> Resource {
    let (class, now) = match pinned::pin(&record.path) {
        Ok(pinned) if lookup::same(&pinned, record) => (
            pinned.kind.class(),
            match host.label_of(&pinned) {
                Ok(Some(label)) => Now::Label(Box::new(label)),
                Ok(None) => Now::Unlabelled,
                Err(error) => Now::Unknown(error.to_string()),
            },
        ),
        Ok(_) => ("file", Now::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => ("file", Now::Gone),
        Err(error) => ("file", Now::Unknown(error.to_string())),
    };
    Resource {
        record: record.clone(),
        class,
        now,
    }
}

/// Journal entries that can be read, with the users whose they are.
fn entries() -> Vec<(u32, Entry)> {
    let mut found = Vec::new();
    for (owner, journal) in Journal::existing() {
        for path in journal.entries().unwrap_or_default() {
            if let Ok(entry) = Journal::read(&path) {
                found.push((owner, entry));
            }
        }
    }
    found
}

/// Everything that is confined on this host now.
///
/// # Errors
/// Where /proc cannot be read.
pub fn view(host: &RealHost) -> io::Result<View> {
    let stated = host.virtual_contexts().unwrap_or_default();
    let is_guest = |context: &Context| domain::is_among(&stated, context);
    let entries = entries();
    let mut view = View::default();
    let mut caged = Vec::new();
    for labels in host.processes()? {
        view.hidden = view.hidden.saturating_add(usize::from(labels.hidden));
        let Some(context) = &labels.current else {
            continue;
        };
        // A keeper claims the pair of its guest, and is in no cage of its own.
        let own = [names::OWN_DOMAIN, names::KEEPER_DOMAIN].contains(&context.kind.as_str());
        if own || context.cage().is_empty() && !is_guest(context) {
            continue;
        }
        if let Some(process) = look(host, &labels) {
            if process.context.cage().is_empty() {
                view.uncaged.push(process);
            } else {
                caged.push(process);
            }
        }
    }
    let is_entry = |entry: &Entry, process: &Process| {
        entry.pid == process.pid.as_raw() && entry.started == process.started
    };
    let known = |process: &Process| entries.iter().any(|(_, entry)| is_entry(entry, process));
    let (groups, others) = group(caged, &is_guest, &known);
    view.others = others;
    for processes in groups {
        view.guests
            .extend(guest(host, processes, &entries, &is_entry));
    }
    view.guests.sort_by_key(|guest| guest.pid);
    Ok(view)
}

fn guest(
    host: &RealHost,
    processes: Vec<Process>,
    entries: &[(u32, Entry)],
    is_entry: &dyn Fn(&Entry, &Process) -> bool,
) -> Option<Guest> {
    let main = processes.first()?;
    let context = main.context.to_string();
    // A guest that has made itself a daemon is no longer the process that was launched.
    let entry = entries
        .iter()
        .filter(|(owner, entry)| (*owner == 0 || *owner == main.uid) && entry.context == context)
        .min_by_key(|(_, entry)| !processes.iter().any(|one| is_entry(entry, one)))
        .filter(|(_, entry)| {
            processes.iter().any(|one| is_entry(entry, one))
                || command::start_time(host, entry.pid) != Some(entry.started)
        });
    let stated = RunningCommandLine::parse(&main.words).and_then(|line| line.name());
    let may_know = Uid::effective().is_root() || Uid::effective().as_raw() == main.uid;
    let owner = match (&entry, &stated) {
        (Some(_), _) => Owner::SvirtExec,
        (None, Some(name)) if is_libvirts(name) => Owner::Libvirt,
        (None, _) if may_know => Owner::Other,
        (None, _) => Owner::Unknown,
    };
    Some(Guest {
        name: match entry {
            // Without a name the journal has the process ID.
            Some((_, entry)) if entry.name != entry.pid.to_string() => Some(entry.name.clone()),
            _ => stated,
        },
        pid: main.pid,
        uid: main.uid,
        context: main.context.clone(),
        owner,
        // Those of the launch, and what was attached since.
        resources: entries
            .iter()
            .filter(|(owner, other)| {
                entry.is_some() && (*owner == 0 || *owner == main.uid) && other.context == context
            })
            .flat_map(|(_, entry)| &entry.records)
            .map(|one| resource(host, one))
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
            words: Vec::new(),
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
            // Another QEMU that somebody gave the same categories.
            process(20, 6, 6, 200, one),
            process(30, 5, 5, 300, two),
            // In an overlapping cage, and no guest.
            process(40, 5, 5, 400, "u:r:unconfined_t:s0:c1"),
        ];
        let is_guest = |context: &Context| context.kind == "svirt_t";
        let (groups, others) = group(processes.clone(), &is_guest, &|_| false);
        let groups: Vec<Vec<i32>> = groups.iter().map(|one| pids(one)).collect();
        assert_eq!(groups, [vec![10, 11, 12, 13], vec![20], vec![30]]);
        assert_eq!(pids(&others), [40]);
        // The journal knows better than the clock.
        let (groups, _) = group(processes, &is_guest, &|one| one.pid.as_raw() == 20);
        assert_eq!(pids(&groups[0]), [20]);
    }
}
