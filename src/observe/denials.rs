//! `denials`: what SELinux refused guests, the launcher and the keeper, in words, with what to do.
//!
//! Pure but for what is handed in: records, the guests of this host, and questions to the policy.

use crate::model::label::{Context, Level};
use crate::observe::audit_record::{Denial, Record, Stamp};
use crate::observe::guests::Guest;
use crate::selinux::advice;
use crate::selinux::names;
use crate::text::escape::{escaped, quoted, shell_word};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Why something was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No rule allows it to this domain on this type.
    Type,
    /// A rule does, and the categories forbid it.
    Categories,
    /// Now it would be allowed: the policy, a boolean or a label has changed.
    Past,
}

impl Why {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Categories => "categories",
            Self::Past => "past",
        }
    }
}

/// One denial, or several alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The last time.
    pub last: Stamp,
    /// How often.
    pub count: usize,
    /// The record.
    pub denial: Denial,
    /// The guest's name, or who else it was.
    pub who: String,
    /// The path, where it can be told.
    pub path: Option<Vec<u8>>,
    /// Type or categories.
    pub why: Why,
    /// What was tried.
    pub tried: String,
    /// Why it was denied.
    pub reason: String,
    /// What to do.
    pub fix: String,
}

/// Whether source, on a target of a class, has these permissions now.
pub type Allowed<'a> = &'a dyn Fn(&Context, &Context, &str, &[String]) -> Option<bool>;

/// What explaining needs to know of the host.
pub struct Known<'a> {
    /// Guests that run.
    pub guests: &'a [Guest],
    /// Whether these permissions are given now; none where the policy cannot be asked.
    pub allowed: Allowed<'a>,
    /// Whether the policy has a boolean of this name, and its state.
    pub boolean: &'a dyn Fn(&str) -> Option<bool>,
}

/// What QEMU and its libraries try at their start and do without: class, type, name of the object
/// (any, where it is empty), and what it was for.
const DISPENSABLE: [(&str, &str, &str, &str); 4] = [
    ("anon_inode", "", "", "io_uring and userfaultfd"),
    ("dir", "sysctl_vm_t", "", "the kernel's settings for memory"),
    (
        "file",
        "sysfs_t",
        "possible",
        "the number of processors (glibc)",
    ),
    (
        "file",
        "sysfs_t",
        "online",
        "the number of processors (glibc)",
    ),
];

/// What the permission lets one do, in words; the first that fits is said.
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

/// A name and the inode that it led to.
type NamedInode = (Vec<u8>, Option<u64>);

/// Puts the paths of an event's system call beside its denials; newest last.
pub fn events(records: impl IntoIterator<Item = (Stamp, Record)>) -> Vec<(Stamp, Denial)> {
    let mut denials = Vec::new();
    let mut paths: HashMap<Stamp, Vec<NamedInode>> = HashMap::new();
    for (stamp, record) in records {
        match record {
            Record::Avc(denial) => denials.push((stamp, *denial)),
            Record::Path { name, inode } => paths.entry(stamp).or_default().push((name, inode)),
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

/// Whether two denials say the same.
fn alike(one: &Denial, other: &Denial) -> bool {
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

/// Explains denials of guests (as `is_ours` tells contexts), of the launcher and of the keeper.
pub fn explain(
    denials: Vec<(Stamp, Denial)>,
    is_ours: &dyn Fn(&Context) -> bool,
    known: &Known<'_>,
) -> Vec<Explained> {
    let mut found: Vec<Explained> = Vec::new();
    for (stamp, denial) in denials {
        if !is_ours(&denial.source) {
            continue;
        }
        match found.iter_mut().find(|one| alike(&one.denial, &denial)) {
            Some(one) => {
                one.count = one.count.saturating_add(1);
                one.last = stamp;
            }
            None => found.push(explained(stamp, denial, known)),
        }
    }
    found
}

/// The guest that runs in a context.
fn guest_in<'a>(context: &Context, known: &'a Known<'_>) -> Option<&'a Guest> {
    known.guests.iter().find(|guest| guest.context == *context)
}

/// The guest whose categories an object carries.
fn guest_of<'a>(label: &Context, known: &'a Known<'_>) -> Option<&'a Guest> {
    let cage = label.cage();
    known
        .guests
        .iter()
        .find(|guest| !cage.is_empty() && guest.context.cage() == cage)
}

/// The path of the object: as the log has it, or the one that a journal has for its inode.
fn path_of(denial: &Denial, known: &Known<'_>) -> Option<Vec<u8>> {
    if denial.is_path {
        return denial.name.clone();
    }
    let name = denial.name.as_deref()?;
    known
        .guests
        .iter()
        .flat_map(|guest| &guest.resources)
        .map(|resource| &resource.record)
        .find(|record| {
            Some(record.identity.ino) == denial.inode
                && record.path.file_name().map(OsStrExt::as_bytes) == Some(name)
        })
        .map(|record| record.path.as_os_str().as_bytes().to_vec())
}

fn why(denial: &Denial, known: &Known<'_>) -> Why {
    let ask = |target: &Context| {
        (known.allowed)(&denial.source, target, &denial.class, &denial.permissions)
    };
    let same_level = Context {
        range: denial.source.range.clone(),
        ..denial.target.clone()
    };
    match (ask(&denial.target), ask(&same_level)) {
        (Some(true), _) => Why::Past,
        (Some(false), Some(true)) => Why::Categories,
        (Some(false), _) => Why::Type,
        // A log from elsewhere: what the labels themselves say.
        (None, _) => {
            let (inside, cage) = (denial.target.cage(), denial.source.cage());
            if !inside.is_empty() && !inside.is_subset(&cage) {
                Why::Categories
            } else {
                Why::Type
            }
        }
    }
}

/// How a file is handed to a guest that runs. The one place to name a command that does it.
fn hand_over(path: &str, level: &Level) -> String {
    format!(
        "if the guest shall have it, name it on its command line, where svirt-exec labels it; for the \
         guest that runs, give it the image type of its disks (svirt-exec list shows it) and its \
         categories: chcon -t TYPE -l {level} {path}"
    )
}

fn explained(stamp: Stamp, denial: Denial, known: &Known<'_>) -> Explained {
    let guest = guest_in(&denial.source, known);
    let who = match (denial.source.kind.as_str(), guest) {
        (names::OWN_DOMAIN, _) => "svirt-exec itself".to_owned(),
        (names::INFO_DOMAIN, _) => "a QEMU without a guest".to_owned(),
        (names::KEEPER_DOMAIN, _) => "the keeper of labels".to_owned(),
        (_, Some(guest)) => format!("guest {}", guest.title()),
        (_, None) => "a guest that has ended".to_owned(),
    };
    let path = path_of(&denial, known);
    let why = why(&denial, known);
    let object = match (&path, &denial.name) {
        (Some(path), _) => quoted(std::ffi::OsStr::from_bytes(path)),
        (None, Some(name)) => format!(
            "something called {}",
            quoted(std::ffi::OsStr::from_bytes(name))
        ),
        (None, None) if denial.source == denial.target => "itself".to_owned(),
        (None, None) if denial.class == "anon_inode" => "an anonymous inode".to_owned(),
        (None, None) => format!("a {}", class_in_words(&denial.class)),
    };
    let verb = VERBS
        .iter()
        .find(|(permission, _)| denial.permissions.iter().any(|one| one == permission))
        .map_or("use", |(_, verb)| verb);
    let tried = format!(
        "{verb} {object} ({} {})",
        class_in_words(&denial.class),
        escaped(denial.permissions.join(" ").as_bytes())
    );
    let reason = reason(&denial, why, known);
    let fix = fix(&denial, why, path.as_deref(), known);
    Explained {
        last: stamp,
        count: 1,
        who,
        path,
        why,
        tried,
        reason,
        fix,
        denial,
    }
}

fn reason(denial: &Denial, why: Why, known: &Known<'_>) -> String {
    let target = denial.target.short();
    match why {
        Why::Past => format!("it was {target}; the policy allows that now"),
        Why::Categories => match guest_of(&denial.target, known) {
            Some(other) => format!(
                "it is {target}, with the categories of guest {} (process {})",
                other.title(),
                other.pid
            ),
            None if denial.target.cage().is_empty() => {
                format!("it is {target}, whose level is not this guest's")
            }
            None => format!("it is {target}, with categories that no guest has now"),
        },
        Why::Type if denial.source == denial.target => {
            format!("the policy does not allow it to {}", denial.source.kind)
        }
        Why::Type => format!(
            "it is {target}, a type that the policy does not open to {} in this way",
            denial.source.kind
        ),
    }
}

/// The boolean that would allow it.
fn switch(denial: &Denial, known: &Known<'_>) -> Option<String> {
    let name = advice::boolean_for(&denial.target.kind)?;
    match (known.boolean)(name) {
        Some(true) => None,
        Some(false) => Some(format!(
            "the policy has a boolean for that: setsebool -P {name} on"
        )),
        None => Some(format!(
            "where the policy has the boolean {name}: setsebool -P {name} on (getsebool -a | grep virt_)"
        )),
    }
}

fn fix(denial: &Denial, why: Why, path: Option<&[u8]>, known: &Known<'_>) -> String {
    let level = denial.source.level();
    let word = path.or(denial.name.as_deref()).map_or_else(
        || "PATH".to_owned(),
        |name| shell_word(OsStr::from_bytes(name)),
    );
    let on_disk = [
        "file",
        "blk_file",
        "chr_file",
        "dir",
        "sock_file",
        "fifo_file",
    ]
    .contains(&denial.class.as_str());
    let own = [names::OWN_DOMAIN, names::INFO_DOMAIN, names::KEEPER_DOMAIN]
        .contains(&denial.source.kind.as_str());
    if why == Why::Past {
        return "nothing, if it does not come again".to_owned();
    }
    if own {
        return format!(
            "load the svirt_launcher module of this version: {}; if it stays, it is a bug of svirt-exec: \
             report it with this line of the log",
            names::LOAD
        );
    }
    let dispensable = DISPENSABLE.iter().find(|(class, kind, name, _)| {
        *class == denial.class
            && (kind.is_empty() || *kind == denial.target.kind)
            && (name.is_empty() || denial.name.as_deref() == Some(name.as_bytes()))
    });
    if let Some((_, _, _, purpose)) = dispensable {
        return format!("nothing: QEMU does without ({purpose})");
    }
    let asks = |permission: &str| denial.permissions.iter().any(|one| one == permission);
    if denial.class == "process" && (asks("execmem") || asks("execstack") || asks("execheap")) {
        return "QEMU writes code and runs it (TCG), which this domain may not: start it with a line \
                that says -accel tcg, for which svirt-exec takes the domain that may (svirt-exec \
                doctor names it), or with -accel kvm, or setsebool -P virt_use_execmem on"
            .to_owned();
    }
    if why == Why::Categories {
        return match guest_of(&denial.target, known) {
            Some(other) if on_disk => format!(
                "nothing: this is what keeps guests apart; a disk that both shall use needs \
                 share-rw=on in both command lines, and what is only read readonly=on (it belongs \
                 to guest {})",
                other.title()
            ),
            Some(_) => "nothing: this is what keeps guests apart".to_owned(),
            None if on_disk => format!(
                "svirt-exec restore, if a guest that has ended left it so; else {}",
                hand_over(&word, &level)
            ),
            None => "start the guest again through svirt-exec".to_owned(),
        };
    }
    if let Some(advice) = switch(denial, known) {
        return advice;
    }
    match denial.class.as_str() {
        "file" | "blk_file" => hand_over(&word, &level),
        "chr_file" => format!(
            "hand the device over on the command line (vfio-pci, usb-host), where svirt-exec labels \
             it; else {}",
            hand_over(&word, &level)
        ),
        "dir" => "move the file to a directory that guests may use, such as \
                  /var/lib/libvirt/images, or name a directory where guests may make files"
            .to_owned(),
        "sock_file" | "unix_stream_socket" => {
            "its server decides its label: serve it from a directory labelled for guests, or start \
             the server in a domain that guests may connect to"
                .to_owned()
        }
        _ => "if QEMU needs it, a rule of your own: ausearch -m avc -ts recent | audit2allow -M NAME, \
              read it, and semodule -i NAME.pp"
            .to_owned(),
    }
}

/// Whether a denial is of this guest: by its name or PID while it runs, by its PID afterwards.
pub fn is_meant(explained: &Explained, word: &str, known: &Known<'_>) -> bool {
    explained
        .denial
        .pid
        .is_some_and(|pid| pid.to_string() == word)
        || guest_in(&explained.denial.source, known).is_some_and(|guest| guest.is_meant(word))
}

/// The name of a file, for messages about the log itself.
pub fn unreadable(log: &Path, error: &std::io::Error) -> String {
    format!(
        "cannot read the audit log {}: {error}; root may read it, while svirt_launcher_read_audit is \
         on (getsebool), and so may who is in the group that log_group names in \
         /etc/audit/auditd.conf. With another right to it: ausearch -m avc --raw | svirt-exec \
         denials --log -",
        quoted(log)
    )
}

#[cfg(test)]
#[path = "denials_tests.rs"]
mod tests;
