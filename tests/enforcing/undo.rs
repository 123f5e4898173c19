//! Labels come back, however a guest ends.

use std::fs;
use std::process::Command;

use crate::support::*;

fn set(path: &std::path::Path, kind: &str) {
    assert!(
        Command::new("chcon")
            .args(["-t", kind])
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_come_back_as_they_were_not_as_the_policy_would_have_them() {
    let directory = directory();
    let disk = image(directory.path(), "custom.img");
    set(&disk, "virt_home_t");
    let before = label(&disk);
    let guest = Guest::stub(&disk);
    assert_ne!(label(&disk), before);
    assert_eq!(guest.end(), 0);
    assert_eq!(label(&disk), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_come_back_when_qemu_is_killed() {
    let directory = directory();
    let disk = image(directory.path(), "killed.img");
    let before = label(&disk);
    let guest = Guest::stub(&disk);
    guest.kill();
    assert_eq!(label(&disk), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_stay_until_the_last_process_of_the_cage_has_ended() {
    let directory = directory();
    let disk = image(directory.path(), "daemon.img");
    let before = label(&disk);
    let mut guest = Guest::start(stub("fork", &disk), "forked");
    // Waiting for a child closes its standard input, which the child of ours waits for.
    let stdin = guest.child.stdin.take();
    guest.child.wait().unwrap();
    assert_ne!(label(&disk), before, "its child still runs");
    drop(stdin);
    wait_until("the label is back", || label(&disk) == before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn content_that_two_guests_share_keeps_its_label_until_both_have_ended() {
    for first_ends_first in [true, false] {
        let directory = directory();
        let iso = image(directory.path(), "shared.iso");
        let before = label(&iso);
        let start = |name: &str| {
            let disk = image(directory.path(), name);
            let mut command = stub("wait", &disk);
            command.arg("-cdrom").arg(&iso);
            Guest::start(command, "ready")
        };
        let (one, two) = (start("1.img"), start("2.img"));
        let shared = label(&iso);
        assert_eq!(shared, "system_u:object_r:virt_content_t:s0");
        let (ends, stays) = if first_ends_first {
            (one, two)
        } else {
            (two, one)
        };
        let disk = directory
            .path()
            .join(if first_ends_first { "1.img" } else { "2.img" });
        let mut ends = ends;
        drop(ends.child.stdin.take());
        ends.child.wait().unwrap();
        wait_until("its own disk is back", || label(&disk) == before);
        assert_eq!(label(&iso), shared, "the other guest still reads it");
        stays.end();
        wait_until("the label is back", || label(&iso) == before);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_launch_that_fails_half_way_puts_everything_back() {
    let directory = directory();
    let good = image(directory.path(), "good.img");
    let before = label(&good);
    // The second label cannot be set: its file system is mounted read-only, which no
    // preflight asks the policy about.
    let mount = directory.path().join("ro");
    fs::create_dir(&mount).unwrap();
    let other = image(&mount, "other.img");
    for options in ["bind", "remount,bind,ro"] {
        let done = Command::new("mount")
            .args(["-o", options])
            .arg(&mount)
            .arg(&mount)
            .status();
        assert!(done.unwrap().success());
    }
    let mut command = stub("exit 0", &good);
    let output = command.arg("-hdb").arg(&other).output().unwrap();
    Command::new("umount").arg(&mount).status().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("ead-only file system"),
        "{}",
        stderr(&output)
    );
    nothing_happened(&good, &before);
    nothing_happened(&other, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_that_a_running_guest_holds_is_refused_and_the_guest_undisturbed() {
    let directory = directory();
    let disk = image(directory.path(), "held.img");
    let guest = Guest::stub(&disk);
    let held = label(&disk);
    let output = stub("exit 0", &disk).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = stderr(&output);
    assert!(
        said.contains(&format!("process {}", guest.child.id())),
        "{said}"
    );
    assert!(said.contains("holds it"), "{said}");
    assert_eq!(label(&disk), held);
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_a_killed_keeper_left_is_put_back_by_the_next_command() {
    let directory = directory();
    for next in ["restore", "launch"] {
        let disk = image(directory.path(), &format!("{next}.img"));
        let before = label(&disk);
        let guest = Guest::stub(&disk);
        let context = guest.label();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let claims = fs::read_to_string(entry.path().join("attr/exec")).unwrap_or_default();
            if claims.trim_end_matches('\0') == context {
                let pid = entry.file_name().into_string().unwrap();
                assert!(
                    Command::new("kill")
                        .args(["-9", &pid])
                        .status()
                        .unwrap()
                        .success()
                );
            }
        }
        let Guest { mut child, .. } = guest;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(label(&disk), before, "nobody was there to put it back");
        let output = if next == "restore" {
            svirt_exec(["restore"]).output().unwrap()
        } else {
            stub("exit 0", &image(directory.path(), "other.img"))
                .output()
                .unwrap()
        };
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(label(&disk), before);
    }
}
