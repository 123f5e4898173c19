//! Judges whether each guest is confined (`verify`). Reads the labels of the guest's processes, of what
//! they have open, and of what was labelled for them. Asks the policy, for every two guests, what one
//! may do to the other and to its resources. Changes nothing.
//!
//! Whatever cannot be proven is a finding, such as a process whose files cannot be looked at.

use crate::host::RealHost;
use crate::model::label::{CATEGORY_COUNT, Categories, Category, CategoryPair, Context, Level};
use crate::model::resource::Class;
use crate::observe::guests::{ConfinedGuest, CurrentLabel, Process, View};
use crate::observe::open_files::{self, OpenFile};
use crate::observe::verify_facts::{Ask, Cell, Finding, GuestFacts, Judgement, ObjectInUse};
use crate::text::escape::{escaped, quoted, shell_word};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Looks at what a guest's processes have open.
pub(crate) fn collect_facts(host: &RealHost, guest: &ConfinedGuest) -> GuestFacts {
    let (mut open, mut unread) = (Vec::new(), Vec::new());
    for process in &guest.processes {
        if open.len().saturating_add(unread.len()) > open_files::MOST {
            unread.push(format!(
                "what process {} and others have open was not looked at: the guest has more than {} files \
                 open or mapped",
                process.pid,
                open_files::MOST
            ));
            break;
        }
        match open_files::open_files_of(host, process.pid) {
            Ok(found) => {
                open.extend(found.files);
                unread.extend(found.unreadable.iter().map(|one| {
                    format!(
                        "the label of {}, which process {} has open, cannot be read: {}",
                        quoted(&one.path),
                        process.pid,
                        one.error
                    )
                }));
            }
            Err(error) => unread.push(format!(
                "what process {} has open cannot be looked at: {error}",
                process.pid
            )),
        }
    }
    GuestFacts {
        guest: guest.clone(),
        open,
        unread,
    }
}

/// Returns a pair without any of these categories: one that another guest may draw.
fn foreign_pair(categories: &Categories) -> Option<CategoryPair> {
    let mut free = (0..CATEGORY_COUNT)
        .filter_map(Category::new)
        .filter(|category| !categories.contains(*category));
    CategoryPair::new(free.next()?, free.next()?)
}

/// Tells whether a file is the pid file of a guest of the system's libvirt. The guest has it open for
/// the lock on it. The file is root's, and none of libvirt's guests runs as root.
fn is_pid_file(path: &Path) -> bool {
    path.parent() == Some(Path::new("/run/libvirt/qemu"))
        && path.extension() == Some(OsStr::new("pid"))
}

/// Tells whether the policy allows a source to open an object and to read or write it.
fn may(
    ask: Ask<'_>,
    source: &Context,
    object: (&Context, &str),
    how: &'static str,
) -> io::Result<bool> {
    Ok(ask(source, object.0, object.1, &["open", how])?.is_empty())
}

impl GuestFacts {
    /// Returns a finding about this guest.
    fn finding(&self, problem: String, fix: impl Into<String>) -> Finding {
        Finding {
            guest: Some(self.guest.title()),
            pid: Some(self.guest.pid.as_raw()),
            problem,
            fix: fix.into(),
        }
    }

    /// Returns the guest's level.
    fn level(&self) -> Level {
        self.guest.context.level()
    }

    /// Returns the objects on disk that the guest uses: those of its journal, and others that it has
    /// open.
    fn objects_in_use(&self) -> Vec<ObjectInUse> {
        let categories = self.guest.context.categories();
        let mut objects: Vec<ObjectInUse> = Vec::new();
        for resource in &self.guest.resources {
            if let CurrentLabel::Label(label) = &resource.now {
                objects.push(ObjectInUse {
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
            // An object without categories belongs to no guest in particular.
            let is_own = label.categories() == categories;
            if on_disk && is_own && !objects.iter().any(|one| one.path == file.path) {
                objects.push(ObjectInUse {
                    path: file.path.clone(),
                    class: file.class,
                    label: label.clone(),
                    shared: false,
                });
            }
        }
        objects
    }

    /// Checks the guest's own processes, labels and files.
    fn check_guest(&self, ask: Ask<'_>) -> io::Result<Vec<Finding>> {
        let mut found = Vec::new();
        let context = &self.guest.context;
        let categories = context.categories();
        if categories.len() < 2 {
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
            if clearance.is_some_and(|level| level.categories != categories) {
                found.push(self.finding(
                    format!(
                        "process {} runs as {}: its clearance goes beyond the guest's categories",
                        process.pid, process.context
                    ),
                    "start it again through svirt-exec",
                ));
            }
        }
        found.extend(self.check_recorded_labels());
        for why in &self.unread {
            found.push(self.finding(
                format!("not proven: {why}"),
                "run svirt-exec verify as the user of that process; root may look into processes \
                 of other users after setsebool svirt_launcher_verify_others on",
            ));
        }
        let other = foreign_pair(&categories)
            .map(|pair| context.at(Level::with_pair(context.sensitivity(), pair)));
        for file in &self.open {
            found.extend(self.check_open_file(file, other.as_ref(), ask)?);
        }
        Ok(found)
    }

    /// Checks that what was labelled for the guest still has the label.
    fn check_recorded_labels(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for resource in &self.guest.resources {
            let record = &resource.record;
            let name = quoted(&record.path);
            let chcon = || format!("chcon {} {}", record.label, shell_word(&record.path));
            let label = match &resource.now {
                CurrentLabel::Label(label) => label.to_string(),
                CurrentLabel::Unlabelled => "no label".to_owned(),
                // A guest that has a deleted disk open is checked by its descriptor.
                CurrentLabel::Gone => continue,
                CurrentLabel::Unknown(why) => {
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

    /// Checks one object that a process of the guest has open or mapped. `other` is the context of
    /// another guest, as it may be launched.
    fn check_open_file(
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
        // check_recorded_labels has found that label.
        if let Some(CurrentLabel::Label(now)) = journalled.map(|one| &one.now)
            && journalled.is_some_and(|one| now.to_string() != one.record.label)
        {
            return Ok(None);
        }
        let how = match file.fd {
            Some(number) => format!("open as descriptor {number}"),
            None => "mapped".to_owned(),
        };
        let what = format!("process {} has {} {how}", file.pid, quoted(&file.path));
        let categories = label.categories();
        if !categories.is_empty() && categories != self.guest.context.categories() {
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
            other.filter(|_| categories.is_empty() && file.writes && on_disk && !on_purpose)
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

/// Finds other processes whose categories overlap a guest's.
fn overlapping_processes(facts: &GuestFacts, others: &[&Process]) -> Vec<Finding> {
    let categories = facts.guest.context.categories();
    others
        .iter()
        .filter(|one| one.context.categories().overlaps(&categories))
        .map(|one| {
            facts.finding(
                format!(
                    "process {} ({}, {}) has overlapping MCS categories and is none of its processes",
                    one.pid,
                    escaped(one.program.as_bytes()),
                    one.context
                ),
                "end one of the two; split the categories (--mcs-range) where another tool, such as \
                 libvirt, draws pairs on this host too",
            )
        })
        .collect()
}

/// Permissions that no guest may have on another's process.
const PROCESS_PERMISSIONS: [&str; 5] = ["ptrace", "signal", "sigkill", "sigstop", "setsched"];

/// Finds out what one guest (row) may do to another's resources (column), and what is wrong with that.
fn check_access_between(
    row: &GuestFacts,
    column: &GuestFacts,
    ask: Ask<'_>,
) -> io::Result<(Cell, Vec<Finding>)> {
    let (mut cell, mut found) = (Cell::None, Vec::new());
    let source = &row.guest.context;
    for object in column.objects_in_use() {
        let labelled = (&object.label, object.class);
        let writes = may(ask, source, labelled, "write")?;
        let reads = may(ask, source, labelled, "read")?;
        let one = match (object.shared, reads, writes) {
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
                    quoted(&object.path),
                    object.label
                ),
                format!(
                    "give it this guest's categories alone: chcon -l {} {}",
                    column.level(),
                    shell_word(&object.path)
                ),
            ));
        }
    }
    found.extend(check_process_access(row, column, ask)?);
    Ok((cell, found))
}

/// Checks that one guest (row) may do nothing to the process of another (column).
fn check_process_access(
    row: &GuestFacts,
    column: &GuestFacts,
    ask: Ask<'_>,
) -> io::Result<Option<Finding>> {
    let (source, target) = (&row.guest.context, &column.guest.context);
    let denied = ask(source, target, "process", &PROCESS_PERMISSIONS)?;
    let given: Vec<&str> = PROCESS_PERMISSIONS
        .into_iter()
        .filter(|permission| !denied.contains(permission))
        .collect();
    Ok((!given.is_empty()).then(|| {
        column.finding(
            format!(
                "guest {} ({source}) may do to its process: {}",
                row.guest.title(),
                given.join(", ")
            ),
            "guests must have pairs of their own, and the policy its MCS constraints: start one of \
             them again",
        )
    }))
}

/// Judges the guests that are meant. The matrix has all guests.
///
/// # Errors
/// The policy cannot be asked.
pub(crate) fn judge(
    view: &View,
    all: &[GuestFacts],
    is_meant: &dyn Fn(&ConfinedGuest) -> bool,
    ask: Ask<'_>,
) -> io::Result<Judgement> {
    let mut judgement = Judgement::default();
    for facts in all.iter().filter(|facts| is_meant(&facts.guest)) {
        judgement.findings.extend(facts.check_guest(ask)?);
        let others: Vec<&Process> = all
            .iter()
            .filter(|other| other.guest.pid != facts.guest.pid)
            .flat_map(|other| &other.guest.processes)
            .chain(&view.others)
            .collect();
        judgement
            .findings
            .extend(overlapping_processes(facts, &others));
    }
    for row in all {
        let mut cells = Vec::with_capacity(all.len());
        for column in all {
            if row.guest.pid == column.guest.pid {
                cells.push(Cell::Own);
                continue;
            }
            let (cell, found) = check_access_between(row, column, ask)?;
            cells.push(cell);
            if is_meant(&row.guest) || is_meant(&column.guest) {
                judgement.findings.extend(found);
            }
        }
        judgement.matrix.push(cells);
    }
    Ok(judgement)
}

/// Returns the problems of the host: processes of guests without categories, and hidden processes.
pub(crate) fn host_findings(view: &View, sees_all: bool) -> Vec<Finding> {
    let mut found: Vec<Finding> = view
        .without_categories
        .iter()
        .map(|process| Finding {
            guest: None,
            pid: Some(process.pid.as_raw()),
            problem: format!(
                "process {} ({}) runs as {}, in a guest's domain without categories: every other \
                 such process may touch what it writes",
                process.pid,
                escaped(process.program.as_bytes()),
                process.context
            ),
            fix: "start it again through svirt-exec".to_owned(),
        })
        .collect();
    if view.hidden > 0 || view.is_incomplete || !sees_all {
        found.push(Finding {
            guest: None,
            pid: None,
            problem: "not proven: not all processes of this host show their labels here (hidepid, \
                      a PID namespace, the policy, or they start and end too fast)"
                .to_owned(),
            fix: "run svirt-exec verify as root outside any container".to_owned(),
        });
    }
    found
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
