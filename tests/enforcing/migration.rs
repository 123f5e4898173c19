//! Guests that move: to another QEMU on the same storage, into a file and out of it.

use std::path::Path;

use crate::lib::*;

/// Has a guest's state sent somewhere, and waits until it is there.
fn migrate(guest: &mut Guest, to: &str) {
    let answer = guest.qmp(&format!(
        "{{\"execute\":\"migrate\",\"arguments\":{{\"uri\":\"{to}\"}}}}"
    ));
    assert!(answer.contains("return"), "{answer}");
    wait_until("the state has been sent", || {
        let answer = guest.qmp("{\"execute\":\"query-migrate\"}");
        assert!(!answer.contains("\"failed\""), "{answer}");
        answer.contains("\"completed\"")
    });
}

fn is_verified(guest: &Guest) {
    verified(&guest.child.id().to_string());
}

fn drive(disk: &Path) -> String {
    format!("file={},format=raw,if=virtio", disk.display())
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_moves_to_another_qemu_on_the_same_disk() {
    let directory = directory();
    let disk = image(directory.path(), "moving.img");
    let before = label(&disk);
    let drive = drive(&disk);
    let static_level = ["--level", "s0:c11,c12"];
    let mut from = Guest::qemu(&static_level, ["-S", "-drive", &drive]);
    let labelled = label(&disk);
    assert_eq!(level(&labelled), "s0:c11,c12");
    let listens = ["-S", "-drive", &drive, "-incoming", "tcp:127.0.0.1:4455"];
    // A pair of its own would take the disk away from the guest that still runs.
    let output = svirt_exec([QEMU, "-machine", "pc", "-accel", "tcg", "-m", "32"])
        .args(["-display", "none", "-nodefaults"])
        .args(listens)
        .output()
        .unwrap();
    refused(&output, &[]);
    assert_eq!(label(&disk), labelled);
    // With its categories, on the disk as it is labelled for it.
    let shared = [&static_level[..], &["--share-level", "--no-relabel"]].concat();
    let mut to = Guest::qemu(&shared, listens);
    migrate(&mut from, "tcp:127.0.0.1:4455");
    from.quit();
    assert_eq!(label(&disk), labelled, "the disk is in use still");
    assert!(to.qmp("{\"execute\":\"cont\"}").contains("return"));
    assert!(
        to.qmp("{\"execute\":\"query-block\"}")
            .contains("moving.img")
    );
    is_verified(&to);
    to.quit();
    wait_until("the label is back", || label(&disk) == before);
}

/// As on two hosts: who comes and who goes finds the label that both need, and neither takes it away.
#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_with_a_lasting_label_keeps_it_wherever_its_guest_runs() {
    let directory = directory();
    let disk = image(directory.path(), "lasting.img");
    let path = disk.to_str().unwrap();
    run(&[
        "chcon",
        "-t",
        "svirt_prot_exec_image_t",
        "-l",
        "s0:c11,c12",
        path,
    ]);
    let lasting = label(&disk);
    for _host in ["one", "two"] {
        let mut guest = Guest::qemu(&["--level", "s0:c11,c12"], ["-S", "-drive", &drive(&disk)]);
        assert!(
            guest
                .qmp("{\"execute\":\"query-block\"}")
                .contains("lasting.img")
        );
        is_verified(&guest);
        guest.end();
        assert_eq!(label(&disk), lasting);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_is_saved_to_a_file_and_goes_on_from_it() {
    let directory = directory();
    let disk = image(directory.path(), "saved.img");
    let file = image(directory.path(), "saved.state");
    let before = [label(&disk), label(&file)];
    let labels = || [label(&disk), label(&file)];
    let drive = drive(&disk);
    let mut first = Guest::qemu(&["--name", "saved"], ["-S", "-drive", &drive]);
    run(&[SVIRT_EXEC, "attach", "saved", file.to_str().unwrap()]);
    assert_eq!(
        labels().map(|label| level(&label)),
        [level(&first.label()), level(&first.label())]
    );
    let uri = format!("file:{}", file.display());
    migrate(&mut first, &uri);
    first.quit();
    wait_until("the labels are back", || labels() == before);
    let mut second = Guest::qemu(&[], ["-S", "-drive", &drive, "-incoming", &uri]);
    wait_until("the state has been read", || {
        let answer = second.qmp("{\"execute\":\"query-status\"}");
        !answer.contains("inmigrate")
    });
    assert_eq!(level(&label(&disk)), level(&second.label()));
    assert!(second.qmp("{\"execute\":\"cont\"}").contains("return"));
    is_verified(&second);
    second.quit();
    wait_until("the labels are back", || labels() == before);
}
