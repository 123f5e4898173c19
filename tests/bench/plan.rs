//! `make bench`: how long planning takes, as ratios within one run.
//!
//! Parsing, looking at the files, deciding and printing (`svirt-exec plan --json`) for lines of
//! 100, 1,000 and 10,000 disks. The disks are raw and qcow2 images in memory (tmpfs where `TMPDIR`
//! is one), so that no disk is waited for. A line of n times the disks is to take n times as long.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing
)]

mod images;

use std::ffi::{CString, OsString};
use std::fs;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use svirt_exec::cli::Cli;
use svirt_exec::host::pinned;
use svirt_exec::host::privsep::Assistant;
use svirt_exec::image::{self, ImageFormat};
use svirt_exec::launch::dry_run;
use svirt_exec::plan::report;
use svirt_exec::{qemu, sys};

/// Without arguments; `cargo bench --bench plan -- 1000` measures one line.
const DISKS: [usize; 3] = [100, 1_000, 10_000];
const RUNS: usize = 9;
/// bytes
const HEADER: usize = 4096;

/// A line of five words a disk: half of the disks raw, half of them qcow2.
fn line(directory: &Path, disks: usize) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["-machine", "q35", "-nodefaults", "-S"]
        .map(OsString::from)
        .to_vec();
    for disk in 0..disks {
        let format = ["raw", "qcow2"][disk % 2];
        let path = directory.join(format!("{disk}.{format}"));
        words.push("-drive".into());
        words.push(format!("file={},format={format},if=none,id=d{disk}", path.display()).into());
        words.push("-device".into());
        words.push(format!("virtio-blk-pci,drive=d{disk}").into());
        words.push("-enable-kvm".into());
    }
    words
}

fn make_images(directory: &Path, disks: usize) {
    let pattern = directory.join("pattern.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&pattern)
        .arg("1G")
        .status();
    assert!(made.is_ok_and(|status| status.success()), "needs qemu-img");
    // The header is all that planning reads.
    let mut header = fs::read(&pattern).unwrap();
    header.truncate(HEADER);
    for disk in 0..disks {
        if disk % 2 == 0 {
            fs::write(directory.join(format!("{disk}.raw")), b"").unwrap();
        } else {
            fs::write(directory.join(format!("{disk}.qcow2")), &header).unwrap();
        }
    }
}

/// Median and spread (smallest to largest).
fn measure(mut once: impl FnMut()) -> [Duration; 3] {
    once();
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            once();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    [times[RUNS / 2], times[0], times[RUNS - 1]]
}

/// What a launch with one image costs more, since a fork opens it and another one reads its header:
/// both are started, and do it, against this process doing it.
fn assistants(image: &Path) {
    let pinned = pinned::pin(image).unwrap();
    let qcow2 = || Some(ImageFormat::from_name(b"qcow2"));
    let here = measure(|| {
        let mut file = pinned::open_to_read(pinned.as_fd()).unwrap();
        black_box(image::header(qcow2(), &mut file, b"").unwrap());
    });
    let apart = measure(|| {
        let reader = Assistant::reader(None).unwrap();
        let probe = Assistant::probe(None).unwrap();
        let file = reader.open(pinned.as_fd()).unwrap();
        black_box(
            probe
                .header(file.as_fd(), qcow2(), image.as_os_str())
                .unwrap(),
        );
    });
    println!("one image, opened and read: median of {RUNS} (smallest to largest), in ms");
    for (who, times) in [("this process", here), ("two forks", apart)] {
        let [median, least, most] = times.map(milliseconds);
        println!("{who:>17}  {median:.3} ({least:.3} to {most:.3})");
    }
}

/// A plan of a line, as `plan --json` prints it.
fn plan(words: &[OsString], disks: usize) {
    let mut argv: Vec<OsString> = ["svirt-exec", "--", "qemu-system-x86_64"]
        .map(OsString::from)
        .to_vec();
    argv.extend(words.iter().cloned());
    let options = Cli::try_parse_from(argv).unwrap().launch;
    let environment: [CString; 0] = [];
    let plan = dry_run::plan(&options, &environment).unwrap();
    let pinned = plan
        .steps
        .iter()
        .filter(|step| step.resource.pinned.is_some());
    let kvm = words.iter().any(|word| word == "-enable-kvm") && Path::new("/dev/kvm").exists();
    assert_eq!(pinned.count(), disks + usize::from(kvm));
    black_box(report::json(&plan).unwrap());
}

/// Overlays on each other.
fn chains(directory: &Path) {
    println!("planning for one disk, a chain of images: the same");
    let mut before: Option<f64> = None;
    for length in [10, 100, 200] {
        let top = images::chain(directory, length);
        let drive = format!("file={},format=qcow2", top.display());
        let words = ["-drive".into(), drive.into()];
        let times = measure(|| plan(&words, length)).map(milliseconds);
        let [median, least, most] = times;
        let ratio = before.map_or_else(String::new, |before| format!("{:.1}", median / before));
        println!("{length:>8} images  {median:.2} ({least:.2} to {most:.2})  {ratio}");
        before = Some(median);
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let chosen: Vec<usize> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let disks = if chosen.is_empty() {
        DISKS.to_vec()
    } else {
        chosen
    };
    make_images(directory.path(), *disks.iter().max().unwrap());
    sys::raise_descriptor_limit();
    assistants(&directory.path().join("1.qcow2"));
    println!("planning, median of {RUNS} (smallest to largest), in ms; ratio to the row above");
    println!(
        "{:>8} {:>8}  {:>28} {:>7}  {:>28} {:>7}",
        "disks", "words", "reading the line", "ratio", "the whole plan", "ratio"
    );
    let mut before: Option<[f64; 2]> = None;
    for disks in disks {
        let words = line(directory.path(), disks);
        let parsing = measure(|| {
            black_box(qemu::parse(
                "qemu-system-x86_64".as_ref(),
                &words,
                &Default::default(),
                &Default::default(),
            ));
        });
        let planning = measure(|| plan(&words, disks));
        let medians = [milliseconds(parsing[0]), milliseconds(planning[0])];
        let row = |times: [Duration; 3]| {
            format!(
                "{:.2} ({:.2} to {:.2})",
                milliseconds(times[0]),
                milliseconds(times[1]),
                milliseconds(times[2])
            )
        };
        let ratio = |at: usize| {
            before.map_or_else(String::new, |before| {
                format!("{:.1}", medians[at] / before[at])
            })
        };
        println!(
            "{disks:>8} {:>8}  {:>28} {:>7}  {:>28} {:>7}",
            words.len() + 1,
            row(parsing),
            ratio(0),
            row(planning),
            ratio(1)
        );
        before = Some(medians);
    }
    chains(directory.path());
}
