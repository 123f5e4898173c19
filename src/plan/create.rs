//! Files and sockets that QEMU makes: whether it may, and whose they will be.

use std::io;
use std::path::Path;

use crate::host::Host;
use crate::host::pinned::Kind;
use crate::host::policy;
use crate::model::label::Context;
use crate::model::resource::Access;
use crate::plan::step::Step;
use crate::seclabel::labels::GuestLabels;
use crate::text::escape::quoted;
use crate::text::message::Message;

/// What making a file takes of its directory, as permissions of class dir.
pub const MAKE_IN_DIRECTORY: [&str; 3] = ["add_name", "search", "write"];

/// Returns the label that a directory will have when QEMU runs: the guest's if it is handed over to that
/// (`--label-tree`), else the one that it has. None if it is not there or has none.
///
/// # Errors
/// Those of reading its label.
pub fn label_then(
    host: &dyn Host,
    steps: &[Step],
    directory: &Path,
) -> io::Result<Option<Context>> {
    let Ok(pinned) = host.pin(directory) else {
        return Ok(None);
    };
    let is_it = |step: &&Step| {
        let there = step.resource.pinned.as_ref();
        there.is_some_and(|there| there.identity == pinned.identity)
    };
    match steps.iter().find(is_it).and_then(|step| step.label.clone()) {
        Some(label) => Ok(Some(label)),
        None => host.label_of(&pinned),
    }
}

/// Says what `source` may not do to make this file or socket, as a clause.
///
/// # Errors
/// Those of asking the policy.
pub fn refused(
    host: &dyn Host,
    source: &Context,
    steps: &[Step],
    step: &Step,
    path: &Path,
) -> io::Result<Option<String>> {
    let kind = match step.resource.access {
        Access::Create => Kind::File,
        Access::Bind => Kind::Socket,
        Access::Read | Access::Write | Access::Connect | Access::Exec | Access::Tree => {
            return Ok(None);
        }
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let Some(label) = label_then(host, steps, directory)? else {
        return Ok(None);
    };
    if let Some(clause) = policy::refused(host, source, &label, "dir", &MAKE_IN_DIRECTORY)? {
        return Ok(Some(clause));
    }
    let name = path.file_name().unwrap_or_default();
    let new = host.label_of_new(source, &label, kind, name)?;
    policy::refused(host, source, &new, kind.class(), &["create", "write"])
}

/// Warns of each socket that QEMU makes where others may use it: a socket is labelled after its directory,
/// and is the guest's own only if it gets the guest's categories.
///
/// # Errors
/// Those of asking the policy.
pub fn open_sockets(
    host: &dyn Host,
    steps: &[Step],
    labels: Option<&GuestLabels>,
) -> io::Result<Vec<Message>> {
    let mut warnings = Vec::new();
    for step in steps {
        let resource = &step.resource;
        let (Access::Bind, Some(path), None) = (resource.access, &resource.path, &step.label)
        else {
            continue;
        };
        let name = path.file_name().unwrap_or_default();
        let why = match labels {
            None => "whether other guests may use it, the policy's rules for its directory say",
            Some(labels) => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                let Some(parent) = label_then(host, steps, directory)? else {
                    continue;
                };
                let new = host.label_of_new(&labels.process, &parent, Kind::Socket, name)?;
                if !new.categories().is_empty() {
                    continue;
                }
                "it will not have the guest's categories there, and other guests may use it"
            }
        };
        warnings.push(Message::new(
            format!(
                "QEMU makes {} ({}, {}): {why}",
                resource.name(),
                resource.origin,
                resource.reason
            ),
            format!(
                "with --runtime-dir, name it {}",
                quoted(Path::new("/run/svirt-exec/NAME").join(name).as_os_str())
            ),
        ));
    }
    Ok(warnings)
}
