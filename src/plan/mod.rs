//! Which label each resource gets, and why: a decision over what was collected,
//! the guest's labels and the policy's answers. Changes nothing.

pub mod collect;
pub mod create;
pub mod image_chain;
pub mod label_tree;
pub mod preflight;
pub mod report;
pub mod unlabelled_fs;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::host::pinned::Kind;
use crate::host::runtime_dir;
use crate::host::{Host, ProcessLabels};
use crate::model::label::{Context, Level};
use crate::model::resource::{Access, Class};
use crate::plan::collect::{Collected, Resource};
use crate::restore::share;
use crate::seclabel::domain::{Accelerator, GuestTypes};
use crate::seclabel::mcs;
use crate::text::escape::{quoted, shell_word};

/// Labels of one guest.
#[derive(Clone, Debug)]
pub struct GuestLabels {
    /// Of the process.
    pub process: Context,
    /// Of what only this guest uses.
    pub image: Context,
    /// Of what every guest may write.
    pub shared: Context,
    /// Of what every guest may read.
    pub content: Context,
    /// Whose files may be made private: with `--private-content`, those of this user.
    pub private_to: Option<u32>,
}

impl GuestLabels {
    /// Content of this user's is made private (`--private-content`).
    #[must_use]
    pub fn private_to(mut self, user: Option<u32>) -> Self {
        self.private_to = user;
        self
    }

    /// The guest's types at its level.
    pub fn new(types: &GuestTypes, level: Level) -> Self {
        Self {
            process: types.domain.at(level.clone()),
            image: types.image.at(level),
            shared: types.image.clone(),
            content: types.content.clone(),
            private_to: None,
        }
    }
}

/// What will be done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Its label is set.
    Relabel,
    /// It is made, with its label.
    Create,
    /// Nothing.
    None,
}

impl Action {
    /// As the plan names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relabel => "relabel",
            Self::Create => "create",
            Self::None => "none",
        }
    }
}

/// A resource and what will be done to it.
#[derive(Debug)]
pub struct Step {
    /// The resource.
    pub resource: Resource,
    /// Its class, [`Class::Keep`] where the label it has will do.
    pub class: Class,
    /// The label it gets; none where it keeps its own or the host has no SELinux.
    pub label: Option<Context>,
    /// What will be done.
    pub action: Action,
    /// In words.
    pub reason: String,
    /// Why its label cannot be set, where that is so (`mounts`).
    pub fixed: Option<String>,
}

/// All that a launch would do.
#[derive(Debug)]
pub struct Plan {
    /// The real QEMU.
    pub program: PathBuf,
    /// What runs the guest's code.
    pub accelerator: Accelerator,
    /// The guest's labels; none where the host has no SELinux or there is no guest.
    pub labels: Option<GuestLabels>,
    /// The user whom QEMU is to become (`-run-with user=`).
    pub becomes: Option<OsString>,
    /// The guest's own directory (`--runtime-dir`).
    pub runtime: Option<PathBuf>,
    /// Every resource.
    pub steps: Vec<Step>,
    /// What the caller should know.
    pub warnings: Vec<String>,
    /// Why no host could launch this.
    pub errors: Vec<String>,
    /// Why this host cannot launch this now.
    pub obstacles: Vec<String>,
}

/// Whether labels are set at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relabel {
    /// As the classes say.
    Yes,
    /// `--no-relabel`: everything keeps the label it has.
    No,
}

/// System files and directories: what lies below them is the host's and is
/// never relabelled, whatever the policy allows.
const PROTECTED: [&str; 14] = [
    "/bin",
    "/boot",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/root/.ssh",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/selinux",
];

/// Device nodes that everybody uses: labelling one for a guest would take it from the host.
const HOST_WIDE: [&str; 11] = [
    "/dev/console",
    "/dev/full",
    "/dev/net/tun",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/vfio/vfio",
    "/dev/zero",
];

/// What reading a file needs of its label; the last one where it is mapped.
const READ: [&str; 4] = ["getattr", "open", "read", "map"];

/// What is decided for resources.
#[derive(Debug)]
pub struct Decision {
    /// What is done, for every resource.
    pub steps: Vec<Step>,
    /// As [`Plan::warnings`].
    pub warnings: Vec<String>,
    /// As [`Plan::errors`].
    pub errors: Vec<String>,
    /// As [`Plan::obstacles`].
    pub obstacles: Vec<String>,
}

/// Decides for every resource.
pub fn decide(
    host: &dyn Host,
    collected: Collected,
    labels: Option<&GuestLabels>,
    relabel: Relabel,
    processes: &[ProcessLabels],
) -> Decision {
    let Collected {
        resources,
        warnings,
        mut errors,
        mut obstacles,
        unread: _,
    } = collected;
    let mut steps = Vec::with_capacity(resources.len());
    for resource in resources {
        let step = decide_one(host, resource, labels, relabel);
        if step.action == Action::Relabel {
            if let Some(error) = forbidden(&step.resource) {
                errors.push(error);
            } else if let Some(obstacle) = held(host, &step, processes) {
                obstacles.push(obstacle);
            }
        }
        steps.push(step);
    }
    Decision {
        steps,
        warnings,
        errors,
        obstacles,
    }
}

fn decide_one(
    host: &dyn Host,
    resource: Resource,
    labels: Option<&GuestLabels>,
    relabel: Relabel,
) -> Step {
    let mut reason = resource.reason.to_owned();
    let mut class = resource.class;
    let private = labels.is_some_and(|labels| {
        let owner = resource.pinned.as_ref().map(|pinned| pinned.uid);
        let own = labels.private_to.is_some() && owner == labels.private_to;
        let current = resource.current.as_ref();
        resource.kind == Kind::File
            && current.is_some_and(|now| share::may_be(host, labels, now, own))
    });
    let wanted = labels.and_then(|labels| match class {
        Class::Keep => None,
        Class::Content if private => {
            reason.push_str(", for this guest alone");
            Some(share::label(labels))
        }
        Class::Content => Some(labels.content.clone()),
        Class::Shared => Some(labels.shared.clone()),
        Class::Exclusive => Some(labels.image.clone()),
    });
    let readable = || match (labels, &resource.current) {
        (Some(labels), Some(current)) => host
            .denied(&labels.process, current, resource.kind.class(), &READ)
            .is_ok_and(|denied| denied.is_empty() || denied == ["map"] && !resource.is_mapped()),
        _ => false,
    };
    let action = if relabel == Relabel::No {
        class = Class::Keep;
        reason.push_str(", not relabelled (--no-relabel)");
        Action::None
    } else if class == Class::Content && resource.current != wanted && readable() {
        class = Class::Keep;
        reason.push_str(", readable with the label it has");
        Action::None
    } else if class == Class::Content && protected(&resource).is_some() {
        // Firmware and keymaps: the policy is asked whether the guest may read them.
        class = Class::Keep;
        reason.push_str(", the host's own");
        Action::None
    } else {
        if class != Class::Keep && is_host_wide(&resource) {
            class = Class::Keep;
            reason.push_str(", a node of the whole host");
        }
        match (class, resource.kind) {
            (Class::Keep, _) => Action::None,
            (_, Kind::Missing) if resource.path.is_none() || resource.template => Action::None,
            (_, Kind::Missing) if resource.access == Access::Create => Action::Create,
            (_, Kind::Missing) => Action::None,
            _ if wanted.is_some() && resource.current == wanted => Action::None,
            _ => Action::Relabel,
        }
    };
    Step {
        label: wanted.filter(|_| class != Class::Keep),
        class,
        action,
        reason,
        fixed: None,
        resource,
    }
}

/// What QEMU makes in the guest's own directory needs nobody to make it first: it gets its label
/// there.
pub fn leave_to_qemu(steps: &mut [Step], directory: &Path, labels: Option<&GuestLabels>) {
    let made = |step: &&mut Step| {
        let path = step.resource.path.as_deref();
        step.resource.kind == Kind::Missing && path.is_some_and(|path| path.starts_with(directory))
    };
    for step in steps.iter_mut().filter(made) {
        step.action = Action::None;
        step.class = Class::Exclusive;
        step.label = labels.map(|labels| runtime_dir::label(&labels.process));
        step.reason.push_str(", in the guest's own directory");
    }
}

fn is_host_wide(resource: &Resource) -> bool {
    resource.pinned.as_ref().is_some_and(|pinned| {
        let real = pinned.real_path();
        pinned.kind == Kind::Char && HOST_WIDE.iter().any(|node| real.starts_with(node))
    })
}

/// The system directory that a resource is below.
fn protected(resource: &Resource) -> Option<&'static str> {
    let real = resource.pinned.as_ref()?.real_path();
    // A pinned file's name from the kernel has no dots and no doubled slashes.
    PROTECTED
        .into_iter()
        .find(|root| is_within(&real, Path::new(root)))
}

/// Whether one path is the other, or below it; both without links and dots.
fn is_within(path: &Path, root: &Path) -> bool {
    let (path, root) = (path.as_os_str().as_bytes(), root.as_os_str().as_bytes());
    path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A system directory that a tree is, lies in or holds.
pub fn protected_within(tree: &Path) -> Option<&'static str> {
    PROTECTED.into_iter().find(|root| {
        let root = Path::new(root);
        is_within(tree, root) || is_within(root, tree)
    })
}

/// Why this must not be relabelled on any host.
fn forbidden(resource: &Resource) -> Option<String> {
    let pinned = resource.pinned.as_ref()?;
    let name = resource.name();
    let origin = &resource.origin;
    if let Some(root) = protected(resource) {
        return Some(format!(
            "cannot label {name} ({origin}): files below {root} are the host's own; copy it to a \
             directory of the guest's and name the copy"
        ));
    }
    match pinned.kind {
        Kind::File if pinned.links > 1 => Some(format!(
            "cannot label {name} ({origin}): it has {} hard links, and all of them would change; \
             make a copy (cp --reflink=auto)",
            pinned.links
        )),
        Kind::Dir if resource.handed_over => None,
        Kind::Dir => Some(format!(
            "cannot label {name} ({origin}): it is a directory, and {} needs a file",
            resource.reason
        )),
        Kind::File | Kind::Block | Kind::Char | Kind::Socket | Kind::Fifo | Kind::Missing => None,
    }
}

/// Why this cannot be relabelled now: it carries somebody's categories.
fn held(host: &dyn Host, step: &Step, processes: &[ProcessLabels]) -> Option<String> {
    let resource = &step.resource;
    let current = resource.current.as_ref()?;
    let cage = current.cage();
    if cage.is_empty() {
        return None;
    }
    let name = resource.name();
    Some(match mcs::holder(&cage, processes) {
        Some((pid, label)) => format!(
            "cannot label {name} ({}): process {pid} ({}{}) holds it; it has label {current}{}",
            resource.origin,
            host.guest_name(pid)
                .map_or_else(String::new, |name| format!("guest {}, ", quoted(&name))),
            label.short(),
            if step.class == Class::Content {
                "; where only that guest reads it (--private-content), a launch by the same user has \
                 it shared"
            } else {
                ""
            }
        ),
        None => format!(
            "cannot label {name} ({}): it has label {current}, whose categories no running guest has; \
             put its label back first: svirt-exec restore, or restorecon -F {}",
            resource.origin,
            shell_word(resource.path.as_deref().unwrap_or(Path::new("")))
        ),
    })
}
