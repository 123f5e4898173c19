//! Hot-plug: labels for a guest that runs already, and giving them back while it runs.
//!
//! What is attached has a journal entry and a keeper of its own, beside those of the launch. A
//! keeper listens for as long as its guest runs; it is asked to give a file back by a process of
//! the keeper's domain, and does so only when no process of the guest has the file open.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::cli::Attached;
use crate::host::pinned::{Identity, Kind};
use crate::host::sysfs::SysRoot;
use crate::host::{Policy, Processes, RealHost};
use crate::launch;
use crate::launch::apply;
use crate::launch::planning;
use crate::launch::prepare;
use crate::launch::share_content;
use crate::model::label::Context;
use crate::model::resource::{Access, Class, Origin, Request, Target};
use crate::plan::collect::{self};
use crate::plan::preflight;
use crate::plan::resource::CollectContext;
use crate::plan::step::{Decision, Plan, Relabel, Step};
use crate::restore::command::{self, Wanted};
use crate::restore::hold::{Hold, Wait};
use crate::restore::journal::{Entry, Journal};
use crate::restore::keeper::client::{DONE, FAILED, Keeper, Starting};
use crate::restore::keeper::control::{self, Call, Verb};
use crate::restore::keeper::job::{self, LINE, REFUSED};
use crate::restore::running_guest::{self, Guest};
use crate::seclabel::domain::{self, Accelerator};
use crate::seclabel::labels::GuestLabels;
use crate::seclabel::own_domain;
use crate::selinux::{self, Mode};
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse, say};
use crate::text::output::println;

/// `svirt-exec attach`: labels further resources for a guest that runs.
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
    let keeper = prepare(&host, &guest, &plan, &own)?;
    let change = || -> Result<(), Refusal> {
        apply::recheck(&host, &plan)?;
        apply::label(&host, &plan)
    };
    if let Err(refusal) = change() {
        return Err(launch::roll_back(keeper, refusal));
    }
    if options.json {
        println(&attached(&guest, &plan.steps));
    }
    Ok(0)
}

/// What `attach --json` prints.
pub(crate) fn attached(guest: &Guest, steps: &[Step]) -> String {
    let resources: Vec<_> = steps
        .iter()
        .map(|step| {
            serde_json::json!({
                "path": step.resource.path.as_ref().map(|path| path.to_string_lossy()),
                "class": step.class,
                "label": step.label.as_ref().map(ToString::to_string),
                "previous": step.resource.current.as_ref().map(ToString::to_string),
                "action": step.action.name(),
                "reason": step.reason,
            })
        })
        .collect();
    let document = serde_json::json!({
        "version": 1, "guest": guest.to_json(), "resources": resources,
    });
    format!("{document:#}")
}

/// Which label each path gets.
fn decide(
    host: &RealHost,
    own: &Context,
    guest: &Guest,
    paths: &[PathBuf],
    class: Class,
) -> Result<Plan, Refusal> {
    let (access, reason) = match class {
        Class::Content => (Access::Read, "attached, read-only"),
        Class::Shared => (Access::Write, "attached, shared"),
        Class::Exclusive | Class::Keep => (Access::Write, "attached"),
    };
    let requests = paths
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
        .collect();
    let mut collected = collect::collect(
        host,
        requests,
        &[],
        &CollectContext {
            cwd: &std::env::current_dir()?,
            program: Path::new("/"),
            data_dirs: &[],
            system: &SysRoot::host(),
        },
    );
    let types = domain::types_of(host, &guest.context)?;
    let labels = GuestLabels::new(&types, guest.context.level());
    share_content::share(host, own, &labels, &mut collected)?;
    let Decision {
        steps,
        warnings,
        mut errors,
        obstacles,
    } = planning::decide(
        host,
        collected,
        Some(&labels),
        Relabel::Yes,
        &host.processes()?,
    );
    errors.extend(
        steps
            .iter()
            .filter(|step| step.resource.kind == Kind::Dir)
            .map(|step| {
                format!(
                    "cannot attach {}: it is a directory; name the files in it",
                    step.resource.name()
                )
            }),
    );
    errors.dedup();
    Ok(Plan {
        program: PathBuf::new(),
        accelerator: Accelerator::None,
        labels: Some(labels),
        becomes: None,
        runtime: None,
        steps,
        warnings,
        errors,
        obstacles,
    })
}

/// Writes the original labels down and starts a keeper for them; none where nothing has to be
/// put back, since the guest has everything already.
fn prepare(
    host: &RealHost,
    guest: &Guest,
    plan: &Plan,
    own: &Context,
) -> Result<Option<Keeper>, Refusal> {
    let mut entry = Entry::new(
        guest.name.clone(),
        guest.pid.as_raw(),
        guest.started,
        host.procfs().boot()?.to_owned(),
        guest.context.to_string(),
    );
    entry.records = apply::records(&plan.steps);
    // The guest's own already, and in another entry of it.
    entry
        .records
        .retain(|record| record.class != Class::Exclusive || record.original != record.label);
    if entry.records.is_empty() {
        return Ok(None);
    }
    let journal = Journal::open()?;
    let pid = Pid::this().as_raw();
    let by = (pid, command::start_time(host, pid).unwrap_or(0));
    let path = journal.write_more(&entry, by)?;
    Starting::for_guest(own, entry.pid)
        .and_then(|keeper| keeper.hold(&path))
        .map(Some)
        .map_err(|error| {
            let _ = journal.remove(&path);
            let why = error.to_string().replace('\n', "; ");
            refuse(format!("cannot attach anything to {guest}: {why}"))
        })
}

/// `svirt-exec detach`: has the keepers of a guest give files back.
///
/// # Errors
/// Where a file is not the guest's, or a process of the guest has it open.
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
        println(&detached(&guest, &paths, &left));
    }
    Ok(u8::from(!done))
}

/// What `detach --json` prints.
pub(crate) fn detached(guest: &Guest, paths: &[PathBuf], left: &[String]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    let document = serde_json::json!({
        "version": 1, "guest": guest.to_json(), "paths": paths, "left": left,
    });
    format!("{document:#}")
}

/// The process that asks the keepers, in their domain.
pub fn run(args: &[Vec<u8>]) -> u8 {
    job::run(|tell| match args.split_first() {
        Some((context, paths)) => ask(&String::from_utf8_lossy(context), paths, tell),
        None => Ok(false),
    })
}

/// Asks every keeper of a guest for what it holds of these paths.
fn ask(context: &str, paths: &[Vec<u8>], tell: &mut dyn FnMut(u8, &str)) -> Result<bool, Refusal> {
    let mut wanted: Vec<(Wanted, bool)> = paths
        .iter()
        .map(|path| {
            let path = PathBuf::from(OsString::from_vec(path.clone()));
            (Wanted::new(OsString::new(), path), false)
        })
        .collect();
    let mut asked = Vec::new();
    for (owner, path, entry) in running_guest::entries()? {
        if entry.context != context {
            continue;
        }
        let mut names = Vec::new();
        for record in &entry.records {
            for (_, found) in wanted.iter_mut().filter(|(wanted, _)| wanted.is(record)) {
                *found = true;
                names.push(record.path.clone());
            }
        }
        if !names.is_empty() {
            asked.push((owner, path, names));
        }
    }
    let unknown: Vec<String> = wanted
        .iter()
        .filter(|(_, found)| !found)
        .map(|(wanted, _)| {
            format!(
                "cannot detach {}: nothing was labelled under this name for the guest in the \
                 journal; what another user attached, that user detaches",
                quoted(wanted.path().as_os_str())
            )
        })
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal::new(unknown));
    }
    let mut done = true;
    for (owner, path, names) in asked {
        let mut say = |line: &str| tell(LINE, line);
        done &= control::ask(&path, owner, (Verb::Release, &names), &mut say)?;
    }
    Ok(done)
}

/// A keeper gives back what a caller asks for, unless the guest uses it.
pub fn release(
    host: &RealHost,
    context: &Context,
    hold: &mut Hold,
    (journal, entry): (&Journal, &Path),
    call: &Call,
) {
    let say = |what: u8, text: &str| call.say(what, text);
    let wanted = |record: &crate::restore::journal::Record| call.paths.contains(&record.path);
    let mut refused = false;
    for record in hold.records().filter(|record| wanted(record)) {
        let why = match user(host, context, record.identity) {
            Ok(None) => continue,
            Ok(Some(pid)) => format!(
                "process {pid} of the guest has it open; take it from the guest first (device_del, \
                 then blockdev-del)"
            ),
            Err(error) => format!(
                "whether the guest has it open cannot be told: {error}; ask as the user who runs it"
            ),
        };
        refused = true;
        say(
            REFUSED,
            &format!("cannot detach {}: {why}", quoted(&record.path)),
        );
    }
    if refused {
        return say(FAILED, "");
    }
    let mut left = hold.put_back_some(host, Wait::Never, &wanted, &mut || ());
    if left.is_empty() {
        left = hold.left(entry, &wanted);
    }
    left.extend(hold.settle(journal, entry).err());
    left.iter().for_each(|line| say(LINE, line));
    say(if left.is_empty() { DONE } else { FAILED }, "");
}

/// A process in the guest's cage that has a file open.
fn user(host: &RealHost, context: &Context, file: Identity) -> io::Result<Option<Pid>> {
    for process in host.processes()? {
        if process.current.as_ref() != Some(context) {
            continue;
        }
        let pid = process.pid;
        let fds = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            fds => fds?,
        };
        for fd in fds {
            let number = fd?.file_name();
            // Its number first: nothing but files that may be the one are looked at themselves.
            let info = host
                .procfs()
                .read(&format!("{pid}/fdinfo/{}", number.to_string_lossy()));
            let Ok(info) = info else { continue };
            let inode = info.lines().find_map(|line| line.strip_prefix("ino:"));
            if inode.is_some_and(|inode| inode.trim() != file.ino.to_string()) {
                continue;
            }
            let link = Path::new("/proc")
                .join(pid.to_string())
                .join("fd")
                .join(&number);
            match std::fs::metadata(&link) {
                Ok(open) if open.ino() == file.ino && open.dev() == file.dev => {
                    return Ok(Some(pid));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // A file of another kind that the keeper may not look at has this number by chance.
                Err(_) if inode.is_some() && !is_path(&link) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// Whether a link below /proc/PID/fd leads to something that has a path.
fn is_path(link: &Path) -> bool {
    std::fs::read_link(link).is_ok_and(|to| to.as_os_str().as_bytes().starts_with(b"/"))
}
