//! The launch, in the order in which it happens:
//!
//! 1. find QEMU, read its command line, look at what it names;
//! 2. choose the domain, claim a pair, decide every label;
//! 3. ask the policy about everything that will be done, and stop at the first
//!    doubt, with all of them: nothing has changed so far;
//! 4. write the original labels down, start the keeper that will put them back;
//! 5. make files, set labels, read each one back;
//! 6. make inherited pipes usable for the guest;
//! 7. become QEMU. The claim of step 2 is what the kernel applies now.
//!
//! Where step 5, 6 or 7 fails the keeper undoes it before this process ends.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::{AccessFlags, Pid, Uid, access};

use crate::apply;
use crate::cli::{Launch, Preflight};
use crate::collect::{self, Collected, Resource, Surroundings, quoted};
use crate::command::Command;
use crate::devices::Below;
use crate::domain::{self, Accelerator};
use crate::fds;
use crate::headers::Unread;
use crate::host::{Host, Pinned, RealHost};
use crate::journal::Journal;
use crate::keeper::{self, Keeper};
use crate::label::{Categories, Context, Level};
use crate::mcs;
use crate::plan::{self, Action, GuestLabels, Plan, Relabel};
use crate::preflight::{self, Privilege};
use crate::qemu::{self, Invocation, Purpose};
use crate::refusal::{Refusal, refuse, say};
use crate::selinux::Mode;
use crate::sys;

/// The launcher's own domain, of the svirt_launcher module.
const OWN_DOMAIN: &str = "svirt_launcher_t";

/// What `-netdev bridge` runs.
const BRIDGE_HELPER: &str = "qemu-bridge-helper";

/// The domain of lines that start no guest (`-version`, capability probes).
const INFO_DOMAIN: &str = "svirt_launcher_info_t";

/// What a launch and a plan have in common.
struct Reading {
    invocation: Invocation,
    /// What is not known stops the launch.
    strict: bool,
    cwd: PathBuf,
    accelerator: Accelerator,
}

fn read(command: &Command, options: &Launch, environment: &[CString]) -> Result<Reading, Refusal> {
    let cwd = std::env::current_dir().map_err(|error| {
        refuse(format!(
            "cannot tell the working directory, from where relative names count: {error}"
        ))
    })?;
    let mut configs = BTreeMap::new();
    let mut missing = Vec::new();
    for config in qemu::config_files(&command.args) {
        match fs::read(cwd.join(&config.path)) {
            Ok(text) => {
                configs.insert(config.path, text);
            }
            Err(error) if config.required || error.kind() != io::ErrorKind::NotFound => {
                missing.push(format!(
                    "cannot read {}, which the command line is made of (word {}): {error}",
                    quoted(&config.path),
                    config.word
                ));
            }
            Err(_) => {}
        }
    }
    if !missing.is_empty() {
        return Err(Refusal::new(missing));
    }
    let invocation = qemu::parse(
        &command.word,
        &command.args,
        &configs,
        &qemu::Environment {
            tmpdir: sys::variable(environment, "TMPDIR"),
            xdg_runtime_dir: sys::variable(environment, "XDG_RUNTIME_DIR"),
            ..qemu_as_built()
        },
    );
    let accelerator = accelerator(&invocation);
    let strict = options.strict
        || sys::variable(environment, "SVIRT_EXEC_STRICT").is_some_and(|value| value == "1");
    Ok(Reading {
        invocation,
        strict,
        cwd,
        accelerator,
    })
}

/// Where this host's builds of QEMU have their helpers.
fn qemu_as_built() -> qemu::Environment {
    let default = qemu::Environment::default();
    if Path::new(&default.helper_dir).join(BRIDGE_HELPER).exists() {
        return default;
    }
    qemu::Environment {
        helper_dir: "/usr/libexec".into(),
        ..default
    }
}

/// The accelerator that QEMU will get to use: the first of its list that works.
fn accelerator(invocation: &Invocation) -> Accelerator {
    let device = invocation
        .kvm_device
        .as_deref()
        .unwrap_or(OsStr::new("/dev/kvm"));
    let mut rest = invocation.accelerators.iter().peekable();
    while let Some(next) = rest.next() {
        match next {
            qemu::Accelerator::Tcg => return Accelerator::Tcg,
            qemu::Accelerator::Kvm => {
                let usable = access(device, AccessFlags::R_OK | AccessFlags::W_OK).is_ok();
                if usable || rest.peek().is_none() {
                    return Accelerator::Kvm;
                }
            }
            qemu::Accelerator::Other(_) => return Accelerator::None,
        }
    }
    Accelerator::None
}

fn messages(diagnostics: &[qemu::Diagnostic]) -> Vec<String> {
    diagnostics
        .iter()
        .map(|d| format!("word {}, {}: {}", d.word, d.option, d.message))
        .collect()
}

/// Looks at everything that the line names.
fn look(host: &dyn Host, command: &Command, reading: &mut Reading) -> Result<Collected, Refusal> {
    let program = std::path::absolute(&command.program)?;
    Ok(collect::collect(
        host,
        std::mem::take(&mut reading.invocation.requests),
        &Surroundings {
            cwd: &reading.cwd,
            program: &program,
            data_dirs: &reading.invocation.data_dirs,
            system: &Below::host(),
        },
    ))
}

/// The decision. With labels where the host can give some.
fn make_plan(
    host: &dyn Host,
    command: &Command,
    reading: Reading,
    collected: Collected,
    labels: Option<GuestLabels>,
    relabel: Relabel,
) -> Result<Plan, Refusal> {
    let Reading {
        invocation,
        strict,
        accelerator,
        ..
    } = reading;
    let program = std::path::absolute(&command.program)?;
    let processes = match labels {
        Some(_) => host.processes()?,
        None => Vec::new(),
    };
    let (steps, mut warnings, mut errors, obstacles) =
        plan::decide(host, collected, labels.as_ref(), relabel, &processes);
    let unknown = messages(&invocation.unknown);
    if strict {
        let unknown = unknown.iter().map(|m| format!("{m} (--strict)"));
        errors.splice(0..0, unknown);
    } else {
        warnings.splice(0..0, unknown);
    }
    errors.splice(0..0, messages(&invocation.errors));
    warnings.splice(0..0, messages(&invocation.warnings));
    Ok(Plan {
        program,
        accelerator,
        labels,
        steps,
        warnings,
        errors,
        obstacles,
    })
}

fn relabelling(options: &Launch) -> Relabel {
    if options.no_relabel {
        Relabel::No
    } else {
        Relabel::Yes
    }
}

/// The plan of a launch, which changes nothing: also not which pairs are claimed.
///
/// # Errors
/// Where the line cannot be read at all.
pub fn plan(options: &Launch, environment: &[CString]) -> Result<Plan, Refusal> {
    let path = sys::variable(environment, "PATH");
    let command = match Command::find(&options.qemu, path.as_deref()) {
        Ok(command) => command,
        Err(refusal) if options.qemu.is_empty() => return Err(refusal),
        // A plan can be made on a host that has no QEMU.
        Err(_) => Command {
            program: options.qemu.first().map(PathBuf::from).unwrap_or_default(),
            word: options.qemu.first().cloned().unwrap_or_default(),
            args: options.qemu.get(1..).unwrap_or_default().to_vec(),
        },
    };
    let host = RealHost::new()?;
    let mut reading = read(&command, options, environment)?;
    // Every resource is held open while the plan is made.
    sys::raise_descriptor_limit();
    let mut collected = look(&host, &command, &mut reading)?;
    chains_unknown(&mut collected);
    let mut problems = Vec::new();
    let mut labels = None;
    if host.mode() != Mode::Disabled && reading.invocation.purpose == Purpose::Guest {
        let planned = || -> Result<GuestLabels, Refusal> {
            let own = host.own_context()?;
            let types = domain::guest_types(&host, &own, reading.accelerator)?;
            let level = match &options.level {
                Some(level) => level.clone(),
                None => {
                    let range = mcs::range(&own, options.mcs_range)?;
                    let pair = mcs::draw(&range, &mcs::taken(&host.processes()?))?;
                    Level::with_pair(own.sensitivity(), pair)
                }
            };
            Ok(GuestLabels::new(&types, level))
        };
        match planned() {
            Ok(planned) => labels = Some(planned),
            Err(refusal) => problems = refusal.messages,
        }
    }
    let mut plan = make_plan(
        &host,
        &command,
        reading,
        collected,
        labels,
        relabelling(options),
    )?;
    plan.obstacles.append(&mut problems);
    if options.preflight != Preflight::Off {
        let mut failures = preflight::guest(&host, &plan)?;
        plan.obstacles.append(&mut failures);
    }
    Ok(plan)
}

/// Launches. Returns only when nothing was launched.
///
/// # Errors
/// Every reason not to.
pub fn launch(options: &Launch, environment: &[CString]) -> Result<Infallible, Refusal> {
    let path = sys::variable(environment, "PATH");
    let command = Command::find(&options.qemu, path.as_deref())?;
    let unconfined = options.allow_unconfined
        || sys::variable(environment, "SVIRT_EXEC_UNCONFINED")
            .is_some_and(|value| value == "allow");
    let step = Steps::new(options.verbose);
    let host = RealHost::new()?;
    let mode = host.mode();
    if mode == Mode::Disabled {
        return without_selinux(&host, &command, environment, unconfined);
    }
    let own = host.own_context()?;
    if !own.cage().is_empty() && domain::is_guest(&host, &own) {
        step.tell(format_args!("already confined as {own}"));
        return Err(command.execute(environment));
    }
    check_own_domain(&own, mode)?;
    if mode == Mode::Permissive {
        say(
            "warning: SELinux is permissive on this host: QEMU gets its label, and nothing holds it \
             to that; setenforce 1",
        );
    }
    let program = host.pin(&command.program).map_err(|error| {
        refuse(format!(
            "cannot look at {}: {error}",
            quoted(command.program.as_os_str())
        ))
    })?;
    let privilege = Privilege {
        uid: Uid::effective().as_raw(),
        fowner: caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_FOWNER)
            .unwrap_or(false),
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
    };
    let mut reading = read(&command, options, environment)?;
    step.tell(format_args!(
        "read the command line: {} resources named",
        reading.invocation.requests.len()
    ));
    match reading.invocation.purpose {
        Purpose::Guest => {}
        Purpose::Information | Purpose::Probe => {
            return without_guest(
                &host,
                &command,
                environment,
                &own,
                &program,
                mode,
                privilege,
            );
        }
    }
    clean_up(&host, &own, &step);

    let limit = sys::raise_descriptor_limit();
    let mut collected = look(&host, &command, &mut reading)?;
    if options.no_relabel {
        chains_unknown(&mut collected);
    }
    let unread = std::mem::take(&mut collected.unread);
    let cwd = reading.cwd.clone();
    let types = domain::guest_types(&host, &own, reading.accelerator)?;
    let claim = match &options.level {
        Some(level) => mcs::claim_level(&host, types.domain.at(level.clone()))?,
        None => {
            let range = mcs::range(&own, options.mcs_range)?;
            mcs::claim(&host, &types.domain, &range, &still_carried(&collected))?
        }
    };
    if claim.hidden > 0 || !host.sees_all() {
        say(
            "warning: not all processes of this host show their labels here (hidepid, a PID \
             namespace, or the policy): that nobody else has this guest's categories is not proven",
        );
    }
    let level = Level {
        sensitivity: claim.context.sensitivity().to_owned(),
        categories: claim.context.cage(),
    };
    step.tell(format_args!("claimed {}", claim.context));
    let labels = GuestLabels::new(&types, level);
    let name = options
        .name
        .clone()
        .or_else(|| {
            let name = reading.invocation.name.as_ref()?;
            Some(name.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| Pid::this().to_string());
    let mut plan = make_plan(
        &host,
        &command,
        reading,
        collected,
        Some(labels),
        relabelling(options),
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

    apply::make_files(&host, &mut plan, &own)?;
    let mut keeper = apply::prepare(&host, &plan, &own, &claim.context, &name)?;
    step.tell(format_args!("wrote the journal, started the keeper"));
    let change = || -> Result<(), Refusal> {
        apply::recheck(&host, &plan)?;
        apply::label(&host, &plan)?;
        if let Some(keeper) = keeper.as_mut().filter(|_| !unread.is_empty()) {
            let further = behind_devices(&host, &plan, unread, &cwd)?;
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
            apply::prepare_more(&further, keeper)?;
            apply::recheck(&host, &further)?;
            apply::label(&host, &further)?;
        }
        step.tell(format_args!("set the labels"));
        let replacements = repairs.apply(&host, &own, &claim.context).map_err(refuse)?;
        fds::place(&replacements)?;
        sys::restore_descriptor_limit(limit);
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

/// Says of every block device whose header cannot be read that its chain is unknown.
fn chains_unknown(collected: &mut Collected) {
    for device in collected.unread.drain(..) {
        collected.warnings.push(format!(
            "chain unknown: the header of the device of {} cannot be read with the label and the \
             owner that the device has; a launch reads it once the device has the guest's label, \
             and with --no-relabel the files that it names keep the labels they have",
            device.pending.request.origin
        ));
    }
}

/// The plan for what the headers of block devices name, which can be read now.
fn behind_devices(
    host: &dyn Host,
    plan: &Plan,
    unread: Vec<Unread>,
    cwd: &Path,
) -> Result<Plan, Refusal> {
    let known: Vec<&Resource> = plan.steps.iter().map(|step| &step.resource).collect();
    let around = Surroundings {
        cwd,
        program: &plan.program,
        data_dirs: &[],
        system: &Below::host(),
    };
    let collected = collect::behind_devices(host, unread, &known, &around);
    let labels = plan.labels.as_ref();
    let processes = host.processes()?;
    let (steps, warnings, errors, obstacles) =
        plan::decide(host, collected, labels, Relabel::Yes, &processes);
    Ok(Plan {
        program: plan.program.clone(),
        accelerator: plan.accelerator,
        labels: plan.labels.clone(),
        steps,
        warnings,
        errors,
        obstacles,
    })
}

/// Pairs that files about to be used, or journal entries, still carry: their owners may
/// have ended, and still nobody else shall get them.
fn still_carried(collected: &Collected) -> Vec<Categories> {
    let on_files = collected
        .resources
        .iter()
        .filter_map(|resource| resource.current.as_ref())
        .map(Context::cage);
    let journal = Journal::open().map(|journal| journal.entries().unwrap_or_default());
    let in_entries = journal
        .unwrap_or_default()
        .into_iter()
        .filter_map(|path| Journal::read(&path).ok()?.context.parse::<Context>().ok())
        .map(|context| context.cage());
    on_files.chain(in_entries).collect()
}

/// Has the keeper undo everything, and adds what it could not.
fn roll_back(keeper: Option<Keeper>, mut refusal: Refusal) -> Refusal {
    if let Some(keeper) = keeper
        && let Err(error) = keeper.undo()
    {
        refusal.messages.push(format!(
            "cannot put all labels back: {error}; svirt-exec restore tries again"
        ));
    }
    refusal
}

/// Says what each step did and when, with `-v`.
struct Steps {
    since: Option<Instant>,
}

impl Steps {
    fn new(verbose: bool) -> Self {
        Self {
            since: verbose.then(Instant::now),
        }
    }

    fn tell(&self, what: fmt::Arguments<'_>) {
        if let Some(since) = self.since {
            say(format_args!(
                "{:6.1} ms  {what}",
                since.elapsed().as_secs_f64() * 1e3
            ));
        }
    }
}

/// No SELinux: nothing can be confined, and only a caller who says so gets QEMU.
fn without_selinux(
    host: &RealHost,
    command: &Command,
    environment: &[CString],
    allowed: bool,
) -> Result<Infallible, Refusal> {
    // A container hides selinuxfs; the process is labelled all the same.
    let hidden = host
        .read_proc("self/attr/current")
        .is_ok_and(|label| label.trim_end_matches('\0').matches(':').count() >= 2);
    if hidden {
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

/// The launcher must run in its own domain: an automatic transition that
/// no_new_privs or a nosuid mount forbids falls away silently.
fn check_own_domain(own: &Context, mode: Mode) -> Result<(), Refusal> {
    if own.kind == OWN_DOMAIN {
        return Ok(());
    }
    let message = format!(
        "svirt-exec itself runs as {}, not in {OWN_DOMAIN}: load the policy module (semodule -i \
         svirt_launcher.cil), label the program (restorecon {}), and start it without \
         NoNewPrivileges from a domain that may (root login, systemd service, cron)",
        own.short(),
        std::env::current_exe().map_or_else(
            |_| "/usr/bin/svirt-exec".to_owned(),
            |exe| exe.display().to_string()
        )
    );
    if mode == Mode::Enforcing {
        return Err(refuse(message));
    }
    say(format_args!("warning: {message}"));
    Ok(())
}

/// A line that starts no guest: no pair, no labels, a domain that may open next to nothing.
fn without_guest(
    host: &RealHost,
    command: &Command,
    environment: &[CString],
    own: &Context,
    program: &Pinned,
    mode: Mode,
    privilege: Privilege,
) -> Result<Infallible, Refusal> {
    let domain = own.with_type(INFO_DOMAIN);
    let mut failures = preflight::entry(host, own, program, &domain, privilege)?;
    let mut repairs = fds::inspect(host, &domain)?;
    failures.append(&mut repairs.failures);
    stop_or_warn(failures, mode)?;
    host.claim(&domain).map_err(|error| {
        refuse(format!(
            "cannot ask the kernel for '{domain}' at the next execve: {error}"
        ))
    })?;
    let replacements = repairs.apply(host, own, &domain).map_err(refuse)?;
    fds::place(&replacements)?;
    Err(command.execute(environment))
}

fn stop_or_warn(failures: Vec<String>, mode: Mode) -> Result<(), Refusal> {
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
fn clean_up(host: &RealHost, own: &Context, step: &Steps) {
    let Ok(journal) = Journal::open() else { return };
    let left = journal.entries().unwrap_or_default().iter().any(|path| {
        Journal::read(path).is_ok_and(|entry| {
            keeper::start_time(host, entry.pid).is_none_or(|started| started != entry.started)
        })
    });
    if !left {
        return;
    }
    step.tell(format_args!("putting back what ended guests left"));
    // What is not back now, because another guest uses it, is a later command's.
    if let Err(error) = keeper::restore_ended(own) {
        step.tell(format_args!("{error}"));
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
    if options.preflight != Preflight::Off {
        let refused = preflight::guest(host, plan)?;
        if options.preflight == Preflight::Warn {
            for failure in refused {
                say(format_args!("warning: {failure}"));
            }
        } else {
            failures.extend(refused);
        }
    }
    Ok(failures)
}
