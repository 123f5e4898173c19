//! What `doctor` looks at around SELinux: mounts, limits, directories, the journal.

use crate::host::mountinfo::{self, MOUNTINFO};
use crate::host::{Files, Policy, Processes, RealHost};
use crate::observe::doctor::Check;
use crate::restore::command;
use crate::restore::journal::Journal;
use crate::seclabel::domain::GuestTypes;
use crate::selinux;
use crate::selinux::advice::giving_type;
use crate::sys;
use crate::text::escape::{quoted, shell_word};
use nix::unistd::{AccessFlags, Uid, access};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which images are usually kept.
pub const IMAGES: &str = "/var/lib/libvirt/images";

/// A guest holds about two descriptors a disk, and some dozens of its own.
const FEWEST_DESCRIPTORS: u64 = 1024;

/// A file system that is mounted nosuid lets no domain be entered by its programs, silently.
pub fn mount() -> Check {
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

/// KVM, which a host need not have.
pub fn kvm() -> Check {
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

/// Where the links are that libvirt is given as `<emulator>`.
const EMULATORS: &str = "/usr/libexec/svirt-exec";

/// Where libvirt's daemons are, and how they are called.
const DAEMONS: (&str, [&str; 2]) = ("/usr/sbin", ["libvirtd", "virtqemud"]);

/// Whether libvirt, where it is installed, notices an upgrade of QEMU. It keeps what it has found out
/// about an emulator until that file's ctime changes (virQEMUCapsIsValid), and the file behind our
/// links is svirt-exec.
pub fn libvirt(search: Option<&OsStr>) -> Option<Check> {
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
    for link in links
        .iter()
        .filter(|link| link.as_bytes().starts_with(b"qemu-"))
    {
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

/// Whether a guest of many disks may have them open.
pub fn descriptors() -> Check {
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

/// The state directory, and what is in it.
pub fn state(host: &RealHost) -> Vec<Check> {
    let name = "state";
    let uid = Uid::effective();
    let directory = Journal::of(uid);
    let make = "systemd-tmpfiles --create svirt-exec.conf";
    let bad = |why: String| {
        vec![Check::bad(
            name,
            format!("{}: {why}", quoted(&directory)),
            make,
        )]
    };
    match fs::symlink_metadata(&directory) {
        Ok(found) if !found.is_dir() => return bad("it is no directory".to_owned()),
        Ok(found) if found.uid() != uid.as_raw() => {
            return bad(format!("it belongs to user {}", found.uid()));
        }
        Ok(_) => {}
        // A user's own is made by the first launch.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !uid.is_root() => {
            let parent = directory.parent().unwrap_or(Path::new("/"));
            return match access(parent, AccessFlags::W_OK) {
                Ok(()) => vec![Check::well(name, "none yet; the first launch makes it")],
                Err(_) if !parent.exists() => {
                    vec![Check::well(name, "none yet; the first launch makes it")]
                }
                Err(error) => bad(format!("it cannot be made: {}", error.desc())),
            };
        }
        Err(error) => return bad(error.to_string()),
    }
    if let Err(error) = access(&directory, AccessFlags::W_OK | AccessFlags::X_OK) {
        return bad(format!("it cannot be written: {}", error.desc()));
    }
    let entries = match Journal::at(directory.clone()).entries() {
        Ok(entries) => entries,
        Err(error) => return bad(error.to_string()),
    };
    let mut checks = vec![Check::well(
        name,
        format!("{}, {} entries", quoted(&directory), entries.len()),
    )];
    let processes = host.processes().unwrap_or_default();
    for path in entries {
        match Journal::read(&path) {
            // A keeper has just removed it.
            Err(_) if !path.exists() => {}
            Err(error) => checks.push(Check::bad(
                "journal_entry",
                error.to_string(),
                format!(
                    "look which files it names, put their labels back by hand (restorecon), and \
                     remove it: rm {}",
                    shell_word(&path)
                ),
            )),
            Ok(entry) if command::alive(host, &entry, &processes).is_some() => {}
            Ok(entry) => checks.push(Check::bad(
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
    checks
}

/// Whether every directory on the way may be passed by guests.
pub fn directory_usable(
    host: &RealHost,
    name: &'static str,
    directory: &Path,
    domains: &[(&str, GuestTypes)],
) -> Check {
    if !directory.exists() {
        return Check::well(name, format!("there is no {}", quoted(directory)));
    }
    for ancestor in directory.ancestors() {
        let label = match host.pin(ancestor).and_then(|pinned| host.label_of(&pinned)) {
            Ok(Some(label)) => label,
            // A file system without labels, which preflight asks about file by file.
            Ok(None) => continue,
            Err(error) => {
                return Check::bad(
                    name,
                    format!("{} cannot be looked at: {error}", quoted(ancestor)),
                    format!("keep images in {IMAGES} or a home directory"),
                );
            }
        };
        for (_, types) in domains {
            let denied = host.denied(&types.domain, &label, "dir", &["search"]);
            if !denied.is_ok_and(|denied| denied.is_empty()) {
                return Check::bad(
                    name,
                    format!(
                        "{} is {}, through which {} may not pass",
                        quoted(ancestor),
                        label.short(),
                        types.domain.kind
                    ),
                    format!(
                        "keep images in {IMAGES} or a home directory, or: {}",
                        giving_type("virt_image_t", ancestor)
                    ),
                );
            }
        }
    }
    Check::well(name, format!("guests may use {}", quoted(directory)))
}

/// The policy's switches for guests, as they are now.
pub fn booleans() -> Vec<Check> {
    let mut all: Vec<(String, bool)> = selinux::booleans()
        .into_iter()
        .filter(|(name, _)| name.starts_with("virt_") || name.starts_with("svirt_"))
        .collect();
    all.sort();
    let state = |(name, on): &(String, bool)| format!("{name}={}", if *on { "on" } else { "off" });
    let all: Vec<String> = all.iter().map(state).collect();
    vec![Check::well(
        "booleans",
        if all.is_empty() {
            "none can be read".to_owned()
        } else {
            all.join(" ")
        },
    )]
}
