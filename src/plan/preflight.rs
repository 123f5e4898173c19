//! Before anything changes: will the policy let the guest do what QEMU will do,
//! and let the launcher do what it is about to? Every failure is found, not the first.

use crate::host::Host;
use crate::host::devices::TUN;
use crate::host::pinned::{Kind, Pinned};
use crate::host::policy::refused;
use crate::host::sysfs::INTERFACES;
use crate::model::label::Context;
use crate::model::resource::Access;
use crate::plan::create;
use crate::plan::step::{Action, Plan, Step};
use crate::selinux::advice;
use crate::selinux::advice::{device_boolean, giving_type, not_an_image};
use crate::selinux::names::LOAD;
use crate::text::escape::{quoted, shell_word};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// What the launch can do to files of others.
#[derive(Clone, Copy, Debug)]
pub struct Privilege {
    /// The user who runs it.
    pub uid: u32,
    /// Whether it holds CAP_FOWNER, which setting labels on others' files needs.
    pub fowner: bool,
    /// Whether no_new_privs is set.
    pub no_new_privs: bool,
}

/// What QEMU does with an object of this kind, as permissions of its class.
fn permissions(step: &Step) -> &'static [&'static str] {
    let resource = &step.resource;
    match (resource.access, resource.kind) {
        (_, Kind::Dir) => &["getattr", "open", "read", "search"],
        (Access::Connect | Access::Bind, Kind::Socket) => &["getattr", "write"],
        (Access::Read | Access::Tree, _) => &["getattr", "open", "read"],
        (Access::Exec, _) => &["execute", "getattr", "open", "read"],
        (Access::Write | Access::Create | Access::Bind | Access::Connect, Kind::File) => {
            &["getattr", "lock", "open", "read", "write"]
        }
        (Access::Write | Access::Create | Access::Bind | Access::Connect, Kind::Missing) => {
            &["getattr", "open", "write"]
        }
        (Access::Write | Access::Create | Access::Bind | Access::Connect, _) => {
            &["getattr", "ioctl", "open", "read", "write"]
        }
    }
}

/// Whether the guest may use a resource with the label it has now.
///
/// # Errors
/// Where the policy cannot be asked.
pub fn usable_as_it_is(host: &dyn Host, plan: &Plan, step: &Step) -> io::Result<bool> {
    let (Some(labels), Some(current)) = (&plan.labels, &step.resource.current) else {
        return Ok(false);
    };
    let class = step.resource.kind.class();
    Ok(host
        .denied(&labels.process, current, class, permissions(step))?
        .is_empty())
}

/// Directories of a process's own descriptors; proc_pid_fd(5).
const DESCRIPTORS: [&str; 5] = [
    "/proc/self",
    "/proc/self/fd",
    "/proc/thread-self",
    "/proc/thread-self/fd",
    "/dev/fd",
];

/// What the policy will refuse QEMU.
pub fn guest(host: &dyn Host, plan: &Plan) -> io::Result<Vec<String>> {
    let Some(labels) = &plan.labels else {
        return Ok(Vec::new());
    };
    let process = &labels.process;
    let mut failures = Vec::new();
    if let Some(user) = &plan.becomes
        && let Some(clause) = refused(host, process, process, "capability", &["setgid", "setuid"])?
    {
        failures.push(format!(
            "QEMU will not be allowed to become user {name} (-run-with user=): {clause}; setsebool -P \
             svirt_launcher_change_user on, or start it as that user: runuser -u {name} -- svirt-exec …",
            name = quoted(user)
        ));
    }
    let taps = plan.steps.iter().filter(|step| {
        let path = step.resource.path.as_deref();
        path == Some(Path::new(TUN)) && step.resource.access == Access::Write
    });
    for step in taps {
        // drivers/net/tun.c: an interface is made (`selinux_tun_dev_create`), or, where it exists,
        // joined (`selinux_tun_dev_open`). For that its maker's label counts, too, which is left to
        // the kernel.
        let named = step
            .resource
            .host
            .as_deref()
            .and_then(|host| host.strip_prefix("tap:"));
        let joined = named.is_some_and(|name| host.pin(&Path::new(INTERFACES).join(name)).is_ok());
        let wanted = if joined { ["relabelto"] } else { ["create"] };
        if let Some(clause) = refused(host, process, process, "tun_socket", &wanted)? {
            failures.push(format!(
                "QEMU will not be allowed to open a tap device ({}): {clause}; use \
                 -netdev user,id=ID, or hand it down open, as libvirt does: -netdev tap,id=ID,fd=N",
                step.resource.origin
            ));
        }
    }
    let mut directories: BTreeMap<PathBuf, String> = BTreeMap::new();
    for step in &plan.steps {
        let resource = &step.resource;
        let Some(path) = &resource.path else { continue };
        let label = step.label.as_ref().or(resource.current.as_ref());
        if let Some(label) = label.filter(|_| !resource.template) {
            let class = resource.kind.class();
            let mut wanted = permissions(step).to_vec();
            if resource.is_mapped() {
                wanted.push("map");
            }
            if let Some(clause) = refused(host, process, label, class, &wanted)? {
                let advice = match (&step.label, &step.fixed) {
                    (Some(_), _) => "the policy's image type does not suit it".to_owned(),
                    (None, Some(why)) => without_label(why, label),
                    (None, None) => advice(resource.kind, resource.access).to_owned(),
                };
                failures.push(format!(
                    "QEMU will not be allowed to use {} ({}, {}): {clause}; {advice}",
                    resource.name(),
                    resource.origin,
                    resource.reason
                ));
            }
        }
        // The guest's own directory is made for it, empty.
        let own = |path: &Path| {
            let runtime = plan.runtime.as_ref();
            runtime.is_some_and(|runtime| path.starts_with(runtime))
        };
        if resource.kind == Kind::Missing
            && step.action == Action::None
            && !own(path)
            && let Some(clause) = create::refused(host, process, &plan.steps, step, path)?
        {
            failures.push(format!(
                "QEMU will not be allowed to make {} ({}, {}): {clause}; name a directory where \
                 guests may make such files",
                resource.name(),
                resource.origin,
                resource.reason
            ));
        }
        let real = resource.pinned.as_ref().map(Pinned::real_path);
        for path in [Some(path), real.as_ref()].into_iter().flatten() {
            for directory in path.ancestors().skip(1) {
                // And so are those above it.
                if directories.contains_key(directory) {
                    break;
                }
                // There it is this process's descriptors; in QEMU, that one's own.
                let passed = DESCRIPTORS.iter().any(|own| directory == Path::new(own));
                if !passed && !own(directory) {
                    directories.insert(directory.to_path_buf(), resource.origin.to_string());
                }
            }
        }
    }
    for (directory, origin) in directories {
        let Some(label) = create::label_then(host, &plan.steps, &directory)? else {
            continue;
        };
        if let Some(clause) = refused(host, process, &label, "dir", &["search"])? {
            failures.push(format!(
                "QEMU will not be allowed to pass through {} ({origin}): {clause}; move the file to \
                 a directory that guests may search, such as /var/lib/libvirt/images, or give the \
                 directory such a type: {}",
                quoted(directory.as_os_str()),
                giving_type("virt_image_t", &directory),
            ));
        }
    }
    Ok(failures)
}

/// What helps where a label cannot be set.
fn without_label(why: &str, label: &Context) -> String {
    let kind = &label.kind;
    let copy = "copy it to a file system whose files have labels, such as that of \
                /var/lib/libvirt/images";
    match advice::boolean_for(kind) {
        Some(boolean) => format!("{why}; setsebool -P {boolean} on, or {copy}"),
        None => format!("{why}; {copy}"),
    }
}

fn advice(kind: Kind, access: Access) -> &'static str {
    match (kind, access) {
        (Kind::File, Access::Read | Access::Write | Access::Create) => {
            "let svirt-exec label it (without --no-relabel), or label it for this guest with chcon"
        }
        (Kind::Socket, _) => {
            "its server decides its label; serve it from a directory labelled for guests"
        }
        (Kind::Char | Kind::Block, _) => {
            "a boolean of the policy may allow it: getsebool -a | grep virt_use"
        }
        (Kind::File | Kind::Dir | Kind::Fifo | Kind::Missing, _) => {
            "ausearch -m avc -ts recent shows the rule that is missing once it was tried"
        }
    }
}

/// What stops the launcher: labels it may not set, a program the guest's domain
/// cannot be entered by, a transition that is not allowed.
pub fn launcher(
    host: &dyn Host,
    plan: &Plan,
    own: &Context,
    program: &Pinned,
    domain: &Context,
    privilege: Privilege,
) -> io::Result<Vec<String>> {
    let mut failures = entry(host, own, program, domain, privilege)?;
    failures.append(&mut labels(host, plan, own, privilege)?);
    Ok(failures)
}

/// Labels that the launcher may not set.
///
/// # Errors
/// Where the policy cannot be asked.
pub fn labels(
    host: &dyn Host,
    plan: &Plan,
    own: &Context,
    privilege: Privilege,
) -> io::Result<Vec<String>> {
    let mut failures = Vec::new();
    for step in &plan.steps {
        let resource = &step.resource;
        let Some(label) = &step.label else { continue };
        if let (Action::Create, Some(path)) = (step.action, &resource.path) {
            failures.extend(maker(host, own, step, path)?);
        }
        let (Some(pinned), Action::Relabel) = (&resource.pinned, step.action) else {
            continue;
        };
        let what = || {
            format!(
                "cannot label {} ({}) as {label}",
                resource.name(),
                resource.origin
            )
        };
        if pinned.uid != privilege.uid && !privilege.fowner {
            failures.push(format!(
                "{}: it belongs to user {}, and setting a label needs the owner or CAP_FOWNER; \
                 run svirt-exec as the owner, or make a copy",
                what(),
                pinned.uid
            ));
            continue;
        }
        let class = resource.kind.class();
        if let Some(current) = &resource.current
            && let Some(clause) = refused(host, own, current, class, &["relabelfrom"])?
        {
            let advice = if resource.kind == Kind::File {
                not_an_image(&pinned.real_path())
            } else {
                match device_boolean(&current.kind) {
                    Some(boolean) => format!(
                        "devices of this type are given to guests after: setsebool -P {boolean} on"
                    ),
                    None => "devices of this type are not given to guests by the svirt_launcher \
                             module"
                        .to_owned(),
                }
            };
            failures.push(format!("{}: {clause}; {advice}", what()));
        }
        if let Some(clause) = refused(host, own, label, class, &["relabelto"])? {
            failures.push(format!(
                "{}: {clause}; the launcher's clearance or the svirt_launcher module does not \
                 cover it",
                what()
            ));
        }
    }
    Ok(failures)
}

/// What stops the launcher from making a file for QEMU.
fn maker(host: &dyn Host, own: &Context, step: &Step, path: &Path) -> io::Result<Option<String>> {
    let what = format!(
        "cannot make {} ({}) for QEMU",
        step.resource.name(),
        step.resource.origin
    );
    let directory = path.parent().unwrap_or(Path::new("/"));
    let directory = match host.pin(directory) {
        Ok(directory) => directory,
        Err(error) => {
            return Ok(Some(format!(
                "{what}: its directory cannot be looked at: {error}; make it (mkdir -p)"
            )));
        }
    };
    let Some(label) = host.label_of(&directory)? else {
        return Ok(None);
    };
    let enter = ["add_name", "search", "write"];
    Ok(refused(host, own, &label, "dir", &enter)?.map(|clause| {
        format!(
            "{what}: {clause}; make the file beforehand, or name a home directory, /tmp or \
             /var/lib/libvirt/images"
        )
    }))
}

/// Whether `own` may become `domain` through this program.
pub fn entry(
    host: &dyn Host,
    own: &Context,
    program: &Pinned,
    domain: &Context,
    privilege: Privilege,
) -> io::Result<Vec<String>> {
    let mut failures = Vec::new();
    let name = quoted(program.path.as_os_str());
    if let Some(label) = host.label_of(program)? {
        if let Some(clause) = refused(host, domain, &label, "file", &["entrypoint"])? {
            let real = program.real_path();
            failures.push(format!(
                "cannot run {name} in {}: {clause} (its type is no entry point of the domain); if it \
                 is a QEMU: {}, or until the next relabelling: chcon -t qemu_exec_t {}",
                domain.kind,
                giving_type("qemu_exec_t", &real),
                shell_word(&real),
            ));
        } else if let Some(clause) = refused(host, own, &label, "file", &["execute", "read"])? {
            failures.push(format!(
                "cannot run {name}: {clause}; load the svirt_launcher module: {LOAD}"
            ));
        }
    }
    if let Some(clause) = refused(host, own, domain, "process", &["transition"])? {
        failures.push(format!(
            "cannot run {name} as {domain}: {clause} (transition denied); load the svirt_launcher \
             module of this version ({LOAD}), and check the caller's clearance (id -Z)"
        ));
    }
    if privilege.no_new_privs
        && let Some(clause) = refused(host, own, domain, "process2", &["nnp_transition"])?
    {
        failures.push(format!(
            "cannot run {name} as {domain} with no_new_privs set: {clause}; start it without \
             NoNewPrivileges=yes"
        ));
    }
    Ok(failures)
}

/// That there is no such program, in words.
pub fn not_found(program: &OsStr) -> String {
    if Path::new(program).components().count() > 1 {
        format!("cannot find {}: no such file", quoted(program))
    } else {
        format!("cannot find {} in PATH", quoted(program))
    }
}
