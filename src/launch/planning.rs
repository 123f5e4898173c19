//! From the words of a command line to the plan of a launch, on this host: what `launch` and the
//! dry run have in common. Changes nothing.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};

use crate::cli::{Launch, Preflight};
use crate::host::pinned::Kind;
use crate::host::runtime_dir;
use crate::host::sysfs::SysRoot;
use crate::host::{Files, Host, Policy, ProcessLabels, Processes, RealHost};
use crate::launch::exec::Command;
use crate::launch::settings;
use crate::model::label::{Context, Level};
use crate::plan::collect::{self};
use crate::plan::create;
use crate::plan::decide::Running;
use crate::plan::in_use;
use crate::plan::preflight;
use crate::plan::resource::DeferredHeader;
use crate::plan::resource::{CollectContext, Collected, Resource};
use crate::plan::step::{Decision, Plan, Relabel};
use crate::plan::unlabelled_fs;
use crate::plan::{self};
use crate::qemu::{self, Invocation, RunMode};
use crate::seclabel::domain::{self, Accelerator};
use crate::seclabel::labels::GuestLabels;
use crate::seclabel::mcs;
use crate::selinux::Mode;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse};
use crate::text::progress::Steps;

/// What `-netdev bridge` runs.
const BRIDGE_HELPER: &str = "qemu-bridge-helper";

/// What a launch and a plan have in common.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the line says.
    pub invocation: Invocation,
    /// What is not known stops the launch.
    pub strict: bool,
    /// QEMU's working directory.
    pub cwd: PathBuf,
    /// The one that QEMU will get to use.
    pub accelerator: Accelerator,
    /// What the guest is called, where somebody has given it a name.
    pub name: Option<String>,
    /// `--label-tree`: directories that are handed over.
    pub trees: Vec<PathBuf>,
    /// `--runtime-dir`: the guest's own directory.
    pub directory: Option<runtime_dir::Directory>,
}

/// Reads a command line, and the config files that are part of it.
///
/// # Errors
/// Where a config file cannot be read.
pub fn read(
    host: &dyn Files,
    command: &Command,
    options: &Launch,
    environment: &[CString],
) -> Result<Reading, Refusal> {
    let cwd = std::env::current_dir().map_err(|error| {
        refuse(format!(
            "cannot tell the working directory, from where relative names count: {error}"
        ))
    })?;
    let mut configs = BTreeMap::new();
    let mut missing = Vec::new();
    for config in qemu::config_files(&command.args) {
        match read_text(host, &cwd.join(&config.path), u64::MAX) {
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
    let name = options.name.clone().or_else(|| {
        let name = invocation.name.as_ref()?;
        Some(name.to_string_lossy().into_owned())
    });
    let directory = if options.runtime_dir && invocation.run_mode == RunMode::Guest {
        let run_as = invocation
            .run_as
            .as_ref()
            .map(|user| user.to_string_lossy());
        Some(runtime_dir::Directory::new(name.as_deref(), run_as.as_deref()).map_err(refuse)?)
    } else {
        None
    };
    Ok(Reading {
        invocation,
        strict: options.strict,
        cwd,
        accelerator,
        name,
        trees: options.label_tree.clone(),
        directory,
    })
}

/// The text of a config file, up to so many bytes. What is no regular file (a pipe of the shell's) is the caller's, open
/// already, and not for the domain that opens images.
pub(crate) fn read_text(host: &dyn Files, path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let pinned = host.pin(path)?;
    let file = if pinned.kind == Kind::File {
        host.open(&pinned)?
    } else {
        fs::File::open(path)?
    };
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
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
///
/// # Errors
/// Where the program has no absolute name.
pub fn look(
    host: &dyn Host,
    command: &Command,
    reading: &mut Reading,
) -> Result<Collected, Refusal> {
    let program = std::path::absolute(&command.program)?;
    Ok(collect::collect(
        host,
        std::mem::take(&mut reading.invocation.requests),
        &reading.trees,
        &CollectContext {
            cwd: &reading.cwd,
            program: &program,
            data_dirs: &reading.invocation.data_dirs,
            system: &SysRoot::host(),
        },
    ))
}

/// What [`plan::decide`] says, and what this host does of devices in use and files that cannot be
/// labelled.
///
/// `processes` are those of a time after the resources were collected: who has labelled one of them by
/// then is among them. None are needed where no resource carries a cage.
pub fn decide(
    host: &RealHost,
    collected: Collected,
    labels: Option<&GuestLabels>,
    relabel: Relabel,
    processes: &[ProcessLabels],
) -> Decision {
    let mut decision = plan::decide(
        host,
        collected,
        labels,
        relabel,
        &Running {
            processes,
            name_of: &|pid| host.guest_name(pid),
        },
    );
    let Decision {
        steps,
        warnings,
        obstacles,
        ..
    } = &mut decision;
    obstacles.append(&mut in_use::by_host(&SysRoot::host(), steps));
    if labels.is_some() {
        let mut fixed = unlabelled_fs::leave_alone(host, &SysRoot::host(), steps);
        warnings.append(&mut fixed.warnings);
        obstacles.append(&mut fixed.obstacles);
    }
    decision
}

/// The decision. With labels where the host can give some.
///
/// # Errors
/// Where the policy cannot be asked, or the program has no absolute name.
pub fn make_plan(
    host: &RealHost,
    command: &Command,
    reading: Reading,
    mut collected: Collected,
    labels: Option<GuestLabels>,
    relabel: Relabel,
    processes: &[ProcessLabels],
) -> Result<Plan, Refusal> {
    let Reading {
        invocation,
        strict,
        accelerator,
        directory,
        ..
    } = reading;
    let own = directory.map(|directory| directory.path(Uid::effective()));
    if let Some(own) = &own {
        collected.empty(own);
    }
    let program = std::path::absolute(&command.program)?;
    let Decision {
        mut steps,
        mut warnings,
        mut errors,
        obstacles,
    } = decide(host, collected, labels.as_ref(), relabel, processes);
    if let Some(own) = &own {
        plan::decide::leave_to_qemu(&mut steps, own, labels.as_ref());
    }
    warnings.append(&mut create::open_sockets(host, &steps, labels.as_ref())?);
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
        becomes: invocation.run_as,
        runtime: own,
        steps,
        warnings,
        errors,
        obstacles,
    })
}

/// Whether labels are set.
pub fn relabelling(options: &Launch) -> Relabel {
    if options.no_relabel {
        Relabel::No
    } else {
        Relabel::Yes
    }
}

/// Whose content is made private.
pub fn private_to(options: &Launch) -> Option<u32> {
    options.private_content.then(|| Uid::effective().as_raw())
}

/// The level that `--level` or `--label` states, at which a guest of `own` may run.
///
/// # Errors
/// Where it is none for a guest.
pub fn chosen_level(options: &Launch, own: &Context) -> Result<Option<Level>, mcs::PairError> {
    match (&options.label, &options.level) {
        (Some(label), _) => mcs::chosen(own, label).map(Some),
        (None, Some(level)) => mcs::chosen(own, &own.at(level.clone())).map(Some),
        (None, None) => Ok(None),
    }
}

/// The plan of a launch, which changes nothing: also not which pairs are claimed.
///
/// # Errors
/// Where the line cannot be read at all.
pub fn plan(options: &Launch, environment: &[CString]) -> Result<Plan, Refusal> {
    let host = RealHost::new()?;
    let options = &settings::complete(options, &host, environment)?;
    let step = Steps::new(options.verbose);
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
    let mut reading = read(&host, &command, options, environment)?;
    step.tell(format_args!(
        "read the command line: {} resources named",
        reading.invocation.requests.len()
    ));
    // Every resource is held open while the plan is made.
    sys::raise_descriptor_limit();
    let mut collected = look(&host, &command, &mut reading)?;
    chains_unknown(&mut collected);
    step.tell(format_args!("looked at what it names"));
    let mut problems = Vec::new();
    let mut labels = None;
    let mut processes = Vec::new();
    if host.mode() != Mode::Disabled && reading.invocation.run_mode == RunMode::Guest {
        let mut planned = || -> Result<GuestLabels, Refusal> {
            processes = host.processes()?;
            let own = host.own_context()?;
            let chosen = chosen_level(options, &own)?;
            let stated = options.label.as_ref();
            let types = domain::guest_types(&host, &own, reading.accelerator, stated)?;
            let level = match chosen {
                Some(level) => level,
                None => {
                    let range = mcs::range(&own, options.mcs_range)?;
                    let pair = mcs::draw(&range, &mcs::taken(&processes))?;
                    Level::with_pair(own.sensitivity(), pair)
                }
            };
            Ok(GuestLabels::new(&types, level).private_to(private_to(options)))
        };
        match planned() {
            Ok(planned) => labels = Some(planned),
            Err(refusal) => problems = refusal.messages,
        }
    }
    let chosen = options.level.is_some() || options.label.is_some();
    if let Some(labels) = labels.as_ref().filter(|_| chosen && !options.share_level) {
        let held = mcs::unheld(&labels.process, &processes);
        problems.extend(held.err().map(|error| error.to_string()));
    }
    let mut plan = make_plan(
        &host,
        &command,
        reading,
        collected,
        labels,
        relabelling(options),
        &processes,
    )?;
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

/// Says of every block device whose header cannot be read that its chain is unknown.
pub fn chains_unknown(collected: &mut Collected) {
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
///
/// # Errors
/// Where the host's processes cannot be listed.
pub fn behind_devices(
    host: &RealHost,
    plan: &Plan,
    unread: Vec<DeferredHeader>,
    cwd: &Path,
) -> Result<Plan, Refusal> {
    let known: Vec<&Resource> = plan.steps.iter().map(|step| &step.resource).collect();
    let around = CollectContext {
        cwd,
        program: &plan.program,
        data_dirs: &[],
        system: &SysRoot::host(),
    };
    let collected = collect::behind_devices(host, unread, &known, &around);
    let Decision {
        steps,
        warnings,
        errors,
        obstacles,
    } = decide(
        host,
        collected,
        plan.labels.as_ref(),
        Relabel::Yes,
        &host.processes()?,
    );
    Ok(Plan {
        program: plan.program.clone(),
        accelerator: plan.accelerator,
        labels: plan.labels.clone(),
        becomes: None,
        runtime: plan.runtime.clone(),
        steps,
        warnings,
        errors,
        obstacles,
    })
}
