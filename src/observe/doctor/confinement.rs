//! The checks of SELinux: the policy, the domains of a launch, the guests that run.

use std::path::Path;

use crate::host::{Files, Policy, RealHost};
use crate::launch::exec::QemuProgram;
use crate::model::label::Context;
use crate::observe::doctor::check::Check;
use crate::observe::doctor::host::IMAGES;
use crate::observe::guests::View;
use crate::plan::preflight::{self, Privilege};
use crate::seclabel::domain::{self, GuestTypes};
use crate::seclabel::mcs;
use crate::seclabel::own_domain;
use crate::selinux::advice::giving_type;
use crate::selinux::names;
use crate::selinux::{self, Mode};
use crate::text::escape::quoted;
use crate::text::message::Message;

/// Checks that SELinux is on and enforcing.
pub(crate) fn selinux_is_on(host: &RealHost) -> Check {
    let name = "selinux";
    match host.mode() {
        Mode::Enforcing => Check::well(name, "on, enforcing"),
        Mode::Permissive => Check::bad(
            name,
            "on, permissive: guests get labels, and nothing holds them to those",
            "setenforce 1, and SELINUX=enforcing in /etc/selinux/config",
        ),
        Mode::Disabled if own_domain::hides_selinux(host.procfs()) => Check::bad(
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

/// Checks that /proc shows every process of the host.
pub(crate) fn processes_visible(host: &RealHost) -> Check {
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

/// Checks that the policy module is loaded.
pub(crate) fn policy_module(host: &RealHost, own: &Context) -> Check {
    let name = "policy_module";
    let missing: Vec<&str> = names::OWN_DOMAINS
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

/// Checks that this process runs in the launcher's domain.
pub(crate) fn own_domain(own: &Context) -> Check {
    let name = "own_domain";
    let program = std::env::current_exe().unwrap_or_else(|_| names::INSTALLED.into());
    let label = selinux::label_of_path(&program)
        .ok()
        .flatten()
        .map_or_else(|| "no label".to_owned(), |label| label.to_string());
    let detail = format!("{} is {label}, and runs as {own}", quoted(&program));
    if own.type_ == names::OWN_DOMAIN {
        return Check::well(name, detail);
    }
    let why = own_domain::why_not(own);
    Check::said(
        name,
        Message {
            problem: format!("{detail}, not in {}: {}", names::OWN_DOMAIN, why.problem),
            remedy: why.remedy,
        },
    )
}

/// Checks that the range of this process has categories to draw pairs from.
pub(crate) fn own_range(own: &Context) -> Check {
    match mcs::range(own, None) {
        Ok(range) => Check::well(
            "categories",
            format!("{} to draw pairs from: {range}", range.len()),
        ),
        Err(error) => Check::said("categories", error.message()),
    }
}

/// Checks the guests' contexts that the policy's files state.
pub(crate) fn virtual_contexts(host: &RealHost) -> Check {
    let name = "virtual_contexts";
    let stated = match host.virtual_contexts() {
        Ok(stated) => stated,
        Err(error) => {
            return Check::said(name, domain::DomainError::Files(error).message());
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
                let kinds: Vec<&str> = all.iter().map(|one| one.type_.as_str()).collect();
                kinds.join(", ")
            };
            Check::well(
                name,
                format!("domains {}; images {}", list(domains), list(images)),
            )
        }
    }
}

/// Tells the types of guests with an accelerator.
pub(crate) fn guest_domain(host: &RealHost, name: &'static str, types: &GuestTypes) -> Check {
    let execmem = host
        .denied(&types.domain, &types.domain, "process", &["execmem"])
        .is_ok_and(|denied| denied.is_empty());
    Check::well(
        name,
        format!(
            "{}, images {}, content {}, execmem {}",
            types.domain.type_,
            types.image.type_,
            types.content.type_,
            if execmem { "given" } else { "not given" }
        ),
    )
}

/// Checks that QEMU's program may be executed into a guest's domain.
pub(crate) fn qemu_entry(
    host: &RealHost,
    own: &Context,
    program: &QemuProgram,
    domain: &Context,
    privilege: Privilege,
) -> Check {
    let name = "qemu_entry";
    let asked = host
        .pin(&program.path)
        .and_then(|program| preflight::entry(host, own, &program, domain, privilege));
    match asked {
        Err(error) => Check::bad(
            name,
            format!("{} cannot be looked at: {error}", quoted(&program.path)),
            "check its permissions",
        ),
        Ok(failures) => match failures.first() {
            None => Check::well(
                name,
                format!("{} may be run in {}", quoted(&program.path), domain.type_),
            ),
            Some(first) => Check::said(name, first.clone()),
        },
    }
}

/// Checks that guests can be started if this process has no_new_privs.
pub(crate) fn no_new_privs(
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

/// Checks that no guest has categories that overlap those of another guest or process.
pub(crate) fn overlapping_guests(view: &View) -> Check {
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
            if guests && one.categories().overlaps(&other.categories()) {
                return Check::bad(
                    name,
                    format!(
                        "{first} ({}) and {second} ({}) have overlapping MCS categories",
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
        format!(
            "{} guests, no two with overlapping MCS categories",
            view.guests.len()
        ),
    )
}

/// Checks that guests may search a directory and every directory above it.
pub(crate) fn directory_usable(
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
            // A file system without labels: preflight asks about it file by file.
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
                        types.domain.type_
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

/// Tells the states of the policy's booleans for guests.
pub(crate) fn booleans() -> Check {
    let mut all: Vec<(String, bool)> = selinux::booleans()
        .into_iter()
        .filter(|(name, _)| name.starts_with("virt_") || name.starts_with("svirt_"))
        .collect();
    all.sort();
    let state = |(name, on): &(String, bool)| format!("{name}={}", if *on { "on" } else { "off" });
    let all: Vec<String> = all.iter().map(state).collect();
    Check::well(
        "booleans",
        if all.is_empty() {
            "none can be read".to_owned()
        } else {
            all.join(" ")
        },
    )
}
