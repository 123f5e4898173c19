//! The four commands, from their options to the exit status.

use std::ffi::{CString, OsStr};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::host::{Policy, RealHost};
use crate::model::label::Context;
use crate::observe::audit_log;
use crate::observe::denial_facts::HostFacts;
use crate::observe::denials;
use crate::observe::denials_report;
use crate::observe::doctor;
use crate::observe::guests::{self, ConfinedGuest, View};
use crate::observe::list;
use crate::observe::verify;
use crate::observe::verify_facts;
use crate::observe::verify_facts::GuestFacts;
use crate::observe::verify_report;
use crate::seclabel::domain;
use crate::seclabel::own_domain;
use crate::selinux::names;
use crate::selinux::{self, Mode};
use crate::text::escape::quoted;
use crate::text::message::{Message, Refusal, refuse, say};
use crate::text::output::{println, println_in_colour};

/// Exit status if `verify` or `doctor` found a problem.
const FOUND_PROBLEMS: u8 = 1;

/// Returns the host if it can have confined guests.
///
/// # Errors
/// /proc cannot be used, or SELinux is off or hidden.
fn selinux_host() -> Result<RealHost, Refusal> {
    let host = RealHost::new()?;
    if host.mode() == Mode::Disabled {
        return Err(refuse(if own_domain::hides_selinux(host.procfs()) {
            "cannot look for confined guests: selinuxfs is not visible here (a container hides it); \
             run svirt-exec outside the container"
        } else {
            "cannot look for confined guests: SELinux is off on this host; svirt-exec doctor says \
             what to do"
        }));
    }
    Ok(host)
}

/// Returns the confined guests of the host.
///
/// # Errors
/// /proc cannot be read.
fn confined_guests(host: &RealHost) -> Result<View, Refusal> {
    guests::view(host)
        .map_err(|error| refuse(format!("cannot look for confined guests in /proc: {error}")))
}

/// Prints the confined guests of this host: `list`.
///
/// # Errors
/// SELinux is off, or /proc cannot be read.
pub(crate) fn list_guests(json: bool) -> Result<u8, Refusal> {
    let host = selinux_host()?;
    let view = confined_guests(&host)?;
    if json {
        println(&list::json(&view)?);
    } else {
        println(list::text(&view).trim_end());
    }
    if view.hidden > 0 || view.is_incomplete || !host.procfs().sees_all() {
        say(
            "warning: not all processes of this host show their labels here (hidepid, a PID \
             namespace, the policy, or they start and end too fast): there may be more guests",
        );
    }
    Ok(0)
}

/// Checks that every word means a guest.
///
/// # Errors
/// One message for each word that means no guest.
fn check_names(view: &View, words: &[String]) -> Result<(), Refusal> {
    let unknown: Vec<Message> = words
        .iter()
        .filter(|word| !view.guests.iter().any(|guest| guest.is_meant(word)))
        .map(|word| {
            Message::new(
                format!(
                    "cannot find guest {}: no confined guest has this name or process ID",
                    quoted(word)
                ),
                "svirt-exec list shows them",
            )
        })
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(Refusal::new(unknown))
    }
}

/// Prints whether each guest is confined: `verify`.
///
/// # Errors
/// A word means no guest, SELinux is off, or /proc or the policy cannot be read.
pub(crate) fn verify_guests(json: bool, words: &[String]) -> Result<u8, Refusal> {
    let host = selinux_host()?;
    let view = confined_guests(&host)?;
    check_names(&view, words)?;
    let is_meant =
        |guest: &ConfinedGuest| words.is_empty() || words.iter().any(|word| guest.is_meant(word));
    // The matrix has the files of all guests. The findings are those of the guests that are meant.
    let all: Vec<GuestFacts> = view
        .guests
        .iter()
        .map(|guest| verify::collect_facts(&host, guest))
        .collect();
    let ask: verify_facts::Ask<'_> =
        &|source, target, class, permissions| selinux::denied(source, target, class, permissions);
    let mut judgement = verify::judge(&view, &all, &is_meant, ask)
        .map_err(|error| refuse(format!("cannot ask the policy: {error}")))?;
    if words.is_empty() {
        judgement
            .findings
            .extend(verify::host_findings(&view, host.procfs().sees_all()));
    }
    if json {
        println(&verify_report::json(&all, &judgement)?);
    } else {
        println(verify_report::text(&all, &judgement).trim_end());
        for finding in &judgement.findings {
            say(verify_report::line(finding));
        }
    }
    Ok(if judgement.findings.is_empty() {
        0
    } else {
        FOUND_PROBLEMS
    })
}

/// Prints what SELinux denied to guests since `since` seconds ago: `denials`.
///
/// # Errors
/// The audit log or /proc cannot be read.
pub(crate) fn explain_denials(
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
    let is_on = host.mode() != Mode::Disabled;
    let view = if is_on {
        confined_guests(&host)?
    } else {
        View::default()
    };
    let stated = host.virtual_contexts().unwrap_or_default();
    let is_ours = |context: &Context| {
        names::is_own_domain(&context.type_)
            || domain::is_among(&stated, context)
            // A log from elsewhere, on a host without the policy's files.
            || stated.domains.is_empty() && context.type_ == "svirt_t"
    };
    let known = HostFacts {
        guests: &view.guests,
        allowed: &|source, target, class, permissions| {
            if !is_on || !host.is_valid(source) || !host.is_valid(target) {
                return None;
            }
            let permissions: Vec<&str> = permissions.iter().map(String::as_str).collect();
            let denied = host.denied(source, target, class, &permissions).ok()?;
            Some(denied.is_empty())
        },
        boolean: &selinux::boolean,
    };
    let mut all = denials::explain(denials::name_paths(records), &is_ours, &known);
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

/// Prints whether this host can confine QEMU: `doctor`.
///
/// # Errors
/// The checklist cannot be written as JSON.
pub(crate) fn examine_host(
    json: bool,
    qemu: Option<&OsStr>,
    environment: &[CString],
) -> Result<u8, Refusal> {
    let checks = doctor::examine(qemu, environment);
    if json {
        println(&doctor::report::json(&checks)?);
    } else {
        println_in_colour(doctor::report::text(&checks).trim_end());
    }
    Ok(if doctor::report::all_passed(&checks) {
        0
    } else {
        FOUND_PROBLEMS
    })
}
