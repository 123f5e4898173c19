//! Guests as services: svirt-exec@NAME.service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lib::*;

/// What runs a command as the user of such guests.
const AS_ITS_USER: [&str; 6] = [
    "setpriv",
    "--reuid",
    "svirt-exec",
    "--regid",
    "svirt-exec",
    "--init-groups",
];

/// A guest with a configuration of its own, removed at the test's end.
struct Service {
    name: &'static str,
    directory: tempfile::TempDir,
    disk: PathBuf,
    before: String,
    /// How often guests of this name have been up before.
    earlier: usize,
}

impl Service {
    /// One whose disk boots, and whose configuration begins with these words.
    fn new(name: &'static str, options: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("svirt-")
            .tempdir_in("/srv")
            .unwrap();
        let disk = image(directory.path(), "disk.img");
        boots(&disk);
        run(&[
            "chcon",
            "-R",
            "-t",
            "virt_image_t",
            directory.path().to_str().unwrap(),
        ]);
        run(&[
            "chown",
            "-R",
            "svirt-exec:",
            directory.path().to_str().unwrap(),
        ]);
        let before = label(&disk);
        let config = format!(
            "# A guest of the tests.\n{options}\nqemu-system-x86_64 -machine pc -accel tcg -m 32 \\\n\
             \t-display none -nodefaults -serial stdio\n\
             -drive 'file={},format=raw,if=ide'  # its disk\n",
            disk.display()
        );
        fs::write(config_of(name), config).unwrap();
        let mut service = Self {
            name,
            directory,
            disk,
            before,
            earlier: 0,
        };
        service.earlier = service.times_up();
        service
    }

    fn times_up(&self) -> usize {
        let log = self.log();
        log.lines().filter(|line| *line == "Up").count()
    }

    fn unit(&self) -> String {
        format!("svirt-exec@{}.service", self.name)
    }

    fn systemctl(&self, verb: &str) {
        run(&["systemctl", verb, &self.unit()]);
    }

    fn property(&self, name: &str) -> String {
        let text = run(&["systemctl", "show", "--value", "-p", name, &self.unit()]);
        text.trim().to_owned()
    }

    fn pid(&self) -> u32 {
        self.property("MainPID").parse().unwrap()
    }

    /// What the journal has of it.
    fn log(&self) -> String {
        run(&["journalctl", "--sync"]);
        run(&["journalctl", "-o", "cat", "-u", &self.unit()])
    }

    /// Waits until the guest has said so often that it is up.
    fn up(&self, times: usize) {
        wait_until("the guest is up", || {
            self.times_up() == self.earlier + times
        });
    }

    fn is_confined(&self) {
        let process = process_label(self.pid());
        assert!(process.contains(":svirt_prot_exec_t:s0:c"), "{process}");
        assert_eq!(level(&label(&self.disk)), level(&process));
        assert_eq!(level(&label(&self.runtime())), level(&process));
        // By its own user: root looks into no process of another one, unless a boolean lets it.
        run(&[&AS_ITS_USER[..], &[SVIRT_EXEC, "verify", self.name]].concat());
    }

    fn has_left_nothing(&self) {
        assert_eq!(label(&self.disk), self.before);
        assert!(!self.runtime().exists());
    }

    fn runtime(&self) -> PathBuf {
        Path::new("/run/svirt-exec/users/svirt-exec").join(self.name)
    }

    /// The user that it runs as.
    fn user(&self) -> String {
        let user = run(&["ps", "-o", "user:20=", "-p", &self.pid().to_string()]);
        user.trim().to_owned()
    }
}

/// Settings that a unit has besides, for as long as this lives.
struct DropIn(String);

impl DropIn {
    fn new(service: &Service, settings: &str) -> Self {
        let drop_in = Self(format!("/run/systemd/system/{}.d", service.unit()));
        fs::create_dir_all(&drop_in.0).unwrap();
        fs::write(
            format!("{}/test.conf", drop_in.0),
            format!("[Service]\n{settings}\n"),
        )
        .unwrap();
        run(&["systemctl", "daemon-reload"]);
        drop_in
    }
}

impl Drop for DropIn {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        let _ = Command::new("systemctl").arg("daemon-reload").status();
    }
}

fn config_of(name: &str) -> PathBuf {
    Path::new("/etc/svirt-exec").join(format!("{name}.conf"))
}

impl Drop for Service {
    fn drop(&mut self) {
        let unit = self.unit();
        let _ = Command::new("systemctl")
            .args(["kill", "-s", "KILL", &unit])
            .status();
        let _ = Command::new("systemctl").args(["stop", &unit]).status();
        let _ = Command::new("systemctl")
            .args(["reset-failed", &unit])
            .output();
        let _ = fs::remove_file(config_of(self.name));
        let _ = fs::remove_dir_all(self.directory.path());
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_is_started_stopped_and_restarted() {
    let service = Service::new("served", "--private-content");
    service.systemctl("start");
    // Started is: QEMU runs, and its monitor answers.
    service.is_confined();
    assert_eq!(service.user(), "svirt-exec");
    let first = service.pid();
    service.up(1);
    service.systemctl("restart");
    assert_ne!(service.pid(), first);
    service.is_confined();
    service.up(2);
    service.systemctl("stop");
    // It has shut itself down: nobody had to end it.
    assert_eq!(service.property("Result"), "success");
    let log = service.log();
    assert!(!log.contains("terminating on signal"), "{log}");
    service.has_left_nothing();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_has_crashed_is_started_again() {
    let service = Service::new("crashing", "");
    service.systemctl("start");
    let first = service.pid();
    signal("SEGV", &first.to_string());
    wait_until("it runs again", || {
        let pid = service.pid();
        pid != 0 && pid != first && service.property("SubState") == "running"
    });
    service.is_confined();
    // With its keeper, as the OOM killer would.
    run(&["systemctl", "kill", "-s", "KILL", &service.unit()]);
    wait_until("it runs again", || {
        service.property("NRestarts") == "2" && service.property("SubState") == "running"
    });
    service.is_confined();
    service.up(1);
    service.systemctl("stop");
    service.has_left_nothing();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_shuts_itself_down_is_not_started_again() {
    let service = Service::new("leaving", "");
    service.systemctl("start");
    service.up(1);
    let socket = "/run/svirt-exec/users/svirt-exec/leaving/qmp.systemd";
    // At the level of services: what a login at s0-s0:c0.c1023 connects, no guest may use.
    let helper = "/usr/libexec/svirt-exec/svirt-exec-qmp";
    run(&["runcon", "-l", "s0", helper, "shutdown", socket]);
    wait_until("the unit is inactive", || {
        service.property("ActiveState") == "inactive"
    });
    assert_eq!(service.property("NRestarts"), "0");
    service.has_left_nothing();
}

/// As the manual page says it.
#[test]
#[ignore = "needs the bed: make test"]
fn a_drop_in_has_a_guest_run_as_root_or_as_another_user() {
    for (user, runtime) in [
        ("root", "/run/svirt-exec".to_owned()),
        (
            "alice",
            format!(
                "/run/svirt-exec/users/{}",
                run(&["id", "-u", "alice"]).trim()
            ),
        ),
    ] {
        let service = Service::new("other", "");
        run(&[
            "chown",
            "-R",
            user,
            service.directory.path().to_str().unwrap(),
        ]);
        let _drop_in = DropIn::new(
            &service,
            &format!("User={user}\nEnvironment=RUNTIME={runtime}"),
        );
        service.systemctl("start");
        assert_eq!(service.user(), user);
        let process = process_label(service.pid());
        assert_eq!(level(&label(&service.disk)), level(&process));
        assert_eq!(
            level(&label(&Path::new(&runtime).join("other"))),
            level(&process)
        );
        service.up(1);
        service.systemctl("stop");
        assert_eq!(service.property("Result"), "success");
        service.has_left_nothing();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_does_not_react_is_ended_when_the_time_is_up() {
    let service = Service::new("deaf", "");
    // A machine without a power button: it halts.
    fs::write(&service.disk, vec![0; 1 << 20]).unwrap();
    let drop_in = DropIn::new(&service, "TimeoutStopSec=3");
    service.systemctl("start");
    service.systemctl("stop");
    drop(drop_in);
    assert_eq!(service.property("Result"), "timeout");
    service.has_left_nothing();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_is_refused_fails_at_once_and_says_why() {
    let service = Service::new("refused", "");
    fs::remove_file(&service.disk).unwrap();
    let started = Command::new("systemctl")
        .args(["start", &service.unit()])
        .status()
        .unwrap();
    assert!(!started.success());
    assert_eq!(service.property("ExecMainStatus"), "125");
    assert_eq!(service.property("NRestarts"), "0");
    let log = service.log();
    assert!(log.contains("svirt-exec: cannot find '/srv/"), "{log}");
    fs::write(&service.disk, "").unwrap();
}
