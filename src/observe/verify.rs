//! `verify`: proves the cage of each guest. Reads the labels of the guest's processes, of what they
//! have open and of what was labelled for them, and asks the policy, for every two guests, what the
//! one may do to the other and to its resources. Changes nothing.
//!
//! What is not proven is a finding: a process whose files cannot be looked at is not taken on trust.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::host::RealHost;
use crate::host::cmdline::program;
use crate::model::label::{CATEGORY_COUNT, Categories, Category, CategoryPair, Context, Level};
use crate::model::resource::Class;
use crate::observe::guests::{Guest, Now, Process, View};
use crate::observe::open_files::{self, OpenFile};
use crate::text::escape::{quoted, shell_word};

/// Questions to the policy: which of these permissions it does not give.
pub type Ask<'a> =
    &'a dyn for<'p> Fn(&Context, &Context, &str, &[&'p str]) -> io::Result<Vec<&'p str>>;

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which guest's cage; none where it is no guest's.
    pub guest: Option<String>,
    /// QEMU's process ID.
    pub pid: Option<i32>,
    /// What was found.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

/// What a guest may do to the resources of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// They are its own.
    Own,
    /// Nothing.
    None,
    /// Use what is shared on purpose: content, and disks with `share-rw=on`.
    Shared,
    /// Read what is the other's alone.
    Read,
    /// Write it.
    Write,
}

impl Cell {
    /// As it is printed.
    pub fn mark(self) -> &'static str {
        match self {
            Self::Own => "=",
            Self::None => "-",
            Self::Shared => "s",
            Self::Read => "r",
            Self::Write => "rw",
        }
    }
}

/// An object that a guest uses, and who else may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub path: PathBuf,
    /// SELinux class.
    pub class: &'static str,
    /// Its label now.
    pub label: Context,
    /// Whether others may use it by intent.
    pub shared: bool,
}

/// A guest with what its processes have open.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The guest.
    pub guest: Guest,
    /// What is open and mapped.
    pub open: Vec<OpenFile>,
    /// What could not be looked at, in words.
    pub unread: Vec<String>,
}

/// The outcome.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What does not hold.
    pub findings: Vec<Finding>,
    /// For each guest, what it may do to the resources of each; in the order of the guests.
    pub matrix: Vec<Vec<Cell>>,
}

/// Looks at what a guest's processes have open.
pub fn facts(host: &RealHost, guest: &Guest) -> Facts {
    let (mut open, mut unread) = (Vec::new(), Vec::new());
    for process in &guest.processes {
        match open_files::of(host, process.pid) {
            Ok((files, failed)) => {
                open.extend(files);
                unread.extend(failed.iter().map(|(path, error)| {
                    format!(
                        "the label of {}, which process {} has open, cannot be read: {error}",
                        quoted(path),
                        process.pid
                    )
                }));
            }
            Err(error) => unread.push(format!(
                "what process {} has open cannot be looked at: {error}",
                process.pid
            )),
        }
    }
    Facts {
        guest: guest.clone(),
        open,
        unread,
    }
}

/// Two categories that are not in a cage: another guest's, as it may be drawn.
fn foreign(cage: &Categories) -> Option<CategoryPair> {
    let mut free = (0..CATEGORY_COUNT)
        .filter_map(Category::new)
        .filter(|category| !cage.contains(*category));
    CategoryPair::new(free.next()?, free.next()?)
}

/// Whether a file is the pid file of a guest of the system's libvirt. It is open in its guest for the
/// lock on it, and is root's, as whom none of libvirt's guests runs.
fn is_pid_file(path: &Path) -> bool {
    path.parent() == Some(Path::new("/run/libvirt/qemu"))
        && path.extension() == Some(OsStr::new("pid"))
}

/// Permissions of which one is enough to read or to write an object that one has to open.
fn may(
    ask: Ask<'_>,
    source: &Context,
    held: (&Context, &str),
    how: &'static str,
) -> io::Result<bool> {
    Ok(ask(source, held.0, held.1, &["open", how])?.is_empty())
}

impl Facts {
    fn finding(&self, problem: String, fix: impl Into<String>) -> Finding {
        Finding {
            guest: Some(self.guest.title()),
            pid: Some(self.guest.pid.as_raw()),
            problem,
            fix: fix.into(),
        }
    }

    fn level(&self) -> Level {
        self.guest.context.level()
    }

    /// What the guest uses on disk: from its journal, and what it has open besides.
    pub fn held(&self) -> Vec<Held> {
        let cage = self.guest.context.cage();
        let mut held: Vec<Held> = Vec::new();
        for resource in &self.guest.resources {
            if let Now::Label(label) = &resource.now {
                held.push(Held {
                    path: resource.record.path.clone(),
                    class: resource.class,
                    label: label.as_ref().clone(),
                    shared: resource.record.class != Class::Exclusive,
                });
            }
        }
        for file in &self.open {
            let Some(label) = &file.label else { continue };
            let on_disk = ["file", "blk_file", "chr_file"].contains(&file.class);
            // Its own label says whose it is; what carries none is nobody's in particular.
            let is_its = label.cage() == cage;
            if on_disk && is_its && !held.iter().any(|one| one.path == file.path) {
                held.push(Held {
                    path: file.path.clone(),
                    class: file.class,
                    label: label.clone(),
                    shared: false,
                });
            }
        }
        held
    }

    /// The guest's own processes, labels and files.
    fn own(&self, ask: Ask<'_>) -> io::Result<Vec<Finding>> {
        let mut found = Vec::new();
        let context = &self.guest.context;
        let cage = context.cage();
        if cage.len() < 2 {
            found.push(self.finding(
                format!(
                    "it runs as {context}: one category is part of the pairs of others, which may \
                     touch what it writes (CVE-2021-3631)"
                ),
                "start it again with a pair of two categories",
            ));
        }
        for process in &self.guest.processes {
            let clearance = process
                .context
                .range
                .as_ref()
                .map(|range| range.clearance());
            if clearance.is_some_and(|level| level.categories != cage) {
                found.push(self.finding(
                    format!(
                        "process {} runs as {}: its clearance goes beyond the guest's categories",
                        process.pid, process.context
                    ),
                    "start it again through svirt-exec",
                ));
            }
        }
        found.extend(self.journalled());
        for why in &self.unread {
            found.push(self.finding(
                format!("not proven: {why}"),
                "run svirt-exec verify as the user of that process; root may look into processes \
                 of other users after setsebool svirt_launcher_verify_others on",
            ));
        }
        let other =
            foreign(&cage).map(|pair| context.at(Level::with_pair(context.sensitivity(), pair)));
        for file in &self.open {
            found.extend(self.opened(file, other.as_ref(), ask)?);
        }
        Ok(found)
    }

    /// What was labelled still has the label.
    fn journalled(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for resource in &self.guest.resources {
            let record = &resource.record;
            let name = quoted(&record.path);
            let chcon = || format!("chcon {} {}", record.label, shell_word(&record.path));
            let label = match &resource.now {
                Now::Label(label) => label.to_string(),
                Now::Unlabelled => "no label".to_owned(),
                // A disk that was deleted while the guest has it open: seen by its descriptor.
                Now::Gone => continue,
                Now::Unknown(why) => {
                    found.push(self.finding(
                        format!("not proven: the label of {name} cannot be read: {why}"),
                        "run svirt-exec verify as the user who started the guest",
                    ));
                    continue;
                }
            };
            if label == record.label {
                continue;
            }
            let why = if label == record.original {
                ", as before the launch (restorecon?)"
            } else {
                ""
            };
            found.push(self.finding(
                format!(
                    "{name} was labelled {} for it and is {label} now{why}",
                    record.label
                ),
                format!("give it back its label: {}", chcon()),
            ));
        }
        found
    }

    /// One object that a process of the guest has open or mapped.
    fn opened(
        &self,
        file: &OpenFile,
        other: Option<&Context>,
        ask: Ask<'_>,
    ) -> io::Result<Option<Finding>> {
        let Some(label) = &file.label else {
            return Ok(None);
        };
        let journalled = self
            .guest
            .resources
            .iter()
            .find(|one| one.record.path == file.path);
        // Said already, with the label that it was given.
        if let Some(Now::Label(now)) = journalled.map(|one| &one.now)
            && journalled.is_some_and(|one| now.to_string() != one.record.label)
        {
            return Ok(None);
        }
        let how = match file.fd {
            Some(number) => format!("open as descriptor {number}"),
            None => "mapped".to_owned(),
        };
        let what = format!("process {} has {} {how}", file.pid, quoted(&file.path));
        let cage = label.cage();
        if !cage.is_empty() && cage != self.guest.context.cage() {
            return Ok(Some(self.finding(
                format!("{what}: it is {label}, with categories that are not this guest's"),
                format!(
                    "if it is this guest's: chcon -l {} {}",
                    self.level(),
                    shell_word(&file.path)
                ),
            )));
        }
        let on_purpose = journalled.is_some_and(|one| one.record.class != Class::Exclusive)
            || is_pid_file(&file.path);
        let on_disk = ["file", "blk_file"].contains(&file.class);
        let Some(other) =
            other.filter(|_| cage.is_empty() && file.writes && on_disk && !on_purpose)
        else {
            return Ok(None);
        };
        if !may(ask, other, (label, file.class), "write")? {
            return Ok(None);
        }
        Ok(Some(self.finding(
            format!("{what} for writing: it is {label}, which every guest may write"),
            format!(
                "if it is this guest's alone: chcon -l {} {}",
                self.level(),
                shell_word(&file.path)
            ),
        )))
    }
}

/// Who else is in the cage.
fn overlaps(facts: &Facts, others: &[&Process]) -> Vec<Finding> {
    let cage = facts.guest.context.cage();
    others
        .iter()
        .filter(|one| one.context.cage().overlaps(&cage))
        .map(|one| {
            facts.finding(
                format!(
                    "process {} ({}, {}) is in an overlapping cage and is none of its processes",
                    one.pid,
                    crate::text::escape::escaped(program(&one.words).as_bytes()),
                    one.context
                ),
                "end one of the two; split the categories (--mcs-range) where another tool, such as \
                 libvirt, draws pairs on this host too",
            )
        })
        .collect()
}

/// What may be done to a process.
const PROCESS: [&str; 5] = ["ptrace", "signal", "sigkill", "sigstop", "setsched"];

/// What one guest may do to another's resources, and what is wrong with that.
fn between(row: &Facts, column: &Facts, ask: Ask<'_>) -> io::Result<(Cell, Vec<Finding>)> {
    let (mut cell, mut found) = (Cell::None, Vec::new());
    let source = &row.guest.context;
    for held in column.held() {
        let object = (&held.label, held.class);
        let writes = may(ask, source, object, "write")?;
        let reads = may(ask, source, object, "read")?;
        let one = match (held.shared, reads, writes) {
            (_, false, false) => continue,
            (true, _, _) => Cell::Shared,
            (false, _, true) => Cell::Write,
            (false, true, false) => Cell::Read,
        };
        cell = cell.max(one);
        if one != Cell::Shared {
            found.push(column.finding(
                format!(
                    "guest {} ({source}) may {} {}, which is {}",
                    row.guest.title(),
                    if writes { "write" } else { "read" },
                    quoted(&held.path),
                    held.label
                ),
                format!(
                    "give it this guest's categories alone: chcon -l {} {}",
                    column.level(),
                    shell_word(&held.path)
                ),
            ));
        }
    }
    let target = &column.guest.context;
    let denied = ask(source, target, "process", &PROCESS)?;
    let given: Vec<&str> = PROCESS
        .into_iter()
        .filter(|permission| !denied.contains(permission))
        .collect();
    if !given.is_empty() {
        found.push(column.finding(
            format!(
                "guest {} ({source}) may do to its process: {}",
                row.guest.title(),
                given.join(", ")
            ),
            "guests must have pairs of their own, and the policy its MCS constraints: start one of \
             them again",
        ));
    }
    Ok((cell, found))
}

/// Judges the guests that are `meant`; all of them are in the matrix.
///
/// # Errors
/// Where the policy cannot be asked.
pub fn judge(
    view: &View,
    all: &[Facts],
    meant: &dyn Fn(&Guest) -> bool,
    ask: Ask<'_>,
) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    for facts in all.iter().filter(|facts| meant(&facts.guest)) {
        verdict.findings.extend(facts.own(ask)?);
        let others: Vec<&Process> = all
            .iter()
            .filter(|other| other.guest.pid != facts.guest.pid)
            .flat_map(|other| &other.guest.processes)
            .chain(&view.others)
            .collect();
        verdict.findings.extend(overlaps(facts, &others));
    }
    for row in all {
        let mut cells = Vec::with_capacity(all.len());
        for column in all {
            if row.guest.pid == column.guest.pid {
                cells.push(Cell::Own);
                continue;
            }
            let (cell, found) = between(row, column, ask)?;
            cells.push(cell);
            if meant(&row.guest) || meant(&column.guest) {
                verdict.findings.extend(found);
            }
        }
        verdict.matrix.push(cells);
    }
    Ok(verdict)
}

/// What is wrong whoever is meant: processes that no cage holds, and what hides.
pub fn of_the_host(view: &View, sees_all: bool) -> Vec<Finding> {
    let mut found: Vec<Finding> = view
        .uncaged
        .iter()
        .map(|process| Finding {
            guest: None,
            pid: Some(process.pid.as_raw()),
            problem: format!(
                "process {} ({}) runs as {}, in a guest's domain without categories: every other \
                 such process may touch what it writes",
                process.pid,
                crate::text::escape::escaped(program(&process.words).as_bytes()),
                process.context
            ),
            fix: "start it again through svirt-exec".to_owned(),
        })
        .collect();
    if view.hidden > 0 || !sees_all {
        found.push(Finding {
            guest: None,
            pid: None,
            problem: "not proven: not all processes of this host show their labels here (hidepid, \
                      a PID namespace, or the policy)"
                .to_owned(),
            fix: "run svirt-exec verify as root outside any container".to_owned(),
        });
    }
    found
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
