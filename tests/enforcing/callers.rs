//! Who starts it: services, cron, users without privilege.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lib::*;

/// Runs a unit, and says whether it succeeded, and what the journal has of it.
fn unit(properties: &[&str], words: &[&str]) -> (bool, String) {
    static UNITS: AtomicUsize = AtomicUsize::new(0);
    let unit = format!(
        "svirt-test-{}-{}",
        std::process::id(),
        UNITS.fetch_add(1, Ordering::Relaxed)
    );
    let mut command = Command::new("systemd-run");
    command.args(["--wait", "--quiet", "--collect", "--unit", &unit]);
    for property in properties {
        command.arg("-p").arg(property);
    }
    let output = command.args(words).output().unwrap();
    let mut log = String::new();
    wait_until("the journal has the unit's output", || {
        let _ = Command::new("journalctl").arg("--sync").status();
        let read = Command::new("journalctl")
            .args(["-o", "cat", "-u", &unit])
            .output()
            .unwrap();
        log = stdout(&read);
        log.lines()
            .any(|line| line.contains("eactivated") || line.contains("ailed"))
    });
    (output.status.success(), log)
}

fn systemd_run(properties: &[&str], words: &[&str]) -> String {
    let (success, log) = unit(properties, words);
    assert!(success, "{log}");
    log
}

#[test]
#[ignore = "needs the bed: make test"]
fn output_arrives_from_a_systemd_unit() {
    let directory = directory();
    let disk = image(directory.path(), "unit.img");
    let log = systemd_run(&[], &[SVIRT_EXEC, QEMU, "-version"]);
    assert!(log.contains("QEMU emulator"), "{log}");
    let disk = disk.to_str().unwrap();
    let log = systemd_run(
        &["Environment=STUB=dump"],
        &[SVIRT_EXEC, STUB, "-hda", disk],
    );
    assert!(
        log.contains("label system_u:system_r:svirt_prot_exec_t:s0:c"),
        "{log}"
    );
    let log = systemd_run(
        &["Environment=STUB=dump", "NoNewPrivileges=yes"],
        &[SVIRT_EXEC, STUB, "-hda", disk],
    );
    assert!(
        log.contains("label system_u:system_r:svirt_prot_exec_t:s0:c"),
        "{log}"
    );
    let log = systemd_run(
        &[
            "Environment='STUB=write 1 text'",
            "User=alice",
            "WorkingDirectory=/",
        ],
        &[SVIRT_EXEC, STUB, "-S"],
    );
    assert!(log.contains("text"), "{log}");
    keepers_done();
}

/// Runs words, and says what they printed, whatever they ended with.
fn said_by(words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    format!("{}{}", stdout(&output), stderr(&output))
}

/// A confined stub that says what it was given.
fn confined(said: &str) {
    let label = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("label "))
        .unwrap_or_else(|| panic!("no guest: {said}"));
    assert!(label.contains(":svirt_prot_exec_t:s0:c"), "{said}");
}

/// A file of a user's, removed at the end.
struct Owned(&'static str);

impl Owned {
    fn new(path: &'static str, uid: u32) -> Self {
        file_of(uid, Path::new(path));
        Self(path)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn guests_are_confined_that_are_started_with_sudo() {
    fs::write(
        "/etc/sudoers.d/svirt-test",
        "alice ALL=(ALL) NOPASSWD: SETENV: ALL\n",
    )
    .unwrap();
    let directory = directory();
    let disk = image(directory.path(), "sudo.img");
    let words = [
        "runuser",
        "-u",
        "alice",
        "--",
        "sudo",
        "-n",
        "STUB=dump",
        SVIRT_EXEC,
        STUB,
    ];
    let said = said_by(&[&words[..], &["-hda", disk.to_str().unwrap()]].concat());
    fs::remove_file("/etc/sudoers.d/svirt-test").unwrap();
    confined(&said);
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn guests_are_confined_that_are_started_over_ssh_by_a_user() {
    let key = "/home/bob/.ssh/id_ed25519";
    let prepare = format!(
        "mkdir -p -m 700 /home/bob/.ssh && ssh-keygen -q -t ed25519 -N '' -f {key} && \
         cp {key}.pub /home/bob/.ssh/authorized_keys"
    );
    let said = said_by(&["runuser", "-l", "bob", "-c", &prepare]);
    assert_eq!(said, "");
    said_by(&["restorecon", "-RF", "/home/bob/.ssh"]);
    assert_eq!(said_by(&["systemctl", "start", "ssh"]), "");
    let disk = Owned::new("/home/bob/ssh.img", 1001);
    let launch = format!("STUB=dump {SVIRT_EXEC} {STUB} -hda {}", disk.0);
    // Without a terminal the output goes through pipes or sockets of sshd's, with one through a pty.
    for terminal in ["-T", "-tt"] {
        let options = ["-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"];
        let ssh = ["runuser", "-u", "bob", "--", "ssh", terminal];
        let to = ["-i", key, "bob@127.0.0.1", &launch];
        let said = said_by(&[&ssh[..], &options[..], &to[..]].concat());
        println!("{terminal}: {said}");
        confined(&said);
        wait_until("the label is back", || {
            !label(Path::new(disk.0)).contains("svirt")
        });
    }
    said_by(&["systemctl", "stop", "ssh"]);
    fs::remove_dir_all("/home/bob/.ssh").unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn guests_are_confined_that_a_users_own_systemd_starts() {
    let disk = Owned::new("/home/alice/unit.img", 1000);
    let out = Owned::new("/home/alice/unit.out", 1000);
    let units = Path::new("/home/alice/.config/systemd/user");
    fs::create_dir_all(units).unwrap();
    for (name, further) in [("plain", ""), ("nnp", "NoNewPrivileges=yes\n")] {
        let unit = format!(
            "[Service]\nType=oneshot\nEnvironment=STUB=dump\n{further}\
             StandardOutput=append:{}\nStandardError=append:{}\n\
             ExecStart={SVIRT_EXEC} {STUB} -hda {}\n",
            out.0, out.0, disk.0
        );
        fs::write(units.join(format!("svirt-{name}.service")), unit).unwrap();
    }
    run(&["chown", "-R", "alice:alice", "/home/alice/.config"]);
    run(&["restorecon", "-RF", "/home/alice/.config"]);
    run(&["systemctl", "start", "user@1000.service"]);
    for name in ["plain", "nnp"] {
        let unit = format!("svirt-{name}.service");
        let started = said_by(&[
            "runuser",
            "-u",
            "alice",
            "--",
            "env",
            "XDG_RUNTIME_DIR=/run/user/1000",
            "systemctl",
            "--user",
            "start",
            &unit,
        ]);
        let said = fs::read_to_string(out.0).unwrap();
        println!("{name}: {started}{said}");
        confined(&said);
        fs::write(out.0, "").unwrap();
        wait_until("the label is back", || {
            !label(Path::new(disk.0)).contains("svirt")
        });
    }
    run(&["systemctl", "stop", "user@1000.service"]);
    fs::remove_dir_all("/home/alice/.config").unwrap();
}

/// A service that systemd makes a user for, and that sees most of the host read-only: what it says
/// is followed until it works.
#[test]
#[ignore = "needs the bed: make test"]
fn a_service_of_a_dynamic_user_says_what_it_needs() {
    let script = format!(
        "[ -e $STATE_DIRECTORY/disk ] || truncate -s 1M $STATE_DIRECTORY/disk; \
         exec {SVIRT_EXEC} {STUB} -hda $STATE_DIRECTORY/disk"
    );
    let start = |further: &[&str]| {
        let properties = [
            "DynamicUser=yes",
            "User=svirt-dynamic",
            "StateDirectory=svirt-dynamic",
            "WorkingDirectory=/",
            "Environment=STUB=dump",
        ];
        let properties = [&properties[..], further].concat();
        let (success, log) = unit(&properties, &["/bin/sh", "-c", &script]);
        println!("{log}");
        let mut said: Vec<String> = log.lines().map(ToOwned::to_owned).collect();
        if !success {
            said.retain(|line| line.starts_with("svirt-exec: "));
            assert_eq!(said.len(), 1, "{log}");
        }
        said.join("\n")
    };
    let said = start(&[]);
    let disk = "/var/lib/private/svirt-dynamic/disk";
    let known_as = "/var/lib/svirt-dynamic/disk";
    let advice = format!("semanage fcontext -a -t virt_image_t {known_as} && restorecon -F {disk}");
    assert!(said.contains(&advice), "{said}");
    run(&["sh", "-c", &advice]);
    let said = start(&[]);
    let paths = "ReadWritePaths=/var/lib/svirt-exec";
    assert!(said.contains(paths), "{said}");
    confined(&start(&[paths]));
    wait_until("the label is back", || {
        label(Path::new(disk)).contains(":virt_image_t:s0")
    });
    run(&["semanage", "fcontext", "-d", known_as]);
    fs::remove_dir_all("/var/lib/private/svirt-dynamic").unwrap();
    let _ = fs::remove_file("/var/lib/svirt-dynamic");
}

#[test]
#[ignore = "needs the bed: make test"]
fn output_arrives_from_cron_for_root_and_for_users() {
    let directory = directory();
    let disk = image(directory.path(), "cron.img");
    let roots = directory.path().join("out");
    let lines = [
        (
            "root",
            format!(
                "@reboot STUB=dump {SVIRT_EXEC} {STUB} -hda {} 2>&1 | cat > {}\n",
                disk.display(),
                roots.display()
            ),
        ),
        (
            "alice",
            format!("@reboot STUB=dump {SVIRT_EXEC} {STUB} -S 2>&1 | cat > /home/alice/out\n"),
        ),
    ];
    for (user, line) in &lines {
        let mut crontab = Command::new("crontab")
            .args(["-u", user, "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        crontab
            .stdin
            .take()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        assert!(crontab.wait().unwrap().success());
    }
    let _ = fs::remove_file("/run/crond.reboot");
    run(&["systemctl", "start", "cron"]);
    for out in [roots.as_path(), Path::new("/home/alice/out")] {
        wait_until("cron has run its job", || {
            fs::read_to_string(out).is_ok_and(|text| text.contains("\nlabel "))
        });
        let text = fs::read_to_string(out).unwrap();
        assert!(
            text.contains(":svirt_prot_exec_t:s0:c"),
            "{}: {text}",
            out.display()
        );
    }
    let _ = Command::new("systemctl").args(["stop", "cron"]).status();
    for (user, _) in &lines {
        let _ = Command::new("crontab").args(["-u", user, "-r"]).status();
    }
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_user_without_privilege_confines_a_guest_on_files_of_his_own() {
    let disk = Path::new("/home/bob/own.img");
    file_of(1001, disk);
    let before = label(disk);
    let guest = Guest::of_user("bob", disk);
    let now = label(disk);
    assert!(now.contains("svirt_prot_exec_image_t:s0:c"), "{now}");
    guest.end();
    wait_until("the label is back", || label(disk) == before);
    fs::remove_file(disk).unwrap();
}
