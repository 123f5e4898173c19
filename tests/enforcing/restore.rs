//! `svirt-exec restore`: what it puts back, what it leaves alone, and what it says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::lib::*;

fn restore<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    svirt_exec(["restore"]).args(args).output().unwrap()
}

/// As it is after a reboot: process IDs and device numbers say nothing.
fn rebooted(entry: &Path) {
    let mut value: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(entry).unwrap()).unwrap();
    value["boot"] = "00000000-0000-0000-0000-000000000000".into();
    for record in value["records"].as_array_mut().unwrap() {
        record["identity"]["dev"] = 1.into();
    }
    fs::write(entry, value.to_string()).unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_or_a_file_can_be_named() {
    let directory = directory();
    let disks = ["1", "2", "3"].map(|name| image(directory.path(), name));
    let before = label(&disks[0]);
    let guests =
        [("one", 0), ("two", 1), ("three", 2)].map(|(name, n)| Guest::named(name, &disks[n]));
    guests.into_iter().for_each(abandon);
    let back = || disks.each_ref().map(|disk| label(disk) == before);
    assert_eq!(back(), [false, false, false]);

    let output = restore(&["two"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(back(), [false, true, false]);

    // By a name that is relative, and by another name of the file.
    let output = svirt_exec(["restore", "./3"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(back(), [false, true, true]);

    ended_with(&restore(&["two"]), 0, &["nothing of 'two' is left"]);

    let output = restore::<&str>(&[]);
    assert_eq!(
        (output.status.code(), stderr(&output)),
        (Some(0), String::new())
    );
    assert_eq!(back(), [true, true, true]);
    nothing_happened(&disks[0], &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_runs_is_refused_and_its_process_named() {
    let directory = directory();
    let disk = image(directory.path(), "running.img");
    let guest = Guest::named("busy", &disk);
    let pid = guest.child.id().to_string();
    let held = label(&disk);
    for what in ["busy", &pid, disk.to_str().unwrap()] {
        refused(&restore(&[what]), &[&format!("process {pid}")]);
        assert_eq!(label(&disk), held);
    }
    let output = restore::<&str>(&[]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "nothing of ended guests: {output:?}"
    );
    assert_eq!(label(&disk), held);
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn an_entry_that_cannot_be_read_does_not_block_others() {
    let directory = directory();
    let disk = image(directory.path(), "good.img");
    let before = label(&disk);
    abandon(Guest::named("good", &disk));
    let corrupt = Path::new(GUESTS).join("1-1.json");
    for text in ["{", "", "{\"version\":1}"] {
        fs::write(&corrupt, text).unwrap();
        ended_with(&restore::<&str>(&[]), 1, &["1-1.json", "remove it"]);
        assert_eq!(label(&disk), before);
    }
    fs::remove_file(&corrupt).unwrap();
    assert_eq!(restore::<&str>(&[]).status.code(), Some(0));
}

#[test]
#[ignore = "needs the bed: make test"]
fn after_a_reboot_and_after_restorecon() {
    let directory = directory();
    let names = ["kept", "reset", "forced", "gone", "replaced"];
    let disks = names.map(|name| image(directory.path(), name));
    for disk in &disks {
        chcon(&["-t", "virt_home_t"], disk);
    }
    let before = label(&disks[0]);
    let mut command = svirt_exec([STUB]);
    for (option, disk) in ["-hda", "-hdb", "-hdc", "-hdd", "-pflash"]
        .iter()
        .zip(&disks)
    {
        if *option == "-pflash" {
            command
                .arg("-drive")
                .arg(format!("format=raw,file={}", disk.display()));
        } else {
            command.arg(option).arg(disk);
        }
    }
    abandon(Guest::start_stub(command));
    let [kept, reset, forced, gone, replaced] = &disks;
    rebooted(&entry_of(GUESTS, kept));
    for (flag, disk) in [("-v", reset), ("-F", forced)] {
        run(&["restorecon", flag, disk.to_str().unwrap()]);
    }
    assert!(level(&label(reset)).contains(":c"), "{}", label(reset));
    let by_the_administrator = label(forced);
    assert_eq!(level(&by_the_administrator), "s0");
    fs::remove_file(gone).unwrap();
    // The other file exists first, so that it cannot get the inode number of this one.
    let other = image(directory.path(), "other");
    fs::rename(&other, replaced).unwrap();
    let others = label(replaced);

    let output = restore::<&str>(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(label(kept), before);
    assert_eq!(label(reset), before);
    assert_eq!(label(forced), by_the_administrator);
    assert_eq!(label(replaced), others);
    nothing_happened(kept, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_another_guest_still_uses_is_said_and_left() {
    let directory = directory();
    let iso = image(directory.path(), "shared.iso");
    let disks = ["1", "2"].map(|name| image(directory.path(), name));
    let before = label(&iso);
    let [one, two] = disks.each_ref().map(|disk| Guest::with_cdrom(disk, &iso));
    let shared = label(&iso);
    abandon(one);
    ended_with(&restore::<&str>(&[]), 1, &["shared.iso", "still uses it"]);
    assert_eq!((label(&iso), label(&disks[0])), (shared, before.clone()));
    two.end();
    let output = restore::<&str>(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(label(&iso), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn root_puts_back_for_users_only_what_is_theirs() {
    let own = Path::new("/home/bob/left.img");
    file_of(1001, own);
    let before = label(own);
    let guest = Guest::of_user("bob", own);
    let given = label(own);
    // runuser is the child; the guest has its label from svirt-exec.
    let context = given.replace(
        "object_r:svirt_prot_exec_image_t",
        "system_r:svirt_prot_exec_t",
    );
    // The keeper first: it claims the label, and puts it back once the guest has ended.
    for name in ["exec", "current"] {
        for pid in processes_with(name, |label| level(label) == level(&context)) {
            let _ = Command::new("kill").args(["-9", &pid]).status();
        }
    }
    guest.leaves();
    assert_eq!(label(own), given);

    // The entry is bob's to write: he adds a file of root's that carries the same pair.
    let directory = directory();
    let roots = image(directory.path(), "roots.img");
    chcon(&[&given], &roots);
    let users = Path::new(STATE).join("users/1001");
    let entry = entry_of(&users, own);
    let mut value: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&entry).unwrap()).unwrap();
    let mut forged = value["records"][0].clone();
    forged["path"] = roots.to_str().unwrap().into();
    let numbers: Vec<u64> = run(&["stat", "-c", "%d %i %W", roots.to_str().unwrap()])
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    let born = fs::metadata(&roots).unwrap().created().unwrap();
    let born = born
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    forged["identity"]["dev"] = numbers[0].into();
    forged["identity"]["ino"] = numbers[1].into();
    forged["identity"]["born"] = u64::try_from(born).unwrap().into();
    value["records"].as_array_mut().unwrap().push(forged);
    fs::write(&entry, value.to_string()).unwrap();

    assert_eq!(restore::<&str>(&[]).status.code(), Some(0));
    assert_eq!(label(own), given, "root's own guests only");
    let parts = ["roots.img", "it belongs to user 0"];
    ended_with(&restore(&["--all"]), 1, &parts);
    assert_eq!(label(own), before);
    assert_eq!(label(&roots), given, "not bob's");
    // An entry of somebody else in bob's directory is none.
    let planted = users.join("7-7.json");
    fs::copy(&entry, &planted).unwrap();
    let output = restore(&["--all"]);
    assert!(stderr(&output).contains("7-7.json"), "{output:?}");
    fs::remove_file(planted).unwrap();
    fs::remove_file(entry).unwrap();
    assert_eq!(restore(&["--all"]).status.code(), Some(0));
    fs::remove_file(own).unwrap();
}
