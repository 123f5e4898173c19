//! Answers whether this host can confine QEMU (`doctor`): every check that a launch makes, and what a
//! launch takes for granted. Each check that fails says what to do. Changes nothing.
//!
//! If SELinux is off, the checks that only SELinux could answer are left out.
//!
//! In reading order:
//!
//! * `check`: one line of the checklist
//! * `confinement`: checks of SELinux, the policy and the guests that run
//! * `host`: checks of everything else: QEMU, mounts, limits, directories, the journal
//! * `report`: the checklist for people and for programs
//!
//! A new check is a function in `confinement` or `host`, and a line in [`examine_confinement`]. One that
//! helps on a host without SELinux has a second line in [`examine`], where SELinux is off. Its name in
//! JSON lasts: programs ask for it.

pub(crate) mod check;
mod confinement;
mod host;
pub(crate) mod report;

use std::ffi::{CString, OsStr};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

pub(crate) use crate::observe::doctor::confinement::policy_module;

use crate::host::{Policy, RealHost};
use crate::model::label::Context;
use crate::observe::doctor::check::Check;
use crate::observe::guests;
use crate::plan::preflight::Privilege;
use crate::seclabel::domain::{self, Accelerator};
use crate::selinux::Mode;

/// Makes every check, in the order in which a launch would find out.
pub(crate) fn examine(qemu: Option<&OsStr>, environment: &[CString]) -> Vec<Check> {
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
    let mut checks = vec![
        confinement::selinux_is_on(&host),
        confinement::processes_visible(&host),
    ];
    if host.mode() == Mode::Disabled {
        checks.push(host::qemu_found(qemu, environment).0);
        checks.push(host::kvm());
        checks.push(host::descriptors());
        checks.extend(host::state(&host));
        return checks;
    }
    match host.own_context() {
        Ok(own) => examine_confinement(&host, &own, qemu, environment, &mut checks),
        Err(error) => checks.push(Check::bad(
            "own_domain",
            format!("this process's label cannot be read: {error}"),
            "mount -t proc proc /proc",
        )),
    }
    if let Ok(view) = guests::view(&host) {
        checks.push(confinement::overlapping_guests(&view));
    }
    checks
}

/// Makes the checks of a host with SELinux.
fn examine_confinement(
    host: &RealHost,
    own: &Context,
    qemu: Option<&OsStr>,
    environment: &[CString],
    checks: &mut Vec<Check>,
) {
    checks.push(policy_module(host, own));
    checks.push(confinement::own_domain(own));
    checks.push(host::mount());
    let privilege = Privilege {
        uid: Uid::effective().as_raw(),
        fowner: false,
        no_new_privs: nix::sys::prctl::get_no_new_privs().unwrap_or(false),
    };
    checks.push(confinement::own_range(own));
    checks.push(confinement::virtual_contexts(host));
    let mut domains = Vec::new();
    for (name, accelerator) in [
        ("domain_kvm", Accelerator::Kvm),
        ("domain_tcg", Accelerator::Tcg),
    ] {
        match domain::guest_types(host, own, accelerator, None) {
            Ok(types) => {
                checks.push(confinement::guest_domain(host, name, &types));
                domains.push((name, types));
            }
            Err(error) => checks.push(Check::said(name, error.message())),
        }
    }
    let (found, command) = host::qemu_found(qemu, environment);
    checks.push(found);
    if let Some(command) = &command {
        for (_, types) in &domains {
            checks.push(confinement::qemu_entry(
                host,
                own,
                command,
                &types.domain,
                privilege,
            ));
        }
    }
    checks.push(confinement::no_new_privs(host, own, &domains, privilege));
    checks.push(host::kvm());
    checks.extend(host::emulators(environment));
    checks.push(host::descriptors());
    checks.extend(host::state(host));
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    for (name, directory) in [
        ("images", Path::new(host::IMAGES)),
        ("working_directory", &cwd),
    ] {
        checks.push(confinement::directory_usable(
            host, name, directory, &domains,
        ));
    }
    checks.push(confinement::booleans());
}
