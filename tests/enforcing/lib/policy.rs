//! What tests change in the policy, and what the kernel logs of its decisions.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A boolean of the policy, turned until the end of a test.
pub struct Boolean {
    name: &'static str,
    back: &'static str,
}

impl Boolean {
    /// Turns a boolean on. It is off at the end.
    pub fn on(name: &'static str) -> Self {
        run(&["setsebool", name, "on"]);
        Self { name, back: "off" }
    }

    /// Turns a boolean that has to be the other way now.
    pub fn turned(name: &'static str, to: &'static str) -> Self {
        let back = if to == "on" { "off" } else { "on" };
        assert!(run(&["getsebool", name]).trim().ends_with(back), "{name}");
        run(&["setsebool", name, to]);
        Self { name, back }
    }
}

impl Drop for Boolean {
    fn drop(&mut self) {
        let done = Command::new("setsebool")
            .args([self.name, self.back])
            .output();
        // A second panic would abort the run.
        if !std::thread::panicking() {
            assert!(
                done.is_ok_and(|done| done.status.success()),
                "{}",
                self.name
            );
        }
    }
}

/// The bed's policy that logs every denial, and which domains the launcher enters (`build_talkative`),
/// until it is dropped.
pub struct Talkative;

impl Talkative {
    pub fn load() -> Self {
        // load_policy(8) also brings it to the version that the kernel knows.
        run(&[
            "unshare",
            "--mount",
            "sh",
            "-ec",
            "cd /etc/selinux/default/policy; mount --bind talkative policy.*; load_policy",
        ]);
        Self
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        let _ = Command::new("load_policy").status();
    }
}

/// Lists the AVC denials in the audit log that contain all of these parts.
pub fn denials(parts: &[&str]) -> Vec<String> {
    audited("denied", parts)
}

/// Lists the AVC records in the audit log of what was `denied` or `granted` that contain all of these
/// parts.
pub fn audited(what: &str, parts: &[&str]) -> Vec<String> {
    // The daemon writes what the kernel has queued; a record of our own marks the end.
    static MARKS: AtomicUsize = AtomicUsize::new(0);
    let mark = format!(
        "mark-{}-{}.",
        std::process::id(),
        MARKS.fetch_add(1, Ordering::Relaxed)
    );
    let _ = Command::new("auditctl").args(["-m", &mark]).status();
    let mut log = String::new();
    wait_until("the audit daemon has written everything", || {
        log = fs::read_to_string("/var/log/audit/audit.log").unwrap_or_default();
        log.contains(&mark)
    });
    log.lines()
        .filter(|line| {
            line.contains(&format!("avc:  {what}")) && parts.iter().all(|p| line.contains(p))
        })
        .map(ToOwned::to_owned)
        .collect()
}
