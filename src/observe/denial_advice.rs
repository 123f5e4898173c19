//! What to do about a denial: one function a question, and the first that answers is said.

use crate::observe::audit_record::Denial;
use crate::observe::denial_facts::{HostFacts, Why, guest_in, guest_of};
use crate::selinux::advice;
use crate::selinux::names;
use crate::text::escape::shell_word;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A denial, and what its remedy depends on.
struct Case<'a> {
    denial: &'a Denial,
    why: Why,
    path: Option<&'a [u8]>,
    /// The object's path or name as a word of a shell command; `PATH` if there is none.
    word: String,
    host: &'a HostFacts<'a>,
}

impl Case<'_> {
    /// Returns the object's path, or its name.
    fn name(&self) -> Option<&Path> {
        let name = self.path.or(self.denial.name.as_deref())?;
        Some(Path::new(OsStr::from_bytes(name)))
    }
}

/// A question about a denial. Answers with the remedy if it applies.
type Question = fn(&Case<'_>) -> Option<String>;

/// The questions about a denial. The first one that applies gives the remedy.
const QUESTIONS: [Question; 7] = [
    already_allowed,
    handed_down,
    own_module,
    dispensable,
    writable_code,
    other_categories,
    boolean,
];

/// Says what to do about a denial.
pub(crate) fn fix(denial: &Denial, why: Why, path: Option<&[u8]>, host: &HostFacts<'_>) -> String {
    let word = path.or(denial.name.as_deref()).map_or_else(
        || "PATH".to_owned(),
        |name| shell_word(OsStr::from_bytes(name)),
    );
    let case = Case {
        denial,
        why,
        path,
        word,
        host,
    };
    let remedy = QUESTIONS
        .iter()
        .find_map(|question| question(&case))
        .unwrap_or_else(|| by_class(&case));
    if is_doubtful(&case) && !remedy.starts_with("nothing") {
        format!("{remedy}{DOUBT}")
    } else {
        remedy
    }
}

/// What is said of everything that a guest may have chosen.
const DOUBT: &str = "; if nothing on its command line leads there, it may be an attack: a guest that was taken over \
     chose the name, so give it nothing and look into the guest";

/// Tells whether a denied guest may have chosen what it touched: a file or socket that is not one of its own.
/// QEMU opens what its command line names, and one that was taken over what it likes.
fn is_doubtful(case: &Case<'_>) -> bool {
    let denial = case.denial;
    !names::is_own_domain(&denial.source.type_)
        && denial.source.type_ != names::INFO_DOMAIN
        && denial.source != denial.target
        && !is_own(case)
}

/// Tells whether the object is what was labelled for the guest itself.
fn is_own(case: &Case<'_>) -> bool {
    guest_in(&case.denial.source, case.host).is_some_and(|guest| {
        let mut records = guest.resources.iter().map(|resource| &resource.record);
        records.any(|record| {
            Some(record.identity.ino) == case.denial.inode
                && record.path.file_name() == case.name().and_then(|name| name.file_name())
        })
    })
}

/// Answers that nothing is to be done if it is allowed now.
fn already_allowed(case: &Case<'_>) -> Option<String> {
    (case.why == Why::Past).then(|| "nothing, if it does not come again".to_owned())
}

/// Answers how to hand down what the launcher's caller had open, and the launcher may not use: it uses such a file,
/// and opens none of that kind.
fn handed_down(case: &Case<'_>) -> Option<String> {
    let denial = case.denial;
    let uses = |permission: &String| ["read", "write", "append"].contains(&permission.as_str());
    (denial.source.type_ == names::OWN_DOMAIN
        && ["file", "fifo_file"].contains(&denial.class.as_str())
        && denial.permissions.iter().all(uses))
    .then(|| {
        format!(
            "svirt-exec was started with {} open, and lost it: send output through a pipe (| cat > FILE), close \
             a lock for it (flock -o, 9>&-), name an image on QEMU's command line",
            case.word
        )
    })
}

/// Answers that the policy module is of another version if svirt-exec itself was denied something.
fn own_module(case: &Case<'_>) -> Option<String> {
    names::is_own_domain(&case.denial.source.type_).then(|| {
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

/// What QEMU and its libraries try at their start and can do without: class, type and name of the
/// object (an empty one stands for any), and what it is for.
const DISPENSABLE: [(&str, &str, &str, &str); 4] = [
    (
        "anon_inode",
        "",
        "",
        "io_uring; and userfaultfd, which postcopy-ram and background-snapshot need: setsebool -P \
         svirt_launcher_use_userfaultfd on",
    ),
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
        "capability" if case.denial.asks_for("net_bind_service") => {
            "take a port from 1024 on, and lead connections to it (hostfwd=tcp::8080-:80): no guest has \
             the host's lower ones, unless a module says so, as svirt-exec_selinux(8) shows"
                .to_owned()
        }
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

/// Says how a running guest is given a file. A command that does it is printed for a file of its own only.
fn hand_over(case: &Case<'_>) -> String {
    if !is_own(case) {
        return "if the guest shall have it, name it on its command line, where svirt-exec labels it, or give \
                it to the guest that runs with svirt-exec attach"
            .to_owned();
    }
    format!(
        "if the guest shall have it, name it on its command line, where svirt-exec labels it; for the \
         guest that runs, give it the image type of its disks (svirt-exec list shows it) and its \
         categories: chcon -t TYPE -l {} {}",
        case.denial.source.level(),
        case.word
    )
}
