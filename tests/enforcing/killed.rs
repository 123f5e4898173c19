//! Killed at any system call, a launch or a restore leaves nothing that the next command does not
//! put back. strace(1) kills: `inject=CALL:signal=SIGKILL:when=N` ends the process as it enters its
//! Nth call of that name, so that the call is not made.
//!
//! An ordinary run kills at a quarter of the steps that change something, and at one in 32 of the rest, drawn by a
//! seed that it prints; `exhaustive` in the bed's filter (`make test-all`) kills at all of them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::block_devices::Overlay;
use crate::lib::*;

/// A system call and how many of its name it is.
type Call = (String, usize);

/// `strace OPTIONS svirt-exec ARGS…`, saying nothing.
fn strace(options: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-e", "signal=none", "-qq"])
        .args(options)
        .arg(SVIRT_EXEC)
        .args(arguments)
        .env("STUB", "exit 0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Runs a launch to its end, and returns the trace of the launcher.
fn trace_of(words: &[&str]) -> String {
    let trace = "/run/svirt-killed";
    strace(&["-o", trace], words).status().unwrap();
    wait_until("the keeper has ended", || running().is_empty());
    fs::read_to_string(trace).unwrap()
}

/// The calls of a trace from the first that `from` holds for up to the last that `to` holds for.
fn calls(trace: &str, from: impl Fn(&str) -> bool, to: impl Fn(&str) -> bool) -> Vec<Call> {
    let lines: Vec<&str> = trace.lines().filter(|line| line.contains('(')).collect();
    let first = lines.iter().position(|line| from(line)).unwrap();
    let last = lines.iter().rposition(|line| to(line)).unwrap();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().take(last + 1) {
        let name = line.split('(').next().unwrap();
        let count = counts.entry(name).or_default();
        *count += 1;
        if at >= first {
            found.push((name.to_owned(), *count));
        }
    }
    found
}

/// Calls by which something changes: on disk, of a label, or between launcher and keeper.
#[rustfmt::skip]
const STEPS: &[&str] = &[
    "clone", "clone3", "execve", "fork", "fsetxattr", "fsync", "flock", "mknodat", "pidfd_open",
    "rename", "renameat", "sendto", "setxattr", "syncfs", "unlink", "unlinkat", "vfork", "write",
];

fn changes((name, _): &Call) -> bool {
    STEPS.contains(&name.as_str())
}

/// Draws a quarter of the calls that change something, and one in 32 of the others.
fn some(calls: Vec<Call>) -> Vec<Call> {
    say_sample("calls");
    let (steps, others): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(changes);
    let one_in = |every: usize, calls: Vec<Call>| {
        let drawn = calls.into_iter().enumerate();
        drawn
            .filter(move |(at, _)| is_taken(*at, every))
            .map(|(_, call)| call)
    };
    one_in(4, steps).chain(one_in(32, others)).collect()
}

fn kill_at(call: &Call, arguments: &[&str], follow: bool) {
    let inject = format!("inject={}:signal=SIGKILL:when={}", call.0, call.1);
    let mut options = vec!["-o", "/dev/null", "-e", &inject];
    if follow {
        options.push("-f");
    }
    strace(&options, arguments).status().unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_launcher_killed_at_any_step_leaves_nothing() {
    kill_launchers(|[before, from_journal]| {
        let started = before.into_iter().filter(changes).collect();
        [some(started), some(from_journal)].concat()
    });
}

#[test]
#[ignore = "needs the bed, and half an hour there: filter 'exhaustive'"]
fn exhaustive_a_launcher_killed_at_any_call_leaves_nothing() {
    kill_launchers(|calls| calls.concat());
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_restore_killed_at_any_step_can_be_repeated() {
    kill_restores(some);
}

#[test]
#[ignore = "needs the bed, and half an hour there: filter 'exhaustive'"]
fn exhaustive_a_restore_killed_at_any_call_can_be_repeated() {
    kill_restores(|calls| calls);
}

/// Two files that a guest uses, and their labels.
struct Files {
    _directory: tempfile::TempDir,
    disk: PathBuf,
    iso: PathBuf,
    before: [String; 2],
}

impl Files {
    fn new() -> Self {
        let directory = directory();
        let disk = image(directory.path(), "disk.img");
        let iso = image(directory.path(), "cd.iso");
        let before = [label(&disk), label(&iso)];
        Self {
            _directory: directory,
            disk,
            iso,
            before,
        }
    }

    fn words(&self) -> [&str; 5] {
        let [disk, iso] = [&self.disk, &self.iso].map(|path| path.to_str().unwrap());
        [STUB, "-hda", disk, "-cdrom", iso]
    }

    fn labels(&self) -> [String; 2] {
        [label(&self.disk), label(&self.iso)]
    }

    fn check(&self, call: &Call) {
        check(call, || self.labels(), &self.before);
    }
}

/// The next command puts everything back.
fn check(call: &Call, labels: impl Fn() -> [String; 2], before: &[String; 2]) {
    wait_until("the keeper has ended", || running().is_empty());
    let restored = svirt_exec(["restore", "--all"]).status().unwrap();
    assert!(restored.success(), "after a kill at {call:?}");
    assert_eq!(&labels(), before, "after a kill at {call:?}");
    let left = entries(GUESTS);
    assert!(left.is_empty(), "after a kill at {call:?}: {left:?}");
}

/// From the keeper's start on, as long as it is the launcher: before that nothing changes. Those from
/// the journal on are apart.
fn launch_calls(trace: &str) -> [Vec<Call>; 2] {
    let becomes = |line: &str| line.starts_with("execve(") && line.contains("qemu-stub");
    let all = calls(trace, |line| line.starts_with("pidfd_open("), becomes);
    // Relative to the directory, which is open.
    let journal = |line: &str| line.contains(".new\", O_WRONLY|O_CREAT");
    let from_journal = calls(trace, journal, becomes);
    assert!(all.len() > from_journal.len() + 20, "{all:?}");
    assert!(from_journal.len() > 15, "{from_journal:?}");
    for name in ["write", "fsync", "renameat", "sendto", "setxattr", "execve"] {
        assert!(
            from_journal.iter().any(|call| call.0 == name),
            "{from_journal:?}"
        );
    }
    let before = all[..all.len() - from_journal.len()].to_vec();
    [before, from_journal]
}

fn kill_launchers(choose: impl Fn([Vec<Call>; 2]) -> Vec<Call>) {
    let files = Files::new();
    let words = files.words();
    let trace = trace_of(&words);
    assert_eq!(files.labels(), files.before);
    let calls = launch_calls(&trace);
    for call in &choose(calls) {
        kill_at(call, &words, false);
        files.check(call);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_launcher_killed_behind_a_block_devices_header_leaves_nothing() {
    let overlay = Overlay::new();
    let before = overlay.labels();
    let drive = overlay.drive();
    let words = [STUB, "-drive", &drive];
    let trace = trace_of(&words);
    assert_eq!(overlay.labels(), before);
    // The second stage begins when the file that the header names is looked at.
    let calls = calls(
        &trace,
        |line| line.starts_with("openat(") && line.contains("base.raw"),
        |line| line.starts_with("execve(") && line.contains("qemu-stub"),
    );
    let steps: Vec<&Call> = calls.iter().filter(|call| changes(call)).collect();
    for name in ["renameat", "setxattr", "execve"] {
        assert!(steps.iter().any(|step| step.0 == name), "{steps:?}");
    }
    println!("killed at {} calls: {steps:?}", steps.len());
    for call in steps {
        kill_at(call, &words, false);
        check(call, || overlay.labels(), &before);
    }
}

/// With a directory of its own, a tree handed over and private content.
#[test]
#[ignore = "needs the bed: make test"]
fn a_launcher_killed_with_trees_and_directories_of_a_guest_leaves_nothing() {
    let directory = directory();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let [inside, iso] = [
        (&tree, "inside"),
        (&directory.path().to_path_buf(), "cd.iso"),
    ]
    .map(|(place, name)| image(place, name));
    let labels = || [label(&inside), label(&iso)];
    let (before, before_tree) = (labels(), label(&tree));
    let [tree_word, iso_word] = [&tree, &iso].map(|path| path.to_str().unwrap());
    let words = [
        "--runtime-dir",
        "--name=killed",
        "--private-content",
        "--label-tree",
        tree_word,
        STUB,
        "-cdrom",
        iso_word,
    ];
    let trace = trace_of(&words);
    for call in launch_calls(&trace)
        .concat()
        .iter()
        .filter(|call| changes(call))
    {
        kill_at(call, &words, false);
        check(call, labels, &before);
        assert_eq!(label(&tree), before_tree, "after a kill at {call:?}");
        let left = Path::new("/run/svirt-exec/killed").exists();
        assert!(!left, "after a kill at {call:?}");
    }
}

/// A file that is made for QEMU comes after the locks, with an entry that is written once more.
#[test]
#[ignore = "needs the bed: make test"]
fn a_launcher_killed_where_it_makes_a_file_leaves_no_label() {
    let directory = directory();
    let disk = image(directory.path(), "disk.img");
    let log = directory.path().join("new.log");
    let serial = format!("file:{}", log.display());
    let words = [STUB, "-hda", disk.to_str().unwrap(), "-serial", &serial];
    let before = label(&disk);
    let trace = trace_of(&words);
    // As a file that anybody makes there; an empty one may stay.
    let before = [before, label(&log)];
    assert!(!before[1].contains("svirt"), "{before:?}");
    let labels = || {
        let log = log.exists().then(|| label(&log));
        [label(&disk), log.unwrap_or_else(|| before[1].clone())]
    };
    let calls = calls(
        &trace,
        |line| line.starts_with("mknodat(") && line.contains("new.log"),
        |line| line.starts_with("execve(") && line.contains("qemu-stub"),
    );
    let steps: Vec<&Call> = calls.iter().filter(|call| changes(call)).collect();
    for name in ["mknodat", "renameat", "sendto", "setxattr", "execve"] {
        assert!(steps.iter().any(|step| step.0 == name), "{steps:?}");
    }
    for call in steps {
        let _ = fs::remove_file(&log);
        kill_at(call, &words, false);
        check(call, labels, &before);
    }
}

fn kill_restores(choose: impl Fn(Vec<Call>) -> Vec<Call>) {
    let files = Files::new();
    // A guest and its keeper, both killed, leave their labels.
    let leave = || {
        let mut guest = Guest::start_stub(svirt_exec(files.words()));
        for keeper in running() {
            signal("KILL", &keeper);
        }
        guest.child.kill().unwrap();
        guest.child.wait().unwrap();
        wait_until("the keeper has ended", || running().is_empty());
        assert_ne!(files.labels(), files.before);
    };
    leave();
    let directory = tempfile::tempdir_in("/run").unwrap();
    let trace = directory.path().join("trace");
    strace(&["-ff", "-o", trace.to_str().unwrap()], &["restore"])
        .status()
        .unwrap();
    assert_eq!(files.labels(), files.before);
    // The keeper at work is the process that syncs a file system.
    let traces = fs::read_dir(directory.path()).unwrap().flatten();
    let mut traces = traces.map(|entry| fs::read_to_string(entry.path()).unwrap());
    let trace = traces.find(|text| text.contains("syncfs(")).unwrap();
    let calls = calls(&trace, |line| line.contains(GUESTS), |_| true);
    assert!(calls.len() > 20, "{calls:?}");
    for call in &choose(calls) {
        leave();
        kill_at(call, &["restore"], true);
        files.check(call);
    }
}

/// Processes of the program itself: launchers and keepers.
fn running() -> Vec<String> {
    processes(|process| {
        fs::read_link(process.join("exe")).is_ok_and(|exe| exe == Path::new(SVIRT_EXEC))
    })
}
