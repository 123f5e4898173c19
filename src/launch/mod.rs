//! The launch, in the order in which it happens:
//!
//! 1. find QEMU, read its command line, look at what it names;
//! 2. choose the domain, claim a pair, decide every label;
//! 3. ask the policy about everything that will be done, and stop at the first
//!    doubt, with all of them: nothing has changed so far;
//! 4. write the original labels down, give them to the keeper that will put them back, and by then has
//!    locked every file and found nobody else with that pair;
//! 5. make files, set labels, read each one back;
//! 6. make inherited pipes usable for the guest;
//! 7. become QEMU. The claim of step 2 is what the kernel applies now.
//!
//! Where step 5, 6 or 7 fails the keeper undoes it before this process ends.

pub mod apply;
pub mod attach;
pub mod exec;
pub mod inherited_fds;
pub mod planning;
pub mod prepare;
pub mod settings;
pub mod share_content;

use std::convert::Infallible;
use std::ffi::CString;

use crate::cli::Launch;
use crate::host::pinned::Pinned;
use crate::host::{Files, Policy, RealHost};
use crate::launch::exec::Command;
use crate::launch::prepare::{Launcher, Prepared, privilege, start_keeper, stop_or_warn};
use crate::model::label::Context;
use crate::plan::preflight;
use crate::plan::step::{Action, Step};
use crate::qemu::RunMode;
use crate::restore::command;
use crate::restore::entry_lock;
use crate::restore::journal::Journal;
use crate::restore::keeper::client::Keeper;
use crate::seclabel::domain;
use crate::seclabel::mcs;
use crate::seclabel::own_domain;
use crate::selinux::Mode;
use crate::selinux::names;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse, say};
use crate::text::progress::Steps;

/// Launches. Returns only when nothing was launched.
///
/// # Errors
/// Every reason not to.
pub fn launch(options: &Launch, environment: &[CString]) -> Result<Infallible, Refusal> {
    let host = RealHost::new()?;
    let options = &settings::complete(options, &host, environment)?;
    let path = sys::variable(environment, "PATH");
    let command = Command::find(&options.qemu, path.as_deref())?;
    let unconfined = options.allow_unconfined
        || sys::variable(environment, "SVIRT_EXEC_UNCONFINED")
            .is_some_and(|value| value == "allow");
    let step = Steps::new(options.verbose);
    // Before anything else: a guest's domain may ask SELinux nothing.
    let own = host.own_context();
    if let Ok(own) = &own
        && domain::is_cage(&host, own)
    {
        step.tell(format_args!("already confined as {own}"));
        return Err(command.execute(environment));
    }
    let mode = host.mode();
    if mode == Mode::Disabled {
        return without_selinux(&host, &command, environment, unconfined);
    }
    let own = own?;
    own_domain::check(&own, mode)?;
    if mode == Mode::Permissive {
        say(
            "warning: SELinux is permissive on this host: QEMU gets its label, and nothing holds it \
             to that; setenforce 1",
        );
    }
    let reading = planning::read(&host, &command, options, environment)?;
    step.tell(format_args!(
        "read the command line: {} resources named",
        reading.invocation.requests.len()
    ));
    match reading.invocation.run_mode {
        RunMode::Guest => {}
        RunMode::Information | RunMode::Probe => {
            return without_guest(&host, &command, environment, &own, mode);
        }
    }
    let starting = start_keeper(&own)?;
    let program = pinned(&host, &command)?;
    let journal = Journal::open();
    if let Ok(journal) = &journal {
        clean_up(&host, journal, &own, &step);
    }
    let limit = sys::raise_descriptor_limit();
    let launcher = Launcher {
        host: &host,
        command: &command,
        options,
        own: &own,
        program: &program,
        privilege: privilege(),
        mode,
        journal: &journal,
        step: &step,
    };
    let Prepared {
        context,
        mut plan,
        mut keeper,
        repairs,
        unread,
        cwd,
    } = launcher.prepare(&reading, starting)?;
    let change = || -> Result<(), Refusal> {
        let made = apply::make_files(&host, &mut plan, &own)?;
        if let Some(keeper) = keeper.as_mut() {
            apply::prepare_more(made, keeper, "what was made for QEMU")?;
        }
        apply::recheck(&host, &plan)?;
        apply::label(&host, &plan)?;
        if let Some(keeper) = keeper.as_mut().filter(|_| !unread.is_empty()) {
            let further = planning::behind_devices(&host, &plan, unread, &cwd)?;
            for warning in &further.warnings {
                say(format_args!("warning: {warning}"));
            }
            stop_or_warn(launcher.failures(&further, &context)?, mode)?;
            let more = apply::records(&further.steps);
            apply::prepare_more(more, keeper, "what a disk's header names")?;
            apply::recheck(&host, &further)?;
            apply::label(&host, &further)?;
        }
        if step.are_told() {
            for (path, label) in plan.steps.iter().filter_map(labelled) {
                step.tell(format_args!("{path} has {label}"));
            }
        }
        step.tell(format_args!("set the labels"));
        let replacements = repairs.apply(&host, &own, &context).map_err(refuse)?;
        inherited_fds::place(&replacements)?;
        sys::restore_descriptor_limit(limit);
        if options.no_restore
            && let Some(keeper) = keeper.as_mut()
        {
            keeper.leave().map_err(|error| {
                refuse(format!(
                    "cannot leave the labels as they are (--no-restore): {error}"
                ))
            })?;
        }
        Ok(())
    };
    let refusal = match change() {
        Ok(()) => {
            step.tell(format_args!(
                "becoming {}",
                quoted(command.program.as_os_str())
            ));
            command.execute(environment)
        }
        Err(refusal) => refusal,
    };
    Err(roll_back(keeper, refusal))
}

/// A resource that gets a label, and which.
fn labelled(step: &Step) -> Option<(String, &Context)> {
    let label = step
        .label
        .as_ref()
        .filter(|_| step.action == Action::Relabel)?;
    Some((step.resource.name(), label))
}

/// Has the keeper undo everything, and adds what it could not.
pub(crate) fn roll_back(keeper: Option<Keeper>, mut refusal: Refusal) -> Refusal {
    if let Some(keeper) = keeper
        && let Err(error) = keeper.undo()
    {
        refusal.messages.push(format!(
            "cannot put all labels back: {error}; svirt-exec restore tries again"
        ));
    }
    refusal
}

/// No SELinux: nothing can be confined, and only a caller who says so gets QEMU.
fn without_selinux(
    host: &RealHost,
    command: &Command,
    environment: &[CString],
    allowed: bool,
) -> Result<Infallible, Refusal> {
    if own_domain::hides_selinux(host) {
        return Err(refuse(
            "cannot confine QEMU: this process has an SELinux label, but selinuxfs is not visible \
             here (a container hides it); run svirt-exec outside the container, or mount \
             /sys/fs/selinux into it",
        ));
    }
    if !allowed {
        return Err(refuse(
            "cannot confine QEMU: SELinux is off on this host; boot with selinux=1 security=selinux, \
             or run QEMU without confinement: --allow-unconfined, or SVIRT_EXEC_UNCONFINED=allow",
        ));
    }
    say("WARNING: SELinux is off on this host: QEMU runs WITHOUT confinement (--allow-unconfined)");
    Err(command.execute(environment))
}

/// The program, opened once.
fn pinned(host: &RealHost, command: &Command) -> Result<Pinned, Refusal> {
    host.pin(&command.program).map_err(|error| {
        refuse(format!(
            "cannot look at {}: {error}",
            quoted(command.program.as_os_str())
        ))
    })
}

/// A line that starts no guest: no pair, no labels, a domain that may open next to nothing.
fn without_guest(
    host: &RealHost,
    command: &Command,
    environment: &[CString],
    own: &Context,
    mode: Mode,
) -> Result<Infallible, Refusal> {
    let domain = own.with_type(names::INFO_DOMAIN);
    let entry = || -> Result<Vec<String>, Refusal> {
        let program = pinned(host, command)?;
        Ok(preflight::entry(host, own, &program, &domain, privilege())?)
    };
    let mut repairs = inherited_fds::inspect(host, &domain)?;
    let mut failures = std::mem::take(&mut repairs.failures);
    // Nothing is changed for such a line, so the kernel may be the first to say no.
    if mode == Mode::Permissive {
        failures.append(&mut entry()?);
    }
    stop_or_warn(failures, mode)?;
    mcs::enter_next(host, &domain)?;
    let replacements = repairs.apply(host, own, &domain).map_err(refuse)?;
    inherited_fds::place(&replacements)?;
    let refusal = command.execute(environment);
    if mode == Mode::Enforcing {
        let why = entry().unwrap_or_default();
        if !why.is_empty() {
            return Err(Refusal::new(why));
        }
    }
    Err(refusal)
}

/// Labels that guests left which ended without a keeper go back first.
fn clean_up(host: &RealHost, journal: &Journal, own: &Context, step: &Steps) {
    let paths = journal.entries().unwrap_or_default();
    let left = paths
        .iter()
        .filter(|path| !entry_lock::is_kept(path))
        .filter_map(|path| Journal::read(path).ok())
        .any(|entry| !command::runs(host, &entry));
    if !left {
        return;
    }
    step.tell(format_args!("putting back what ended guests left"));
    // What is not back now, because another guest uses it, is a later command's.
    let done = command::restore(own, &[], &command::Scope::default(), &mut |line| {
        step.tell(format_args!("{line}"))
    });
    if let Err(refusal) = done {
        step.tell(format_args!("{}", refusal.messages.join("; ")));
    }
}
