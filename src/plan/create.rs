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

/// The label that a directory will have when QEMU runs: the guest's where it is handed over to that
/// (`--label-tree`), else the one that it has. None where it is not there or has none.
///
/// # Errors
/// Where its label cannot be read.
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

/// What `source` may not do to make this file or socket.
///
/// # Errors
/// Where the policy cannot be asked.
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
    let enter = ["add_name", "search", "write"];
    if let Some(clause) = policy::refused(host, source, &label, "dir", &enter)? {
        return Ok(Some(clause));
    }
    let name = path.file_name().unwrap_or_default();
    let new = host.label_of_new(source, &label, kind, name)?;
    policy::refused(host, source, &new, kind.class(), &["create", "write"])
}

/// Sockets that QEMU makes where others may use them, each a warning: a socket is labelled after
/// its directory, and is the guest's own only where it gets the guest's categories.
///
/// # Errors
/// Where the policy cannot be asked.
pub fn open_sockets(
    host: &dyn Host,
    steps: &[Step],
    labels: Option<&GuestLabels>,
) -> io::Result<Vec<String>> {
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
                if !new.cage().is_empty() {
                    continue;
                }
                "it will not have the guest's categories there, and other guests may use it"
            }
        };
        warnings.push(format!(
            "QEMU makes {} ({}, {}): {why}; with --runtime-dir, name it {}",
            resource.name(),
            resource.origin,
            resource.reason,
            quoted(Path::new("/run/svirt-exec/NAME").join(name).as_os_str())
        ));
    }
    Ok(warnings)
}
