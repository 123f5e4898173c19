//! What changes the host, in order: the original labels are written down and given to the keeper, files
//! that QEMU would make are made, and each label is set and read back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::stat::{SFlag, mknodat};
use nix::unistd::Pid;

use crate::host::image_lock;
use crate::host::owned_dir;
use crate::host::pinned::{self, Kind, Pinned};
use crate::host::runtime_dir;
use crate::host::{Files, Policy, RealHost};
use crate::model::label::Context;
use crate::model::resource::Class;
use crate::plan::in_use;
use crate::plan::preflight;
use crate::plan::step::{Action, Plan, Step};
use crate::restore::entry::{JournalEntry, Record};
use crate::restore::journal::{Journal, JournalError};
use crate::restore::journals;
use crate::restore::keeper::client::{Keeper, PairVerdict, Starting};
use crate::selinux;
use crate::text::escape::quoted;
use crate::text::message::{Message, Refusal, refuse, say};
use crate::text::progress::Pace;

/// Makes the journal entry of a launch.
///
/// # Errors
/// Those of reading the boot's ID.
pub fn new_entry(
    host: &RealHost,
    plan: &Plan,
    guest: &Context,
    name: Option<&str>,
    runtime: Option<runtime_dir::Directory>,
) -> io::Result<JournalEntry> {
    let pid = Pid::this();
    let mut entry = JournalEntry::new(
        name.map_or_else(|| pid.to_string(), ToOwned::to_owned),
        pid.as_raw(),
        host.procfs().start_time(pid).unwrap_or(0),
        host.procfs().boot()?.to_owned(),
        guest.to_string(),
    );
    entry.records = records(&plan.steps);
    entry.runtime = runtime;
    entry.control = Some(owned_dir::random_part()?);
    Ok(entry)
}

/// Writes an entry to the journal and gives it to the keeper, unless there is nothing to put back and no
/// name to be found by: no keeper then. Returns also what the keeper has found of a context that was
/// claimed without a look; nothing if it has ended without a word.
///
/// # Errors
/// Those of writing the journal, and of the keeper; nothing is labelled then.
pub fn write_down(
    starting: Starting,
    entry: JournalEntry,
    has_name: bool,
    journal: &Result<Journal, JournalError>,
    plan: &Plan,
) -> Result<(Option<Keeper>, Option<PairVerdict>), Refusal> {
    let makes = plan.steps.iter().any(|step| step.action == Action::Create);
    // A guest that has a name is found by it, whatever it uses now.
    if entry.records.is_empty() && !makes && entry.runtime.is_none() && !has_name {
        return Ok((None, starting.verdict().ok()));
    }
    let journal = journal
        .as_ref()
        .map_err(|error| refuse(error.to_string()))?;
    let path = journal.write(&entry)?;
    match starting.hold_unverified(&path) {
        Ok((keeper, verdict)) => Ok((Some(keeper), Some(verdict))),
        Err(error) => {
            let _ = journal.remove(&path);
            Err(error.refusal())
        }
    }
}

/// Has the keeper undo everything, and adds what it could not.
pub fn roll_back(keeper: Option<Keeper>, mut refusal: Refusal) -> Refusal {
    if let Some(keeper) = keeper
        && let Err(error) = keeper.undo()
    {
        refusal.messages.push(Message::new(
            format!("cannot put all labels back: {error}"),
            "svirt-exec restore tries again",
        ));
    }
    refusal
}

/// Writes down what came after [`write_down`], and has the keeper hold it too: files that were made, and
/// what the headers of block devices name.
///
/// # Errors
/// Those of writing the journal, and of the keeper; nothing of it is labelled then.
pub fn prepare_more(mut more: Vec<Record>, keeper: &mut Keeper, what: &str) -> Result<(), Refusal> {
    if more.is_empty() {
        return Ok(());
    }
    let journal = match journals::of_entry(&keeper.entry) {
        Some(journal) => journal,
        None => journals::open()?,
    };
    let mut entry = journal.read(&keeper.entry)?;
    entry.records.append(&mut more);
    journal.replace(&keeper.entry, &entry)?;
    keeper
        .grow()
        .map_err(|error| refuse(format!("cannot hold {what}: {error}")))
}

/// Returns what has to be put back of a plan.
pub(crate) fn records<'a>(steps: impl IntoIterator<Item = &'a Step> + Copy) -> Vec<Record> {
    let mut records = Vec::new();
    let mut file_systems = BTreeMap::new();
    let directories: BTreeSet<PathBuf> = steps
        .into_iter()
        .filter(|step| step.resource.handed_over && step.resource.kind == Kind::Dir)
        .filter_map(|step| Some(step.resource.pinned.as_ref()?.real_path()))
        .collect();
    for step in steps {
        let Some(label) = &step.label else { continue };
        let record = match (step.action, &step.resource.pinned, &step.resource.current) {
            // Already labelled: in use by another guest, perhaps. The lock is what keeps that label, its own
            // entry puts it back.
            (Action::Relabel, Some(pinned), Some(current)) => {
                let mut record = record(pinned, step.class, current, label, &mut file_systems);
                // Of a tree, the directory that all others are below.
                record.tree = directories.contains(&record.path)
                    && !record
                        .path
                        .parent()
                        .is_some_and(|up| directories.contains(up));
                record
            }
            (Action::None, Some(pinned), Some(current)) if step.class != Class::Keep => {
                record(pinned, step.class, current, label, &mut file_systems)
            }
            _ => continue,
        };
        records.push(record);
    }
    records
}

/// Makes a record. `file_systems` are the numbers of those that were asked for theirs, by device.
fn record(
    pinned: &Pinned,
    class: Class,
    original: &Context,
    label: &Context,
    file_systems: &mut BTreeMap<u64, Option<u64>>,
) -> Record {
    let file_system = file_systems.entry(pinned.identity.dev);
    Record {
        path: pinned.real_path(),
        identity: pinned.identity,
        file_system: *file_system.or_insert_with(|| pinned.file_system()),
        tree: false,
        class,
        set_id: (pinned.kind == Kind::File && class != Class::Content).then_some(pinned.set_id),
        original: original.to_string(),
        label: label.to_string(),
    }
}

/// Makes a file that QEMU would make, with the label that the caller would have given it: that is what is
/// put back later.
fn create(host: &RealHost, path: &Path, caller: &Context) -> io::Result<Pinned> {
    let directory = host.pin(path.parent().unwrap_or(Path::new("/")))?;
    let parent = host
        .label_of(&directory)?
        .ok_or_else(|| io::Error::other("its file system has no labels"))?;
    let name = path.file_name().unwrap_or_default();
    let original = host.label_of_new(caller, &parent, Kind::File, name)?;
    selinux::set_create_context(Some(&original))?;
    // mknod(2), not open(2): the launcher may make files for guests, and not write to them.
    let made = mknodat(
        &directory,
        name,
        SFlag::S_IFREG,
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        0,
    );
    selinux::set_create_context(None)?;
    made?;
    pinned::pin_made(&directory, name)
}

/// Makes every file that the plan says to make; from then on they are files like others. Returns their
/// records.
///
/// # Errors
/// The first that cannot be made.
pub fn make_files(host: &RealHost, plan: &mut Plan, own: &Context) -> Result<Vec<Record>, Refusal> {
    let mut records = Vec::new();
    let caller = selinux::previous_context().unwrap_or_else(|_| own.clone());
    for step in &mut plan.steps {
        let (Action::Create, Some(path)) = (step.action, &step.resource.path) else {
            continue;
        };
        let made = create(host, path, &caller).and_then(|pinned| {
            let label = host.label_of(&pinned)?;
            Ok((pinned, label))
        });
        let (pinned, label) = made.map_err(|error| {
            refuse(format!(
                "cannot make {} ({}) for QEMU: {error}; make it beforehand, or name a directory \
                 where this user and svirt_launcher_t may",
                quoted(path.as_os_str()),
                step.resource.origin
            ))
        })?;
        step.resource.kind = pinned.kind;
        step.resource.pinned = Some(pinned);
        step.resource.current = label;
        step.action = Action::Relabel;
        records.append(&mut self::records([&*step]));
    }
    Ok(records)
}

/// Checks that no label has changed between the look at the files and the keeper's locks. From now on the
/// locks hold what is there.
///
/// # Errors
/// The first label that another guest's keeper has put back meanwhile: the journal would have a wrong
/// original, or a label that was right is not any more.
pub fn check_unchanged(host: &RealHost, plan: &Plan) -> Result<(), Refusal> {
    for step in &plan.steps {
        let resource = &step.resource;
        let Some(pinned) = &resource.pinned else {
            continue;
        };
        if step.label.is_some() && host.label_of(pinned)? != resource.current {
            return Err(refuse(format!(
                "cannot use {} ({}): its label has changed while the launch was prepared, another \
                 guest that used it has just ended; start again",
                resource.name(),
                resource.origin
            )));
        }
    }
    Ok(())
}

/// Sets every label and reads it back. A block device must then be nobody's but the guest's.
///
/// # Errors
/// The first label that cannot be set, or is another one afterwards.
pub fn set_labels(host: &RealHost, plan: &Plan) -> Result<(), Refusal> {
    let mut pace = Pace::default();
    for (number, step) in plan.steps.iter().enumerate() {
        if pace.is_due() {
            let all = plan.steps.len();
            say(format_args!("setting labels: {number} of {all} so far"));
        }
        let (Action::Relabel, Some(pinned), Some(label)) =
            (step.action, &step.resource.pinned, &step.label)
        else {
            continue;
        };
        let fail = |why: String| {
            refuse(Message::new(
                format!(
                    "cannot label {} ({}) as {label}: {why}",
                    step.resource.name(),
                    step.resource.origin
                ),
                "all labels are put back",
            ))
        };
        match host.set_label(pinned, label) {
            Ok(()) => {}
            // A file system without labels of its own, or read-only: the guest may still be allowed to
            // use what is there.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EROFS))
                    && preflight::usable_as_it_is(host, plan, step)? =>
            {
                say(format_args!(
                    "warning: {} ({}) keeps its label, which other guests may share: {error}",
                    step.resource.name(),
                    step.resource.origin
                ));
                continue;
            }
            Err(error) => return Err(fail(error.to_string())),
        }
        let now = host
            .label_of(pinned)
            .map_err(|error| fail(error.to_string()))?;
        if now.as_ref() != Some(label) {
            return Err(fail(format!(
                "it has {} afterwards",
                now.map_or_else(|| "no label".to_owned(), |now| now.to_string())
            )));
        }
        if pinned.kind == Kind::Block {
            check_device_is_free(host, pinned, step.class).map_err(fail)?;
        }
    }
    Ok(())
}

/// Checks that neither this host nor another QEMU uses a block device that has the guest's label by now.
fn check_device_is_free(host: &RealHost, pinned: &Pinned, class: Class) -> Result<(), String> {
    match pinned::open_alone(pinned) {
        // A drive without a medium is free.
        Err(error) if error.raw_os_error() == Some(libc::ENOMEDIUM) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            Err(in_use::claimed(pinned.real_path().as_os_str()))
        }
        Err(error) => Err(format!("cannot tell whether it is in use: {error}")),
        Ok(device) => image_lock::in_the_way(host, pinned, &device, class).map_or(Ok(()), Err),
    }
}
