//! Which label each resource gets, and why: a decision over what was collected, the guest's labels and
//! the policy's answers. Changes nothing.
//!
//! A resource comes here with a class: of a path, the one in its option's table (`qemu::usage`); of a
//! device that is named by address, the one that `collect::find_device` gives its nodes. `wanted_label`
//! turns the class into a label, and `kept` says when the label stays all the same.

use std::path::Path;

use nix::unistd::Pid;

use crate::host::files::Host;
use crate::host::pinned::Kind;
use crate::host::process_labels::ProcessLabels;
use crate::host::runtime_dir;
use crate::model::label::Context;
use crate::model::resource::{Access, Class};
use crate::plan::protected::{is_host_wide, protected};
use crate::plan::resource::{Collected, Resource};
use crate::plan::step::{Action, Decision, Relabel, Step};
use crate::seclabel::labels::GuestLabels;
use crate::seclabel::mcs;
use crate::text::escape::{quoted, shell_word};
use crate::text::message::Message;

/// What reading a file needs of its label; the last one only if it is mapped.
const READ: [&str; 4] = ["getattr", "open", "read", "map"];

/// The processes of this host, and what QEMUs among them are called.
pub struct Running<'a> {
    /// Every process but this one.
    pub processes: &'a [ProcessLabels],
    /// Returns what a process calls itself, for messages.
    pub name_of: &'a dyn Fn(Pid) -> Option<String>,
}

/// Decides for every resource.
pub fn decide(
    host: &dyn Host,
    collected: Collected,
    labels: Option<&GuestLabels>,
    relabel: Relabel,
    running: &Running<'_>,
) -> Decision {
    let Collected {
        resources,
        warnings,
        mut errors,
        mut obstacles,
        deferred: _,
        headers: _,
        stated: _,
    } = collected;
    let mut steps = Vec::with_capacity(resources.len());
    for resource in resources {
        let step = decide_one(host, resource, labels, relabel);
        if step.action == Action::Relabel {
            if let Some(error) = forbidden(&step.resource) {
                errors.push(error);
            } else if let Some(obstacle) = held(&step, running) {
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
    let wanted = labels.and_then(|labels| wanted_label(host, labels, &resource, &mut reason));
    let (class, action) = if relabel == Relabel::No {
        reason.push_str(", not relabelled (--no-relabel)");
        (Class::Keep, Action::None)
    } else if let Some(why) = kept(host, &resource, labels, wanted.as_ref()) {
        reason.push_str(why);
        (Class::Keep, Action::None)
    } else {
        let action = match (resource.class, resource.kind) {
            (Class::Keep, _) => Action::None,
            (_, Kind::Missing) if resource.path.is_none() || resource.template => Action::None,
            (_, Kind::Missing) if resource.access == Access::Create => Action::Create,
            (_, Kind::Missing) => Action::None,
            _ if wanted.is_some() && resource.current == wanted => Action::None,
            _ => Action::Relabel,
        };
        (resource.class, action)
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

/// Returns the guest's label for this class of resources, and adds to the reason if it is private.
fn wanted_label(
    host: &dyn Host,
    labels: &GuestLabels,
    resource: &Resource,
    reason: &mut String,
) -> Option<Context> {
    match resource.class {
        Class::Keep => None,
        Class::Content if is_private(host, labels, resource) => {
            reason.push_str(", for this guest alone");
            Some(labels.private_content())
        }
        Class::Content => Some(labels.content.clone()),
        Class::Shared => Some(labels.shared.clone()),
        Class::Exclusive => Some(labels.image.clone()),
    }
}

/// Tells whether content is given to this guest alone.
fn is_private(host: &dyn Host, labels: &GuestLabels, resource: &Resource) -> bool {
    let owner = resource.pinned.as_ref().map(|pinned| pinned.uid);
    let own = labels.private_to.is_some() && owner == labels.private_to;
    let current = resource.current.as_ref();
    resource.kind == Kind::File && current.is_some_and(|now| labels.may_be_private(host, now, own))
}

/// Returns why a resource keeps its label although its class would change it. None if it does not.
fn kept(
    host: &dyn Host,
    resource: &Resource,
    labels: Option<&GuestLabels>,
    wanted: Option<&Context>,
) -> Option<&'static str> {
    let readable = || match (labels, &resource.current) {
        (Some(labels), Some(current)) => host
            .denied(&labels.process, current, resource.kind.class(), &READ)
            .is_ok_and(|denied| denied.is_empty() || denied == ["map"] && !resource.is_mapped()),
        _ => false,
    };
    match resource.class {
        Class::Keep => None,
        Class::Content if resource.current.as_ref() != wanted && readable() => {
            Some(", readable with the label it has")
        }
        // Firmware and keymaps: the policy is asked whether the guest may read them.
        Class::Content if protected(resource).is_some() => Some(", the host's own"),
        Class::Content | Class::Shared | Class::Exclusive => {
            is_host_wide(resource).then_some(", a node of the whole host")
        }
    }
}

/// Leaves to QEMU what it makes in the guest's own directory: it gets its label there.
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

/// Says why a resource must not be relabelled on any host.
fn forbidden(resource: &Resource) -> Option<Message> {
    let pinned = resource.pinned.as_ref()?;
    let name = resource.name();
    let origin = &resource.origin;
    if let Some(root) = protected(resource) {
        return Some(Message::new(
            format!("cannot label {name} ({origin}): files below {root} are the host's own"),
            "copy it to a directory of the guest's and name the copy",
        ));
    }
    match pinned.kind {
        Kind::File if pinned.links > 1 => Some(Message::new(
            format!(
                "cannot label {name} ({origin}): it has {} hard links, and all of them would change",
                pinned.links
            ),
            "make a copy (cp --reflink=auto)",
        )),
        Kind::Dir if resource.handed_over => None,
        Kind::Dir => Some(
            format!(
                "cannot label {name} ({origin}): it is a directory, and {} needs a file",
                resource.reason
            )
            .into(),
        ),
        Kind::File | Kind::Block | Kind::Char | Kind::Socket | Kind::Fifo | Kind::Missing => None,
    }
}

/// Says why a resource cannot be relabelled now: it carries somebody's categories.
fn held(step: &Step, running: &Running<'_>) -> Option<Message> {
    let resource = &step.resource;
    let current = resource.current.as_ref()?;
    if current.categories().is_empty() {
        return None;
    }
    let what = format!("cannot label {} ({})", resource.name(), resource.origin);
    let holder = mcs::overlapping_process(&current.categories(), running.processes);
    let Some((pid, context)) = holder else {
        return Some(Message::new(
            format!("{what}: it has label {current}, whose categories no running guest has"),
            format!(
                "put its label back first: svirt-exec restore, or restorecon -F {}",
                shell_word(resource.path.as_deref().unwrap_or(Path::new("")))
            ),
        ));
    };
    let name = (running.name_of)(pid);
    let guest = name.map_or_else(String::new, |name| format!("guest {}, ", quoted(&name)));
    let problem = format!(
        "{what}: process {pid} ({guest}{}) holds it",
        context.short()
    );
    let label = format!("it has label {current}");
    Some(Message::new(
        problem,
        if step.class == Class::Content {
            format!(
                "{label}; where only that guest reads it (--private-content), a launch by the same user \
                 has it shared"
            )
        } else {
            label
        },
    ))
}
