//! The domains and the program of the svirt_launcher module, and whether this process is what they are
//! for.

use crate::host::RealHost;
use crate::model::label::Context;
use crate::selinux::advice;
use crate::selinux::names::{INSTALLED, LOAD, OWN_DOMAIN, OWN_TYPE};
use crate::selinux::{self, Mode};
use crate::text::message::{Refusal, refuse, say};
use std::path::Path;

/// Whether a container hides selinuxfs: the process is labelled all the same.
pub fn hides_selinux(host: &RealHost) -> bool {
    host.procfs()
        .read("self/attr/current")
        .is_ok_and(|label| label.trim_end_matches('\0').matches(':').count() >= 2)
}

/// The launcher must run in its own domain: an automatic transition that
/// no_new_privs or a nosuid mount forbids falls away silently.
pub(crate) fn check(own: &Context, mode: Mode) -> Result<(), Refusal> {
    if own.kind == OWN_DOMAIN {
        return Ok(());
    }
    let message = format!(
        "svirt-exec itself runs as {}, not in {OWN_DOMAIN}: {}",
        own.short(),
        why_not(own)
    );
    if mode == Mode::Enforcing {
        return Err(refuse(message));
    }
    say(format_args!("warning: {message}"));
    Ok(())
}

/// Why this program was not put into its own domain, and what helps.
pub(crate) fn why_not(own: &Context) -> String {
    if !selinux::is_valid(&own.with_type(OWN_DOMAIN)) {
        return format!(
            "the policy module svirt_launcher is not loaded, or does not know role {}, or this domain may \
             not ask for it; {LOAD} && \
             restorecon -RF /usr/bin/svirt-exec /usr/libexec/svirt-exec /var/lib/svirt-exec (the file is \
             in the package svirt-exec-selinux)",
            own.role
        );
    }
    let program = std::env::current_exe().unwrap_or_else(|_| INSTALLED.into());
    let label = selinux::label_of_path(&program).ok().flatten();
    if label.is_none_or(|label| label.kind != OWN_TYPE) {
        let type_it = if program == Path::new(INSTALLED) {
            format!("restorecon -F {INSTALLED}")
        } else {
            advice::giving_type(OWN_TYPE, &program)
        };
        return format!("the program is not labelled {OWN_TYPE}; {type_it}");
    }
    "NoNewPrivileges, a nosuid mount or the policy for that domain kept it out; start it without \
     NoNewPrivileges from a domain that may (root login, systemd service, cron)"
        .to_owned()
}
