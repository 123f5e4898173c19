//! A name that somebody changes exactly behind one system call of a launch, which is stopped there:
//! a window that `races` would meet once in many thousand times.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use crate::lib::*;
use crate::races::{Arena, Attack};

/// `svirt-exec` under strace(1), stopped behind a system call.
struct Stopped {
    strace: Child,
    trace: BufReader<fs::File>,
    _directory: tempfile::TempDir,
}

impl Stopped {
    /// Runs, and stops the launcher once it has made its Nth call of a name.
    fn behind(call: &(String, usize), arguments: &[String]) -> Self {
        let directory = tempfile::tempdir_in("/run").unwrap();
        let fifo = directory.path().join("trace");
        succeeds(Command::new("mkfifo").arg(&fifo));
        let inject = format!("inject={}:signal=SIGSTOP:when={}", call.0, call.1);
        let strace = Command::new("strace")
            .args(["-o", fifo.to_str().unwrap(), "-e", &inject])
            .arg(SVIRT_EXEC)
            .args(arguments)
            .env("STUB", "exit 0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            strace,
            trace: BufReader::new(fs::File::open(&fifo).unwrap()),
            _directory: directory,
        }
    }

    /// Waits until the launcher is stopped, and returns its process ID. None if it has ended.
    fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.trace.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if line.contains("--- stopped by SIGSTOP ---") {
                let id = self.strace.id();
                let children = format!("/proc/{id}/task/{id}/children");
                return Some(fs::read_to_string(children).unwrap().trim().to_owned());
            }
        }
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_link_put_in_the_place_of_a_file_that_was_just_made_is_not_followed() {
    let arena = Arena::new(Attack::Mount, false);
    // Nothing but the launch's own check protects it: it has one name, below a directory whose files
    // are never labelled, and a type that is given to guests.
    let victim = tempfile::Builder::new()
        .prefix("svirt-")
        .tempfile_in("/etc")
        .unwrap();
    let victim = victim.path();
    chcon(&["-t", "user_home_t"], victim);
    let before = label(victim);
    let log = arena.top.path().join("serial.log");
    let words = [
        STUB.to_owned(),
        "-serial".to_owned(),
        format!("file:{}", log.display()),
    ];
    for call in ["mknodat", "mknod"] {
        let _ = fs::remove_file(&log);
        let mut run = Stopped::behind(&(call.to_owned(), 1), &words);
        let mut met = false;
        while let Some(pid) = run.next() {
            fs::remove_file(&log).unwrap();
            symlink(victim, &log).unwrap();
            signal("CONT", &pid);
            met = true;
        }
        let status = run.strace.wait().unwrap();
        keepers_done();
        assert_eq!(label(victim), before, "{call}");
        assert_eq!(status.code(), Some(if met { 125 } else { 0 }), "{call}");
        assert_eq!(met, call == "mknodat");
    }
}
