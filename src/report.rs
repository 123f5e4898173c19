//! The plan for programs (`plan --json`, a contract: fields are only ever added)
//! and for people.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::domain::Accelerator;
use crate::escape::quoted;
use crate::host::Kind;
use crate::plan::{Action, Plan, Step};
use crate::resource::{Access, Class, Origin};

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    qemu: String,
    accelerator: Accelerator,
    context: Option<String>,
    image_context: Option<String>,
    resources: Vec<Entry<'a>>,
    warnings: Vec<&'a str>,
    errors: Vec<&'a str>,
}

#[derive(Serialize)]
struct Entry<'a> {
    path: Option<String>,
    /// Only where `path` could not say it: the bytes in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    class: Class,
    access: Access,
    kind: Kind,
    origin: &'a Origin,
    label: Option<String>,
    current: Option<String>,
    action: &'static str,
    reason: &'a str,
}

fn entry(step: &Step) -> Entry<'_> {
    let resource = &step.resource;
    let path = resource.path.as_deref();
    Entry {
        path: path.map(|path| path.to_string_lossy().into_owned()),
        path_hex: path.filter(|path| path.to_str().is_none()).map(|path| {
            path.as_os_str()
                .as_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        }),
        fd: resource.fd,
        host: resource.host.as_deref(),
        class: step.class,
        access: resource.access,
        kind: resource.kind,
        origin: &resource.origin,
        label: step.label.as_ref().map(ToString::to_string),
        current: resource.current.as_ref().map(ToString::to_string),
        action: step.action.name(),
        reason: &step.reason,
    }
}

/// The plan as JSON.
///
/// # Errors
/// Never for the values of a plan.
pub fn json(plan: &Plan) -> serde_json::Result<String> {
    let document = Document {
        version: 1,
        qemu: plan.program.to_string_lossy().into_owned(),
        accelerator: plan.accelerator,
        context: plan.labels.as_ref().map(|l| l.process.to_string()),
        image_context: plan.labels.as_ref().map(|l| l.image.to_string()),
        resources: plan.steps.iter().map(entry).collect(),
        // What only stops a launch on this host now is a warning to a plan.
        warnings: plan
            .warnings
            .iter()
            .chain(&plan.obstacles)
            .map(String::as_str)
            .collect(),
        errors: plan.errors.iter().map(String::as_str).collect(),
    };
    serde_json::to_string_pretty(&document)
}

/// The plan as a table.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let context = plan.labels.as_ref().map_or_else(
        || "none: SELinux is off on this host, or there is no guest".to_owned(),
        |labels| labels.process.to_string(),
    );
    let accelerator = match plan.accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg",
        Accelerator::None => "none",
    };
    let _ = writeln!(out, "qemu         {}", quoted(plan.program.as_os_str()));
    let _ = writeln!(out, "accelerator  {accelerator}");
    let _ = writeln!(out, "context      {context}");
    let rows: Vec<[String; 4]> = plan
        .steps
        .iter()
        .map(|step| {
            let action = match (step.action, &step.label) {
                (Action::None, _) => "keep".to_owned(),
                (action, Some(label)) => format!("{} as {}", action.name(), label.short()),
                (action, None) => action.name().to_owned(),
            };
            [
                action,
                step.resource.name(),
                step.reason.clone(),
                step.resource.origin.to_string(),
            ]
        })
        .collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let (a, b, c) = (width(0), width(1), width(2));
    if !rows.is_empty() {
        out.push('\n');
    }
    for [action, name, reason, origin] in &rows {
        let _ = writeln!(out, "{action:a$}  {name:b$}  {reason:c$}  ({origin})");
    }
    out
}
