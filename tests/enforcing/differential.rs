//! The judge of the command-line parser: the real QEMU under strace(1) against the plan.
//!
//! Each line is planned, then run, unconfined. Whatever QEMU opened for writing, created, bound,
//! connected to or executed has to be in the plan with that access; whatever else it opened has to
//! be in the plan, in a library, in QEMU's own data, or in [`BASELINE`]. And what the plan would
//! label has to be something that QEMU touched: a label too many is a hole.
//!
//! All lines run in the bed's system by chroot (`bed try`), where that takes a minute. In the booted
//! bed, under emulation, the vectors and the lines marked `bed` are those that need its devices, and one of each
//! kind: a quarter of them, drawn by a seed that is printed, and all of them in `make test-all`. `SVIRT_CASE=text` runs those whose names have the text in them, and
//! `SVIRT_CASES=file` those of another file.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lib::fixtures;
use crate::lib::planned::Planned;
use crate::lib::strace::{self, Deed, Event, tidy};
use crate::lib::{Boolean, QEMU, SVIRT_EXEC, is_taken, say_sample};

/// Working directory of every run; nothing is in it unless a case says so.
const CWD: &str = "/srv/cfg";

/// Socket by which a run is ended. Its words are added to each line, and so are in its plan.
const CONTROL: &str = "/run/vm/control.sock";

/// Below these QEMU may read whatever the line says: libraries, modules, its own data, and what
/// the C library, GLib and GnuTLS read in every program.
const BASELINE: &[&str] = &[
    "/dev/null",
    "/dev/urandom",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/gnutls",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/libnl",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/etc/sasl",
    "/etc/sasl2",
    "/etc/ssl/openssl.cnf",
    "/lib",
    "/lib64",
    "/proc",
    "/sys",
    "/usr/lib",
    "/usr/share/locale",
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/share/zoneinfo",
    "/var/run/qemu",
];

/// What every x86 QEMU tries to open for writing, in vain on most hosts (hw/i386/sgx.c); and what
/// nodes of the whole host that need no label.
const BASELINE_WRITES: &[&str] = &["/dev/null", "/dev/ptmx", "/dev/sgx_vepc", "/proc/self"];

/// Seconds for one run under strace and emulation.
const LIMIT: u64 = 120;

/// Lines that the plan refuses and QEMU would run: nothing states the format of an image whose
/// header names another file (CVE-2010-2237).
const REFUSED: &[&str] = &["probe-attack-no-format", "backing-format-missing"];

/// What the plan lists because only the host tells which of several names QEMU will take.
const ALTERNATIVES: &[(&str, &str)] = &[
    (
        "multiboot-modules",
        "/srv/vm/mod-a arg=1,/srv/vm/mod,,b quiet",
    ),
    ("chardev-client-and-logs", "/srv/cfg/fifo"),
];

/// Lines that wait for a peer for ever, and the name by which their run is over.
const ENDLESS: &[(&str, &str)] = &[("vhost-user-blk-and-net", "/run/vm/vub.sock")];

/// Descriptors that vectors expect, as redirections.
const DESCRIPTORS: &[(&str, &str)] = &[(
    "fdset-image",
    "11</srv/vm/plain.qcow2 12<>/srv/vm/plain.qcow2",
)];

/// A line to try.
#[derive(Debug)]
struct Case {
    name: String,
    argv: Vec<OsString>,
    /// As it is written down, with the files it needs.
    definition: Value,
    /// Redirections in the syntax of bash(1).
    fds: String,
    /// Variables of the environment, beside the test's own.
    env: Vec<(String, String)>,
    /// The run is over once this name was used.
    until: Option<String>,
    /// What the plan lists although this run does not touch it.
    untouched: Vec<String>,
}

impl Case {
    fn from_json(value: &Value) -> Self {
        let strings = |key: &str| -> Vec<String> {
            value[key]
                .as_array()
                .into_iter()
                .flatten()
                .map(|word| word.as_str().unwrap().to_owned())
                .collect()
        };
        let mut argv = strings("argv");
        if argv.is_empty() {
            let machine = value["machine"].as_str().unwrap_or("q35");
            argv = [
                QEMU,
                "-machine",
                machine,
                "-nodefaults",
                "-display",
                "none",
                "-S",
            ]
            .map(String::from)
            .to_vec();
            argv.extend(strings("add"));
        }
        Self {
            name: value["name"].as_str().unwrap().to_owned(),
            argv: argv.iter().map(|word| fixtures::os(value, word)).collect(),
            definition: value.clone(),
            fds: DESCRIPTORS
                .iter()
                .find(|(name, _)| value["name"] == *name)
                .map_or(value["fds"].as_str().unwrap_or_default(), |(_, fds)| fds)
                .to_owned(),
            env: value["env"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned()))
                .collect(),
            until: ENDLESS
                .iter()
                .find(|(name, _)| value["name"] == *name)
                .map(|(_, path)| hexadecimal(path)),
            untouched: ALTERNATIVES
                .iter()
                .filter(|(name, _)| value["name"] == *name)
                .map(|(_, path)| (*path).to_owned())
                .chain(strings("untouched"))
                .collect(),
        }
    }
}

/// What a run showed.
struct Run {
    events: Vec<Event>,
    /// It came as far as answering on its monitor.
    reached_main_loop: bool,
    /// It came to an end by itself, or by what the case says.
    ended: bool,
    stderr: String,
}

/// Disks of a case whose headers name what is written, which nobody has launched before: their caller
/// accepts that. The case says which (`accept`) where the line, not the format, has it written.
fn accepted(case: &Case) -> Vec<OsString> {
    let stated = case.definition["accept"].as_array().into_iter().flatten();
    let stated = stated.map(|path| fixtures::os(&case.definition, path.as_str().unwrap()));
    let files = case.definition["files"].as_array().into_iter().flatten();
    let names_data = |file: &Value, path: &OsStr| {
        !file["data_file"].is_null() || path.as_bytes().ends_with(b".vmdk")
    };
    files
        .map(|file| {
            let path = fixtures::os(&case.definition, file["path"].as_str().unwrap());
            (file, path)
        })
        .filter(|(file, path)| names_data(file, path) && Path::new(path).is_file())
        .map(|(_, path)| path)
        .chain(stated)
        .flat_map(|path| [OsString::from("--accept-chain"), path])
        .collect()
}

/// `svirt-exec plan --json` of the line.
fn plan(case: &Case) -> (Vec<Planned>, Value) {
    let output = Command::new("bash")
        .arg("-c")
        .arg(format!("exec \"$0\" plan --json \"$@\" {}", case.fds))
        .arg(SVIRT_EXEC)
        .args(accepted(case))
        .args(&case.argv)
        .envs(case.env.iter().map(|(name, text)| (name, text)))
        .current_dir(CWD)
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{}: {error}: {output:?}", case.name));
    let resources = document["resources"].as_array().unwrap();
    let planned = resources.iter().filter_map(Planned::from_json).collect();
    (planned, document)
}

/// Servers for everything the plan connects to. They hang up at once: what QEMU tries is seen.
fn serve(planned: &[Planned]) {
    for resource in planned.iter().filter(|planned| planned.access == "connect") {
        let Ok(listener) = UnixListener::bind(&resource.path) else {
            continue;
        };
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
}

fn run(case: &Case) -> Run {
    let trace = Path::new("/run/svirt-strace");
    let _ = fs::remove_file(trace);
    let script = format!(
        "ulimit -n 256; exec strace -f --kill-on-exit --seccomp-bpf -y -xx -s 4096 -qq -e signal=none -e {} -o {} \"$@\" {}",
        strace::CALLS,
        trace.display(),
        case.fds
    );
    let mut child = Command::new("bash")
        .args(["-c", &script, "bash"])
        .args(&case.argv)
        .envs(case.env.iter().map(|(name, text)| (name, text)))
        .current_dir(CWD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let stderr = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    let start = Instant::now();
    let (mut reached_main_loop, mut ended) = (false, true);
    // The socket announces itself by nothing else; the end of the program is polled with it.
    while child.try_wait().unwrap().is_none() {
        if !reached_main_loop && let Ok(control) = UnixStream::connect(CONTROL) {
            reached_main_loop = quit(&control);
        }
        if let Some(name) = &case.until
            && fs::read_to_string(trace).is_ok_and(|trace| trace.contains(name))
        {
            child.kill().unwrap();
        }
        if start.elapsed() > Duration::from_secs(LIMIT) {
            child.kill().unwrap();
            ended = false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let trace = fs::read(trace).unwrap_or_default();
    Run {
        events: strace::events(&String::from_utf8_lossy(&trace), Path::new(CWD)),
        reached_main_loop,
        ended,
        stderr: stderr.join().unwrap(),
    }
}

/// A name as `strace -xx` prints it.
fn hexadecimal(path: &str) -> String {
    path.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// Says goodbye by QMP; false when QEMU never comes to the loop in which it answers. (The greeting
/// is sent before that, by a thread of the monitor's own.)
fn quit(control: &UnixStream) -> bool {
    // A device that waits for its peer keeps the monitor waiting too.
    let limit = Duration::from_secs(LIMIT);
    control.set_read_timeout(Some(limit)).unwrap();
    let mut lines = BufReader::new(control).lines().map_while(Result::ok);
    let mut control = control;
    let mut say = |command: &str| {
        let _ = writeln!(control, "{{\"execute\":\"{command}\"}}");
    };
    if lines.next().is_none() {
        return false;
    }
    say("qmp_capabilities");
    let answered = lines.next().is_some_and(|line| line.contains("return"));
    say("quit");
    lines.next();
    answered
}

fn is_baseline(event: &Event) -> bool {
    let path = tidy(&event.path);
    let below = |list: &[&str]| list.iter().any(|base| path.starts_with(base));
    match event.deed {
        Deed::Look => true,
        Deed::Read => {
            below(BASELINE)
                // libusb looks for what is plugged in.
                || ["/dev", "/dev/bus/usb"].iter().any(|dir| path == Path::new(dir))
                // os_setup_early_signal_handling and friends keep the working directory open.
                || path == Path::new(CWD)
                || event.is_absent() && path == Path::new(fixtures::DEFAULT_CONFIG)
                // Block layer: the literal name is tried as a device first, prefix and all.
                || event.is_absent() && path.starts_with(CWD) && path.to_string_lossy().contains(':')
        }
        Deed::Write => {
            below(BASELINE_WRITES)
                // tap: an interface that is there already could be a macvtap (net/tap-linux.c).
                || event.is_absent() && path.as_os_str().as_bytes().starts_with(b"/dev/tap")
        }
        // What was not there: an abstract socket's name, taken for a path at the end.
        Deed::Remove => event.is_absent(),
        // NSS asks its own daemons.
        Deed::Connect => below(&["/var/run/nscd", "/run/nscd", "/run/systemd/userdb"]),
        Deed::Make | Deed::Bind | Deed::Execute => false,
    }
}

/// Everything in which plan and run disagree.
fn judge(case: &Case, planned: &[Planned], run: &Run) -> BTreeSet<String> {
    let mut complaints = BTreeSet::new();
    for event in &run.events {
        let permitted = planned
            .iter()
            .any(|planned| planned.permits(event.deed) && planned.covers(&event.path));
        if !permitted && !is_baseline(event) {
            complaints.insert(format!(
                "{}: QEMU did {:?} {:?} = {}, which the plan does not say",
                case.name, event.deed, event.path, event.result
            ));
        }
    }
    if run.reached_main_loop {
        for planned in planned.iter().filter(|planned| planned.class != "keep") {
            let touched = run.events.iter().any(|event| planned.covers(&event.path));
            let named = planned.path.to_string_lossy();
            if !touched && !case.untouched.iter().any(|path| *path == named) {
                complaints.insert(format!(
                    "{}: the plan labels {named} ({}, {}), which QEMU did not touch",
                    case.name, planned.kind, planned.reason
                ));
            }
        }
    }
    complaints
}

/// Adds the monitor by which a run is ended.
fn with_control(mut case: Case) -> Case {
    if let Some(program) = case.argv.first_mut()
        && !Path::new(OsStr::new("/usr/bin")).join(&*program).exists()
        && !program.as_bytes().starts_with(b"/usr/bin/")
    {
        *program = QEMU.into();
    }
    case.argv.push("-qmp".into());
    case.argv
        .push(format!("unix:{CONTROL},server=on,wait=off").into());
    case
}

fn cases(booted: bool, every: usize) -> Vec<Case> {
    let read = |text: &str| serde_json::from_str::<Vec<Value>>(text).unwrap();
    let (vectors, further) = match std::env::var_os("SVIRT_CASES") {
        Some(file) => (read(&fs::read_to_string(file).unwrap()), Vec::new()),
        None => (
            read(include_str!("../data/qemu-cases.json")),
            read(include_str!("../data/differential.json")),
        ),
    };
    let filter = std::env::var("SVIRT_CASE").unwrap_or_default();
    let further = further
        .iter()
        .filter(|value| !booted || value["bed"] == true);
    vectors
        .iter()
        .chain(further)
        .map(|value| with_control(Case::from_json(value)))
        .enumerate()
        .filter(|(at, case)| {
            if filter.is_empty() {
                is_taken(*at, every)
            } else {
                case.name.contains(&filter)
            }
        })
        .map(|(_, case)| case)
        .collect()
}

#[test]
#[ignore = "needs the bed: make test"]
fn qemu_opens_what_the_plan_says() {
    let booted = Path::new("/sys/fs/selinux/enforce").exists();
    agree(booted, if booted { 4 } else { 1 });
}

#[test]
#[ignore = "needs the bed, and ten minutes there: filter 'exhaustive'"]
fn exhaustive_qemu_opens_what_the_plan_says_in_the_bed() {
    agree(true, 1);
}

/// Holds plan and QEMU against each other, for one line in `every`.
fn agree(booted: bool, every: usize) {
    if every > 1 {
        say_sample("lines");
    }
    // Debian's policy does not let a login's programs run code that they wrote, as TCG does.
    let _execmem = booted.then(|| Boolean::on("allow_execmem"));
    let mut complaints = BTreeSet::new();
    let (mut lines, mut complete) = (0, 0);
    for case in cases(booted, every) {
        let tried = || {
            fixtures::clear();
            fixtures::make(&case.definition);
            let (planned, document) = plan(&case);
            serve(&planned);
            (planned, document, run(&case))
        };
        let (mut planned, mut document, mut run) = tried();
        // A QEMU that is connecting again just when it is told to end may hang: once in hundreds of times.
        if !run.ended {
            println!("{}: does not end; another time", case.name);
            (planned, document, run) = tried();
        }
        lines += 1;
        complete += usize::from(run.reached_main_loop);
        if !run.ended {
            complaints.insert(format!("{}: does not end", case.name));
        }
        let errors = document["errors"].as_array().unwrap();
        let refused = !errors.is_empty();
        if run.reached_main_loop && refused != REFUSED.contains(&case.name.as_str()) {
            complaints.insert(format!(
                "{}: QEMU runs; the plan refuses: {errors:?}",
                case.name
            ));
        }
        println!(
            "{:40} {:4} events, {:2} resources, {}",
            case.name,
            run.events.len(),
            planned.len(),
            if run.reached_main_loop {
                "ran"
            } else {
                run.stderr.lines().last().unwrap_or("ended by itself")
            }
        );
        if !refused {
            complaints.extend(judge(&case, &planned, &run));
        }
    }
    println!("{lines} lines, {complete} of them up to the main loop");
    assert!(
        complaints.is_empty(),
        "{}",
        complaints.into_iter().collect::<Vec<_>>().join("\n")
    );
    if ["SVIRT_CASE", "SVIRT_CASES"]
        .iter()
        .all(|name| std::env::var_os(name).is_none())
    {
        assert!(complete * every >= 40, "only {complete} lines ran");
    }
}
