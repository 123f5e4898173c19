//! The program, run on this host, and what it prints.

use std::path::Path;
use std::process::{Command, Stdio};

/// Returns `svirt-exec`, to be run without the caller's settings.
pub fn svirt_exec() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_svirt-exec"));
    command
        .stdin(Stdio::null())
        .env_remove("SVIRT_EXEC_STRICT")
        .env_remove("SVIRT_EXEC_UNCONFINED")
        .env_remove("SVIRT_EXEC_QEMU");
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether SELinux is off. If not, says that the test is skipped.
pub fn selinux_is_off(test: &str) -> bool {
    let off = !Path::new("/sys/fs/selinux/enforce").exists();
    if !off {
        eprintln!("SKIPPED {test}: this host has SELinux on");
    }
    off
}
