//! `svirt-exec restore`: what it puts back, what it leaves alone, and what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::lib::*;

const GUESTS: &str = "/var/lib/svirt-exec/guests";

fn named(name: &str, disk: &Path) -> Guest {
    let mut command = svirt_exec(["--name", name, STUB, "-hda"]);
    command.arg(disk).env("STUB", "wait");
    Guest::start(command, "ready")
}

fn restore<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    svirt_exec(["restore"]).args(args).output().unwrap()
}

/// The one entry of the journal that names a file.
fn entry_of(directory: &Path, disk: &Path) -> PathBuf {
    fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            fs::read_to_string(path)
                .unwrap()
                .contains(disk.to_str().unwrap())
        })
        .unwrap()
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
    let guests = [("one", 0), ("two", 1), ("three", 2)].map(|(name, n)| named(name, &disks[n]));
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

    let output = restore(&["two"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("nothing of 'two' is left"),
        "{output:?}"
    );

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
    let guest = named("busy", &disk);
    let pid = guest.child.id().to_string();
    let held = label(&disk);
    for what in ["busy", &pid, disk.to_str().unwrap()] {
        let output = restore(&[what]);
        assert_eq!(output.status.code(), Some(125), "{what}: {output:?}");
        let said = stderr(&output);
        assert!(said.contains(&format!("process {pid}")), "{said}");
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
    abandon(named("good", &disk));
    let corrupt = Path::new(GUESTS).join("1-1.json");
    for text in ["{", "", "{\"version\":1}"] {
        fs::write(&corrupt, text).unwrap();
        let output = restore::<&str>(&[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = stderr(&output);
        assert!(
            said.contains("1-1.json") && said.contains("remove it"),
            "{said}"
        );
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
        let status = Command::new("chcon")
            .args(["-t", "virt_home_t"])
            .arg(disk)
            .status();
        assert!(status.unwrap().success());
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
    command.env("STUB", "wait");
    abandon(Guest::start(command, "ready"));
    let [kept, reset, forced, gone, replaced] = &disks;
    rebooted(&entry_of(Path::new(GUESTS), kept));
    for (flag, disk) in [("-v", reset), ("-F", forced)] {
        let status = Command::new("restorecon").arg(flag).arg(disk).status();
        assert!(status.unwrap().success());
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
    let start = |disk: &Path| {
        let mut command = stub("wait", disk);
        command.arg("-cdrom").arg(&iso);
        Guest::start(command, "ready")
    };
    let [one, two] = disks.each_ref().map(|disk| start(disk));
    let shared = label(&iso);
    abandon(one);
    let output = restore::<&str>(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.contains("shared.iso") && said.contains("still uses it"),
        "{said}"
    );
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
    fs::write(own, [0; 4096]).unwrap();
    nix::unistd::chown(own, Some(1001.into()), Some(1001.into())).unwrap();
    let before = label(own);
    let mut command = Command::new("runuser");
    command
        .args(["-u", "bob", "--", SVIRT_EXEC, STUB, "-hda"])
        .arg(own)
        .env("STUB", "wait")
        .current_dir("/");
    let guest = Guest::start(command, "ready");
    let given = label(own);
    // runuser is the child; the guest has its label from svirt-exec.
    let context = given.replace(
        "object_r:svirt_prot_exec_image_t",
        "system_r:svirt_prot_exec_t",
    );
    // The keeper first: it claims the label, and puts it back once the guest has ended.
    for name in ["attr/exec", "attr/current"] {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let has = fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            if level(has.trim_end_matches('\0')) == level(&context) {
                let pid = entry.file_name().into_string().unwrap();
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        }
    }
    guest.leaves();
    assert_eq!(label(own), given);

    // The entry is bob's to write: he adds a file of root's that carries the same pair.
    let directory = directory();
    let roots = image(directory.path(), "roots.img");
    let status = Command::new("chcon").arg(&given).arg(&roots).status();
    assert!(status.unwrap().success());
    let users = Path::new("/var/lib/svirt-exec/users/1001");
    let entry = entry_of(users, own);
    let mut value: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&entry).unwrap()).unwrap();
    let mut forged = value["records"][0].clone();
    forged["path"] = roots.to_str().unwrap().into();
    let stat = Command::new("stat")
        .args(["-c", "%d %i %W"])
        .arg(&roots)
        .output()
        .unwrap();
    let numbers: Vec<u64> = stdout(&stat)
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
    let output = restore(&["--all"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    assert!(
        said.contains("roots.img") && said.contains("it belongs to user 0"),
        "{said}"
    );
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
