//! `svirt-exec plan`: the plan of a launch, which changes nothing, also not which pairs are claimed.

use std::ffi::CString;
use std::path::PathBuf;

use crate::cli::{Launch, Preflight};
use crate::host::{Policy, ProcessLabels, Processes, RealHost};
use crate::launch::chains::Chains;
use crate::launch::exec::QemuProgram;
use crate::launch::planning::{self, Reading};
use crate::launch::settings;
use crate::model::label::Level;
use crate::plan::in_use;
use crate::plan::preflight;
use crate::plan::step::Plan;
use crate::qemu::RunMode;
use crate::seclabel::domain;
use crate::seclabel::labels::GuestLabels;
use crate::seclabel::mcs;
use crate::selinux::Mode;
use crate::sys;
use crate::text::message::{Message, Refusal};
use crate::text::progress::Steps;

/// Makes the plan of a launch.
///
/// # Errors
/// What keeps the line from being read at all.
pub fn plan(options: &Launch, environment: &[CString]) -> Result<Plan, Refusal> {
    let host = RealHost::new()?;
    let options = &settings::complete(options, &host, environment)?;
    let step = Steps::new(options.verbose);
    let program = find_program(options, environment)?;
    let mut reading = planning::read(&host, &program, options, environment)?;
    step.tell(format_args!(
        "read the command line: {} resources named",
        reading.invocation.requests.len()
    ));
    // Every resource is held open while the plan is made.
    sys::raise_descriptor_limit();
    let mut collected = planning::collect_resources(&host, &program, &mut reading)?;
    let judged = Chains::of(&host, options)?.judge(&collected);
    planning::warn_of_unread_headers(&mut collected);
    step.tell(format_args!("looked at what it names"));
    let mut problems: Vec<Message> = Vec::new();
    let mut labels = None;
    let mut processes = Vec::new();
    if host.mode() != Mode::Disabled && reading.invocation.run_mode == RunMode::Guest {
        match guest_labels(&host, options, &reading, &mut processes) {
            Ok(found) => labels = Some(found),
            Err(refusal) => problems = refusal.messages,
        }
    }
    let chosen = options.level.is_some() || options.label.is_some();
    if let Some(labels) = labels.as_ref().filter(|_| chosen && !options.share_level) {
        let held = mcs::check_no_overlap(&labels.process, &processes);
        problems.extend(held.err().map(|error| error.message()));
    }
    let mut plan = planning::make_plan(
        &host,
        &program,
        reading,
        collected,
        labels,
        planning::relabelling(options),
        &processes,
    )?;
    plan.notes = judged.notes;
    plan.errors.extend(judged.errors);
    plan.obstacles.append(&mut problems);
    // At a launch its keeper looks, which opens every file anyway, to lock it.
    let mut in_use = in_use::by_other_qemus(&host, &plan.steps);
    plan.obstacles.append(&mut in_use);
    if options.preflight != Some(Preflight::Off) {
        let mut failures = preflight::guest(&host, &plan)?;
        plan.obstacles.append(&mut failures);
    }
    step.tell(format_args!("decided, and asked the policy"));
    Ok(plan)
}

/// Finds QEMU. A plan can be made on a host that has none.
fn find_program(options: &Launch, environment: &[CString]) -> Result<QemuProgram, Refusal> {
    let path = sys::variable(environment, "PATH");
    match QemuProgram::find(&options.qemu, path.as_deref()) {
        Err(_) if !options.qemu.is_empty() => Ok(QemuProgram {
            path: options.qemu.first().map(PathBuf::from).unwrap_or_default(),
            word: options.qemu.first().cloned().unwrap_or_default(),
            args: options.qemu.get(1..).unwrap_or_default().to_vec(),
        }),
        found => found,
    }
}

/// Returns labels that the guest could have now: a pair is drawn, and not claimed.
fn guest_labels(
    host: &RealHost,
    options: &Launch,
    reading: &Reading,
    processes: &mut Vec<ProcessLabels>,
) -> Result<GuestLabels, Refusal> {
    *processes = host.processes()?;
    let own = host.own_context()?;
    let chosen = planning::chosen_level(options, &own)?;
    let stated = options.label.as_ref();
    let types = domain::guest_types(host, &own, reading.accelerator, stated)?;
    let level = match chosen {
        Some(level) => level,
        None => {
            let range = mcs::range(&own, options.mcs_range)?;
            let pair = mcs::draw(&range, &mcs::used_categories(processes))?;
            Level::with_pair(own.sensitivity(), pair)
        }
    };
    Ok(GuestLabels::new(&types, level).private_to(planning::private_to(options)))
}
