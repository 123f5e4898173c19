//! Labels come back, however a guest ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lib::*;

#[test]
#[ignore = "needs the bed: make test"]
fn labels_come_back_as_they_were_not_as_the_policy_would_have_them() {
    let directory = directory();
    let disk = image(directory.path(), "custom.img");
    chcon(&["-t", "virt_home_t"], &disk);
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
fn labels_stay_until_the_last_process_with_the_guests_categories_has_ended() {
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
            Guest::with_cdrom(&disk, &iso)
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
        ends.leaves();
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
    // The second label cannot be set, which no preflight can tell.
    let other = image(directory.path(), "other.img");
    let immutable = |flag: &str| {
        run(&["chattr", flag, other.to_str().unwrap()]);
    };
    immutable("+i");
    let mut command = stub("exit 0", &good);
    let output = command.arg("-hdb").arg(&other).output().unwrap();
    immutable("-i");
    refused(
        &output,
        &["Operation not permitted (os error 1); all labels are put back"],
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
    let process = format!("process {}", guest.child.id());
    refused(&output, &[&process, "holds it"]);
    assert_eq!(label(&disk), held);
    guest.end();
}

/// A disk with the label of a guest that was killed together with its keeper.
///
/// Other tests run meanwhile, and the end of any guest may put it back at once: that is
/// what the program is for, and then it is tried again.
fn left_behind(directory: &Path) -> PathBuf {
    for attempt in 0..20 {
        let disk = image(directory, &format!("left-{attempt}.img"));
        let before = label(&disk);
        abandon(Guest::stub(&disk));
        if label(&disk) != before {
            return disk;
        }
    }
    panic!("the label of a killed guest without a keeper came back each time");
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_a_killed_keeper_left_is_put_back_by_the_next_command() {
    let directory = directory();
    let before = label(&image(directory.path(), "before.img"));
    let disk = left_behind(directory.path());
    let output = svirt_exec(["restore"]).output().unwrap();
    // Refused only if another guest's keeper is at it in that moment.
    let by_another = stderr(&output).contains("is locked by another process");
    assert!(output.status.success() || by_another, "{output:?}");
    wait_until("the label is back", || label(&disk) == before);
    let disk = left_behind(directory.path());
    let other = image(directory.path(), "other.img");
    succeeds(&mut stub("exit 0", &other));
    wait_until("the label is back", || label(&disk) == before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_come_back_while_qemu_is_a_zombie() {
    let directory = directory();
    let disk = image(directory.path(), "zombie.img");
    let before = label(&disk);
    let mut guest = Guest::stub(&disk);
    guest.child.kill().unwrap();
    wait_until(
        "the label is back before anybody has waited for QEMU",
        || label(&disk) == before,
    );
    guest.child.wait().unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_caller_that_ignores_the_end_of_children_can_launch() {
    let directory = directory();
    let disk = image(directory.path(), "sigchld.img");
    let script = format!(
        "trap '' CHLD; exec {SVIRT_EXEC} {STUB} -hda {}",
        disk.display()
    );
    let output = bash(&script).env("STUB", "exit 5").output().unwrap();
    ended_with(&output, 5, &[]);
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_that_was_renamed_or_deleted_while_its_guest_ran() {
    let directory = directory();
    let disk = image(directory.path(), "old.img");
    let before = label(&disk);
    let new = directory.path().join("new.img");
    let guest = Guest::stub(&disk);
    fs::rename(&disk, &new).unwrap();
    guest.end();
    wait_until("the label is back", || label(&new) == before);
    let guest = Guest::stub(&new);
    fs::remove_file(&new).unwrap();
    guest.end();
    wait_until_not_named(directory.path());
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_can_start_again_while_another_uses_its_base() {
    let directory = directory();
    let base = image(directory.path(), "base.iso");
    let before = label(&base);
    let disks = ["1.img", "2.img"].map(|name| image(directory.path(), name));
    let start = |disk: &Path| Guest::with_cdrom(disk, &base);
    let one = start(&disks[0]);
    let two = start(&disks[1]);
    one.leaves();
    wait_until("its own disk is back", || label(&disks[0]) == before);
    let again = start(&disks[0]);
    // Not `end`: the keeper of the first one waits for the base.
    two.leaves();
    wait_until("its own disk is back", || label(&disks[1]) == before);
    assert_eq!(label(&base), "system_u:object_r:virt_content_t:s0");
    again.end();
    wait_until("the base is back", || label(&base) == before);
    wait_until_not_named(directory.path());
}

#[test]
#[ignore = "needs the bed: make test"]
fn content_that_guests_of_two_users_share_keeps_its_label_until_both_have_ended() {
    let iso = Path::new("/tmp/two-users.iso");
    file_of(1001, iso);
    let before = label(iso);
    let start = |bobs: bool| {
        let mut command = if bobs {
            as_user("bob")
        } else {
            Command::new(SVIRT_EXEC)
        };
        command.args([STUB, "-cdrom"]).arg(iso).current_dir("/");
        Guest::start_stub(command)
    };
    for bob_starts_first in [true, false] {
        for bob_ends_first in [true, false] {
            let (bob, root) = if bob_starts_first {
                let bob = start(true);
                (bob, start(false))
            } else {
                let root = start(false);
                (start(true), root)
            };
            assert_eq!(label(iso), "system_u:object_r:virt_content_t:s0");
            let (first, last) = if bob_ends_first {
                (bob, root)
            } else {
                (root, bob)
            };
            first.leaves();
            let directory = directory();
            another_guest_ends(directory.path());
            assert_eq!(
                label(iso),
                "system_u:object_r:virt_content_t:s0",
                "the other guest still reads it"
            );
            last.leaves();
            wait_until("the label is back", || label(iso) == before);
        }
    }
    fs::remove_file(iso).unwrap();
}
