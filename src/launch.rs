//! The launch, in the order in which it happens:
//!
//! 1. find QEMU, read its command line, look at what it names;
//! 2. choose the domain, claim a pair, decide every label;
//! 3. ask the policy about everything that will be done, and stop at the first
//!    doubt, with all of them: nothing has changed so far;
//! 4. write the original labels down, give them to the keeper that will put them back, and has locked
//!    every file by then;
//! 5. make files, set labels, read each one back;
//! 6. make inherited pipes usable for the guest;
//! 7. become QEMU. The claim of step 2 is what the kernel applies now.
//!
//! Where step 5, 6 or 7 fails the keeper undoes it before this process ends.

use std::convert::Infallible;
use std::ffi::CString;

use nix::unistd::Uid;

use crate::apply;
use crate::cli::{Launch, Preflight};
use crate::collect::Collected;
use crate::command::Command;
use crate::domain;
use crate::ended;
use crate::escape::quoted;
use crate::fds;
use crate::host::{Host, RealHost};
use crate::journal::Journal;
use crate::keeper::{Keeper, Starting};
use crate::kept;
use crate::label::{Categories, Context};
use crate::mcs::{self, Sharing};
use crate::own_domain;
use crate::pinned::Pinned;
use crate::plan::{Action, GuestLabels, Plan, Step};
use crate::preflight::{self, Privilege};
use crate::private;
use crate::progress::Steps;
use crate::qemu::Purpose;
use crate::refusal::{Refusal, refuse, say};
use crate::selinux::Mode;
use crate::settings;
use crate::survey;
use crate::sys;

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
    let mut reading = survey::read(&host, &command, options, environment)?;
    step.tell(format_args!(
        "read the command line: {} resources named",
        reading.invocation.requests.len()
    ));
    match reading.invocation.purpose {
        Purpose::Guest => {}
        Purpose::Information | Purpose::Probe => {
            return without_guest(&host, &command, environment, &own, mode);
        }
    }
    let program = pinned(&host, &command)?;
    let privilege = privilege();
    let journal = Journal::open();
    if let Ok(journal) = &journal {
        clean_up(&host, journal, &own, &step);
    }

    let no_keeper = |error| refuse(format!("cannot start the keeper of the labels: {error}"));
    let starting = Starting::begin(&own).map_err(no_keeper)?;
    let limit = sys::raise_descriptor_limit();
    let mut collected = survey::look(&host, &command, &mut reading)?;
    if options.no_relabel {
        survey::chains_unknown(&mut collected);
    }
    let unread = std::mem::take(&mut collected.unread);
    let cwd = reading.cwd.clone();
    let chosen = survey::chosen_level(options, &own)?;
    let types = domain::guest_types(&host, &own, reading.accelerator, options.label.as_ref())?;
    // What is there no more needs nobody to look at it.
    sys::wait_for_starters().map_err(no_keeper)?;
    let claim = match chosen {
        Some(level) => {
            let sharing = if options.share_level {
                Sharing::Meant
            } else {
                Sharing::Refused
            };
            mcs::claim_level(&host, types.domain.at(level), sharing)?
        }
        None => {
            let range = mcs::range(&own, options.mcs_range)?;
            let avoid = still_carried(&collected, journal.as_ref().ok());
            mcs::claim(&host, &types.domain, &range, &avoid)?
        }
    };
    if claim.hidden() > 0 || !host.sees_all() {
        say(
            "warning: not all processes of this host show their labels here (hidepid, a PID \
             namespace, or the policy): that nobody else has this guest's categories is not proven",
        );
    }
    starting.claimed(&claim.context);
    let level = claim.context.level();
    step.tell(format_args!("claimed {}", claim.context));
    let labels = GuestLabels::new(&types, level).private_to(survey::private_to(options));
    if !options.no_relabel {
        private::share(&host, &own, &labels, &mut collected)?;
    }
    let name = reading.name.clone();
    let directory = reading.directory.clone();
    let mut plan = survey::make_plan(
        &host,
        &command,
        reading,
        collected,
        Some(labels),
        survey::relabelling(options),
        &claim.processes,
    )?;
    let repairs = judge(
        &host,
        &plan,
        &own,
        &program,
        &claim.context,
        privilege,
        options,
        mode,
    )?;
    step.tell(format_args!(
        "decided: {} labels to set",
        plan.steps
            .iter()
            .filter(|s| s.action != Action::None)
            .count()
    ));

    let mut keeper = apply::prepare(
        &host,
        &plan,
        starting,
        &claim.context,
        name.as_deref(),
        directory,
        journal,
    )?;
    step.tell(format_args!("wrote the journal, the keeper has it"));
    let change = || -> Result<(), Refusal> {
        let made = apply::make_files(&host, &mut plan, &own)?;
        if let Some(keeper) = keeper.as_mut() {
            apply::prepare_more(made, keeper, "what was made for QEMU")?;
        }
        apply::recheck(&host, &plan)?;
        apply::label(&host, &plan)?;
        if let Some(keeper) = keeper.as_mut().filter(|_| !unread.is_empty()) {
            let further = survey::behind_devices(&host, &plan, unread, &cwd)?;
            for warning in &further.warnings {
                say(format_args!("warning: {warning}"));
            }
            let refused = failures(
                &host,
                &further,
                &own,
                &program,
                &claim.context,
                privilege,
                options,
            )?;
            stop_or_warn(refused, mode)?;
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
        let replacements = repairs.apply(&host, &own, &claim.context).map_err(refuse)?;
        fds::place(&replacements)?;
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

/// What this process can do to files of others.
pub(crate) fn privilege() -> Privilege {
    Privilege {
        uid: Uid::effective().as_raw(),
        fowner: caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_FOWNER)
            .unwrap_or(false),
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
    }
}

/// Pairs that files about to be used, or journal entries, still carry: their owners may
/// have ended, and still nobody else shall get them.
fn still_carried(collected: &Collected, journal: Option<&Journal>) -> Vec<Categories> {
    let on_files = collected
        .resources
        .iter()
        .filter_map(|resource| resource.current.as_ref())
        .map(Context::cage);
    let in_entries = journal
        .and_then(|journal| journal.entries().ok())
        .into_iter()
        .flatten()
        .filter_map(|path| Journal::read(&path).ok()?.context.parse::<Context>().ok())
        .map(|context| context.cage());
    on_files.chain(in_entries).collect()
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
    let domain = own.with_type(own_domain::INFO_DOMAIN);
    let entry = || -> Result<Vec<String>, Refusal> {
        let program = pinned(host, command)?;
        Ok(preflight::entry(host, own, &program, &domain, privilege())?)
    };
    let mut repairs = fds::inspect(host, &domain)?;
    let mut failures = std::mem::take(&mut repairs.failures);
    // Nothing is changed for such a line, so the kernel may be the first to say no.
    if mode == Mode::Permissive {
        failures.append(&mut entry()?);
    }
    stop_or_warn(failures, mode)?;
    host.claim(&domain).map_err(|error| {
        refuse(format!(
            "cannot ask the kernel for '{domain}' at the next execve: {error}"
        ))
    })?;
    let replacements = repairs.apply(host, own, &domain).map_err(refuse)?;
    fds::place(&replacements)?;
    let refusal = command.execute(environment);
    if mode == Mode::Enforcing {
        let why = entry().unwrap_or_default();
        if !why.is_empty() {
            return Err(Refusal::new(why));
        }
    }
    Err(refusal)
}

pub(crate) fn stop_or_warn(failures: Vec<String>, mode: Mode) -> Result<(), Refusal> {
    if failures.is_empty() {
        return Ok(());
    }
    if mode == Mode::Enforcing {
        return Err(Refusal::new(failures));
    }
    for failure in failures {
        say(format_args!("warning (SELinux is permissive): {failure}"));
    }
    Ok(())
}

/// Labels that guests left which ended without a keeper go back first.
fn clean_up(host: &RealHost, journal: &Journal, own: &Context, step: &Steps) {
    let paths = journal.entries().unwrap_or_default();
    let left = paths
        .iter()
        .filter(|path| !kept::is_kept(path))
        .filter_map(|path| Journal::read(path).ok())
        .any(|entry| !ended::runs(host, &entry));
    if !left {
        return;
    }
    step.tell(format_args!("putting back what ended guests left"));
    // What is not back now, because another guest uses it, is a later command's.
    let done = ended::restore(own, &[], &ended::Scope::default(), &mut |line| {
        step.tell(format_args!("{line}"))
    });
    if let Err(refusal) = done {
        step.tell(format_args!("{}", refusal.messages.join("; ")));
    }
}

/// Asks about everything that will be done; refuses with every failure at once.
#[allow(clippy::too_many_arguments)]
fn judge(
    host: &RealHost,
    plan: &Plan,
    own: &Context,
    program: &Pinned,
    domain: &Context,
    privilege: Privilege,
    options: &Launch,
    mode: Mode,
) -> Result<fds::Repairs, Refusal> {
    for warning in &plan.warnings {
        say(format_args!("warning: {warning}"));
    }
    let mut repairs = fds::inspect(host, domain)?;
    let mut refused = failures(host, plan, own, program, domain, privilege, options)?;
    refused.append(&mut repairs.failures);
    stop_or_warn(refused, mode)?;
    Ok(repairs)
}

/// Everything in a plan that the policy will refuse the launcher or QEMU.
///
/// # Errors
/// What stops the launch whatever the policy says.
fn failures(
    host: &RealHost,
    plan: &Plan,
    own: &Context,
    program: &Pinned,
    domain: &Context,
    privilege: Privilege,
    options: &Launch,
) -> Result<Vec<String>, Refusal> {
    let mut fatal = plan.errors.clone();
    fatal.extend(plan.obstacles.iter().cloned());
    if !fatal.is_empty() {
        return Err(Refusal::new(fatal));
    }
    let mut failures = preflight::launcher(host, plan, own, program, domain, privilege)?;
    if options.preflight != Some(Preflight::Off) {
        let refused = preflight::guest(host, plan)?;
        if options.preflight == Some(Preflight::Warn) {
            for failure in refused {
                say(format_args!("warning: {failure}"));
            }
        } else {
            failures.extend(refused);
        }
    }
    Ok(failures)
}
