//! From the words of a command line to the plan of a launch, on this host: what a launch and the dry run
//! have in common. Changes nothing.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid, access};

use crate::cli::Launch;
use crate::host::runtime_dir;
use crate::host::sysfs::SysRoot;
use crate::host::{Files, Host, ProcessLabels, Processes, RealHost};
use crate::launch::chains::Chains;
use crate::launch::config_text::read_text;
use crate::launch::exec::QemuProgram;
use crate::model::chain::{Chain, DiskKey};
use crate::model::label::{Context, Level};
use crate::plan::collect;
use crate::plan::create;
use crate::plan::decide::{self, Running};
use crate::plan::in_use;
use crate::plan::resource::{CollectContext, Collected, DeferredHeader, Resource};
use crate::plan::step::{Decision, Plan, Relabel};
use crate::plan::unlabelled_fs;
use crate::qemu::{self, Invocation, RunMode};
use crate::seclabel::domain::Accelerator;
use crate::seclabel::labels::GuestLabels;
use crate::seclabel::mcs;
use crate::seclabel::pair_error::LevelError;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Message, Refusal, refuse, say};

/// What `-netdev bridge` runs.
const BRIDGE_HELPER: &str = "qemu-bridge-helper";

/// A command line that was read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the line says.
    pub invocation: Invocation,
    /// Whether what is not known stops the launch.
    pub strict: bool,
    /// QEMU's working directory.
    pub cwd: PathBuf,
    /// The accelerator that QEMU will get to use.
    pub accelerator: Accelerator,
    /// What the guest is called, if somebody has given it a name.
    pub name: Option<String>,
    /// `--label-tree`: directories that are handed over.
    pub trees: Vec<PathBuf>,
    /// `--runtime-dir`: the guest's own directory.
    pub directory: Option<runtime_dir::Directory>,
}

/// Reads a command line, and the config files that are part of it.
///
/// # Errors
/// Config files that cannot be read, and a guest that cannot have a directory of its own.
pub fn read(
    files: &dyn Files,
    program: &QemuProgram,
    options: &Launch,
    environment: &[CString],
) -> Result<Reading, Refusal> {
    let cwd = std::env::current_dir().map_err(|error| {
        refuse(format!(
            "cannot tell the working directory, from where relative names count: {error}"
        ))
    })?;
    let configs = read_configs(files, program, &cwd)?;
    let invocation = qemu::parse(
        &program.word,
        &program.args,
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
        let login = sys::variable(environment, "LOGNAME");
        let directory =
            runtime_dir::Directory::new(name.as_deref(), run_as.as_deref(), login.as_deref())?;
        if let Some(where_it_is) = directory.displaced() {
            say(format_args!("warning: {where_it_is}"));
        }
        Some(directory)
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

/// Reads the config files that a line is made of, by their names.
fn read_configs(
    files: &dyn Files,
    program: &QemuProgram,
    cwd: &Path,
) -> Result<BTreeMap<std::ffi::OsString, Vec<u8>>, Refusal> {
    let mut configs = BTreeMap::new();
    let mut missing: Vec<Message> = Vec::new();
    for config in qemu::config_files(&program.args) {
        match read_text(files, &cwd.join(&config.path), u64::MAX) {
            Ok(text) => {
                configs.insert(config.path, text);
            }
            Err(error) if config.required || error.kind() != io::ErrorKind::NotFound => {
                missing.push(
                    format!(
                        "cannot read {}, which the command line is made of (word {}): {error}",
                        quoted(&config.path),
                        config.word
                    )
                    .into(),
                );
            }
            Err(_) => {}
        }
    }
    if missing.is_empty() {
        Ok(configs)
    } else {
        Err(Refusal::new(missing))
    }
}

/// Returns where this host's builds of QEMU have their helpers.
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

/// Returns the accelerator that QEMU will get to use: the first of its list that works.
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

fn messages(diagnostics: &[qemu::Diagnostic]) -> Vec<Message> {
    diagnostics
        .iter()
        .map(|d| format!("word {}, {}: {}", d.word, d.option, d.message).into())
        .collect()
}

/// Looks at everything that the line names.
///
/// # Errors
/// A program without an absolute name.
pub fn collect_resources(
    host: &dyn Host,
    program: &QemuProgram,
    reading: &mut Reading,
) -> Result<Collected, Refusal> {
    Ok(collect::collect(
        host,
        std::mem::take(&mut reading.invocation.requests),
        &reading.trees,
        &CollectContext {
            cwd: &reading.cwd,
            program: &std::path::absolute(&program.path)?,
            data_dirs: &reading.invocation.data_dirs,
            system: &SysRoot::host(),
        },
    ))
}

/// Decides for every resource as [`decide::decide`] does, and adds what this host says of devices in use
/// and of files that cannot be labelled.
///
/// `processes` are those of a time after the resources were collected: whoever has labelled one of them
/// by then is among them. None are needed if no resource carries categories.
pub fn decide_labels(
    host: &RealHost,
    collected: Collected,
    labels: Option<&GuestLabels>,
    relabel: Relabel,
    processes: &[ProcessLabels],
) -> Decision {
    let running = Running {
        processes,
        name_of: &|pid| host.guest_name(pid),
    };
    let mut decision = decide::decide(host, collected, labels, relabel, &running);
    let Decision {
        steps,
        warnings,
        obstacles,
        ..
    } = &mut decision;
    obstacles.append(&mut in_use::by_host(&SysRoot::host(), steps));
    if labels.is_some() {
        let mut fixed = unlabelled_fs::keep_labels(host, &SysRoot::host(), steps);
        warnings.append(&mut fixed.warnings);
        obstacles.append(&mut fixed.obstacles);
    }
    decision
}

/// Makes the plan, with labels if the host can give some.
///
/// # Errors
/// A policy that cannot be asked, and a program without an absolute name.
pub fn make_plan(
    host: &RealHost,
    program: &QemuProgram,
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
    let program = std::path::absolute(&program.path)?;
    let Decision {
        mut steps,
        mut warnings,
        mut errors,
        obstacles,
    } = decide_labels(host, collected, labels.as_ref(), relabel, processes);
    if let Some(own) = &own {
        decide::leave_to_qemu(&mut steps, own, labels.as_ref());
    }
    warnings.append(&mut create::open_sockets(host, &steps, labels.as_ref())?);
    let unknown = messages(&invocation.unknown);
    if strict {
        let unknown = unknown
            .iter()
            .map(|message| format!("{message} (--strict)").into());
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
        chroots: invocation.chroots,
        runtime: own,
        steps,
        notes: Vec::new(),
        warnings,
        errors,
        obstacles,
    })
}

/// Tells whether labels are set.
pub fn relabelling(options: &Launch) -> Relabel {
    if options.no_relabel {
        Relabel::No
    } else {
        Relabel::Yes
    }
}

/// Returns the user whose content is made private.
pub fn private_to(options: &Launch) -> Option<u32> {
    options.private_content.then(|| Uid::effective().as_raw())
}

/// Returns the level that `--level` or `--label` states, at which a guest of `own` may run.
///
/// # Errors
/// A level that is none for a guest, and one with more than two categories, unless root chose it or sharing it
/// is meant.
pub fn chosen_level(options: &Launch, own: &Context) -> Result<Option<Level>, LevelError> {
    let level = match (&options.label, &options.level) {
        (Some(label), _) => mcs::chosen(own, label)?,
        (None, Some(level)) => mcs::chosen(own, &own.at(level.clone()))?,
        (None, None) => return Ok(None),
    };
    if level.categories.len() > 2 && !options.share_level && !Uid::effective().is_root() {
        return Err(LevelError::TooWide(level.to_string()));
    }
    Ok(Some(level))
}

/// Warns of every block device whose header cannot be read that its backing chain is unknown.
pub fn warn_of_unread_headers(collected: &mut Collected) {
    for device in collected.deferred.drain(..) {
        collected.warnings.push(Message::new(
            format!(
                "chain unknown: the header of the device of {} cannot be read with the label and the \
                 owner that the device has",
                device.pending.request.origin
            ),
            "a launch reads it once the device has the guest's label, and with --no-relabel the files \
             that it names keep the labels they have",
        ));
    }
}

/// Makes the plan for what the headers of block devices name, which can be read now. Returns also what is to
/// be remembered of them.
///
/// # Errors
/// Headers that name what they did not when a guest had them last, and those of listing the host's processes.
pub fn plan_device_chains(
    host: &RealHost,
    plan: &Plan,
    deferred: Vec<DeferredHeader>,
    cwd: &Path,
    chains: &Chains,
) -> Result<(Plan, Vec<(DiskKey, Chain)>), Refusal> {
    let known: Vec<&Resource> = plan.steps.iter().map(|step| &step.resource).collect();
    let context = CollectContext {
        cwd,
        program: &plan.program,
        data_dirs: &[],
        system: &SysRoot::host(),
    };
    let collected = collect::collect_device_chains(host, deferred, &known, &context);
    let judged = chains.judge(&collected);
    if !judged.errors.is_empty() {
        return Err(Refusal::new(judged.errors));
    }
    let labels = plan.labels.as_ref();
    let processes = host.processes()?;
    let Decision {
        steps,
        warnings,
        errors,
        obstacles,
    } = decide_labels(host, collected, labels, Relabel::Yes, &processes);
    let plan = Plan {
        program: plan.program.clone(),
        accelerator: plan.accelerator,
        labels: plan.labels.clone(),
        becomes: None,
        chroots: false,
        runtime: plan.runtime.clone(),
        steps,
        notes: judged.notes,
        warnings,
        errors,
        obstacles,
    };
    Ok((plan, judged.chains))
}
