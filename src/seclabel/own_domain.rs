//! Whether this process is in the domain that the svirt_launcher module has for the launcher.

use std::path::Path;

use crate::host::Procfs;
use crate::model::label::Context;
use crate::seclabel::domain;
use crate::selinux::advice::giving_type;
use crate::selinux::names::{INSTALLED, LOAD, OWN_DOMAIN, OWN_TYPE};
use crate::selinux::{self, Mode};
use crate::text::message::{Message, Refusal, refuse, say};

/// Tells whether a container hides selinuxfs: the process is labelled all the same.
pub fn hides_selinux(procfs: &Procfs) -> bool {
    procfs
        .read("self/attr/current")
        .is_ok_and(|label| label.trim_end_matches('\0').matches(':').count() >= 2)
}

/// Checks that the launcher runs in its own domain. An automatic transition that no_new_privs or a nosuid
/// mount forbids falls away silently.
///
/// # Errors
/// That it does not, if SELinux is enforcing.
pub fn check(own: &Context, mode: Mode) -> Result<(), Refusal> {
    if own.type_ == OWN_DOMAIN {
        return Ok(());
    }
    let why = why_not(own);
    let message = Message {
        problem: format!(
            "svirt-exec itself runs as {}, not in {OWN_DOMAIN}: {}",
            own.short(),
            why.problem
        ),
        remedy: why.remedy,
    };
    if mode == Mode::Enforcing {
        return Err(refuse(message));
    }
    say(format_args!("warning: {message}"));
    Ok(())
}

/// Says why this program was not put into its own domain, and what helps.
pub fn why_not(own: &Context) -> Message {
    if domain::is_named_for_guests(own) {
        return Message::new(
            "that is a guest's domain, at a level that confines no guest",
            "give it two categories, as libvirt does by itself, or leave confining to svirt-exec (<seclabel \
             type='none'/>)",
        );
    }
    if !selinux::is_valid(&own.with_type(OWN_DOMAIN)) {
        return Message::new(
            format!(
                "the policy module svirt_launcher is not loaded, or does not know role {}, or this domain \
                 may not ask for it",
                own.role
            ),
            format!(
                "{LOAD} && restorecon -RF /usr/bin/svirt-exec /usr/libexec/svirt-exec \
                 /var/lib/svirt-exec (the file is in the package svirt-exec-selinux)"
            ),
        );
    }
    let program = std::env::current_exe().unwrap_or_else(|_| INSTALLED.into());
    let label = selinux::label_of_path(&program).ok().flatten();
    if label.is_none_or(|label| label.type_ != OWN_TYPE) {
        let remedy = if program == Path::new(INSTALLED) {
            format!("restorecon -F {INSTALLED}")
        } else {
            giving_type(OWN_TYPE, &program)
        };
        return Message::new(format!("the program is not labelled {OWN_TYPE}"), remedy);
    }
    Message::new(
        "NoNewPrivileges, a nosuid mount or the policy for that domain kept it out",
        "start it without NoNewPrivileges from a domain that may (root login, systemd service, cron)",
    )
}
