//! Hot-plug: labels for a guest that runs already, and giving them back while it runs.
//!
//! What is attached has a journal entry and a keeper of its own, beside those of the launch. A keeper
//! listens for as long as its guest runs; a process of the keeper's domain asks it to give a file back
//! (`release`).

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use serde::Serialize;

use crate::cli::Attached;
use crate::host::owned_dir;
use crate::host::pinned::Kind;
use crate::host::sysfs::SysRoot;
use crate::host::{Policy, Processes, RealHost};
use crate::launch::apply;
use crate::launch::chains;
use crate::launch::planning;
use crate::launch::prepare;
use crate::launch::share_content;
use crate::model::label::Context;
use crate::model::resource::{Access, Class, Origin, Request, Target};
use crate::plan::collect;
use crate::plan::preflight;
use crate::plan::resource::CollectContext;
use crate::plan::step::{Decision, Plan, Relabel, Step};
use crate::restore::entry::JournalEntry;
use crate::restore::journals;
use crate::restore::keeper::client::{Keeper, KeeperError, Starting};
use crate::restore::keeper::job;
use crate::restore::running_guest::{self, RunningGuest};
use crate::seclabel::domain::{self, Accelerator};
use crate::seclabel::labels::GuestLabels;
use crate::seclabel::own_domain;
use crate::selinux::{self, Mode};
use crate::sys;
use crate::text::json;
use crate::text::message::{Message, Refusal, refuse, say};
use crate::text::output::println;

/// Labels further resources for a guest that runs (`svirt-exec attach`). Returns the exit status.
///
/// # Errors
/// Every reason not to; nothing is changed then.
pub fn attach(options: &Attached, class: Class) -> Result<u8, Refusal> {
    let host = RealHost::new()?;
    let mode = host.mode();
    if mode == Mode::Disabled {
        return Err(refuse(
            "cannot attach anything: SELinux is off on this host",
        ));
    }
    let own = host.own_context()?;
    own_domain::check(&own, mode)?;
    let guest = running_guest::find(&host, &options.guest, options.pid)?;
    sys::raise_descriptor_limit();
    let mut plan = decide(&host, &own, &guest, &options.paths, class)?;
    for warning in &plan.warnings {
        say(format_args!("warning: {warning}"));
    }
    let mut fatal = std::mem::take(&mut plan.errors);
    fatal.append(&mut plan.obstacles);
    if !fatal.is_empty() {
        return Err(Refusal::new(fatal));
    }
    let mut refused = preflight::labels(&host, &plan, &own, prepare::privilege())?;
    refused.append(&mut preflight::guest(&host, &plan)?);
    prepare::stop_or_warn(refused, mode)?;
    let keeper = write_down(&host, &guest, &plan, &own)?;
    let change = || -> Result<(), Refusal> {
        apply::check_unchanged(&host, &plan)?;
        // Before the guest may write there.
        let (cwd, system) = (std::env::current_dir()?, SysRoot::host());
        chains::remember_attached(&host, &plan.steps, &context_in(&cwd, &system))?;
        apply::set_labels(&host, &plan)
    };
    if let Err(refusal) = change() {
        return Err(apply::roll_back(keeper, refusal));
    }
    if options.json {
        println(&attached_json(&guest, &plan.steps)?);
    }
    Ok(0)
}

/// A guest, in what `attach --json` and `detach --json` print.
#[derive(Serialize)]
struct GuestDocument<'a> {
    context: String,
    name: &'a str,
    pid: i32,
}

impl<'a> GuestDocument<'a> {
    fn of(guest: &'a RunningGuest) -> Self {
        Self {
            context: guest.context.to_string(),
            name: &guest.name,
            pid: guest.pid.as_raw(),
        }
    }
}

#[derive(Serialize)]
struct AttachedDocument<'a> {
    guest: GuestDocument<'a>,
    resources: Vec<ResourceDocument<'a>>,
    version: u32,
}

#[derive(Serialize)]
struct ResourceDocument<'a> {
    action: &'static str,
    class: Class,
    label: Option<String>,
    path: Option<String>,
    previous: Option<String>,
    reason: &'a str,
}

#[derive(Serialize)]
struct DetachedDocument<'a> {
    guest: GuestDocument<'a>,
    left: &'a [String],
    paths: Vec<String>,
    version: u32,
}

/// Returns what `attach --json` prints.
///
/// # Errors
/// Those of serde_json, which these values do not cause.
pub(crate) fn attached_json(guest: &RunningGuest, steps: &[Step]) -> serde_json::Result<String> {
    let resources = steps.iter().map(|step| {
        let resource = &step.resource;
        let path = resource.path.as_ref();
        ResourceDocument {
            action: step.action.name(),
            class: step.class,
            label: step.label.as_ref().map(ToString::to_string),
            path: path.map(|path| path.to_string_lossy().into_owned()),
            previous: resource.current.as_ref().map(ToString::to_string),
            reason: &step.reason,
        }
    });
    json::pretty(&AttachedDocument {
        guest: GuestDocument::of(guest),
        resources: resources.collect(),
        version: 1,
    })
}

/// Returns what `detach --json` prints.
///
/// # Errors
/// Those of serde_json, which these values do not cause.
pub(crate) fn detached_json(
    guest: &RunningGuest,
    paths: &[PathBuf],
    left: &[String],
) -> serde_json::Result<String> {
    json::pretty(&DetachedDocument {
        guest: GuestDocument::of(guest),
        left,
        paths: paths
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect(),
        version: 1,
    })
}

/// Makes a request for each path that is attached.
fn requests(paths: &[PathBuf], class: Class) -> Vec<Request> {
    let (access, reason) = match class {
        Class::Content => (Access::Read, "attached, read-only"),
        Class::Shared => (Access::Write, "attached, shared"),
        Class::Exclusive | Class::Keep => (Access::Write, "attached"),
    };
    paths
        .iter()
        .zip(1..)
        .map(|(path, word)| Request {
            target: Target::Path(path.clone().into()),
            class,
            access,
            origin: Origin::Word {
                word,
                option: "attach".into(),
                key: String::new(),
            },
            reason,
            mapped: false,
            may_be_directory: false,
            image: None,
            required: true,
        })
        .collect()
}

/// Returns where paths that are attached are looked up.
fn context_in<'a>(cwd: &'a Path, system: &'a SysRoot) -> CollectContext<'a> {
    CollectContext {
        cwd,
        program: Path::new("/"),
        data_dirs: &[],
        system,
    }
}

/// Decides which label each path gets.
fn decide(
    host: &RealHost,
    own: &Context,
    guest: &RunningGuest,
    paths: &[PathBuf],
    class: Class,
) -> Result<Plan, Refusal> {
    let (cwd, system) = (std::env::current_dir()?, SysRoot::host());
    let context = context_in(&cwd, &system);
    let mut collected = collect::collect(host, requests(paths, class), &[], &context);
    let types = domain::types_of(host, &guest.context)?;
    let labels = GuestLabels::new(&types, guest.context.level());
    share_content::share(host, own, &labels, &mut collected)?;
    let processes = host.processes()?;
    let Decision {
        steps,
        warnings,
        mut errors,
        obstacles,
    } = planning::decide_labels(host, collected, Some(&labels), Relabel::Yes, &processes);
    let directories = steps
        .iter()
        .filter(|step| step.resource.kind == Kind::Dir)
        .map(|step| {
            Message::new(
                format!("cannot attach {}: it is a directory", step.resource.name()),
                "name the files in it",
            )
        });
    errors.extend(directories);
    errors.dedup();
    Ok(Plan {
        program: PathBuf::new(),
        accelerator: Accelerator::None,
        labels: Some(labels),
        becomes: None,
        chroots: false,
        runtime: None,
        steps,
        notes: Vec::new(),
        warnings,
        errors,
        obstacles,
    })
}

/// Writes the original labels down and starts a keeper for them. Returns None if nothing has to be put
/// back, since the guest has everything already.
fn write_down(
    host: &RealHost,
    guest: &RunningGuest,
    plan: &Plan,
    own: &Context,
) -> Result<Option<Keeper>, Refusal> {
    let mut entry = JournalEntry::new(
        guest.name.clone(),
        guest.pid.as_raw(),
        guest.started,
        host.procfs().boot()?.to_owned(),
        guest.context.to_string(),
    );
    entry.control = Some(owned_dir::random_part()?);
    entry.records = apply::records(&plan.steps);
    // The guest's own already, and in another entry of it.
    entry
        .records
        .retain(|record| record.class != Class::Exclusive || record.original != record.label);
    if entry.records.is_empty() {
        return Ok(None);
    }
    let journal = journals::open()?;
    let pid = Pid::this();
    let started = host.procfs().start_time(pid).unwrap_or(0);
    let path = journal.write_more(&entry, (pid.as_raw(), started))?;
    Starting::for_guest(own, entry.pid)
        .map_err(KeeperError::from)
        .and_then(|keeper| keeper.hold(&path))
        .map(Some)
        .map_err(|error| {
            let _ = journal.remove(&path);
            refuse(format!("cannot attach anything to {guest}: {error}"))
        })
}

/// Has the keepers of a guest give files back (`svirt-exec detach`). Returns the exit status.
///
/// # Errors
/// Files that are not the guest's, or that a process of the guest has open or mapped.
pub fn detach(options: &Attached) -> Result<u8, Refusal> {
    let host = RealHost::new()?;
    if host.mode() == Mode::Disabled {
        return Err(refuse(
            "cannot detach anything: SELinux is off on this host",
        ));
    }
    let own = selinux::own_context()?;
    let guest = running_guest::find(&host, &options.guest, options.pid)?;
    let paths = options
        .paths
        .iter()
        .map(std::path::absolute)
        .collect::<io::Result<Vec<PathBuf>>>()?;
    let context = guest.context.to_string();
    let mut args: Vec<&[u8]> = vec![b"detach", context.as_bytes()];
    args.extend(paths.iter().map(|path| path.as_os_str().as_bytes()));
    let mut left = Vec::new();
    let done = job::send(&own, &args, &mut |line| {
        say(line);
        left.push(line.to_owned());
    })?;
    if options.json {
        println(&detached_json(&guest, &paths, &left)?);
    }
    Ok(u8::from(!done))
}
