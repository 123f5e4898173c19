//! Options of a launch: static labels, shared levels, and labels that stay.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::lib::*;

/// User and role of a login's guests, and the rest of a label.
fn own(rest: &str) -> String {
    let label = process_label(std::process::id());
    let mut fields = label.split(':');
    let (user, role) = (fields.next().unwrap(), fields.next().unwrap());
    format!("{user}:{role}:{rest}")
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_stay_where_nothing_shall_be_put_back() {
    let directory = directory();
    let disk = image(directory.path(), "stays.img");
    let iso = image(directory.path(), "stays.iso");
    let before = label(&disk);
    let mut command = stub_with(&["--no-restore"], "wait", &disk);
    command.arg("-cdrom").arg(&iso);
    let guest = Guest::start_stub(command);
    let context = guest.label();
    wait_until("the keeper is gone", || claimants(&context).is_empty());
    assert!(entries_naming(&disk).is_empty(), "restore would act on it");
    guest.end();
    let given = label(&disk);
    assert_eq!(level(&given), level(&context));
    run(&[SVIRT_EXEC, "restore"]);
    assert_eq!(label(&disk), given);
    assert_eq!(label(&iso), "system_u:object_r:virt_content_t:s0");
    for file in [&disk, &iso] {
        run(&["restorecon", "-F", file.to_str().unwrap()]);
    }
    assert_eq!(label(&disk).split(':').nth(2), before.split(':').nth(2));
    let output = stub_with(&["--no-restore"], "exit 7", &disk)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(stderr(&output), "");
    wait_until_not_named(&disk);
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_that_shall_stay_go_back_when_qemu_cannot_be_executed() {
    let directory = directory();
    let disk = image(directory.path(), "noexec.img");
    let before = label(&disk);
    // Neither ELF nor a script: execve(2) says so after everything else is done.
    let program = directory.path().join("qemu-system-nothing");
    fs::write(&program, "nothing\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    chcon(&["-t", "qemu_exec_t"], &program);
    let output = svirt_exec(["--no-restore"])
        .arg(&program)
        .arg("-hda")
        .arg(&disk)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(126), "{output:?}");
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn content_whose_label_another_guest_puts_back_is_not_used_without_a_keeper() {
    let directory = directory();
    let disks = ["1.img", "2.img"].map(|name| image(directory.path(), name));
    let iso = image(directory.path(), "both.iso");
    let before = label(&iso);
    let guest = Guest::with_cdrom(&disks[0], &iso);
    let mut command = stub_with(&["--no-restore"], "exit 0", &disks[1]);
    let output = command.arg("-cdrom").arg(&iso).output().unwrap();
    refused(&output, &["another guest uses '/root/"]);
    nothing_happened(&disks[1], &before);
    assert_eq!(label(&iso), "system_u:object_r:virt_content_t:s0");
    guest.end();
    assert_eq!(label(&iso), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_static_label_is_the_guests_whole_label() {
    let directory = directory();
    let disk = image(directory.path(), "static.img");
    let before = label(&disk);
    let wanted = own("svirt_t:s0:c11,c12");
    let guest = Guest::start_stub(stub_with(&["--label", &wanted], "wait", &disk));
    assert_eq!(guest.label(), wanted);
    assert!(
        label(&disk).ends_with(":svirt_image_t:s0:c11,c12"),
        "{}",
        label(&disk)
    );
    let planned = stub_with(&["plan", "--json", "--label", &wanted], "", &disk).output();
    assert_eq!(json(&planned.unwrap())["context"], wanted.as_str());
    guest.end();
    assert_eq!(label(&disk), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_that_confine_no_guest_are_refused() {
    let directory = directory();
    let disk = image(directory.path(), "refused.img");
    let before = label(&disk);
    for (label, words) in [
        ("svirt_t:s0", "CVE-2021-3631"),
        ("svirt_t:s0:c5", "CVE-2021-3631"),
        ("svirt_t:s0:c5,c5", "CVE-2021-3631"),
        ("svirt_t:s0-s0:c1,c2", "not in a range"),
        ("svirt_t:s0:c1,c2-s0:c0.c1023", "not in a range"),
        ("svirt_t:s1:c1,c2", "write s0 in its place"),
        (
            "no_such_t:s0:c1,c2",
            "the policy does not know this context",
        ),
        // A domain of the policy, and no guest's.
        (
            "unconfined_t:s0:c1,c2",
            "cannot run '/usr/local/bin/qemu-stub'",
        ),
    ] {
        let label = own(label);
        let output = stub_with(&["--label", &label], "exit 0", &disk)
            .output()
            .unwrap();
        refused(&output, &[words]);
        nothing_happened(&disk, &before);
    }
    for (level, words) in [
        ("s0:c5", "CVE-2021-3631"),
        ("s1:c1,c2", "write s0 in its place"),
    ] {
        let output = stub_with(&["--level", level], "exit 0", &disk)
            .output()
            .unwrap();
        refused(&output, &[words]);
    }
    let both = ["--level", "s0:c1,c2", "--label", "u:r:t:s0:c1,c2"];
    refused(
        &stub_with(&both, "exit 0", &disk).output().unwrap(),
        &["cannot be used with"],
    );
    refused(
        &stub_with(&["--share-level"], "exit 0", &disk)
            .output()
            .unwrap(),
        &["required"],
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_level_that_overlaps_a_guests_is_refused_in_either_direction_unless_it_is_meant() {
    let directory = directory();
    let ours = image(directory.path(), "ours.img");
    let theirs = image(directory.path(), "theirs.img");
    let before = label(&ours);
    for (running, asked) in [
        ("s0:c21,c22", "s0:c21,c22"),
        ("s0:c21,c22", "s0:c21.c23"),
        ("s0:c21.c23", "s0:c22,c23"),
    ] {
        let guest = Guest::start_stub(stub_with(&["--level", running], "wait", &theirs));
        let label_of_it = own(&format!("svirt_t:{asked}"));
        for options in [["--level", asked], ["--label", &label_of_it]] {
            let output = stub_with(&options, "exit 0", &ours).output().unwrap();
            refused(
                &output,
                &[
                    "has overlapping MCS categories; give another level, or --share-level",
                    &format!("process {} (", guest.child.id()),
                ],
            );
            nothing_happened(&ours, &before);
        }
        let planned = stub_with(&["plan", "--level", asked], "", &ours)
            .output()
            .unwrap();
        ended_with(&planned, 0, &["has overlapping MCS categories"]);
        // Neither contains the other.
        succeeds(&mut stub_with(&["--level", "s0:c22,c24"], "exit 0", &ours));
        wait_until("the label is back", || label(&ours) == before);
        let options = ["--level", asked, "--share-level"];
        let second = Guest::start_stub(stub_with(&options, "wait", &ours));
        assert_eq!(level(&second.label()), asked);
        assert_eq!(level(&label(&ours)), asked);
        // Its disk is its own all the same.
        let taken = stub_with(&["--level", running, "--share-level"], "exit 0", &theirs).output();
        refused(&taken.unwrap(), &[]);
        guest.end();
        second.end();
        wait_until("both are back", || {
            label(&ours) == before && label(&theirs) == before
        });
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_that_has_the_chosen_label_already_keeps_it_and_leaves_no_entry() {
    let directory = directory();
    let disk = image(directory.path(), "lasting.img");
    let given = "svirt_prot_exec_image_t";
    chcon(&["-t", given, "-l", "s0:c31,c32"], &disk);
    let before = label(&disk);
    let guest = Guest::start_stub(stub_with(&["--level", "s0:c31,c32"], "wait", &disk));
    guest.end();
    wait_until_not_named(&disk);
    assert_eq!(label(&disk), before);
    run(&[SVIRT_EXEC, "restore"]);
}
