//! The confined guests of this host as a table and as JSON (`list`). The JSON document is a contract:
//! fields are only ever added.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::model::resource::Class;
use crate::observe::guests::{ConfinedGuest, CurrentLabel, LabelledResource, View};
use crate::text::escape::escaped;
use crate::text::hex::path_hex;
use crate::text::json;
use crate::text::table;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    guests: Vec<GuestEntry<'a>>,
    /// Number of processes that do not show their labels. If any, the list may not be complete.
    hidden: usize,
    /// Whether no process was missed. If not, processes start and end faster than they can be looked at.
    complete: bool,
}

#[derive(Serialize)]
struct GuestEntry<'a> {
    name: Option<&'a str>,
    pid: i32,
    pids: Vec<i32>,
    program: String,
    user: String,
    uid: u32,
    context: String,
    pair: String,
    owner: &'static str,
    resources: Vec<ResourceEntry<'a>>,
}

#[derive(Serialize)]
struct ResourceEntry<'a> {
    path: String,
    /// The bytes of `path` in hexadecimal, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    class: Class,
    label: &'a str,
    original: &'a str,
    current: Option<String>,
}

/// Returns the entry of a resource.
fn resource_entry(resource: &LabelledResource) -> ResourceEntry<'_> {
    let record = &resource.record;
    ResourceEntry {
        path: record.path.to_string_lossy().into_owned(),
        path_hex: path_hex(&record.path),
        class: record.class,
        label: &record.label,
        original: &record.original,
        current: match &resource.now {
            CurrentLabel::Label(label) => Some(label.to_string()),
            CurrentLabel::Unlabelled | CurrentLabel::Gone | CurrentLabel::Unknown(_) => None,
        },
    }
}

/// Returns the name of a guest's program, escaped.
fn program_of(guest: &ConfinedGuest) -> String {
    let program = guest.processes.first().map(|one| one.program.as_bytes());
    escaped(program.unwrap_or_default())
}

/// Returns the guests as JSON.
///
/// # Errors
/// None for the values of a view.
pub(crate) fn json(view: &View) -> serde_json::Result<String> {
    let guests = view.guests.iter().map(|guest| GuestEntry {
        name: guest.name.as_deref(),
        pid: guest.pid.as_raw(),
        pids: guest.processes.iter().map(|one| one.pid.as_raw()).collect(),
        program: program_of(guest),
        user: guest.user(),
        uid: guest.uid,
        context: guest.context.to_string(),
        pair: guest.context.categories().to_string(),
        owner: guest.owner.name(),
        resources: guest.resources.iter().map(resource_entry).collect(),
    });
    json::pretty(&Document {
        version: 1,
        guests: guests.collect(),
        hidden: view.hidden,
        complete: !view.is_incomplete,
    })
}

/// Returns the guests as a table, and the resources that were labelled for them as another.
pub(crate) fn text(view: &View) -> String {
    let heading = [
        "PID",
        "USER",
        "NAME",
        "PAIR",
        "DOMAIN",
        "OWNER",
        "PROCESSES",
        "PROGRAM",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(view.guests.iter().map(|guest| {
        [
            guest.pid.to_string(),
            guest.user(),
            guest
                .name
                .as_ref()
                .map_or_else(|| "-".to_owned(), |name| escaped(name.as_bytes())),
            guest.context.categories().to_string(),
            guest.context.type_.clone(),
            guest.owner.name().to_owned(),
            guest.processes.len().to_string(),
            program_of(guest),
        ]
    }));
    let mut out = table::columns(&rows);
    let mut resources = vec![["PID", "CLASS", "LABEL NOW", "PATH"].map(str::to_owned)];
    for guest in &view.guests {
        resources.extend(guest.resources.iter().map(|resource| {
            let now = match &resource.now {
                CurrentLabel::Label(label) => label.short(),
                CurrentLabel::Unlabelled => "none".to_owned(),
                CurrentLabel::Gone => "gone".to_owned(),
                CurrentLabel::Unknown(_) => "unknown".to_owned(),
            };
            [
                guest.pid.to_string(),
                resource.record.class.name().to_owned(),
                now,
                escaped(resource.record.path.as_os_str().as_bytes()),
            ]
        }));
    }
    if resources.len() > 1 {
        let _ = write!(out, "\n{}", table::columns(&resources));
    }
    out
}
