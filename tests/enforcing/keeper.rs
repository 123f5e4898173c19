//! The keeper: what it has, what it leaves alone, and what does not end it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lib::*;

/// Fields of `/proc/PID/stat` behind the name: state, parent, group, session.
fn stat(pid: &str) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().map(ToOwned::to_owned).collect()
}

/// Private memory of a process, in KiB: what it has and nobody else.
fn private(pid: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .map(|line| {
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum()
}

#[test]
#[ignore = "needs the bed: make test"]
fn it_has_nothing_of_the_callers_is_no_child_and_is_small() {
    let directory = directory();
    let disks: Vec<_> = (0..64)
        .map(|number| image(directory.path(), &format!("{number}.img")))
        .collect();
    let mut command = svirt_exec([STUB]);
    for disk in &disks {
        command
            .arg("-drive")
            .arg(format!("file={},format=raw", disk.display()));
    }
    let guest = Guest::start_stub(command);
    let keepers = keepers_of(&guest);
    let [keeper] = keepers.as_slice() else {
        panic!("{keepers:?}")
    };
    let mut images = 0;
    for fd in fs::read_dir(format!("/proc/{keeper}/fd"))
        .unwrap()
        .flatten()
    {
        let to = fs::read_link(fd.path()).unwrap();
        if disks.contains(&to) {
            images += 1;
            continue;
        }
        let text = to.to_str().unwrap();
        let own = text == "/dev/null"
            || text == "/proc"
            // Its entry, which it has locked, in the journal that it has open.
            || text == GUESTS
            || text.starts_with(&format!("{GUESTS}/"))
            || text.contains("[pidfd]")
            || text.starts_with("socket:");
        assert!(own, "{text}");
    }
    assert_eq!(images, disks.len());
    // Its end of what it said to the launcher, and the door.
    let sockets = fs::read_dir(format!("/proc/{keeper}/fd"))
        .unwrap()
        .flatten();
    let sockets = sockets.filter(|fd| {
        fs::read_link(fd.path())
            .unwrap()
            .to_string_lossy()
            .starts_with("socket:")
    });
    assert!(sockets.count() <= 2);
    assert_eq!(
        fs::read_link(format!("/proc/{keeper}/cwd")).unwrap(),
        Path::new("/")
    );

    let (its, ours) = (stat(keeper), stat(&guest.child.id().to_string()));
    assert_eq!(its[1], "1", "its parent");
    assert_ne!(its[2], ours[2], "its group");
    assert_ne!(its[3], ours[3], "its session");
    wait_until("it has no more than 1 MiB to itself", || {
        private(keeper) <= 1024
    });
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn signals_to_the_group_and_to_itself_do_not_end_it() {
    let directory = directory();
    let disk = image(directory.path(), "disk.img");
    let before = label(&disk);
    let guest = Guest::stub(&disk);
    let keeper = keepers_of(&guest).pop().unwrap();
    for name in ["HUP", "INT", "TERM"] {
        signal(name, &keeper);
    }
    assert_eq!(keepers_of(&guest), [keeper]);
    assert_ne!(label(&disk), before);
    guest.leaves();
    wait_until("the label is back", || label(&disk) == before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn labels_go_back_when_a_service_manager_ends_the_whole_control_group() {
    let directory = directory();
    let disk = image(directory.path(), "disk.img");
    let before = label(&disk);
    let unit = "svirt-test-group";
    succeeds(
        Command::new("systemd-run")
            .args(["--quiet", "--collect", "--unit", unit])
            .args(["-p", "KillMode=control-group"])
            .args(["-E", "STUB=pause", SVIRT_EXEC, STUB, "-hda"])
            .arg(&disk),
    );
    wait_until("the guest runs", || label(&disk) != before);
    run(&["systemctl", "stop", unit]);
    wait_until("the label is back", || label(&disk) == before);
}

/// RLIMIT_NPROC limits the processes of a user. The first process that is started is one too many, or the
/// next one is.
#[test]
#[ignore = "needs the bed: make test"]
fn where_no_further_process_may_be_started_it_is_said_and_nothing_happens() {
    let disk = Path::new("/home/alice/few.img");
    file_of(1000, disk);
    let before = label(disk);
    keepers_done();
    // One for the keeper's start, one for the keeper; one for the reader's, one for the reader.
    let keeper = "cannot start the keeper of the labels: ";
    let cases = [
        ("--nproc=1", "raw", keeper),
        ("--nproc=2", "raw", keeper),
        ("--nproc=3", "qcow2", ""),
    ];
    for (most, format, first) in cases {
        let drive = format!("file={},format={format}", disk.display());
        let output = Command::new("runuser")
            .args(["-u", "alice", "--", "prlimit", most, SVIRT_EXEC, STUB])
            .args(["-drive", &drive])
            .current_dir("/")
            .output()
            .unwrap();
        let why = format!("{first}no further process may be started");
        refused(&output, &[&why]);
        nothing_happened(disk, &before);
    }
    fs::remove_file(disk).unwrap();
}
