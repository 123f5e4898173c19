//! What a launch costs where SELinux enforces: against the same done by hand, against QEMU itself, and
//! with more of everything. `make bench` runs it in the bed. Every figure is a ratio of two times of one
//! run, taken in turns; times begin before fork(2) and end at the first instruction of the stub that
//! stands in for QEMU, which prints the clock. Words name the parts to run; without any all are.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a measurement may stop where it stands"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SVIRT_EXEC: &str = "/usr/bin/svirt-exec";
const STUB: &str = "/usr/local/bin/qemu-stub";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const PLACE: &str = "/var/lib/libvirt/images/bench";
/// What guests without KVM run as.
const DOMAIN: &str = "svirt_prot_exec_t";
const IMAGE: &str = "svirt_prot_exec_image_t";
const LEVEL: &str = "s0:c1,c2";

/// CLOCK_MONOTONIC in nanoseconds.
fn clock() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `now`, which lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// How long a command takes until what it becomes prints the clock.
fn to_the_clock(command: &mut Command) -> f64 {
    let before = clock();
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let at: u64 = text
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{command:?}: {output:?}"));
    at.saturating_sub(before) as f64
}

/// The same of one that becomes the stub.
fn to_first_instruction(command: &mut Command) -> f64 {
    to_the_clock(command.env("STUB", "clock"))
}

/// The same of one that is at LEVEL by then, where the policy does not let it write to this process's
/// pipes: to a file that is labelled for it.
fn to_first_instruction_by_hand(command: &mut Command) -> f64 {
    let path = Path::new(PLACE).join("clock");
    let file = fs::File::create(&path).unwrap();
    let status = Command::new("chcon")
        .args(["-t", IMAGE, "-l", LEVEL])
        .arg(&path)
        .status();
    assert!(status.unwrap().success());
    let before = clock();
    let status = command.stdout(file).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    let at: u64 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    at.saturating_sub(before) as f64
}

/// How long a command takes to its end.
fn to_the_end(command: &mut Command) -> f64 {
    let before = Instant::now();
    let output = command.output().unwrap();
    let took = before.elapsed().as_secs_f64();
    assert!(output.status.success(), "{command:?}: {output:?}");
    took
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|n| values[(values.len() - 1) * n / 4])
}

/// Prints a line of the table.
fn row(what: &str, against: &str, reach: &str, ratios: Vec<f64>) {
    let rounds = ratios.len();
    let [low, median, high] = quartiles(ratios);
    println!(
        "{what:<38}  {against:<34}  {median:6.2}  ({low:.2} to {high:.2}, {rounds} rounds)  {reach}"
    );
}

/// Ratios of two times, taken in turns.
fn in_turns(
    rounds: usize,
    mut one: impl FnMut() -> f64,
    mut other: impl FnMut() -> f64,
) -> Vec<f64> {
    // Once for what is only slow the first time.
    let _ = (one(), other());
    (0..rounds)
        .map(|round| {
            if round.is_multiple_of(2) {
                let one = one();
                one / other()
            } else {
                let other = other();
                one() / other
            }
        })
        .collect()
}

fn disks(count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|number| {
            let path = Path::new(PLACE).join(format!("{number}.img"));
            fs::write(&path, [0; 4096]).unwrap();
            path
        })
        .collect()
}

fn drives(disks: &[PathBuf]) -> Vec<String> {
    disks
        .iter()
        .flat_map(|disk| {
            let drive = format!(
                "file={},format=raw,if=none,id=d{}",
                disk.display(),
                disk.file_stem().unwrap().display()
            );
            ["-drive".to_owned(), drive]
        })
        .collect()
}

fn label(path: &Path) -> String {
    let output = Command::new("stat")
        .args(["-c", "%C"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits until a stub says that it runs.
fn ready(stub: &mut Child) {
    let mut word = [0; 5];
    std::io::Read::read_exact(stub.stdout.as_mut().unwrap(), &mut word).unwrap();
}

/// Until keepers have put everything back.
fn quiet() {
    let until = Instant::now() + Duration::from_secs(120);
    while keeper().is_some() {
        assert!(Instant::now() < until, "a keeper stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn keeper() -> Option<u32> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (name.trim() == "svirt-keeper").then_some(pid)
    })
}

fn relabel(disks: &[PathBuf]) {
    let status = Command::new("restorecon")
        .arg("-F")
        .args(disks)
        .status()
        .unwrap();
    assert!(status.success());
}

fn by_hand(disks: &[PathBuf]) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-ec")
        .arg(format!(
            "chcon -t {IMAGE} -l {LEVEL} \"$@\"; exec runcon -t {DOMAIN} -l {LEVEL} {STUB}"
        ))
        .arg("sh")
        .args(disks)
        .env("STUB", "clock");
    command
}

fn ours(disks: &[PathBuf]) -> Command {
    let mut command = Command::new(SVIRT_EXEC);
    command.arg(STUB).args(drives(disks));
    command
}

/// The system calls without which it cannot be done: see the stub's `limit`.
fn limit(disks: &[PathBuf]) -> Command {
    let mut command = Command::new("/usr/local/bin/host-stub");
    command
        .arg(format!("unconfined_u:unconfined_r:{DOMAIN}:{LEVEL}"))
        .arg(format!("unconfined_u:object_r:{IMAGE}:{LEVEL}"))
        .arg(STUB)
        .args(disks)
        .env("STUB", "limit");
    command
}

fn launches(count: usize, rounds: usize, reach: &str) {
    let disks = disks(count);
    relabel(&disks);
    let launch = || {
        let took = to_first_instruction(&mut ours(&disks));
        quiet();
        took
    };
    let hand = || {
        let took = to_first_instruction_by_hand(&mut by_hand(&disks));
        relabel(&disks);
        took
    };
    let what = format!("launch, {count} disk{}", if count == 1 { "" } else { "s" });
    row(
        &what,
        "chcon and runcon",
        reach,
        in_turns(rounds, launch, hand),
    );
    let least = || {
        let took = to_first_instruction_by_hand(&mut limit(&disks));
        relabel(&disks);
        took
    };
    row(
        &what,
        "the system calls alone",
        "",
        in_turns(rounds, launch, least),
    );
}

fn version() {
    let stub = || {
        let mut command = Command::new(SVIRT_EXEC);
        to_first_instruction(command.args([STUB, "-version"]))
    };
    let env = || to_first_instruction(Command::new("env").args([STUB, "-version"]));
    row(
        "no guest (-version)",
        "env, with the stub",
        "≤ 1.60",
        in_turns(15, stub, env),
    );
    let through = || to_the_end(Command::new(SVIRT_EXEC).args([QEMU, "-version"]));
    let bare = || to_the_end(Command::new(QEMU).arg("-version"));
    row(
        "no guest (-version)",
        "QEMU alone",
        "≤ 1.05",
        in_turns(15, through, bare),
    );
}

/// Processes that sleep. A fifth of them are guests, each with a pair of its own.
struct Crowd {
    host: Child,
    guests: Vec<Child>,
}

impl Crowd {
    fn of(count: usize) -> Self {
        let guests = count / 5;
        let mut host = Command::new("/usr/local/bin/host-stub")
            .env("STUB", format!("crowd {}", count - guests - 1))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        ready(&mut host);
        let guest = |number: usize| {
            let level = format!("s0:c{},c{}", number / 500, 500 + number % 500);
            Command::new("runcon")
                .args(["-t", DOMAIN, "-l", &level, STUB])
                .env("STUB", "pause")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let guests: Vec<Child> = (0..guests).map(guest).collect();
        let enters = |guest: &Child| {
            let label = format!("/proc/{}/attr/current", guest.id());
            while !fs::read_to_string(&label).unwrap().contains(DOMAIN) {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        guests.iter().for_each(enters);
        Self { host, guests }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.host.stdin.take());
        let _ = self.host.wait();
        for guest in &mut self.guests {
            let _ = guest.kill();
            let _ = guest.wait();
        }
    }
}

fn crowds() {
    let time = || {
        let times = (0..7).map(|_| to_first_instruction(Command::new(SVIRT_EXEC).arg(STUB)));
        quartiles(times.collect())[1]
    };
    let alone = time();
    let (few, many) = (1000, 5000);
    let with = |count: usize| {
        let _crowd = Crowd::of(count);
        time()
    };
    let each = |count: usize| (with(count) - alone) / count as f64;
    let (of_few, of_many) = (each(few), each(many));
    row(
        &format!("a further process of {many}, 1,000 guests"),
        &format!("one of {few}"),
        "about 1: linear",
        vec![of_many / of_few],
    );
    println!(
        "  (launch without a disk: {:.1} ms; a further process: {:.1} µs, {:.4} of that)",
        alone / 1e6,
        of_many / 1e3,
        of_many / alone
    );
}

/// The same guest, as libvirt starts it.
fn libvirt() {
    let run = |words: &[&str]| {
        let status = Command::new(words[0])
            .args(&words[1..])
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{words:?}");
    };
    run(&["setsebool", "virt_use_execmem", "on"]);
    run(&["systemctl", "start", "virtlogd.socket", "libvirtd"]);
    let disk = disks(1);
    relabel(&disk);
    let file = Path::new(PLACE).join("bench.xml");
    let xml = format!(
        "<domain type='qemu'><name>bench</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>{QEMU}</emulator>\
         <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/>\
         <target dev='vda' bus='virtio'/></disk></devices></domain>",
        disk[0].display()
    );
    fs::write(&file, xml).unwrap();
    let create = || {
        let file = file.to_str().unwrap();
        let mut create = Command::new("virsh");
        let took = to_the_end(create.args(["-q", "create", "--paused", file])) * 1e9;
        run(&["virsh", "-q", "destroy", "bench"]);
        relabel(&disk);
        took
    };
    let launch = || {
        let took = to_first_instruction(&mut ours(&disk));
        quiet();
        took
    };
    row(
        "request to first instruction of QEMU",
        "virsh create, the same guest",
        "≤ 0.05",
        in_turns(5, launch, create),
    );
    run(&["systemctl", "stop", "libvirtd.socket", "libvirtd"]);
    run(&["setsebool", "virt_use_execmem", "off"]);
}

fn at_once() {
    const COUNT: usize = 50;
    let disks = disks(COUNT);
    relabel(&disks);
    let ratios = |of: fn(&[PathBuf]) -> Command| {
        let launch = |disk: &PathBuf| {
            let mut command = of(std::slice::from_ref(disk));
            command.env("STUB", "exit 0").stdout(Stdio::null());
            command
        };
        let together = || {
            let before = Instant::now();
            let children: Vec<Child> = disks
                .iter()
                .map(|disk| launch(disk).spawn().unwrap())
                .collect();
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
            quiet();
            before.elapsed().as_secs_f64()
        };
        let in_a_row = || {
            let before = Instant::now();
            for disk in &disks {
                assert!(launch(disk).status().unwrap().success());
            }
            quiet();
            before.elapsed().as_secs_f64()
        };
        in_turns(3, in_a_row, together)
    };
    row(
        "throughput of 50 launches at once",
        "one after the other",
        "≥ 1.50",
        ratios(ours),
    );
    // What two processors bring to what has no keeper and looks at nobody.
    row(
        "the same by hand",
        "one after the other",
        "",
        ratios(by_hand),
    );
    relabel(&disks);
}

fn restore() {
    const COUNT: usize = 1000;
    let place = Path::new(PLACE).join("tree");
    fs::create_dir_all(&place).unwrap();
    let files: Vec<PathBuf> = (0..COUNT)
        .map(|number| place.join(number.to_string()))
        .collect();
    for file in &files {
        fs::write(file, "").unwrap();
    }
    let everything = [std::slice::from_ref(&place), &files].concat();
    relabel(&everything);
    let back = || {
        let mut guest = Command::new(SVIRT_EXEC)
            .arg("--label-tree")
            .arg(&place)
            .arg(STUB)
            .env("STUB", "pause")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        ready(&mut guest);
        for pid in [keeper().unwrap(), guest.id()] {
            let pid = i32::try_from(pid).unwrap();
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
        }
        guest.wait().unwrap();
        quiet();
        let took = to_the_end(Command::new(SVIRT_EXEC).arg("restore"));
        assert!(!label(&files[0]).contains("svirt"));
        took
    };
    let hand = || {
        let took = to_the_end(Command::new("chcon").args(["-l", "s0:c1,c2"]).args(&files));
        relabel(&files);
        took
    };
    row(
        "restore of 1,000 files",
        "chcon of them",
        "≤ 1.50",
        in_turns(5, back, hand),
    );
}

fn at_rest() {
    let disk = disks(1);
    relabel(&disk);
    let mut guest = ours(&disk)
        .env("STUB", "wait")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    ready(&mut guest);
    let pid = keeper().unwrap();
    let number = |file: &str, names: &[&str]| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        text.lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum()
    };
    let switches = || {
        number(
            "status",
            &["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"],
        )
    };
    std::thread::sleep(Duration::from_secs(1));
    let before = switches();
    std::thread::sleep(Duration::from_secs(10));
    let wakeups = switches() - before;
    let private = number("smaps_rollup", &["Private_"]);
    println!("keeper: {private} KiB private (≤ 1024), {wakeups} wake-ups in 10 s (0)");
    drop(guest.stdin.take());
    guest.wait().unwrap();
    quiet();
    let size = fs::metadata(SVIRT_EXEC).unwrap().len();
    println!("program: {} KiB stripped (≤ 2048)", size / 1024);
}

fn main() {
    if !Path::new("/run/svirt-bed/is-a-bed").exists() {
        eprintln!("SKIPPED launch: it needs the bed (make bench)");
        return;
    }
    fs::create_dir_all(PLACE).unwrap();
    println!(
        "{:<38}  {:<34}  ratio  (half of the rounds)  to reach",
        "what", "against"
    );
    let parts: [(&str, fn()); 8] = [
        ("one", || launches(1, 15, "≤ 1.00")),
        ("many", || launches(64, 9, "≤ 1.20")),
        ("version", version),
        ("at-once", at_once),
        ("restore", restore),
        ("at-rest", at_rest),
        ("libvirt", libvirt),
        ("crowds", crowds),
    ];
    // cargo adds --bench.
    let words = std::env::args().skip(1);
    let wanted: Vec<String> = words.filter(|word| !word.starts_with('-')).collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
    fs::remove_dir_all(PLACE).unwrap();
}
