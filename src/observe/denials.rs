//! Explains what SELinux denied to guests, the launcher and the keeper, and says what to do.
//!
//! Pure: the records, the guests of this host and the questions to the policy are handed in.

use crate::model::label::Context;
use crate::observe::audit_record::{AuditRecord, Denial, Stamp};
use crate::observe::guests::ConfinedGuest;
use crate::selinux::advice;
use crate::selinux::names;
use crate::text::escape::{escaped, quoted, shell_word};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The domains of the policy module that run no guest.
const OWN_DOMAINS: [&str; 3] = [names::OWN_DOMAIN, names::INFO_DOMAIN, names::KEEPER_DOMAIN];

/// Tells whether a context is of the launcher, of the keeper or of a QEMU without a guest.
pub(crate) fn is_own_domain(context: &Context) -> bool {
    OWN_DOMAINS.contains(&context.type_.as_str())
}

/// Why a permission was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// No rule allows it to this domain on this type.
    Type,
    /// A rule allows it, and the categories forbid it.
    Categories,
    /// It is allowed now: the policy, a boolean or a label has changed.
    Past,
}

impl Why {
    /// Returns the name in the JSON document.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Categories => "categories",
            Self::Past => "past",
        }
    }
}

/// One denial, or several equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExplainedDenial {
    /// When it happened last.
    pub(crate) last: Stamp,
    /// How often it happened.
    pub(crate) count: usize,
    /// The denial, as the log has it.
    pub(crate) denial: Denial,
    /// The guest's name, or another process in words.
    pub(crate) who: String,
    /// The object's path; None if neither the log nor a journal has it.
    pub(crate) path: Option<Vec<u8>>,
    /// Whether the type or the categories forbade it.
    pub(crate) why: Why,
    /// What was tried.
    pub(crate) tried: String,
    /// Why it was denied.
    pub(crate) reason: String,
    /// What to do.
    pub(crate) fix: String,
}

/// Tells whether a source has these permissions on a target of a class now. None if the policy cannot
/// be asked.
pub(crate) type Allowed<'a> = &'a dyn Fn(&Context, &Context, &str, &[String]) -> Option<bool>;

/// What explaining a denial needs of this host.
pub(crate) struct HostFacts<'a> {
    /// The guests that run.
    pub(crate) guests: &'a [ConfinedGuest],
    /// Whether permissions are allowed now.
    pub(crate) allowed: Allowed<'a>,
    /// The state of a boolean; None if the policy has no boolean of this name.
    pub(crate) boolean: &'a dyn Fn(&str) -> Option<bool>,
}

/// What QEMU and its libraries try at their start and can do without: class, type and name of the
/// object (an empty one stands for any), and what it is for.
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

/// Returns the guest that runs in a context.
fn guest_in<'a>(context: &Context, host: &'a HostFacts<'_>) -> Option<&'a ConfinedGuest> {
    host.guests.iter().find(|guest| guest.context == *context)
}

/// Returns the guest whose categories an object has.
fn guest_of<'a>(label: &Context, host: &'a HostFacts<'_>) -> Option<&'a ConfinedGuest> {
    let categories = label.categories();
    host.guests
        .iter()
        .find(|guest| !categories.is_empty() && guest.context.categories() == categories)
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

/// A denial, and what its remedy depends on.
struct Case<'a> {
    denial: &'a Denial,
    why: Why,
    /// The object's path or name as a word of a shell command; `PATH` if there is none.
    word: String,
    host: &'a HostFacts<'a>,
}

/// A question about a denial. Answers with the remedy if it applies.
type Question = fn(&Case<'_>) -> Option<String>;

/// The questions about a denial. The first one that applies gives the remedy.
const QUESTIONS: [Question; 6] = [
    already_allowed,
    own_module,
    dispensable,
    writable_code,
    other_categories,
    boolean,
];

/// Says what to do about a denial.
fn fix(denial: &Denial, why: Why, path: Option<&[u8]>, host: &HostFacts<'_>) -> String {
    let word = path.or(denial.name.as_deref()).map_or_else(
        || "PATH".to_owned(),
        |name| shell_word(OsStr::from_bytes(name)),
    );
    let case = Case {
        denial,
        why,
        word,
        host,
    };
    QUESTIONS
        .iter()
        .find_map(|question| question(&case))
        .unwrap_or_else(|| by_class(&case))
}

/// Answers that nothing is to be done if it is allowed now.
fn already_allowed(case: &Case<'_>) -> Option<String> {
    (case.why == Why::Past).then(|| "nothing, if it does not come again".to_owned())
}

/// Answers that the policy module is of another version if svirt-exec itself was denied something.
fn own_module(case: &Case<'_>) -> Option<String> {
    is_own_domain(&case.denial.source).then(|| {
        format!(
            "load the svirt_launcher module of this version: {}; if it stays, it is a bug of svirt-exec: \
             report it with this line of the log",
            names::LOAD
        )
    })
}

/// Answers that nothing is to be done if QEMU can do without.
fn dispensable(case: &Case<'_>) -> Option<String> {
    let denial = case.denial;
    let (_, _, _, purpose) = DISPENSABLE.iter().find(|(class, kind, name, _)| {
        *class == denial.class
            && (kind.is_empty() || *kind == denial.target.type_)
            && (name.is_empty() || denial.name.as_deref() == Some(name.as_bytes()))
    })?;
    Some(format!("nothing: QEMU does without ({purpose})"))
}

/// Answers which domain may run code that it writes, if the guest's may not.
fn writable_code(case: &Case<'_>) -> Option<String> {
    let executes_writable = ["execmem", "execstack", "execheap"]
        .iter()
        .any(|permission| case.denial.asks_for(permission));
    (case.denial.class == "process" && executes_writable).then(|| {
        "QEMU writes code and runs it (TCG), which this domain may not: start it with a line \
         that says -accel tcg, for which svirt-exec takes the domain that may (svirt-exec \
         doctor names it), or with -accel kvm, or setsebool -P virt_use_execmem on"
            .to_owned()
    })
}

/// Classes of objects that have a path.
const ON_DISK: [&str; 6] = [
    "file",
    "blk_file",
    "chr_file",
    "dir",
    "sock_file",
    "fifo_file",
];

/// Answers whose categories the object has, if they are not the guest's.
fn other_categories(case: &Case<'_>) -> Option<String> {
    if case.why != Why::Categories {
        return None;
    }
    let is_on_disk = ON_DISK.contains(&case.denial.class.as_str());
    Some(match guest_of(&case.denial.target, case.host) {
        Some(other) if is_on_disk => format!(
            "nothing: this is what keeps guests apart; a disk that both shall use needs \
             share-rw=on in both command lines, and what is only read readonly=on (it belongs \
             to guest {})",
            other.title()
        ),
        Some(_) => "nothing: this is what keeps guests apart".to_owned(),
        None if is_on_disk => format!(
            "svirt-exec restore, if a guest that has ended left it so; else {}",
            hand_over(case)
        ),
        None => "start the guest again through svirt-exec".to_owned(),
    })
}

/// Answers with the boolean of the policy that opens the type to guests, unless it is on.
fn boolean(case: &Case<'_>) -> Option<String> {
    let name = advice::boolean_for(&case.denial.target.type_)?;
    match (case.host.boolean)(name) {
        Some(true) => None,
        Some(false) => Some(format!(
            "the policy has a boolean for that: setsebool -P {name} on"
        )),
        None => Some(format!(
            "if the policy has the boolean {name}: setsebool -P {name} on (getsebool -a | grep virt_)"
        )),
    }
}

/// Says how a guest gets an object of this class.
fn by_class(case: &Case<'_>) -> String {
    match case.denial.class.as_str() {
        "file" | "blk_file" => hand_over(case),
        "chr_file" => format!(
            "hand the device over on the command line (vfio-pci, usb-host), where svirt-exec labels \
             it; else {}",
            hand_over(case)
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

/// Says how a running guest is given a file.
fn hand_over(case: &Case<'_>) -> String {
    format!(
        "if the guest shall have it, name it on its command line, where svirt-exec labels it; for the \
         guest that runs, give it the image type of its disks (svirt-exec list shows it) and its \
         categories: chcon -t TYPE -l {} {}",
        case.denial.source.level(),
        case.word
    )
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
