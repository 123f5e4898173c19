//! Before anything changes: will the policy let the guest do what QEMU will do, and let the launcher do
//! what it is about to? Every failure is found, not the first.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::host::devices::TUN;
use crate::host::pinned::{Kind, Pinned};
use crate::host::policy::refused;
use crate::host::sysfs::INTERFACES;
use crate::model::label::Context;
use crate::model::resource::{Access, HostDevice};
use crate::plan::create;
use crate::plan::step::{Action, Plan, Step};
use crate::selinux::advice::{
    boolean_for, device_boolean, giving_type, not_an_image, not_searchable, opened_by,
};
use crate::selinux::names::LOAD;
use crate::text::escape::{quoted, shell_word};
use crate::text::message::Message;

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

/// Returns what QEMU does with an object of this kind, as permissions of its class.
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

/// Tells whether the guest may use a resource with the label that it has now.
///
/// # Errors
/// Those of asking the policy.
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

/// Says what the policy will refuse QEMU.
///
/// # Errors
/// Those of asking the policy, and of reading labels of directories.
pub fn guest(host: &dyn Host, plan: &Plan) -> io::Result<Vec<Message>> {
    let Some(labels) = &plan.labels else {
        return Ok(Vec::new());
    };
    let guest = GuestCheck {
        host,
        plan,
        process: &labels.process,
    };
    let mut failures = Vec::new();
    failures.extend(guest.change_of_user()?);
    failures.extend(guest.change_of_root()?);
    for step in &plan.steps {
        failures.extend(guest.tap(step)?);
    }
    for step in &plan.steps {
        failures.extend(guest.resource(step)?);
        failures.extend(guest.creation(step)?);
    }
    failures.extend(guest.directories()?);
    Ok(failures)
}

/// Questions about what the guest's process may do: one method each.
struct GuestCheck<'a> {
    host: &'a dyn Host,
    plan: &'a Plan,
    process: &'a Context,
}

impl GuestCheck<'_> {
    /// Asks what the guest's process may not do to a target.
    fn refused(
        &self,
        target: &Context,
        class: &str,
        wanted: &[&str],
    ) -> io::Result<Option<String>> {
        refused(self.host, self.process, target, class, wanted)
    }

    /// Asks whether QEMU may become another user (`-run-with user=`).
    fn change_of_user(&self) -> io::Result<Option<Message>> {
        let Some(user) = &self.plan.becomes else {
            return Ok(None);
        };
        let name = quoted(user);
        let clause = self.refused(self.process, "capability", &["setgid", "setuid"])?;
        Ok(clause.map(|clause| {
            Message::new(
                format!(
                    "QEMU will not be allowed to become user {name} (-run-with user=): {clause}"
                ),
                format!(
                    "setsebool -P svirt_launcher_change_user on, or start it as that user: runuser -u \
                     {name} -- svirt-exec …"
                ),
            )
        }))
    }

    /// Asks whether QEMU may change its root directory (`-run-with chroot=`).
    fn change_of_root(&self) -> io::Result<Option<Message>> {
        if !self.plan.chroots {
            return Ok(None);
        }
        let clause = self.refused(self.process, "capability", &["sys_chroot"])?;
        let remedy = "setsebool -P svirt_launcher_change_user on, or leave it out";
        let problem =
            |clause| format!("QEMU will not be allowed to change its root directory: {clause}");
        Ok(clause.map(|clause| Message::new(problem(clause), remedy)))
    }

    /// Asks whether QEMU may open a tap device. An interface is made (`selinux_tun_dev_create`,
    /// drivers/net/tun.c in Linux) or, if it exists, joined (`selinux_tun_dev_open`). For that its
    /// maker's label counts, too, which is left to the kernel.
    fn tap(&self, step: &Step) -> io::Result<Option<Message>> {
        let resource = &step.resource;
        if resource.path.as_deref() != Some(Path::new(TUN)) || resource.access != Access::Write {
            return Ok(None);
        }
        let joined = match &resource.host {
            Some(HostDevice::Tap { ifname }) => {
                self.host.pin(&Path::new(INTERFACES).join(ifname)).is_ok()
            }
            _ => false,
        };
        let wanted = if joined { ["relabelto"] } else { ["create"] };
        let clause = self.refused(self.process, "tun_socket", &wanted)?;
        Ok(clause.map(|clause| {
            Message::new(
                format!(
                    "QEMU will not be allowed to open a tap device ({}): {clause}",
                    resource.origin
                ),
                "use -netdev user,id=ID, or hand it down open, as libvirt does: -netdev tap,id=ID,fd=N",
            )
        }))
    }

    /// Asks whether QEMU may use a resource with the label that it will have.
    fn resource(&self, step: &Step) -> io::Result<Option<Message>> {
        let resource = &step.resource;
        let label = step.label.as_ref().or(resource.current.as_ref());
        let (Some(_), Some(label)) = (&resource.path, label.filter(|_| !resource.template)) else {
            return Ok(None);
        };
        let mut wanted = permissions(step).to_vec();
        if resource.is_mapped() {
            wanted.push("map");
        }
        let clause = self.refused(label, resource.kind.class(), &wanted)?;
        Ok(clause.map(|clause| {
            let advice = match (&step.label, &step.fixed) {
                (Some(_), _) => "the policy's image type does not suit it".to_owned(),
                (None, Some(why)) => without_label(why, label),
                (None, None) => opened_by(&label.type_)
                    .unwrap_or_else(|| advice(resource.kind, resource.access).to_owned()),
            };
            Message::new(
                format!(
                    "QEMU will not be allowed to use {} ({}, {}): {clause}",
                    resource.name(),
                    resource.origin,
                    resource.reason
                ),
                advice,
            )
        }))
    }

    /// Asks whether QEMU may make a file or socket that is not there.
    fn creation(&self, step: &Step) -> io::Result<Option<Message>> {
        let resource = &step.resource;
        let Some(path) = &resource.path else {
            return Ok(None);
        };
        if resource.kind != Kind::Missing
            || step.action != Action::None
            || self.is_in_own_directory(path)
        {
            return Ok(None);
        }
        let clause = create::refused(self.host, self.process, &self.plan.steps, step, path)?;
        Ok(clause.map(|clause| {
            Message::new(
                format!(
                    "QEMU will not be allowed to make {} ({}, {}): {clause}",
                    resource.name(),
                    resource.origin,
                    resource.reason
                ),
                "name a directory where guests may make such files",
            )
        }))
    }

    /// Tells whether a path is in the guest's own directory, which is made for it, empty.
    fn is_in_own_directory(&self, path: &Path) -> bool {
        let runtime = self.plan.runtime.as_ref();
        runtime.is_some_and(|runtime| path.starts_with(runtime))
    }

    /// Returns every directory on the way to a resource, with what names the first resource in it.
    fn directories_on_the_way(&self) -> BTreeMap<PathBuf, String> {
        let mut directories: BTreeMap<PathBuf, String> = BTreeMap::new();
        for step in &self.plan.steps {
            let resource = &step.resource;
            let Some(path) = &resource.path else { continue };
            let real = resource.pinned.as_ref().map(Pinned::real_path);
            for path in [Some(path), real.as_ref()].into_iter().flatten() {
                for directory in path.ancestors().skip(1) {
                    // And so are those above it.
                    if directories.contains_key(directory) {
                        break;
                    }
                    // There it is this process's descriptors; in QEMU, that one's own.
                    let passed = DESCRIPTORS.iter().any(|own| directory == Path::new(own));
                    if !passed && !self.is_in_own_directory(directory) {
                        directories.insert(directory.to_path_buf(), resource.origin.to_string());
                    }
                }
            }
        }
        directories
    }

    /// Asks whether QEMU may pass through the directories on the way.
    fn directories(&self) -> io::Result<Vec<Message>> {
        let mut failures = Vec::new();
        for (directory, origin) in self.directories_on_the_way() {
            let Some(label) = create::label_then(self.host, &self.plan.steps, &directory)? else {
                continue;
            };
            if let Some(clause) = self.refused(&label, "dir", &["search"])? {
                failures.push(Message::new(
                    format!(
                        "QEMU will not be allowed to pass through {} ({origin}): {clause}",
                        quoted(directory.as_os_str())
                    ),
                    not_searchable(&label.type_, &directory),
                ));
            }
        }
        Ok(failures)
    }
}

/// Says what helps if a label cannot be set.
fn without_label(why: &str, label: &Context) -> String {
    let copy = "copy it to a file system whose files have labels, such as that of \
                /var/lib/libvirt/images";
    match boolean_for(&label.type_) {
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

/// Says what stops the launcher: labels that it may not set, a program by which the guest's domain cannot
/// be entered, a transition that is not allowed.
///
/// # Errors
/// Those of asking the policy, and of reading labels.
pub fn launcher(
    host: &dyn Host,
    plan: &Plan,
    own: &Context,
    program: &Pinned,
    domain: &Context,
    privilege: Privilege,
) -> io::Result<Vec<Message>> {
    let mut failures = entry(host, own, program, domain, privilege)?;
    failures.append(&mut labels(host, plan, own, privilege)?);
    Ok(failures)
}

/// Says which labels the launcher may not set.
///
/// # Errors
/// Those of asking the policy, and of reading labels of directories.
pub fn labels(
    host: &dyn Host,
    plan: &Plan,
    own: &Context,
    privilege: Privilege,
) -> io::Result<Vec<Message>> {
    let mut failures = Vec::new();
    for step in &plan.steps {
        let resource = &step.resource;
        let Some(label) = &step.label else { continue };
        if let (Action::Create, Some(path)) = (step.action, &resource.path) {
            failures.extend(maker(host, own, step, path)?);
        }
        if let (Some(pinned), Action::Relabel) = (&resource.pinned, step.action) {
            failures.append(&mut relabel(host, own, privilege, (step, pinned, label))?);
        }
    }
    Ok(failures)
}

/// Says why the launcher may not set one label.
fn relabel(
    host: &dyn Host,
    own: &Context,
    privilege: Privilege,
    (step, pinned, label): (&Step, &Pinned, &Context),
) -> io::Result<Vec<Message>> {
    let resource = &step.resource;
    let what = format!(
        "cannot label {} ({}) as {label}",
        resource.name(),
        resource.origin
    );
    if pinned.uid != privilege.uid && !privilege.fowner {
        return Ok(vec![Message::new(
            format!(
                "{what}: it belongs to user {}, and setting a label needs the owner or CAP_FOWNER",
                pinned.uid
            ),
            "run svirt-exec as the owner, or make a copy",
        )]);
    }
    let mut failures = Vec::new();
    let class = resource.kind.class();
    if let Some(current) = &resource.current
        && let Some(clause) = refused(host, own, current, class, &["relabelfrom"])?
    {
        let advice = match (resource.kind, device_boolean(&current.type_)) {
            (Kind::File, _) => not_an_image(&pinned.real_path()),
            (_, Some(boolean)) => {
                format!("devices of this type are given to guests after: setsebool -P {boolean} on")
            }
            (_, None) => {
                "devices of this type are not given to guests by the svirt_launcher module"
                    .to_owned()
            }
        };
        failures.push(Message::new(format!("{what}: {clause}"), advice));
    }
    if let Some(clause) = refused(host, own, label, class, &["relabelto"])? {
        failures.push(Message::new(
            format!("{what}: {clause}"),
            "the launcher's clearance or the svirt_launcher module does not cover it",
        ));
    }
    Ok(failures)
}

/// Says what stops the launcher from making a file for QEMU.
fn maker(host: &dyn Host, own: &Context, step: &Step, path: &Path) -> io::Result<Option<Message>> {
    let what = format!(
        "cannot make {} ({}) for QEMU",
        step.resource.name(),
        step.resource.origin
    );
    let directory = path.parent().unwrap_or(Path::new("/"));
    let directory = match host.pin(directory) {
        Ok(directory) => directory,
        Err(error) => {
            return Ok(Some(Message::new(
                format!("{what}: its directory cannot be looked at: {error}"),
                "make it (mkdir -p)",
            )));
        }
    };
    let Some(label) = host.label_of(&directory)? else {
        return Ok(None);
    };
    let clause = refused(host, own, &label, "dir", &create::MAKE_IN_DIRECTORY)?;
    Ok(clause.map(|clause| {
        Message::new(
            format!("{what}: {clause}"),
            "make the file beforehand, or name a home directory, /tmp or /var/lib/libvirt/images",
        )
    }))
}

/// Says why `own` may not become `domain` through this program.
///
/// # Errors
/// Those of asking the policy, and of reading the program's label.
pub fn entry(
    host: &dyn Host,
    own: &Context,
    program: &Pinned,
    domain: &Context,
    privilege: Privilege,
) -> io::Result<Vec<Message>> {
    let mut failures = Vec::new();
    let name = quoted(program.path.as_os_str());
    if let Some(label) = host.label_of(program)? {
        if let Some(clause) = refused(host, domain, &label, "file", &["entrypoint"])? {
            let real = program.real_path();
            failures.push(Message::new(
                format!(
                    "cannot run {name} in {}: {clause} (its type is no entry point of the domain)",
                    domain.type_
                ),
                format!(
                    "if it is a QEMU: {}, or until the next relabelling: chcon -t qemu_exec_t {}",
                    giving_type("qemu_exec_t", &real),
                    shell_word(&real),
                ),
            ));
        } else if let Some(clause) = refused(host, own, &label, "file", &["execute", "read"])? {
            failures.push(Message::new(
                format!("cannot run {name}: {clause}"),
                format!("load the svirt_launcher module: {LOAD}"),
            ));
        }
    }
    if let Some(clause) = refused(host, own, domain, "process", &["transition"])? {
        failures.push(Message::new(
            format!("cannot run {name} as {domain}: {clause} (transition denied)"),
            format!(
                "load the svirt_launcher module of this version ({LOAD}), and check the caller's \
                 clearance (id -Z)"
            ),
        ));
    }
    if privilege.no_new_privs
        && let Some(clause) = refused(host, own, domain, "process2", &["nnp_transition"])?
    {
        failures.push(Message::new(
            format!("cannot run {name} as {domain} with no_new_privs set: {clause}"),
            "start it without NoNewPrivileges=yes",
        ));
    }
    Ok(failures)
}

/// Says that there is no such program.
pub fn not_found(program: &OsStr) -> String {
    if Path::new(program).components().count() > 1 {
        format!("cannot find {}: no such file", quoted(program))
    } else {
        format!("cannot find {} in PATH", quoted(program))
    }
}
