//! `make bench`: instructions that planning takes, for a fixed set of lines; counted by callgrind
//! (valgrind(1)), so that they are the same on a machine that is busy with other things.
//!
//! `svirt-exec plan --json` as it is installed, with its two assistants. What is kept in
//! `instructions.txt` is compared: more than 5 % above it fails. A count is that of one compiler and one
//! C library: with others the ratios are shown and not judged. `cargo bench --bench instructions --
//! accept` writes what is counted now.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "a measurement may stop where it stands"
)]

mod images;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/instructions.txt");
/// More than this is a failure.
const LIMIT: f64 = 1.05;
/// The length of a name counts, so it is always the same.
const PLACE: &str = "/tmp/svirt-exec-instructions";

struct Line {
    name: &'static str,
    words: Vec<OsString>,
}

/// The line that libvirt 11 writes for a guest with two disks, firmware, TPM and the rest of it.
fn libvirt() -> Vec<OsString> {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../data/differential.json")).unwrap();
    let case = cases
        .iter()
        .find(|case| case["name"] == "libvirt-11-monitor-path")
        .unwrap();
    case["argv"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap().replace("/srv", PLACE).into())
        .collect()
}

fn disks(count: usize) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["qemu-system-x86_64".into()];
    for number in 0..count {
        let path = Path::new(PLACE).join(format!("{number:04}.raw"));
        fs::write(&path, [0; 512]).unwrap();
        let drive = format!("file={},format=raw,if=none,id=d{number}", path.display());
        words.extend(["-drive".into(), drive.into()]);
    }
    words
}

fn chain(length: usize) -> Vec<OsString> {
    let top = images::chain(Path::new(PLACE), length);
    let drive = format!("file={},format=qcow2", top.display());
    vec!["qemu-system-x86_64".into(), "-drive".into(), drive.into()]
}

/// Of the program and its assistants: each process writes a file of its own.
fn count(words: &[OsString]) -> u64 {
    let out = Path::new(PLACE).join("callgrind");
    fs::create_dir(&out).unwrap();
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}/%p", out.display()))
        .arg(env!("CARGO_BIN_EXE_svirt-exec"))
        .args(["plan", "--json"])
        .args(words)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok(), "needs valgrind");
    let of_one = |path: PathBuf| -> u64 {
        let text = fs::read_to_string(path).unwrap();
        let summary = text.lines().find_map(|line| line.strip_prefix("summary: "));
        summary.map_or(0, |number| number.trim().parse().unwrap())
    };
    let all = fs::read_dir(&out).unwrap().flatten();
    let sum = all.map(|entry| of_one(entry.path())).sum();
    fs::remove_dir_all(&out).unwrap();
    assert!(sum > 0, "callgrind counted nothing: {words:?}");
    sum
}

/// What counts depend on besides the program.
fn toolchain() -> String {
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    };
    format!(
        "{}; {}",
        first_line("rustc", "--version"),
        first_line("ldd", "--version")
    )
}

fn main() -> ExitCode {
    let _ = fs::remove_dir_all(PLACE);
    fs::create_dir(PLACE).unwrap();
    let lines = [
        Line {
            name: "no file",
            words: disks(0),
        },
        Line {
            name: "one disk",
            words: disks(1),
        },
        Line {
            name: "a line of libvirt's",
            words: libvirt(),
        },
        Line {
            name: "100 disks",
            words: disks(100),
        },
        Line {
            name: "1,000 disks",
            words: disks(1_000),
        },
        Line {
            name: "chain of 10",
            words: chain(10),
        },
        Line {
            name: "chain of 100",
            words: chain(100),
        },
        Line {
            name: "chain of 200",
            words: chain(200),
        },
    ];
    let counted: Vec<(&str, u64)> = lines
        .iter()
        .map(|line| (line.name, count(&line.words)))
        .collect();
    fs::remove_dir_all(PLACE).unwrap();

    let toolchain = toolchain();
    if std::env::args().any(|word| word == "accept") {
        let rows: String = counted
            .iter()
            .map(|(name, count)| format!("{name}: {count}\n"))
            .collect();
        fs::write(KEPT, format!("{toolchain}\n{rows}")).unwrap();
        println!("written: {KEPT}");
        return ExitCode::SUCCESS;
    }
    let kept = fs::read_to_string(KEPT).unwrap();
    let (with, rows) = kept.split_once('\n').unwrap();
    let rows: BTreeMap<&str, u64> = rows
        .lines()
        .map(|row| {
            let (name, count) = row.split_once(": ").unwrap();
            (name, count.parse().unwrap())
        })
        .collect();
    println!(
        "instructions of svirt-exec plan --json, in thousands; ratio to what is kept (limit {LIMIT})"
    );
    let mut more = false;
    for (name, count) in counted {
        let before = rows
            .get(name)
            .unwrap_or_else(|| panic!("nothing is kept for '{name}': accept"));
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let ratio = count as f64 / *before as f64;
        more |= ratio > LIMIT;
        println!("  {name:<22} {:>10}  {ratio:.3}", count / 1000);
    }
    if toolchain != with {
        println!("NOT JUDGED: kept with {with}; this is {toolchain}");
        return ExitCode::SUCCESS;
    }
    if more {
        println!("FAILED: more than {LIMIT} of what is kept");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
