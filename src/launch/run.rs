//! The launch, in the order in which it happens:
//!
//! 1. find QEMU, read its command line, look at what it names;
//! 2. choose the domain, claim a pair, decide every label;
//! 3. ask the policy about everything that will be done, and stop at the first doubt, with all of them:
//!    nothing has changed so far;
//! 4. write the original labels down, and give them to the keeper that will put them back. It has locked
//!    every file by then, and found nobody else with that pair;
//! 5. make files, set labels, read each one back;
//! 6. make inherited pipes usable for the guest;
//! 7. become QEMU. The claim of step 2 is what the kernel applies now.
//!
//! If step 5, 6 or 7 fails the keeper undoes it before this process ends.

use std::convert::Infallible;
use std::ffi::CString;

use crate::cli::Launch;
use crate::host::pinned::Pinned;
use crate::host::{Files, Policy, RealHost};
use crate::launch::apply;
use crate::launch::exec::QemuProgram;
use crate::launch::inherited_fds;
use crate::launch::planning;
use crate::launch::prepare::{Launcher, Prepared, privilege, say_all, start_keeper, stop_or_warn};
use crate::launch::settings;
use crate::model::label::Context;
use crate::plan::preflight;
use crate::plan::step::{Action, Step};
use crate::qemu::RunMode;
use crate::restore::command;
use crate::restore::entry_lock;
use crate::restore::journal::Journal;
use crate::restore::journals;
use crate::restore::liveness;
use crate::seclabel::domain;
use crate::seclabel::mcs;
use crate::seclabel::own_domain;
use crate::selinux::Mode;
use crate::selinux::names::INFO_DOMAIN;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Message, Refusal, joined, refuse, say};
use crate::text::progress::Steps;

/// Launches. Returns only if nothing was launched.
///
/// # Errors
/// Every reason not to.
pub fn launch(options: &Launch, environment: &[CString]) -> Result<Infallible, Refusal> {
    let host = RealHost::new()?;
    let options = &settings::complete(options, &host, environment)?;
    let path = sys::variable(environment, "PATH");
    let program = QemuProgram::find(&options.qemu, path.as_deref())?;
    let step = Steps::new(options.verbose);
    // Before anything else: a guest's domain may ask SELinux nothing.
    let own = host.own_context();
    if let Ok(own) = &own
        && domain::is_confined_guest(&host, own)
    {
        step.tell(format_args!("already confined as {own}"));
        return Err(program.execute(environment));
    }
    let mode = host.mode();
    if mode == Mode::Disabled {
        return without_selinux(&host, &program, options, environment);
    }
    let own = own?;
    own_domain::check(&own, mode)?;
    if mode == Mode::Permissive {
        say(
            "warning: SELinux is permissive on this host: QEMU gets its label, and nothing holds it \
             to that; setenforce 1",
        );
    }
    let reading = planning::read(&host, &program, options, environment)?;
    step.tell(format_args!(
        "read the command line: {} resources named",
        reading.invocation.requests.len()
    ));
    match reading.invocation.run_mode {
        RunMode::Guest => {}
        RunMode::Information | RunMode::Probe => {
            return without_guest(&host, &program, environment, &own, mode);
        }
    }
    let starting = start_keeper(&own)?;
    let pinned = pin(&host, &program)?;
    let journal = journals::open();
    if journal.is_ok() {
        restore_ended(&host, &own, &step);
    }
    let limits = sys::raise_descriptor_limit();
    let launcher = Launcher {
        host: &host,
        program: &program,
        options,
        own: &own,
        pinned: &pinned,
        privilege: privilege(),
        mode,
        journal: &journal,
        step: &step,
    };
    let mut prepared = launcher.prepare(&reading, starting)?;
    let refusal = launcher.become_qemu(&mut prepared, limits, environment);
    Err(apply::roll_back(prepared.keeper, refusal))
}

impl Launcher<'_> {
    /// Makes every change and becomes QEMU. Returns why not.
    fn become_qemu(
        &self,
        prepared: &mut Prepared,
        limits: Option<(u64, u64)>,
        environment: &[CString],
    ) -> Refusal {
        match self.change(prepared, limits) {
            Ok(()) => {
                let program = quoted(self.program.path.as_os_str());
                self.step.tell(format_args!("becoming {program}"));
                self.program.execute(environment)
            }
            Err(refusal) => refusal,
        }
    }

    /// Makes files, sets labels and makes inherited pipes usable. `limits` are those of open files, soft
    /// and hard, that QEMU is to have.
    fn change(&self, prepared: &mut Prepared, limits: Option<(u64, u64)>) -> Result<(), Refusal> {
        let (host, step) = (self.host, self.step);
        let made = apply::make_files(host, &mut prepared.plan, self.own)?;
        if let Some(keeper) = prepared.keeper.as_mut() {
            apply::prepare_more(made, keeper, "what was made for QEMU")?;
        }
        apply::check_unchanged(host, &prepared.plan)?;
        apply::set_labels(host, &prepared.plan)?;
        self.label_device_chains(prepared)?;
        if step.are_told() {
            for (path, label) in prepared.plan.steps.iter().filter_map(labelled) {
                step.tell(format_args!("{path} has {label}"));
            }
        }
        step.tell(format_args!("set the labels"));
        prepared.chains.remember(&prepared.remembered)?;
        let repairs = std::mem::take(&mut prepared.repairs);
        let replacements = repairs.apply(host, self.own, &prepared.context)?;
        inherited_fds::place(&replacements)?;
        sys::restore_descriptor_limit(limits);
        if self.options.no_restore
            && let Some(keeper) = prepared.keeper.as_mut()
        {
            keeper.leave().map_err(|error| {
                refuse(format!(
                    "cannot leave the labels as they are (--no-restore): {error}"
                ))
            })?;
        }
        Ok(())
    }

    /// Labels what the headers of block devices name, which can be read now.
    fn label_device_chains(&self, prepared: &mut Prepared) -> Result<(), Refusal> {
        let host = self.host;
        let deferred = std::mem::take(&mut prepared.deferred);
        let Some(keeper) = prepared.keeper.as_mut().filter(|_| !deferred.is_empty()) else {
            return Ok(());
        };
        let (further, mut remembered) = planning::plan_device_chains(
            host,
            &prepared.plan,
            deferred,
            &prepared.cwd,
            &prepared.chains,
        )?;
        prepared.remembered.append(&mut remembered);
        say_all(&further);
        stop_or_warn(self.failures(&further, &prepared.context)?, self.mode)?;
        let more = apply::records(&further.steps);
        apply::prepare_more(more, keeper, "what a disk's header names")?;
        apply::check_unchanged(host, &further)?;
        apply::set_labels(host, &further)
    }
}

/// Returns the name of a resource that gets a label, and the label.
fn labelled(step: &Step) -> Option<(String, &Context)> {
    let label = step
        .label
        .as_ref()
        .filter(|_| step.action == Action::Relabel)?;
    Some((step.resource.name(), label))
}

/// Launches without SELinux: nothing can be confined, and only a caller who says so gets QEMU.
fn without_selinux(
    host: &RealHost,
    program: &QemuProgram,
    options: &Launch,
    environment: &[CString],
) -> Result<Infallible, Refusal> {
    if own_domain::hides_selinux(host.procfs()) {
        return Err(refuse(Message::new(
            "cannot confine QEMU: this process has an SELinux label, but selinuxfs is not visible here (a \
             container hides it)",
            "run svirt-exec outside the container, or mount /sys/fs/selinux into it",
        )));
    }
    let allowed = options.allow_unconfined
        || sys::variable(environment, "SVIRT_EXEC_UNCONFINED")
            .is_some_and(|value| value == "allow");
    if !allowed {
        return Err(refuse(Message::new(
            "cannot confine QEMU: SELinux is off on this host",
            "boot with selinux=1 security=selinux, or run QEMU without confinement: --allow-unconfined, \
             or SVIRT_EXEC_UNCONFINED=allow",
        )));
    }
    say("WARNING: SELinux is off on this host: QEMU runs WITHOUT confinement (--allow-unconfined)");
    Err(program.execute(environment))
}

/// Opens the program once.
fn pin(host: &RealHost, program: &QemuProgram) -> Result<Pinned, Refusal> {
    host.pin(&program.path).map_err(|error| {
        refuse(format!(
            "cannot look at {}: {error}",
            quoted(program.path.as_os_str())
        ))
    })
}

/// Launches a line that starts no guest: no pair, no labels, a domain that may open next to nothing.
fn without_guest(
    host: &RealHost,
    program: &QemuProgram,
    environment: &[CString],
    own: &Context,
    mode: Mode,
) -> Result<Infallible, Refusal> {
    let domain = own.with_type(INFO_DOMAIN);
    let entry = || -> Result<Vec<Message>, Refusal> {
        let pinned = pin(host, program)?;
        Ok(preflight::entry(host, own, &pinned, &domain, privilege())?)
    };
    let mut repairs = inherited_fds::inspect(host, &domain)?;
    let mut failures = std::mem::take(&mut repairs.failures);
    // Nothing is changed for such a line, so the kernel may be the first to say no.
    if mode == Mode::Permissive {
        failures.append(&mut entry()?);
    }
    stop_or_warn(failures, mode)?;
    mcs::enter_next(host, &domain)?;
    let replacements = repairs.apply(host, own, &domain)?;
    inherited_fds::place(&replacements)?;
    let refusal = program.execute(environment);
    if mode == Mode::Enforcing {
        let why = entry().unwrap_or_default();
        if !why.is_empty() {
            return Err(Refusal::new(why));
        }
    }
    Err(refusal)
}

/// Puts back first what guests left that ended without a keeper.
fn restore_ended(host: &RealHost, own: &Context, step: &Steps) {
    let is_left = |journal: &Journal| {
        let paths = journal.entries().unwrap_or_default();
        paths
            .iter()
            .filter(|path| !entry_lock::is_locked(journal, path))
            .filter_map(|path| journal.read(path).ok())
            .any(|entry| !liveness::runs(host.procfs(), &entry))
    };
    if !journals::own().unwrap_or_default().iter().any(is_left) {
        return;
    }
    step.tell(format_args!("putting back what ended guests left"));
    // What is not back now, because another guest uses it, is a later command's.
    let done = command::restore(own, &[], &command::Scope::default(), &mut |line| {
        step.tell(format_args!("{line}"))
    });
    if let Err(refusal) = done {
        step.tell(format_args!("{}", joined(&refusal.messages)));
    }
}
