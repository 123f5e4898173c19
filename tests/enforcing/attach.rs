//! `svirt-exec attach` and `detach`: hot-plug for guests that run.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::lib::*;

fn named(name: &str, disk: &Path) -> Guest {
    Guest::qemu_on(&["--name", name], disk)
}

fn plug(verb: &str, options: &[&str], guest: &str, path: &Path) -> Output {
    svirt_exec([verb])
        .args(options)
        .arg(guest)
        .arg(path)
        .output()
        .unwrap()
}

fn open(guest: &mut Guest, node: &str, path: &Path, read_only: bool) -> String {
    guest.blockdev_add(node, &format!("\"read-only\":{read_only}"), path)
}

fn close(guest: &mut Guest, node: &str) {
    let answer = guest.qmp(&format!(
        "{{\"execute\":\"blockdev-del\",\"arguments\":{{\"node-name\":\"{node}\"}}}}"
    ));
    assert!(answer.contains("return"), "{answer}");
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_was_launched_without_any_file_is_found_by_its_name() {
    let directory = directory();
    let disk = image(directory.path(), "disk.img");
    let before = label(&disk);
    for (options, name) in [
        (vec!["-S", "-name", "bare"], None),
        (vec!["-S"], Some("bare")),
    ] {
        let own: Vec<&str> = name.into_iter().flat_map(|name| ["--name", name]).collect();
        let guest = Guest::qemu(&own, options);
        let output = plug("attach", &[], "bare", &disk);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(level(&label(&disk)), level(&guest.label()));
        verified("bare");
        guest.end();
        assert_eq!(label(&disk), before);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_second_disk_can_be_plugged_in_and_out() {
    let directory = directory();
    let [first, second] = ["first.img", "second.img"].map(|name| image(directory.path(), name));
    let before = label(&second);
    let mut guest = named("plug", &first);
    let answer = open(&mut guest, "n", &second, false);
    assert!(answer.contains("Permission denied"), "{answer}");

    let output = plug("attach", &["--json"], "plug", &second);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = json(&output);
    assert_eq!(said["guest"]["name"], "plug");
    assert_eq!(said["guest"]["pid"], guest.child.id());
    assert_eq!(said["resources"][0]["action"], "relabel");
    assert_eq!(said["resources"][0]["label"], label(&second).as_str());
    assert_eq!(said["resources"][0]["previous"], before.as_str());
    assert_eq!(level(&label(&second)), level(&guest.label()));
    let answer = open(&mut guest, "n", &second, false);
    assert!(answer.contains("return"), "{answer}");

    let output = plug("detach", &[], "plug", &second);
    let pid = guest.child.id();
    let open_in = format!("process {pid} of the guest has it open");
    refused(&output, &[&open_in]);
    assert_eq!(level(&label(&second)), level(&guest.label()));

    close(&mut guest, "n");
    let output = plug("detach", &["--json"], "plug", &second);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(label(&second), before);
    nothing_happened(&second, &before);
    let answer = open(&mut guest, "n", &second, false);
    assert!(answer.contains("Permission denied"), "{answer}");
    // Free for others now.
    Guest::stub(&second).end();
    // And for the same guest again, which gives it back at its end; by its process ID.
    let output = plug("attach", &[], &pid.to_string(), &second);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_ne!(label(&second), before);
    // Again is no error, and changes nothing.
    assert_eq!(plug("attach", &[], "plug", &second).status.code(), Some(0));
    guest.end();
    wait_until("the labels are back", || label(&second) == before);
    assert_eq!(label(&first), before);
    nothing_happened(&second, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_file_that_the_guest_has_mapped_and_closed_is_not_given_back() {
    let directory = directory();
    let disk = image(directory.path(), "mapped.img");
    let before = label(&disk);
    let mut launch = svirt_exec(["--name", "maps", STUB, "-drive"]);
    launch.arg(format!("file={},format=raw", disk.display()));
    let mut guest = Hostile::start(launch);
    assert_eq!(guest.tries(&format!("map {}", disk.display())), "ok");
    let held = label(&disk);
    let mapped = format!("process {} of the guest has it mapped", guest.id());
    refused(
        &plug("detach", &[], "maps", &disk),
        &[&mapped, "mapped.img"],
    );
    assert_eq!(label(&disk), held);
    assert_eq!(guest.tries("unmap"), "ok");
    let output = plug("detach", &[], "maps", &disk);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(label(&disk), before);
    guest.ends();
    keepers_done();
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_the_launch_labelled_can_be_detached_too() {
    let directory = directory();
    let disk = image(directory.path(), "boot.img");
    let before = label(&disk);
    let blockdev = format!("driver=file,node-name=d,filename={}", disk.display());
    let mut guest = Guest::qemu(&["--name", "unplug"], ["-S", "-blockdev", &blockdev]);
    refused(&plug("detach", &[], "unplug", &disk), &[]);
    close(&mut guest, "d");
    let output = plug("detach", &[], "unplug", &disk);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(label(&disk), before);
    guest.end();
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn content_and_shared_disks_are_attached_as_such() {
    let directory = directory();
    let [disk, iso, shared] = ["d", "iso", "s"].map(|name| image(directory.path(), name));
    let before = label(&disk);
    let mut guest = named("classes", &disk);
    let output = plug("attach", &["--read-only"], "classes", &iso);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(label(&iso), "system_u:object_r:virt_content_t:s0");
    let output = plug("attach", &["--shared"], "classes", &shared);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        label(&shared).ends_with(":svirt_prot_exec_image_t:s0"),
        "{}",
        label(&shared)
    );
    assert!(open(&mut guest, "i", &iso, false).contains("Permission denied"));
    assert!(open(&mut guest, "i", &iso, true).contains("return"));
    assert!(open(&mut guest, "s", &shared, false).contains("return"));
    guest.end();
    wait_until("the labels are back", || {
        [&iso, &shared].iter().all(|file| label(file) == before)
    });
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_a_launch_refuses_is_refused() {
    let directory = directory();
    let [own, theirs, linked] =
        ["own", "theirs", "linked"].map(|name| image(directory.path(), name));
    fs::hard_link(&linked, directory.path().join("link")).unwrap();
    let before = label(&linked);
    let guest = named("one", &own);
    let other = named("two", &theirs);
    let held = label(&theirs);
    let missing = directory.path().join("missing");
    for (path, why) in [
        (theirs.as_path(), "holds it"),
        (linked.as_path(), "2 hard links"),
        (directory.path(), "it is a directory"),
        (missing.as_path(), "no such file"),
        (Path::new("/etc/passwd"), "the host's own"),
        (Path::new("/var/log/lastlog"), "not given to guests"),
    ] {
        let output = plug("attach", &[], "one", path);
        refused(&output, &[why]);
    }
    assert_eq!(label(&theirs), held);
    assert_eq!(label(&linked), before);
    // One refusal is enough for all.
    let free = image(directory.path(), "free");
    let output = svirt_exec(["attach", "one"])
        .args([&free, &theirs])
        .output()
        .unwrap();
    refused(&output, &[]);
    nothing_happened(&free, &before);
    // What another guest holds is not the first one's to give back either.
    refused(&plug("detach", &[], "one", &theirs), &[]);
    assert_eq!(label(&theirs), held);
    guest.end();
    other.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_is_not_there_is_an_error() {
    let directory = directory();
    let disk = image(directory.path(), "disk.img");
    let before = label(&disk);
    let own = std::process::id().to_string();
    for (options, guest) in [
        (&[][..], "nobody"),
        (&["--pid"], "999999"),
        (&["--pid"], own.as_str()),
    ] {
        for verb in ["attach", "detach"] {
            println!("{verb} {guest}");
            refused(&plug(verb, options, guest, &disk), &[]);
        }
    }
    let mut dead = named("dead", &image(directory.path(), "dead.img"));
    dead.child.kill().unwrap();
    // Not waited for yet: a zombie.
    refused(&plug("attach", &[], "dead", &disk), &[]);
    dead.kill();
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn any_guest_can_be_named_by_its_process_and_only_by_its_user_or_root() {
    let directory = directory();
    let disk = image(directory.path(), "later.img");
    let before = label(&disk);
    // Nothing is labelled for it and it has no name, so the journal does not know it.
    let guest = Guest::qemu(&[], ["-S"]);
    let pid = guest.child.id().to_string();
    refused(&plug("attach", &[], &pid, &disk), &[]);
    let theirs = Path::new("/home/bob/plug.img");
    file_of(1001, theirs);
    let bobs = label(theirs);
    let output = as_user("bob")
        .args(["attach", "--pid", &pid])
        .arg(theirs)
        .output()
        .unwrap();
    refused(&output, &["only that user and root"]);
    assert_eq!(label(theirs), bobs);
    fs::remove_file(theirs).unwrap();
    let output = plug("attach", &["--pid"], &pid, &disk);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(level(&label(&disk)), level(&guest.label()));
    guest.kill();
    wait_until("the label is back", || label(&disk) == before);
}
