//! `doctor`: can this host confine QEMU? Every check that a launch makes, and what a launch takes
//! for granted, each with what to do where it fails. Changes nothing.
//!
//! Where SELinux is off, what only it could answer is left out.

pub mod host;
pub mod report;

use std::ffi::{CString, OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde::Serialize;

use crate::host::{Files, Policy, RealHost};
use crate::launch::exec::Command;
use crate::model::label::Context;
use crate::observe::guests::View;
use crate::plan::preflight::{self, Privilege};
use crate::seclabel::domain::{self, Accelerator, GuestTypes};
use crate::seclabel::mcs;
use crate::seclabel::own_domain;
use crate::selinux::names;
use crate::selinux::{self, Mode};
use crate::sys;
use crate::text::escape::quoted;

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked; a name that stays.
    pub name: &'static str,
    /// Whether it is well. What is only told, such as booleans, is.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do; none where it is well.
    pub fix: Option<String>,
}

impl Check {
    /// Is well.
    pub fn well(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            ok: true,
            detail: detail.into(),
            fix: None,
        }
    }

    /// Fails, with what to do.
    pub fn bad(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            name,
            ok: false,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }

    /// A message of this program's own, which says what to do behind its first semicolon.
    pub fn said(name: &'static str, message: &str) -> Self {
        match message.split_once("; ") {
            Some((detail, fix)) => Self::bad(name, detail, fix),
            None => Self::bad(name, message, "see the message"),
        }
    }
}

/// Everything, in the order in which a launch would find out.
pub fn examine(qemu: Option<&OsStr>, environment: &[CString]) -> Vec<Check> {
    let mut checks = Vec::new();
    let host = match RealHost::new() {
        Ok(host) => host,
        Err(error) => {
            return vec![Check::bad(
                "proc",
                format!("/proc cannot be used: {error}"),
                "mount -t proc proc /proc",
            )];
        }
    };
    checks.push(selinux_is_on(&host));
    if host.mode() == Mode::Disabled {
        checks.push(processes_visible(&host));
        checks.push(qemu_found(qemu, environment).0);
        checks.push(host::kvm());
        checks.push(host::descriptors());
        checks.extend(host::state(&host));
        return checks;
    }
    checks.push(processes_visible(&host));
    match host.own_context() {
        Ok(own) => confined(&host, &own, qemu, environment, &mut checks),
        Err(error) => checks.push(Check::bad(
            "own_domain",
            format!("this process's label cannot be read: {error}"),
            "mount -t proc proc /proc",
        )),
    }
    checks
}

/// What an SELinux host is asked.
fn confined(
    host: &RealHost,
    own: &Context,
    qemu: Option<&OsStr>,
    environment: &[CString],
    checks: &mut Vec<Check>,
) {
    checks.push(module(host, own));
    checks.push(own_domain(own));
    checks.push(host::mount());
    let privilege = Privilege {
        uid: Uid::effective().as_raw(),
        fowner: false,
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
    };
    checks.push(own_range(own));
    checks.push(contexts(host));
    let mut domains = Vec::new();
    for (name, accelerator) in [
        ("domain_kvm", Accelerator::Kvm),
        ("domain_tcg", Accelerator::Tcg),
    ] {
        match domain::guest_types(host, own, accelerator, None) {
            Ok(types) => {
                checks.push(domain_found(host, name, &types));
                domains.push((name, types));
            }
            Err(error) => checks.push(Check::said(name, &error.to_string())),
        }
    }
    let (found, command) = qemu_found(qemu, environment);
    checks.push(found);
    if let Some(command) = &command {
        for (_, types) in &domains {
            checks.push(entry(host, own, command, &types.domain, privilege));
        }
    }
    checks.push(no_new_privs(host, own, &domains, privilege));
    checks.push(host::kvm());
    checks.extend(host::libvirt(sys::variable(environment, "PATH").as_deref()));
    checks.push(host::descriptors());
    checks.extend(host::state(host));
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    for (name, directory) in [
        ("images", Path::new(host::IMAGES)),
        ("working_directory", &cwd),
    ] {
        checks.push(host::directory_usable(host, name, directory, &domains));
    }
    checks.extend(host::booleans());
}

fn selinux_is_on(host: &RealHost) -> Check {
    let name = "selinux";
    match host.mode() {
        Mode::Enforcing => Check::well(name, "on, enforcing"),
        Mode::Permissive => Check::bad(
            name,
            "on, permissive: guests get labels, and nothing holds them to those",
            "setenforce 1, and SELINUX=enforcing in /etc/selinux/config",
        ),
        Mode::Disabled if own_domain::hides_selinux(host) => Check::bad(
            name,
            "this process has a label, but selinuxfs is not visible here: a container hides it",
            "run svirt-exec outside the container, or mount /sys/fs/selinux into it",
        ),
        Mode::Disabled => Check::bad(
            name,
            "off: nothing can be confined on this host",
            "install a policy (selinux-policy-default, selinux-policy-targeted) and boot with \
             selinux=1 security=selinux; svirt-exec --allow-unconfined runs QEMU without confinement",
        ),
    }
}

fn processes_visible(host: &RealHost) -> Check {
    let name = "proc";
    if host.procfs().sees_all() || host.mode() == Mode::Disabled {
        Check::well(name, "a proc file system, and all processes are in it")
    } else {
        Check::bad(
            name,
            "/proc does not show every process of the host: that a pair is free cannot be proven",
            "run svirt-exec outside PID namespaces, and mount /proc without hidepid=",
        )
    }
}

/// Whether the policy module is loaded.
pub fn module(host: &RealHost, own: &Context) -> Check {
    let name = "policy_module";
    let missing: Vec<&str> = [names::OWN_DOMAIN, names::INFO_DOMAIN, names::KEEPER_DOMAIN]
        .into_iter()
        .filter(|kind| !host.is_valid(&own.with_type(kind)))
        .collect();
    let mut pipe = own.with_type(names::PIPE_TYPE);
    "object_r".clone_into(&mut pipe.role);
    if missing.is_empty() && host.is_valid(&pipe) {
        return Check::well(name, "svirt_launcher is loaded");
    }
    Check::bad(
        name,
        format!(
            "svirt_launcher is not loaded, or does not know role {}: no type {}",
            own.role,
            missing.first().unwrap_or(&names::PIPE_TYPE)
        ),
        names::LOAD,
    )
}

fn own_domain(own: &Context) -> Check {
    let name = "own_domain";
    let program = std::env::current_exe().unwrap_or_else(|_| names::INSTALLED.into());
    let label = selinux::label_of_path(&program)
        .ok()
        .flatten()
        .map_or_else(|| "no label".to_owned(), |label| label.to_string());
    let detail = format!("{} is {label}, and runs as {own}", quoted(&program));
    if own.kind == names::OWN_DOMAIN {
        return Check::well(name, detail);
    }
    let why = own_domain::why_not(own);
    Check::said(
        name,
        &format!("{detail}, not in {}: {why}", names::OWN_DOMAIN),
    )
}

fn own_range(own: &Context) -> Check {
    match mcs::range(own, None) {
        Ok(range) => Check::well(
            "categories",
            format!("{} to draw pairs from: {range}", range.len()),
        ),
        Err(error) => Check::said("categories", &error.to_string()),
    }
}

fn contexts(host: &RealHost) -> Check {
    let name = "virtual_contexts";
    let stated = match host.virtual_contexts() {
        Ok(stated) => stated,
        Err(error) => {
            return Check::said(name, &domain::DomainError::Files(error).to_string());
        }
    };
    let (domains, images) = (&stated.domains, &stated.images);
    if domains.is_empty() || images.len() < 2 {
        return Check::bad(
            name,
            "virtual_domain_context or virtual_image_context of the policy lacks lines",
            "install the policy's files again (selinux-policy-default, selinux-policy-targeted)",
        );
    }
    match domains.iter().chain(images).find(|one| !host.is_valid(one)) {
        Some(unknown) => Check::bad(
            name,
            format!("the policy does not know '{unknown}', which its own files state"),
            "install the policy's files again, or remove that line",
        ),
        None => {
            let list = |all: &[Context]| {
                let kinds: Vec<&str> = all.iter().map(|one| one.kind.as_str()).collect();
                kinds.join(", ")
            };
            Check::well(
                name,
                format!("domains {}; images {}", list(domains), list(images)),
            )
        }
    }
}

fn domain_found(host: &RealHost, name: &'static str, types: &GuestTypes) -> Check {
    let execmem = host
        .denied(&types.domain, &types.domain, "process", &["execmem"])
        .is_ok_and(|denied| denied.is_empty());
    Check::well(
        name,
        format!(
            "{}, images {}, content {}, execmem {}",
            types.domain.kind,
            types.image.kind,
            types.content.kind,
            if execmem { "given" } else { "not given" }
        ),
    )
}

/// QEMUs to look for: this machine's own, and what Fedora calls it.
fn names() -> [OsString; 2] {
    [
        format!("qemu-system-{}", std::env::consts::ARCH).into(),
        "qemu-kvm".into(),
    ]
}

fn qemu_found(qemu: Option<&OsStr>, environment: &[CString]) -> (Check, Option<Command>) {
    let name = "qemu";
    let path = sys::variable(environment, "PATH");
    let mut words: Vec<OsString> = match qemu {
        Some(qemu) => vec![qemu.to_owned()],
        None => names().to_vec(),
    };
    if qemu.is_none() {
        // Not in PATH; Fedora's and RHEL's.
        words.push("/usr/libexec/qemu-kvm".into());
    }
    let mut why = String::new();
    for word in words {
        match Command::find(std::slice::from_ref(&word), path.as_deref()) {
            Ok(command) => {
                let detail = quoted(&command.program);
                return (Check::well(name, detail), Some(command));
            }
            Err(refusal) if why.is_empty() => why = refusal.messages.join("; "),
            Err(_) => {}
        }
    }
    (Check::said(name, &why), None)
}

fn entry(
    host: &RealHost,
    own: &Context,
    command: &Command,
    domain: &Context,
    privilege: Privilege,
) -> Check {
    let name = "qemu_entry";
    let asked = host
        .pin(&command.program)
        .and_then(|program| preflight::entry(host, own, &program, domain, privilege));
    match asked {
        Err(error) => Check::bad(
            name,
            format!("{} cannot be looked at: {error}", quoted(&command.program)),
            "check its permissions",
        ),
        Ok(failures) => match failures.first() {
            None => Check::well(
                name,
                format!("{} may be run in {}", quoted(&command.program), domain.kind),
            ),
            Some(first) => Check::said(name, first),
        },
    }
}

fn no_new_privs(
    host: &RealHost,
    own: &Context,
    domains: &[(&str, GuestTypes)],
    privilege: Privilege,
) -> Check {
    let name = "no_new_privs";
    if !privilege.no_new_privs {
        return Check::well(name, "not set");
    }
    let allowed = domains.iter().all(|(_, types)| {
        host.denied(own, &types.domain, "process2", &["nnp_transition"])
            .is_ok_and(|denied| denied.is_empty())
    });
    if allowed {
        Check::well(
            name,
            "set, and the policy lets guests be started all the same",
        )
    } else {
        Check::bad(
            name,
            "set, and the policy lets no guest be started then",
            "start svirt-exec without NoNewPrivileges=yes (setpriv --no-new-privs, prctl(2))",
        )
    }
}

/// Whether any two cages on the host overlap.
pub fn overlaps(view: &View) -> Check {
    let name = "pairs";
    let mut all: Vec<(String, Context)> = Vec::new();
    for guest in &view.guests {
        all.push((format!("guest {}", guest.title()), guest.context.clone()));
    }
    for process in &view.others {
        all.push((format!("process {}", process.pid), process.context.clone()));
    }
    for (index, (first, one)) in all.iter().enumerate() {
        for (second, other) in all.iter().skip(index.saturating_add(1)) {
            let guests = first.starts_with("guest");
            if guests && one.cage().overlaps(&other.cage()) {
                return Check::bad(
                    name,
                    format!(
                        "{first} ({}) and {second} ({}) are in overlapping cages",
                        one.short(),
                        other.short()
                    ),
                    "end one of the two; svirt-exec verify says more, --mcs-range splits the \
                     categories between tools",
                );
            }
        }
    }
    Check::well(
        name,
        format!("{} guests, no two in overlapping cages", view.guests.len()),
    )
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
