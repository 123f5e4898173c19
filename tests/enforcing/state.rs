//! The state directory missing, full, over quota, read-only, somebody else's, or with entries that
//! are none: a clear error before anything changes, and never a guest that another one's entry
//! stops.
//!
//! Most of it in a mount namespace of its own: other guests' keepers go on with the real one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::lib::*;

const TYPE: &str = "system_u:object_r:svirt_launcher_var_lib_t:s0";

/// Runs a script and then a launch on an image, in a mount namespace of their own.
fn after(script: &str, disk: &Path) -> Output {
    let script = format!(
        "set -e; exec 3>&1 >/dev/null; {script}; exec {SVIRT_EXEC} {STUB} -hda {} >&3 3>&-",
        disk.display()
    );
    in_mount_namespace(&script)
        .env("STUB", "exit 0")
        .output()
        .unwrap()
}

/// Checks that the launch after a script is refused in one line that has all of these parts.
fn refused_after(script: &str, parts: &[&str]) {
    let directory = directory();
    let disk = image(directory.path(), "state.img");
    let before = label(&disk);
    println!("{script}");
    refused_in_one_line(&after(script, &disk), 125, parts);
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_full_file_system_or_quota_for_the_journal_stops_the_launch() {
    let full = "dd if=/dev/zero of=$S/fill bs=4k status=none 2>/dev/null || true; \
                dd if=/dev/zero of=$S/fill2 bs=1 status=none 2>/dev/null || true";
    let file = "F=$(mktemp -p /run)";
    // ENOSPC: blocks of a tmpfs, of an ext4, and inodes.
    refused_after(
        &format!("S={GUESTS}; mount -t tmpfs -o size=64k,rootcontext={TYPE} t $S; {full}"),
        &[
            "cannot write the original labels",
            "No space left",
            "no label stays changed",
        ],
    );
    refused_after(
        &format!("S={GUESTS}; mount -t tmpfs -o nr_inodes=1,rootcontext={TYPE} t $S"),
        &["No space left", "no label stays changed"],
    );
    refused_after(
        &format!(
            "S={GUESTS}; {file}; truncate -s 1M $F; mkfs.ext4 -q -m 0 -O ^has_journal $F; \
             mount -o loop $F $S; chcon {TYPE} $S; rm $F; {full}"
        ),
        &["No space left", "no label stays changed"],
    );
    // EDQUOT.
    refused_after(
        &format!(
            "S={GUESTS}; {file}; truncate -s 128M $F; mkfs.btrfs -q $F; mount -o loop $F $S; rm $F; \
             chcon {TYPE} $S; btrfs quota enable $S; btrfs qgroup limit 64k $S; {full}; sync -f $S"
        ),
        &["quota exceeded", "no label stays changed"],
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_state_directory_that_cannot_be_used_stops_the_launch() {
    let advice = "systemd-tmpfiles --create";
    refused_after(
        &format!("mount -t tmpfs -o ro,rootcontext={TYPE} t {GUESTS}"),
        &["cannot write the original labels", "Read-only file system"],
    );
    // Missing, and it cannot be made.
    refused_after(
        &format!("mount -t tmpfs -o ro,rootcontext={TYPE} t {STATE}"),
        &[
            "cannot keep the original labels",
            "Read-only file system",
            advice,
        ],
    );
    let base = format!("mount -t tmpfs -o rootcontext={TYPE} t {STATE}");
    refused_after(
        &format!("{base}; mkdir -Z {GUESTS}; chown alice {GUESTS}"),
        &[
            "cannot keep the original labels",
            "it belongs to user",
            advice,
        ],
    );
    refused_after(
        &format!("{base}; touch {GUESTS}"),
        &["cannot keep the original labels", advice],
    );
    refused_after(
        &format!("{base}; ln -s /root {GUESTS}"),
        &["cannot keep the original labels", advice],
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_missing_state_directory_is_made() {
    let directory = directory();
    let disk = image(directory.path(), "state.img");
    let before = label(&disk);
    for script in [
        format!("mount -t tmpfs -o rootcontext={TYPE} t {STATE}"),
        "mount -t tmpfs -o rootcontext=system_u:object_r:var_lib_t:s0 t /var/lib".to_owned(),
    ] {
        let output = after(&script, &disk);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{script}: {}",
            stderr(&output)
        );
        wait_until("the label is back", || label(&disk) == before);
    }
}

/// Files in the state directory that are no entries, until the end of a test.
struct Corrupt(Vec<PathBuf>);

impl Corrupt {
    fn new() -> Self {
        let at = |name: &str| Path::new(GUESTS).join(name);
        let entry =
            "\"name\":\"x\",\"pid\":1,\"started\":1,\"boot\":\"\",\"context\":\"\",\"records\":[]";
        for (name, text) in [
            ("1-1.json", String::new()),
            ("1-2.json", "\0\0\0".to_owned()),
            ("1-3.json", "{}".to_owned()),
            ("1-4.json", format!("{{\"version\":9,{entry}}}")),
            ("1-5.json", format!("{{\"version\":1,{entry}")),
            ("1-6.json", format!("{{\"version\":1,{entry}}}")),
        ] {
            fs::write(at(name), text).unwrap();
        }
        fs::create_dir(at("1-7.json")).unwrap();
        symlink("/etc/passwd", at("1-8.json")).unwrap();
        succeeds(Command::new("mkfifo").arg(at("1-9.json")));
        Self(
            (1..10)
                .map(|number| at(&format!("1-{number}.json")))
                .collect(),
        )
    }
}

impl Drop for Corrupt {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
            let _ = fs::remove_dir(path);
        }
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn corrupt_entries_are_named_and_block_no_other_guest() {
    let directory = directory();
    let (disk, left) = (
        image(directory.path(), "disk.img"),
        image(directory.path(), "left.img"),
    );
    let before = label(&disk);
    let corrupt = Corrupt::new();
    // A guest starts, runs and gets its label back beside them.
    let mut guest = Guest::stub(&disk);
    assert_ne!(label(&disk), before);
    drop(guest.child.stdin.take());
    assert_eq!(guest.child.wait().unwrap().code(), Some(0));
    wait_until("the label is back", || label(&disk) == before);
    // One that was cut off is put back beside them.
    abandon(Guest::stub(&left));
    assert_ne!(label(&left), before);
    let output = svirt_exec(["restore"]).output().unwrap();
    assert_eq!(label(&left), before);
    let said = stderr(&output);
    assert!(!output.status.success(), "{said}");
    for path in &corrupt.0[..5] {
        assert!(said.contains(path.to_str().unwrap()), "{path:?}: {said}");
    }
    drop(corrupt);
    run(&[SVIRT_EXEC, "restore"]);
}
