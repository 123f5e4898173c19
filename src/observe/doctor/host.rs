//! The checks of everything but SELinux: QEMU, mounts, limits, directories, the journal.

use crate::host::mountinfo::{self, MOUNTINFO};
use crate::host::{Processes, RealHost};
use crate::launch::exec::QemuProgram;
use crate::observe::doctor::check::Check;
use crate::qemu;
use crate::restore::entry::JournalEntry;
use crate::restore::journal::Journal;
use crate::restore::journals;
use crate::restore::liveness;
use crate::sys;
use crate::text::escape::{quoted, shell_word};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, access};
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directory that images are usually kept in.
pub(crate) const IMAGES: &str = "/var/lib/libvirt/images";

/// Fewest descriptors that a guest needs: about two a disk, and some dozens of its own.
const FEWEST_DESCRIPTORS: u64 = 1024;

/// Returns the names of the QEMUs to look for: this machine's own, and Fedora's.
fn qemu_names() -> [OsString; 2] {
    [
        format!("qemu-system-{}", std::env::consts::ARCH).into(),
        "qemu-kvm".into(),
    ]
}

/// Looks for a QEMU as a launch does.
pub(crate) fn qemu_found(
    qemu: Option<&OsStr>,
    environment: &[CString],
) -> (Check, Option<QemuProgram>) {
    let name = "qemu";
    let path = sys::variable(environment, "PATH");
    let mut words: Vec<OsString> = match qemu {
        Some(qemu) => vec![qemu.to_owned()],
        None => qemu_names().to_vec(),
    };
    if qemu.is_none() {
        // Not in PATH; Fedora's and RHEL's.
        words.push("/usr/libexec/qemu-kvm".into());
    }
    let mut why = None;
    for word in words {
        match QemuProgram::find(std::slice::from_ref(&word), path.as_deref()) {
            Ok(program) => {
                let detail = quoted(&program.path);
                return (Check::well(name, detail), Some(program));
            }
            Err(refusal) => why = why.or_else(|| refusal.messages.into_iter().next()),
        }
    }
    let why = why.unwrap_or_else(|| "no QEMU to look for".into());
    (Check::said(name, why), None)
}

/// Checks that svirt-exec is not on a file system mounted nosuid. The kernel silently enters no domain
/// through a program on such a file system.
pub(crate) fn mount() -> Check {
    let name = "mount";
    let nosuid = || -> Option<bool> {
        let program = fs::File::open("/proc/self/exe").ok()?;
        let id = sys::mount_id(program.as_fd()).ok()?;
        let table = fs::read(MOUNTINFO).ok()?;
        let mount = mountinfo::mounts(&table).find(|mount| mount.id == id)?;
        Some(mount.has_option("nosuid"))
    };
    match nosuid() {
        Some(true) => Check::bad(
            name,
            "the file system of svirt-exec is mounted nosuid: its domain cannot be entered",
            "install it on one that is not, such as /usr",
        ),
        Some(false) => Check::well(name, "the file system of svirt-exec is not mounted nosuid"),
        None => Check::bad(
            name,
            "the mount of svirt-exec cannot be found",
            "mount -t proc proc /proc",
        ),
    }
}

/// Checks that KVM may be used. A host without KVM passes.
pub(crate) fn kvm() -> Check {
    let name = "kvm";
    let device = "/dev/kvm";
    if !Path::new(device).exists() {
        return Check::well(name, "there is no /dev/kvm: guests run with TCG");
    }
    match access(device, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => Check::well(name, "/dev/kvm may be used"),
        Err(error) => Check::bad(
            name,
            format!("/dev/kvm may not be used: {}", error.desc()),
            "join its group (usermod -aG kvm USER), and restorecon /dev/kvm",
        ),
    }
}

/// Directory of the links that libvirt is given as `<emulator>`.
const EMULATORS: &str = "/usr/libexec/svirt-exec";

/// Directory of libvirt's daemons, and their names.
const DAEMONS: (&str, [&str; 2]) = ("/usr/sbin", ["libvirtd", "virtqemud"]);

/// Makes the checks of the links by which svirt-exec is called as a QEMU is.
pub(crate) fn emulators(environment: &[CString]) -> Vec<Check> {
    let path = sys::variable(environment, "PATH");
    let search = path.as_deref();
    std::iter::once(links(search))
        .chain(libvirt(search))
        .collect()
}

/// Names the QEMUs in PATH that no link covers: whoever has the links first in PATH runs these unconfined.
fn links(search: Option<&OsStr>) -> Check {
    let name = "links";
    let directories = std::env::split_paths(search.unwrap_or_default());
    let mut uncovered: Vec<String> = directories
        .filter(|directory| directory != Path::new(EMULATORS))
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .filter(|entry| qemu::is_program_name(&entry.file_name()))
        .filter(|entry| !Path::new(EMULATORS).join(entry.file_name()).exists())
        .map(|entry| quoted(entry.path()))
        .collect();
    uncovered.sort();
    uncovered.dedup();
    Check::well(
        name,
        if uncovered.is_empty() {
            format!("each QEMU in PATH has one in {EMULATORS}")
        } else {
            format!(
                "none in {EMULATORS} for {}: by PATH it runs unconfined (ln -s ../../bin/svirt-exec \
                 {EMULATORS}/NAME)",
                uncovered.join(", ")
            )
        },
    )
}

/// Checks that libvirt notices an upgrade of QEMU. None if libvirt is not installed.
///
/// libvirt keeps an emulator's capabilities until the ctime of its file changes
/// (virQEMUCapsIsValid). The target of our links is svirt-exec, whose ctime stays.
fn libvirt(search: Option<&OsStr>) -> Option<Check> {
    let names = |directory: &str| -> Vec<OsString> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    };
    let (directory, daemons) = DAEMONS;
    let installed = names(directory);
    if !daemons
        .iter()
        .any(|daemon| installed.iter().any(|name| name == daemon))
    {
        return None;
    }
    let name = "libvirt_emulator";
    let changed = |file: &fs::Metadata| (file.ctime(), file.ctime_nsec());
    let own = fs::metadata("/proc/self/exe").ok()?;
    let mut newer = None;
    let mut links = names(EMULATORS);
    links.sort();
    for link in links.iter().filter(|link| qemu::is_program_name(link)) {
        let real = std::env::split_paths(search?)
            .map(|directory| directory.join(link))
            .filter_map(|path| Some((fs::metadata(&path).ok()?, path)))
            .find(|(file, _)| (file.dev(), file.ino()) != (own.dev(), own.ino()));
        if let Some((file, path)) = real
            && changed(&file) > changed(&own)
        {
            newer.get_or_insert(path);
        }
    }
    Some(match newer {
        None => Check::well(name, format!("libvirt may use the links in {EMULATORS}")),
        Some(path) => Check::bad(
            name,
            format!(
                "{} has changed since svirt-exec was installed: libvirt, which looks at svirt-exec for \
                 that, may go by what the old one could do",
                quoted(&path)
            ),
            std::env::current_exe().map_or_else(
                |_| "touch /usr/bin/svirt-exec".to_owned(),
                |exe| format!("touch {}", shell_word(&exe)),
            ),
        ),
    })
}

/// Checks that a guest with many disks may have them open.
pub(crate) fn descriptors() -> Check {
    use nix::sys::resource::{Resource, getrlimit};
    let name = "descriptors";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if hard >= FEWEST_DESCRIPTORS => {
            Check::well(name, format!("{soft}, may be raised to {hard}"))
        }
        Ok((_, hard)) => Check::bad(
            name,
            format!("no more than {hard} files may be open"),
            format!(
                "LimitNOFILE={FEWEST_DESCRIPTORS} in the service, or for a login a line `USER hard nofile \
                 {FEWEST_DESCRIPTORS}` in /etc/security/limits.d/svirt-exec.conf"
            ),
        ),
        Err(error) => Check::bad(name, error.desc(), "start it where getrlimit(2) is allowed"),
    }
}

/// Checks the state directory, and each journal entry in it.
pub(crate) fn state(host: &RealHost) -> Vec<Check> {
    let own = journals::own().unwrap_or_default().into_iter().next();
    let place = journals::directory_of(Uid::effective());
    let directory = own.map_or(place, |own| own.path().to_owned());
    let (journal, entries) = match state_entries(&directory) {
        Ok(Some(found)) => found,
        Ok(None) => return vec![Check::well(STATE, "none yet; the first launch makes it")],
        Err(why) => {
            return vec![Check::bad(
                STATE,
                format!("{}: {why}", quoted(&directory)),
                "systemd-tmpfiles --create svirt-exec.conf",
            )];
        }
    };
    let mut checks = vec![Check::well(
        STATE,
        format!("{}, {} entries", quoted(&directory), entries.len()),
    )];
    let processes = host.processes().unwrap_or_default();
    let is_alive =
        |entry: &JournalEntry| liveness::process_of(host.procfs(), entry, &processes).is_some();
    checks.extend(
        entries
            .iter()
            .filter_map(|path| journal_entry(&journal, path, &is_alive)),
    );
    checks
}

const STATE: &str = "state";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("it is no directory")]
    NoDirectory,
    #[error("it belongs to user {0}")]
    Owner(u32),
    #[error("it cannot be made: {}", .0.desc())]
    NotMade(Errno),
    #[error("it cannot be written: {}", .0.desc())]
    NotWritable(Errno),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Returns the journal entries of a state directory. None if it does not exist and the first launch
/// of its user makes it.
fn state_entries(directory: &Path) -> Result<Option<(Journal, Vec<PathBuf>)>, StateError> {
    let uid = Uid::effective();
    match fs::symlink_metadata(directory) {
        Ok(found) if !found.is_dir() => return Err(StateError::NoDirectory),
        // Another user has taken this one's number for a name: the first launch makes one of another.
        Ok(found) if found.uid() != uid.as_raw() && !uid.is_root() => return Ok(None),
        Ok(found) if found.uid() != uid.as_raw() => return Err(StateError::Owner(found.uid())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && !uid.is_root() => {
            let parent = directory.parent().unwrap_or(Path::new("/"));
            return match access(parent, AccessFlags::W_OK) {
                Err(error) if parent.exists() => Err(StateError::NotMade(error)),
                _ => Ok(None),
            };
        }
        Err(error) => return Err(error.into()),
    }
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK).map_err(StateError::NotWritable)?;
    let journal = Journal::at(directory)?;
    let entries = journal.entries()?;
    Ok(Some((journal, entries)))
}

/// Checks one journal entry. None if its guest runs, or a keeper has removed it meanwhile.
fn journal_entry(
    journal: &Journal,
    path: &Path,
    is_alive: &dyn Fn(&JournalEntry) -> bool,
) -> Option<Check> {
    match journal.read(path) {
        Err(_) if !journal.has(path) => None,
        Err(error) => Some(Check::bad(
            "journal_entry",
            error.to_string(),
            format!(
                "look which files it names, put their labels back by hand (restorecon), and \
                 remove it: rm {}",
                shell_word(path)
            ),
        )),
        Ok(entry) if is_alive(&entry) => None,
        Ok(entry) => Some(Check::bad(
            "labels_left",
            format!(
                "guest {} has ended, and {} labels of its files are not back",
                quoted(&entry.name),
                entry.records.len()
            ),
            "svirt-exec restore",
        )),
    }
}
