//! Labels that only root can put back: libvirt gives the images of a guest to that guest's user, and
//! to their owners again when it has ended.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::lib::*;
use crate::libvirt::{Domain, Image, LINK, UNLABELLED, cdrom, disk};

/// A guest of libvirt's that svirt-exec labels, on a disk and a CD-ROM whose labels are not what
/// restorecon would give.
struct Released {
    domain: Domain,
    files: [Image; 2],
    before: [String; 2],
}

impl Released {
    fn new(name: &'static str) -> Self {
        let files = ["released.img", "released.iso"].map(Image::new);
        for file in &files {
            run(&["chcon", "-t", "virt_home_t", file.text()]);
        }
        let before = files.each_ref().map(|file| label(&file.0));
        let devices = format!("{}{}", disk(&files[0]), cdrom(&files[1]));
        let domain = Domain::of(LINK, name, &devices, UNLABELLED);
        let guest = Self {
            domain,
            files,
            before,
        };
        assert_eq!(
            level(&guest.labels()[0]),
            level(&process_label(guest.domain.pid()))
        );
        assert!(guest.labels()[1].contains(":virt_content_t:"));
        let owner = fs::metadata(&guest.files[0].0).unwrap().uid();
        assert_ne!(
            owner, 0,
            "libvirt gives images to its user (dynamic_ownership)"
        );
        guest
    }

    fn labels(&self) -> [String; 2] {
        self.files.each_ref().map(|file| label(&file.0))
    }

    fn are_back(&self) {
        wait_until("the labels are back", || self.labels() == self.before);
        let owner = || fs::metadata(&self.files[0].0).unwrap().uid();
        wait_until("the disk is root's", || owner() == 0);
    }
}

fn no_keeper() {
    let _ = Command::new("pkill")
        .args(["-KILL", "svirt-keeper"])
        .status();
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_are_back_after_virsh_destroy() {
    let guest = Released::new("destroyed");
    run(&["virsh", "destroy", "destroyed"]);
    guest.are_back();
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_are_back_after_a_crash_of_qemu() {
    let guest = Released::new("crashed");
    signal("SEGV", &guest.domain.pid().to_string());
    guest.are_back();
}

#[test]
#[ignore = "needs the bed: make test"]
fn libvirts_hook_puts_back_what_a_keeper_could_not_that_was_killed() {
    let guest = Released::new("hooked");
    no_keeper();
    run(&["virsh", "destroy", "hooked"]);
    guest.are_back();
    // What is gone with the guest's directory is not said to be left.
    let output = svirt_exec(["restore", "--all"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
}

/// A file of libvirt's user, which root takes while a guest uses it.
fn taken(name: &str) -> (Image, String) {
    let file = Image::new(name);
    run(&["chown", "libvirt-qemu:", file.text()]);
    run(&["chcon", "-t", "virt_home_t", file.text()]);
    let before = label(&file.0);
    (file, before)
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_path_unit_puts_back_what_a_keeper_has_no_right_to_any_more() {
    let (file, before) = taken("path.img");
    let guest = Guest::of_user("libvirt-qemu", &file.0);
    assert!(label(&file.0).contains("svirt_prot_exec_image_t:s0:c"));
    run(&["chown", "root:", file.text()]);
    guest.leaves();
    wait_until("the label is back", || label(&file.0) == before);
    wait_until("nothing is left to be told", || unfinished().is_empty());
}

#[test]
#[ignore = "needs the bed: make test"]
fn root_believes_no_user_but_libvirts_about_files_of_others() {
    run(&["systemctl", "stop", "svirt-exec-restore.path"]);
    let (file, before) = taken("trusted.img");
    run(&["chown", "bob:", file.text()]);
    let guest = Guest::of_user("bob", &file.0);
    run(&["chown", "root:", file.text()]);
    guest.leaves();
    let restore = |words: &[&str]| {
        svirt_exec([&["restore", "--all"], words].concat())
            .output()
            .unwrap()
    };
    wait_until("the keeper has tried", || unfinished().len() == 1);
    ended_with(&restore(&[]), 1, &["--trust-user"]);
    assert!(label(&file.0).contains("svirt_prot_exec_image_t:s0:c"));
    refused(&restore(&["--trust-user", "nobody-of-that-name"]), &[]);
    ended_with(&restore(&["--trust-user", "bob"]), 0, &[]);
    assert_eq!(label(&file.0), before);
    run(&["systemctl", "start", "svirt-exec-restore.path"]);
}

#[test]
#[ignore = "needs the bed: make test"]
fn nobody_but_a_keeper_leaves_word_for_root() {
    let directory = Path::new(UNFINISHED);
    for user in ["alice", "root"] {
        let path = directory.join("of-nobody");
        let output = Command::new("runuser")
            .args(["-u", user, "--", "mkdir", path.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(
            stderr(&output).contains("Permission denied"),
            "{user}: {output:?}"
        );
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn restore_waits_for_a_keeper_that_is_at_work() {
    let directory = directory();
    let disk = image(directory.path(), "slow.img");
    let before = label(&disk);
    let guest = Guest::stub(&disk);
    let keepers = keepers_of(&guest);
    for keeper in &keepers {
        signal("STOP", keeper);
    }
    guest.leaves();
    let restore = svirt_exec(["restore"]).spawn().unwrap();
    // It has begun to wait when it holds the turn.
    wait_until("somebody has the turn", || {
        let status = Command::new("flock").args(["-n", GUESTS, "true"]).status();
        !status.unwrap().success()
    });
    assert_ne!(label(&disk), before);
    for keeper in &keepers {
        signal("CONT", keeper);
    }
    let output = restore.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(label(&disk), before);
}
