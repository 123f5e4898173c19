//! Explains what SELinux denied to guests, the launcher and the keeper, and says what to do.
//!
//! Pure: the records, the guests of this host and the questions to the policy are handed in.

use crate::model::label::Context;
use crate::observe::audit_record::{AuditRecord, Denial, Stamp};
use crate::observe::denial_advice::fix;
use crate::observe::denial_facts::{ExplainedDenial, HostFacts, Why, guest_in, guest_of};
use crate::selinux::names;
use crate::text::escape::{escaped, quoted};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Permissions in words. The first one that was denied is said.
const VERBS: [(&str, &str); 16] = [
    ("write", "write to"),
    ("append", "append to"),
    ("read", "read"),
    ("create", "make"),
    ("unlink", "remove"),
    ("connectto", "connect to"),
    ("add_name", "make something in"),
    ("remove_name", "remove something from"),
    ("search", "pass through"),
    ("open", "open"),
    ("map", "map"),
    ("execute", "run"),
    ("getattr", "look at"),
    ("lock", "lock"),
    ("ioctl", "control"),
    ("relabelfrom", "change the label of"),
];

/// Returns an SELinux class in words.
fn class_in_words(class: &str) -> &str {
    match class {
        "file" => "file",
        "dir" => "directory",
        "lnk_file" => "symbolic link",
        "chr_file" => "character device",
        "blk_file" => "block device",
        "sock_file" => "socket",
        "fifo_file" => "pipe",
        "process" | "process2" => "process",
        "anon_inode" => "anonymous inode",
        other => other,
    }
}

/// A path of a system call, and its inode.
type NamedInode = (Vec<u8>, Option<u64>);

/// Completes the names of denials with the paths of their events' system calls. Returns the newest
/// last.
pub(crate) fn name_paths(
    records: impl IntoIterator<Item = (Stamp, AuditRecord)>,
) -> Vec<(Stamp, Denial)> {
    let mut denials = Vec::new();
    let mut paths: HashMap<Stamp, Vec<NamedInode>> = HashMap::new();
    for (stamp, record) in records {
        match record {
            AuditRecord::Avc(denial) => denials.push((stamp, *denial)),
            AuditRecord::Path { name, inode } => {
                paths.entry(stamp).or_default().push((name, inode))
            }
        }
    }
    for (stamp, denial) in &mut denials {
        let of_inode = paths.get(stamp).and_then(|paths| {
            paths.iter().find(|(name, inode)| {
                inode.is_some() && *inode == denial.inode && name.starts_with(b"/")
            })
        });
        if let Some((name, _)) = of_inode.filter(|_| !denial.is_path) {
            denial.name = Some(name.clone());
            denial.is_path = true;
        }
    }
    denials.sort_by_key(|(stamp, _)| *stamp);
    denials
}

/// Tells whether two denials differ in time only.
fn is_same_denial(one: &Denial, other: &Denial) -> bool {
    let same = |a: &Denial| {
        (
            a.permissions.clone(),
            a.pid,
            a.name.clone(),
            a.inode,
            a.source.clone(),
            a.target.clone(),
            a.class.clone(),
        )
    };
    same(one) == same(other)
}

/// Explains the denials whose source context `is_ours`. Counts equal ones together.
pub(crate) fn explain(
    denials: Vec<(Stamp, Denial)>,
    is_ours: &dyn Fn(&Context) -> bool,
    host: &HostFacts<'_>,
) -> Vec<ExplainedDenial> {
    let mut found: Vec<ExplainedDenial> = Vec::new();
    for (stamp, denial) in denials {
        if !is_ours(&denial.source) {
            continue;
        }
        match found
            .iter_mut()
            .find(|one| is_same_denial(&one.denial, &denial))
        {
            Some(one) => {
                one.count = one.count.saturating_add(1);
                one.last = stamp;
            }
            None => found.push(explained(stamp, denial, host)),
        }
    }
    found
}

/// Returns the path of the object from the log or, by its inode, from a journal.
fn path_of(denial: &Denial, host: &HostFacts<'_>) -> Option<Vec<u8>> {
    if denial.is_path {
        return denial.name.clone();
    }
    let name = denial.name.as_deref()?;
    host.guests
        .iter()
        .flat_map(|guest| &guest.resources)
        .map(|resource| &resource.record)
        .find(|record| {
            Some(record.identity.ino) == denial.inode
                && record.path.file_name().map(OsStrExt::as_bytes) == Some(name)
        })
        .map(|record| record.path.as_os_str().as_bytes().to_vec())
}

/// Returns why a permission was denied.
fn why(denial: &Denial, host: &HostFacts<'_>) -> Why {
    let ask = |target: &Context| {
        (host.allowed)(&denial.source, target, &denial.class, &denial.permissions)
    };
    let same_level = Context {
        range: denial.source.range.clone(),
        ..denial.target.clone()
    };
    match (ask(&denial.target), ask(&same_level)) {
        (Some(true), _) => Why::Past,
        (Some(false), Some(true)) => Why::Categories,
        (Some(false), _) => Why::Type,
        // The policy cannot be asked about a log from another host: the labels tell.
        (None, _) => {
            let target = denial.target.categories();
            if !target.is_empty() && !target.is_subset(&denial.source.categories()) {
                Why::Categories
            } else {
                Why::Type
            }
        }
    }
}

/// Explains one denial.
fn explained(stamp: Stamp, denial: Denial, host: &HostFacts<'_>) -> ExplainedDenial {
    let path = path_of(&denial, host);
    let why = why(&denial, host);
    ExplainedDenial {
        last: stamp,
        count: 1,
        who: who(&denial, host),
        tried: tried(&denial, path.as_deref()),
        reason: reason(&denial, why, host),
        fix: fix(&denial, why, path.as_deref(), host),
        path,
        why,
        denial,
    }
}

/// Names the source of a denial.
fn who(denial: &Denial, host: &HostFacts<'_>) -> String {
    match (denial.source.type_.as_str(), guest_in(&denial.source, host)) {
        (names::OWN_DOMAIN, _) => "svirt-exec itself".to_owned(),
        (names::INFO_DOMAIN, _) => "a QEMU without a guest".to_owned(),
        (names::KEEPER_DOMAIN, _) => "the keeper of labels".to_owned(),
        (_, Some(guest)) => format!("guest {}", guest.title()),
        (_, None) => "a guest that has ended".to_owned(),
    }
}

/// Says what was tried, and on which object.
fn tried(denial: &Denial, path: Option<&[u8]>) -> String {
    let object = match (path, &denial.name) {
        (Some(path), _) => quoted(OsStr::from_bytes(path)),
        (None, Some(name)) => format!("something called {}", quoted(OsStr::from_bytes(name))),
        (None, None) if denial.source == denial.target => "itself".to_owned(),
        (None, None) if denial.class == "anon_inode" => "an anonymous inode".to_owned(),
        (None, None) => format!("a {}", class_in_words(&denial.class)),
    };
    let verb = VERBS
        .iter()
        .find(|(permission, _)| denial.asks_for(permission))
        .map_or("use", |(_, verb)| verb);
    format!(
        "{verb} {object} ({} {})",
        class_in_words(&denial.class),
        escaped(denial.permissions.join(" ").as_bytes())
    )
}

/// Says why a permission was denied.
fn reason(denial: &Denial, why: Why, host: &HostFacts<'_>) -> String {
    let target = denial.target.short();
    match why {
        Why::Past => format!("it was {target}; the policy allows that now"),
        Why::Categories => match guest_of(&denial.target, host) {
            Some(other) => format!(
                "it is {target}, with the categories of guest {} (process {})",
                other.title(),
                other.pid
            ),
            None if denial.target.categories().is_empty() => {
                format!("it is {target}, whose level is not this guest's")
            }
            None => format!("it is {target}, with categories that no guest has now"),
        },
        Why::Type if denial.source == denial.target => {
            format!("the policy does not allow it to {}", denial.source.type_)
        }
        Why::Type => format!(
            "it is {target}, a type that the policy does not open to {} in this way",
            denial.source.type_
        ),
    }
}

/// Tells whether a word means the guest of this denial: its name or a PID while it runs, the PID of
/// the denied process afterwards.
pub(crate) fn is_meant(explained: &ExplainedDenial, word: &str, host: &HostFacts<'_>) -> bool {
    explained
        .denial
        .pid
        .is_some_and(|pid| pid.to_string() == word)
        || guest_in(&explained.denial.source, host).is_some_and(|guest| guest.is_meant(word))
}

#[cfg(test)]
#[path = "denials_tests.rs"]
mod tests;
