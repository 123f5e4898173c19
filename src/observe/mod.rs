//! The commands that look at a running system and change nothing: `list`, `verify`, `denials`,
//! `doctor`.

pub mod audit_log;
pub mod audit_record;
pub mod denials;
pub mod denials_report;
pub mod doctor;
pub mod guests;
pub mod list;
pub mod open_files;
pub mod verify;
pub mod verify_report;

use std::ffi::{CString, OsStr};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::host::{Host, RealHost};
use crate::model::label::Context;
use crate::observe::denials::Known;
use crate::observe::doctor::report;
use crate::observe::guests::{Guest, View};
use crate::observe::list as list_report;
use crate::observe::verify::Facts;
use crate::restore::keeper::client;
use crate::seclabel::domain;
use crate::seclabel::own_domain;
use crate::selinux::{self, Mode};
use crate::text::message::{Refusal, refuse, say};
use crate::{println, println_in_colour};

/// Exit status when something does not hold.
const FOUND: u8 = 1;

/// A host that can have confined guests.
fn selinux_host() -> Result<RealHost, Refusal> {
    let host = RealHost::new()?;
    if host.mode() == Mode::Disabled {
        return Err(refuse(if own_domain::hides_selinux(&host) {
            "cannot look for confined guests: selinuxfs is not visible here (a container hides it); \
             run svirt-exec outside the container"
        } else {
            "cannot look for confined guests: SELinux is off on this host; svirt-exec doctor says \
             what to do"
        }));
    }
    Ok(host)
}

fn look(host: &RealHost) -> Result<View, Refusal> {
    guests::view(host)
        .map_err(|error| refuse(format!("cannot look for confined guests in /proc: {error}")))
}

/// `list`.
///
/// # Errors
/// Where /proc cannot be read.
pub fn list(json: bool) -> Result<u8, Refusal> {
    let host = selinux_host()?;
    let view = look(&host)?;
    if json {
        println(&list_report::json(&view)?);
    } else {
        println(list_report::text(&view).trim_end());
    }
    if view.hidden > 0 || !host.sees_all() {
        say(
            "warning: not all processes of this host show their labels here (hidepid, a PID \
             namespace, or the policy): there may be more guests",
        );
    }
    Ok(0)
}

/// Refuses words that mean no guest.
fn check_names(view: &View, words: &[String]) -> Result<(), Refusal> {
    let unknown: Vec<String> = words
        .iter()
        .filter(|word| !view.guests.iter().any(|guest| guest.is_meant(word)))
        .map(|word| {
            format!(
                "cannot find guest {}: no confined guest has this name or process ID; svirt-exec \
                 list shows them",
                crate::text::escape::quoted(word)
            )
        })
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(Refusal::new(unknown))
    }
}

/// `verify`.
///
/// # Errors
/// Where a guest is not there, or the host cannot be looked at.
pub fn verify(json: bool, words: &[String]) -> Result<u8, Refusal> {
    let host = selinux_host()?;
    let view = look(&host)?;
    check_names(&view, words)?;
    let meant = |guest: &Guest| words.is_empty() || words.iter().any(|word| guest.is_meant(word));
    // Everybody's files are in the matrix; that those of a guest that is not meant cannot be
    // looked at is not said.
    let all: Vec<Facts> = view
        .guests
        .iter()
        .map(|guest| verify::facts(&host, guest))
        .collect();
    let ask: verify::Ask<'_> =
        &|source, target, class, permissions| selinux::denied(source, target, class, permissions);
    let mut verdict = verify::judge(&view, &all, &meant, ask)
        .map_err(|error| refuse(format!("cannot ask the policy: {error}")))?;
    if words.is_empty() {
        verdict
            .findings
            .extend(verify::of_the_host(&view, host.sees_all()));
    }
    if json {
        println(&verify_report::json(&all, &verdict)?);
    } else {
        println(verify_report::text(&all, &verdict).trim_end());
        for finding in &verdict.findings {
            say(verify_report::line(finding));
        }
    }
    Ok(if verdict.findings.is_empty() {
        0
    } else {
        FOUND
    })
}

/// `denials`.
///
/// # Errors
/// Where the log cannot be read.
pub fn denials(
    json: bool,
    since: Option<u64>,
    log: Option<&Path>,
    word: Option<&str>,
) -> Result<u8, Refusal> {
    let host = RealHost::new()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let since = since.map_or(0, |since| now.saturating_sub(since));
    let records = audit_log::read(log, since)?;
    let on = host.mode() != Mode::Disabled;
    let view = if on { look(&host)? } else { View::default() };
    let stated = host.virtual_contexts().unwrap_or_default();
    let is_ours = |context: &Context| {
        let own = [
            own_domain::OWN_DOMAIN,
            own_domain::INFO_DOMAIN,
            client::DOMAIN,
        ];
        own.contains(&context.kind.as_str())
            || domain::is_among(&stated, context)
            // Where the policy's files are not at hand, for a log from elsewhere.
            || stated.domains.is_empty() && context.kind == "svirt_t"
    };
    let known = Known {
        guests: &view.guests,
        allowed: &|source, target, class, permissions| {
            if !on || !host.is_valid(source) || !host.is_valid(target) {
                return None;
            }
            let permissions: Vec<&str> = permissions.iter().map(String::as_str).collect();
            let denied = host.denied(source, target, class, &permissions).ok()?;
            Some(denied.is_empty())
        },
        boolean: &selinux::boolean,
    };
    let mut all = denials::explain(denials::events(records), &is_ours, &known);
    if let Some(word) = word {
        all.retain(|one| denials::is_meant(one, word, &known));
    }
    if json {
        println(&denials_report::json(&all)?);
    } else if all.is_empty() {
        say("nothing was refused to guests");
    } else {
        println(denials_report::text(&all).trim_end());
    }
    Ok(0)
}

/// `doctor`.
///
/// # Errors
/// Never where the checklist can be printed.
pub fn doctor(json: bool, qemu: Option<&OsStr>, environment: &[CString]) -> Result<u8, Refusal> {
    let checks = doctor::examine(qemu, environment);
    if json {
        println(&report::json(&checks)?);
    } else {
        println_in_colour(report::text(&checks).trim_end());
    }
    Ok(if report::is_well(&checks) { 0 } else { FOUND })
}
