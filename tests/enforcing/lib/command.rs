//! Programs that tests run, and what they print.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The program under test, as the package installs it.
pub const SVIRT_EXEC: &str = "/usr/bin/svirt-exec";
/// The stand-in for QEMU, labelled qemu_exec_t by the bed's job.
pub const STUB: &str = "/usr/local/bin/qemu-stub";

/// The stub in a place of the host's programs, which runs in the caller's domain, without categories.
pub const HOST_STUB: &str = "/usr/local/bin/host-stub";
/// The real one.
pub const QEMU: &str = "qemu-system-x86_64";

/// Returns `svirt-exec ARGS…`, to be run.
pub fn svirt_exec<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(SVIRT_EXEC);
    command.args(args).stdin(Stdio::null());
    command
}

/// Returns svirt-exec as another user runs it, in a directory that every user may enter.
pub fn as_user(user: &str) -> Command {
    let mut command = Command::new("runuser");
    command
        .args(["-u", user, "--", SVIRT_EXEC])
        .current_dir("/");
    command
}

/// Returns a launch of the stub with an image, which does `what` in the guest's domain.
pub fn stub(what: &str, image: &Path) -> Command {
    stub_with(&[], what, image)
}

/// Returns the same with options of svirt-exec.
pub fn stub_with(options: &[&str], what: &str, image: &Path) -> Command {
    let mut command = svirt_exec(options);
    command.args([STUB, "-hda"]).arg(image).env("STUB", what);
    command
}

/// Returns a script of bash(1), to be run.
pub fn bash(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]);
    command
}

/// Returns a script of the shell in a mount namespace of its own: what it mounts, other tests do not
/// see.
pub fn in_mount_namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]);
    command
}

/// Runs a command that has to succeed, and returns what it printed.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    stdout(&output)
}

/// Runs words that have to succeed as a command, and returns what it printed.
pub fn run<S: AsRef<OsStr>>(words: &[S]) -> String {
    succeeds(Command::new(&words[0]).args(&words[1..]))
}

/// Changes the label of a file with chcon(1).
pub fn chcon<S: AsRef<OsStr>>(args: &[S], path: &Path) {
    succeeds(Command::new("chcon").args(args).arg(path));
}

/// Checks that `svirt-exec verify` finds nothing wrong with a guest.
pub fn verified(guest: &str) {
    run(&[SVIRT_EXEC, "verify", guest]);
}

/// Runs the commands that messages advise: from the name of a command to the end of the line, or to the
/// next words of the message.
pub fn follow(said: &str) {
    const COMMANDS: [&str; 5] = [
        "semanage ",
        "semodule ",
        "restorecon ",
        "setsebool ",
        "setenforce ",
    ];
    let mut followed = 0;
    for line in said.lines() {
        let Some(start) = COMMANDS.iter().filter_map(|word| line.find(word)).min() else {
            continue;
        };
        let rest = &line[start..];
        let end = [", or ", " (", "; "]
            .iter()
            .filter_map(|word| rest.find(word))
            .min();
        run(&["sh", "-ec", &rest[..end.unwrap_or(rest.len())]]);
        followed += 1;
    }
    assert!(followed > 0, "nothing to type in: {said}");
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the member of a JSON array that has a name.
pub fn member<'a>(array: &'a Value, name: &str) -> &'a Value {
    let mut members = array.as_array().unwrap().iter();
    members
        .find(|member| member["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {array}"))
}

/// Reads standard output as a JSON document.
pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}
