//! What QEMU inherits: exactly what the caller has.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lib::*;

/// The dump of the stub as a table; lines with the same first word are numbered.
fn table(text: &str) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    for line in text.lines() {
        let key = line.split([' ', ':', '\t']).next().unwrap_or_default();
        let mut name = key.to_owned();
        let mut count = 1;
        while table.contains_key(&name) {
            count += 1;
            name = format!("{key} {count}");
        }
        table.insert(name, line.to_owned());
    }
    table
}

/// Runs the stub bare and behind svirt-exec, from the same odd shell, and compares.
fn compare(setup: &str, disk: &Path) {
    let run = |prefix: &str| {
        let script = format!("{setup}\nexec {prefix} {STUB} -hda {}", disk.display());
        let dump = succeeds(
            bash(&script)
                .env("STUB", "dump")
                .env("TMPDIR", "/var/tmp")
                .env("LD_LIBRARY_PATH", "/nonexistent")
                .env("ODD", "\u{1}=x y")
                .current_dir("/var/tmp")
                .stdin(Stdio::null()),
        );
        table(&dump)
    };
    let bare = run("");
    let confined = run(SVIRT_EXEC);
    keepers_done();
    assert!(bare["label"].contains("unconfined_t"), "{}", bare["label"]);
    assert!(
        confined["label"].contains("svirt_prot_exec_t:s0:c"),
        "{}",
        confined["label"]
    );
    let differing: Vec<_> = bare
        .iter()
        .filter(|(key, _)| !["pid", "ppid", "label"].contains(&key.as_str()))
        .filter(|(key, value)| {
            // Pipes have other numbers in each run.
            let plain = |text: &str| {
                text.split(' ')
                    .filter(|w| !w.starts_with("pipe:"))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            confined.get(*key).map(|other| plain(other)) != Some(plain(value))
        })
        .map(|(key, value)| (value, confined.get(key)))
        .collect();
    assert!(differing.is_empty(), "{setup}: {differing:#?}");
    let count =
        |table: &BTreeMap<String, String>| table.keys().filter(|key| key.starts_with("fd")).count();
    assert_eq!(count(&bare), count(&confined), "{setup}");
    assert_eq!(confined["secure"], "secure 0");
    assert!(
        confined["getenv"].contains("/var/tmp"),
        "{}",
        confined["getenv"]
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn qemu_inherits_descriptors_limits_signals_and_environment_as_they_are() {
    let directory = directory();
    let disk = image(directory.path(), "inherit.img");
    for setup in [
        "true",
        "exec 0<&-",
        "exec 2>&-",
        "exec 5</dev/null 9>&1 11</etc/hostname",
        "trap '' PIPE HUP USR1",
        "umask 0137; ulimit -n 4321; ulimit -c 0; ulimit -s 4096; ulimit -l 1234",
    ] {
        compare(setup, &disk);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn blocked_signals_stay_blocked() {
    let directory = directory();
    let disk = image(directory.path(), "mask.img");
    let run = |program: &str| {
        let mut command = Command::new(program);
        if program == SVIRT_EXEC {
            command.arg(STUB);
        }
        command
            .args(["-hda".as_ref(), disk.as_os_str()])
            .env("STUB", "dump");
        let block = || {
            let mut set = nix::sys::signal::SigSet::empty();
            set.add(nix::sys::signal::Signal::SIGUSR2);
            set.add(nix::sys::signal::Signal::SIGALRM);
            set.thread_block().map_err(std::io::Error::from)
        };
        // SAFETY: changing the signal mask is async-signal-safe.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(block)
        };
        let output = command.stdin(Stdio::null()).output().unwrap();
        table(&stdout(&output))["SigBlk"].clone()
    };
    let bare = run(STUB);
    assert_eq!(bare, run(SVIRT_EXEC));
    assert!(bare.ends_with("2800"), "{bare}");
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_process_id_is_that_of_the_launcher_and_no_child_is_left_to_qemu() {
    let directory = directory();
    let disk = image(directory.path(), "pid.img");
    let guest = Guest::stub(&disk);
    let pid = guest.child.id();
    assert!(process_label(pid).contains("svirt_prot_exec_t"));
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_eq!(children, "");
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn output_arrives_through_a_pipe_of_a_login_shell() {
    let directory = directory();
    let disk = image(directory.path(), "pipe.img");
    for (command, expected) in [
        (
            format!("{SVIRT_EXEC} {QEMU} -version | cat"),
            "QEMU emulator",
        ),
        (
            format!(
                "STUB='write 1 text' {SVIRT_EXEC} {STUB} -hda {} | cat",
                disk.display()
            ),
            "text",
        ),
        (
            format!(
                "STUB='write 2 text' {SVIRT_EXEC} {STUB} -hda {} 2>&1 | cat",
                disk.display()
            ),
            "text",
        ),
        (
            format!(
                "echo text | STUB=cat {SVIRT_EXEC} {STUB} -hda {} | cat",
                disk.display()
            ),
            "text",
        ),
    ] {
        let output = bash(&command).output().unwrap();
        assert!(stdout(&output).contains(expected), "{command}: {output:?}");
        keepers_done();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn output_arrives_in_a_file() {
    let directory = directory();
    let disk = image(directory.path(), "file.img");
    for place in ["/root/svirt-out", "/tmp/svirt-out", "/var/log/svirt-out"] {
        for (command, expected) in [
            (
                format!("{SVIRT_EXEC} {QEMU} -version > {place}"),
                "QEMU emulator",
            ),
            (
                format!(
                    "STUB='write 1 text' {SVIRT_EXEC} {STUB} -hda {} > {place}",
                    disk.display()
                ),
                "text",
            ),
            (
                format!(
                    "STUB='write 1 text' {SVIRT_EXEC} {STUB} -hda {} >> {place}",
                    disk.display()
                ),
                "texttext",
            ),
        ] {
            let output = bash(&command).output().unwrap();
            let text = fs::read_to_string(place).unwrap_or_default();
            assert!(text.contains(expected), "{command}: {text} {output:?}");
            keepers_done();
        }
        fs::remove_file(place).unwrap();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_file_that_a_guest_may_not_write_to_stops_the_launch_and_is_named() {
    let directory = directory();
    let disk = image(directory.path(), "etc.img");
    let before = label(&disk);
    let place = "/etc/svirt-out";
    let command = format!("exec {SVIRT_EXEC} {STUB} -hda {} > {place}", disk.display());
    let output = bash(&command).env("STUB", "write 1 text").output().unwrap();
    fs::remove_file(place).unwrap();
    refused(&output, &["descriptor 1", "| cat >"]);
    nothing_happened(&disk, &before);
}

/// Both streams go where the launcher may not write: its refusal is in the system's log, and on the terminal if there
/// is one.
#[test]
#[ignore = "needs the bed: make test"]
fn a_refusal_is_heard_where_standard_error_was_taken_away() {
    let directory = directory();
    let disk = image(directory.path(), "silent.img");
    let before = label(&disk);
    let place = "/etc/svirt-out";
    let command = format!(
        "exec {SVIRT_EXEC} {STUB} -hda {} > {place} 2>&1",
        disk.display()
    );
    let times = || {
        run(&["journalctl", "--sync"]);
        let log = run(&["journalctl", "-q", "-o", "cat", "-t", "svirt-exec"]);
        log.matches("cannot hand descriptor 2 to QEMU").count()
    };
    let earlier = times();
    let output = bash(&command).env("STUB", "write 1 text").output().unwrap();
    refused(&output, &[]);
    assert_eq!(times(), earlier + 1);

    let output = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(
        stdout(&output).contains("cannot hand descriptor 2 to QEMU"),
        "{output:?}"
    );
    assert_eq!(times(), earlier + 2);
    assert_eq!(fs::read_to_string(place).unwrap(), "");
    fs::remove_file(place).unwrap();
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn output_arrives_on_a_terminal() {
    let directory = directory();
    let disk = image(directory.path(), "script.img");
    for (command, expected) in [
        (format!("{SVIRT_EXEC} {QEMU} -version"), "QEMU emulator"),
        (
            format!(
                "STUB='write 1 text' {SVIRT_EXEC} {STUB} -hda {}",
                disk.display()
            ),
            "text",
        ),
    ] {
        let output = Command::new("script")
            .args(["-q", "-e", "-c", &command, "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(stdout(&output).contains(expected), "{command}: {output:?}");
        keepers_done();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_terminal_that_qemu_makes_is_opened_and_the_guests_own() {
    let mut guest = Guest::qemu(&[], ["-S", "-chardev", "pty,id=p", "-serial", "chardev:p"]);
    let answer = guest.qmp("{\"execute\":\"query-chardev\"}");
    let path = answer
        .split("pty:")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("{answer}"));
    let terminal = label(Path::new(path));
    assert_eq!(level(&terminal), level(&guest.label()));
    assert!(
        terminal.contains(":svirt_prot_exec_devpts_t:"),
        "{terminal}"
    );
    assert_eq!(guest.end(), 0);
}

#[test]
#[ignore = "needs the bed: make test"]
fn output_arrives_through_a_pipe_that_another_user_made() {
    let home = Path::new("/home/alice");
    let disk = home.join("relay.img");
    file_of(1000, &disk);
    // Both descriptors are one pipe of root's: what is written to them stays in order.
    let mut command = Command::new("bash");
    command
        .args([
            "-c",
            "exec 2>&1; exec runuser -u alice -- \"$@\"",
            "bash",
            SVIRT_EXEC,
            STUB,
            "-hda",
        ])
        .arg(&disk)
        .env("STUB", "write 2 text")
        .current_dir("/")
        .stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(stdout(&output), "text", "{output:?}");
    // And inwards.
    let mut child = as_user("alice")
        .args([STUB, "-hda"])
        .arg(&disk)
        .env("STUB", "cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &[b'x'; 200_000]).unwrap();
    let mut text = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut text).unwrap();
    assert_eq!(text.len(), 200_000);
    assert!(child.wait().unwrap().success());
    wait_until("the label is back", || {
        label(&disk).ends_with(":user_home_t:s0")
    });
    fs::remove_file(&disk).unwrap();
}

/// As Node.js has them for its children: a socket for each stream. And one for two of them, as socat's.
#[test]
#[ignore = "needs the bed: make test"]
fn what_is_said_through_socketpairs_arrives() {
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    let directory = directory();
    let disk = image(directory.path(), "pair.img");
    let before = label(&disk);
    let end = |stream: UnixStream| Stdio::from(OwnedFd::from(stream));
    let text = vec![b'x'; 200_000];
    for shared in [false, true] {
        let (input, theirs) = UnixStream::pair().unwrap();
        let (mut output, their_output) = if shared {
            (input.try_clone().unwrap(), theirs.try_clone().unwrap())
        } else {
            UnixStream::pair().unwrap()
        };
        let mut command = svirt_exec([STUB, "-hda"]);
        command
            .arg(&disk)
            .env("STUB", "cat")
            .stdin(end(theirs))
            .stdout(end(their_output))
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(command);
        let sent = text.clone();
        let sender = std::thread::spawn(move || {
            std::io::Write::write_all(&mut &input, &sent).unwrap();
            input.shutdown(Shutdown::Write).unwrap();
        });
        let mut arrived = Vec::new();
        output.read_to_end(&mut arrived).unwrap();
        sender.join().unwrap();
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        assert_eq!(arrived.len(), text.len(), "shared: {shared}: {said}");
        keepers_done();
        assert_eq!(label(&disk), before);
    }
    // Of standard output and standard error on one socket the order is kept.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = svirt_exec([STUB, "-hda"]);
    command
        .arg(&disk)
        .env("STUB", "write 2 text")
        .stdin(Stdio::null())
        .stdout(end(theirs.try_clone().unwrap()))
        .stderr(end(theirs));
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "text");
    // A socket that has a name leads to whoever listens there.
    let name = directory.path().join("listens");
    let listener = std::os::unix::net::UnixListener::bind(&name).unwrap();
    let client = UnixStream::connect(&name).unwrap();
    let mut command = svirt_exec([STUB, "-hda"]);
    command.arg(&disk).env("STUB", "exit 0").stdin(end(client));
    refused(&command.output().unwrap(), &["descriptor 0", "socketpair"]);
    drop(listener);
    keepers_done();
    nothing_happened(&disk, &before);
}

/// Each of several is started in the keeper's domain, whatever the launcher has claimed by then.
#[test]
#[ignore = "needs the bed: make test"]
fn relays_are_no_part_of_the_guest() {
    let home = Path::new("/home/alice");
    let disk = home.join("relays.img");
    file_of(1000, &disk);
    let guest = Guest::of_user("alice", &disk);
    let relays = run(&["pgrep", "-f", "^svirt-exec-keeper relay$"]);
    let labels: Vec<String> = relays
        .lines()
        .map(|pid| process_label(pid.parse().unwrap()))
        // One of a guest before this may just end.
        .filter(|label| !label.is_empty())
        .collect();
    assert!(labels.len() > 1, "one inwards, one outwards: {labels:?}");
    for label in &labels {
        assert!(label.contains(":svirt_launcher_keeper_t:"), "{labels:?}");
    }
    guest.end();
    keepers_done();
    fs::remove_file(&disk).unwrap();
}
