//! `--runtime-dir`: a directory of the guest's own for its sockets.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::lib::*;

const ROOT: &str = "/run/svirt-exec";

/// QEMU with a monitor, a pid file and a log in the directory of a guest of this name.
fn qemu(name: &str) -> Guest {
    let own = |file: &str| format!("{ROOT}/{name}/{file}");
    Guest::qemu(
        &["--runtime-dir"],
        [
            "-S",
            "-name",
            name,
            "-monitor",
            &format!("unix:{},server=on,wait=off", own("monitor.sock")),
            "-pidfile",
            &own("pid"),
            "-D",
            &own("log"),
            "-d",
            "guest_errors",
        ],
    )
}

#[test]
#[ignore = "needs the bed: make test"]
fn sockets_and_files_in_it_are_the_guests_and_gone_at_its_end() {
    let directory = Path::new(ROOT).join("own");
    let guest = qemu("own");
    let pair = level(&guest.label());
    assert!(pair.contains(','), "{pair}");
    assert_eq!(level(&label(&directory)), pair);
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o700);
    for name in ["monitor.sock", "pid", "log"] {
        assert_eq!(level(&label(&directory.join(name))), pair, "{name}");
    }
    let pid = fs::read_to_string(directory.join("pid")).unwrap();
    assert_eq!(pid.trim(), guest.child.id().to_string());
    UnixStream::connect(directory.join("monitor.sock")).unwrap();

    let socket = directory.join("monitor.sock");
    let other = outsider(&format!("connect {}", socket.display()));
    assert_eq!(other, "Permission denied (os error 13)");
    let other = outsider(&format!("open r {}", directory.join("log").display()));
    assert_eq!(other, "Permission denied (os error 13)");

    guest.end();
    assert!(!directory.exists());
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_second_guest_of_the_name_is_refused_and_the_first_undisturbed() {
    let guest = qemu("twice");
    let disk_directory = directory();
    let disk = image(disk_directory.path(), "disk.img");
    let before = label(&disk);
    let options = ["--runtime-dir", "--name", "twice"];
    let second = stub_with(&options, "exit 0", &disk).output().unwrap();
    let refusal = refused(&second, &["a guest of this name runs"]);
    assert!(refusal.starts_with("svirt-exec: cannot make "), "{refusal}");
    nothing_happened(&disk, &before);
    UnixStream::connect(format!("{ROOT}/twice/monitor.sock")).unwrap();
    guest.end();
    assert!(!Path::new(ROOT).join("twice").exists());
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_a_killed_guest_and_keeper_left_is_replaced_or_restored() {
    for by_restore in [true, false] {
        let directory = Path::new(ROOT).join("left");
        let guest = qemu("left");
        let old = level(&guest.label());
        abandon(guest);
        assert_eq!(level(&label(&directory.join("monitor.sock"))), old);
        if by_restore {
            run(&[SVIRT_EXEC, "restore"]);
            assert!(!directory.exists());
        }
        let again = qemu("left");
        assert_ne!(level(&again.label()), old);
        assert_eq!(
            level(&label(&directory.join("monitor.sock"))),
            level(&again.label())
        );
        again.end();
        assert!(!directory.exists());
    }
}

/// Also if its entry is lost.
#[test]
#[ignore = "needs the bed: make test"]
fn a_directory_that_nobody_has_is_replaced() {
    let directory = Path::new(ROOT).join("orphan");
    let guest = qemu("orphan");
    abandon(guest);
    for entry in entries_with(GUESTS, "\"orphan\"") {
        fs::remove_file(entry).unwrap();
    }
    let guest = qemu("orphan");
    assert_eq!(level(&label(&directory)), level(&guest.label()));
    guest.end();
    assert!(!directory.exists());
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_launch_that_fails_leaves_no_directory() {
    let output = svirt_exec(["--runtime-dir", "--name", "failed", "/bin/true"])
        .output()
        .unwrap();
    refused(&output, &[]);
    assert!(!Path::new(ROOT).join("failed").exists());
    let output = svirt_exec(["--runtime-dir", STUB]).output().unwrap();
    refused(&output, &["--name NAME"]);
}

#[test]
#[ignore = "needs the bed: make test"]
fn users_have_theirs_below_their_number() {
    let mut command = as_user("bob");
    command.args(["--runtime-dir", "--name", "his", STUB]);
    let guest = Guest::start_stub(command);
    let directory = Path::new(ROOT).join("users/1001/his");
    let metadata = fs::metadata(&directory).unwrap();
    assert_eq!(metadata.uid(), 1001);
    assert!(level(&label(&directory)).contains(','));
    guest.leaves();
    wait_until("the directory is gone", || !directory.exists());
}

#[test]
#[ignore = "needs the bed: make test"]
fn its_parents_are_made_at_boot_by_systemd() {
    let labels_now = || labels(&[ROOT.into(), Path::new(ROOT).join("users"), STATE.into()]);
    let before = labels_now();
    // As a boot finds /run.
    for directory in [&format!("{ROOT}/users"), ROOT] {
        let children = fs::read_dir(directory).unwrap().flatten();
        children
            .filter(|child| child.file_name() != "users")
            .for_each(|child| fs::remove_dir(child.path()).unwrap());
    }
    fs::remove_dir(format!("{ROOT}/users")).unwrap();
    fs::remove_dir(ROOT).unwrap();
    let domain = "SELinuxContext=system_u:system_r:systemd_tmpfiles_t:s0";
    let done = Command::new("systemd-run")
        .args([
            "--quiet",
            "--wait",
            "-p",
            domain,
            "systemd-tmpfiles",
            "--create",
        ])
        .arg("/usr/lib/tmpfiles.d/svirt-exec.conf")
        .status()
        .unwrap();
    let denied = denials(&[":systemd_tmpfiles_t:", "svirt_launcher_"]);
    // The tests that follow need them, whoever makes them.
    run(&["systemd-tmpfiles", "--create", "svirt-exec.conf"]);
    assert!(done.success(), "{done:?}: {denied:#?}");
    assert_eq!(denied, Vec::<String>::new());
    assert_eq!(labels_now(), before);
    assert!(
        before[0].contains(":svirt_launcher_runtime_t:s0"),
        "{before:?}"
    );
    let mode = |path: &str| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(ROOT), 0o711);
    assert_eq!(mode(&format!("{ROOT}/users")), 0o1777);
}

#[test]
#[ignore = "needs the bed: make test"]
fn it_belongs_to_the_user_that_qemu_becomes() {
    let socket = Path::new(ROOT).join("drops/monitor");
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let name = ["-name", "drops", "-run-with", "user=bob"];
    let _on = Boolean::turned("svirt_launcher_change_user", "on");
    let guest = Guest::qemu(
        &["--runtime-dir"],
        [&name[..], &["-monitor", &monitor]].concat(),
    );
    let status = fs::read_to_string(format!("/proc/{}/status", guest.child.id())).unwrap();
    let uid = "Uid:\t1001\t1001\t1001\t1001";
    assert!(status.lines().any(|line| line == uid), "{status}");
    assert!(socket.exists());
    let directory = Path::new(ROOT).join("drops");
    let metadata = fs::metadata(&directory).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1001, 0));
    assert_eq!(metadata.mode() & 0o7777, 0o770);
    guest.end();
    assert!(!directory.exists());
}
