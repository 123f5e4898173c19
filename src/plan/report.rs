//! The plan for programs (`plan --json`, a contract: fields are only ever added) and for people.

use std::fmt::Write;

use serde::Serialize;

use crate::host::pinned::Kind;
use crate::model::label::Context;
use crate::model::resource::{Access, Class, Origin};
use crate::plan::step::{Action, Plan, Step};
use crate::seclabel::domain::Accelerator;
use crate::text::escape::quoted;
use crate::text::hex::path_hex;
use crate::text::json;
use crate::text::table;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    qemu: String,
    accelerator: Accelerator,
    context: Option<String>,
    image_context: Option<String>,
    /// Only with `--runtime-dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_dir: Option<String>,
    resources: Vec<ResourceEntry<'a>>,
    /// What the caller may want to know; only if there is something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

#[derive(Serialize)]
struct ResourceEntry<'a> {
    path: Option<String>,
    /// The bytes in hexadecimal, only if `path` could not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    class: Class,
    access: Access,
    kind: Kind,
    origin: &'a Origin,
    label: Option<String>,
    current: Option<String>,
    action: &'static str,
    reason: &'a str,
}

fn entry(step: &Step) -> ResourceEntry<'_> {
    let resource = &step.resource;
    let path = resource.path.as_deref();
    ResourceEntry {
        path: path.map(|path| path.to_string_lossy().into_owned()),
        path_hex: path.and_then(path_hex),
        fd: resource.fd,
        host: resource.host.as_ref().map(ToString::to_string),
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

/// Returns the plan as JSON.
///
/// # Errors
/// Those of serde_json, which the values of a plan do not cause.
pub fn json(plan: &Plan) -> serde_json::Result<String> {
    let document = Document {
        version: 1,
        qemu: plan.program.to_string_lossy().into_owned(),
        accelerator: plan.accelerator,
        context: plan.labels.as_ref().map(|l| l.process.to_string()),
        image_context: plan.labels.as_ref().map(|l| l.image.to_string()),
        runtime_dir: plan
            .runtime
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
        resources: plan.steps.iter().map(entry).collect(),
        notes: plan.notes.iter().map(ToString::to_string).collect(),
        // What only stops a launch on this host now is a warning to a plan.
        warnings: plan
            .warnings
            .iter()
            .chain(&plan.obstacles)
            .map(ToString::to_string)
            .collect(),
        errors: plan.errors.iter().map(ToString::to_string).collect(),
    };
    json::pretty(&document)
}

/// Returns the plan as a table.
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
    if let Some(directory) = &plan.runtime {
        let _ = writeln!(out, "directory    {}", quoted(directory.as_os_str()));
    }
    if plan.steps.is_empty() {
        return out;
    }
    let nothing = || "-".to_owned();
    let mut rows = vec![
        [
            "ACTION",
            "LABEL NOW",
            "LABEL THEN",
            "RESOURCE",
            "USED AS",
            "NAMED BY",
        ]
        .map(str::to_owned),
    ];
    rows.extend(plan.steps.iter().map(|step| {
        let action = match step.action {
            Action::None => "keep",
            action => action.name(),
        };
        [
            action.to_owned(),
            step.resource
                .current
                .as_ref()
                .map_or_else(nothing, Context::short),
            step.label.as_ref().map_or_else(nothing, Context::short),
            step.resource.name(),
            step.reason.clone(),
            step.resource.origin.to_string(),
        ]
    }));
    out.push('\n');
    out.push_str(&table::columns(&rows));
    out
}
