//! Who starts it: services, cron, users without privilege.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::*;

fn systemd_run(properties: &[&str], words: &[&str]) -> String {
    let unit = format!(
        "svirt-test-{}-{}",
        std::process::id(),
        words.len() + 10 * properties.len()
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
    assert!(output.status.success(), "{}: {log}", stderr(&output));
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
    assert!(
        Command::new("systemctl")
            .args(["start", "cron"])
            .status()
            .unwrap()
            .success()
    );
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
    fs::write(disk, [0; 4096]).unwrap();
    nix::unistd::chown(disk, Some(1001.into()), Some(1001.into())).unwrap();
    let before = label(disk);
    let mut command = Command::new("runuser");
    command
        .args(["-u", "bob", "--", SVIRT_EXEC, STUB, "-hda"])
        .arg(disk)
        .env("STUB", "wait")
        .current_dir("/");
    let guest = Guest::start(command, "ready");
    let now = label(disk);
    assert!(now.contains("svirt_prot_exec_image_t:s0:c"), "{now}");
    guest.end();
    wait_until("the label is back", || label(disk) == before);
    fs::remove_file(disk).unwrap();
}
