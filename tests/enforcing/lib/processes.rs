//! Processes and what SELinux says of them in /proc.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

/// Returns the label of a process; it is empty if there is no such process.
pub fn process_label(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/attr/current"))
        .unwrap_or_default()
        .trim_end_matches('\0')
        .to_owned()
}

/// Lists the processes, by their IDs, for whose directory in /proc something holds.
pub fn processes(holds: impl Fn(&Path) -> bool) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|process| holds(&process.path()))
        .map(|process| process.file_name().into_string().unwrap())
        .collect()
}

/// Lists the processes for whose `attr/NAME` something holds.
pub fn processes_with(name: &str, holds: impl Fn(&str) -> bool) -> Vec<String> {
    processes(|process| {
        fs::read_to_string(process.join("attr").join(name))
            .is_ok_and(|label| holds(label.trim_end_matches('\0')))
    })
}

/// Whether some process runs in this context.
pub fn runs_in(context: &str) -> bool {
    !processes_with("current", |label| label == context).is_empty()
}

/// Lists the processes that claim a context in `attr/exec`, as a guest's keeper does.
pub fn claimants(context: &str) -> Vec<String> {
    processes_with("exec", |label| label == context)
}

/// Lists the keepers of a guest.
pub fn keepers_of(guest: &Guest) -> Vec<String> {
    claimants(&guest.label())
}

/// A process at some level that svirt-exec did not start. It ends with this value.
pub struct Stranger(Child);

impl Stranger {
    /// Starts one in a domain, and waits until it has the level. A domain of guests is one that categories
    /// confine.
    pub fn start(domain: &str, level: &str) -> Self {
        Self::start_as("root", domain, level)
    }

    /// Starts one of another user.
    pub fn start_as(user: &str, domain: &str, level: &str) -> Self {
        // Guests' domains are entered by QEMU, a login's by the host's programs.
        let program = if domain == "unconfined_t" {
            HOST_STUB
        } else {
            STUB
        };
        let child = Command::new("setpriv")
            .args(["--reuid", user, "--clear-groups", "runcon"])
            .args(["-t", domain, "-l", level, program])
            .env("STUB", "pause")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stranger = Self(child);
        wait_until("the stranger has the level", || {
            process_label(stranger.id()).ends_with(&format!("{domain}:{level}"))
        });
        stranger
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal, which has to succeed.
pub fn signal(name: &str, pid: &str) {
    run(&["kill", "-s", name, "--", pid]);
}

/// Kills the keepers of a guest.
pub fn kill_keepers_of(guest: &Guest) {
    for pid in keepers_of(guest) {
        signal("KILL", &pid);
    }
}
