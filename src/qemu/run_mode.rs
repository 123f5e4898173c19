//! Whether a line starts a guest at all: help, version, capability probes.
//!
//! Pure. Facts: system/vl.c of QEMU 10.0, seen with 10.0.2. Help that QEMU answers only
//! after it has opened drives counts as a guest.

use crate::qemu::entry::{Entry, IMAGE};
use crate::qemu::invocation::Purpose;
use crate::qemu::syntax::bytes;

/// Options whose help is printed before any resource is opened.
const EARLY_HELP: &[&str] = &[
    "machine",
    "M",
    "accel",
    "audiodev",
    "audio",
    "object",
    "boot",
    "smp",
    "trace",
    "plugin",
    "tpmdev",
    "vnc",
    "rtc",
    "msg",
    "overcommit",
    "run-with",
    "add-fd",
    "action",
    "device",
];

/// The same for options whose value is one word.
const EARLY_HELP_WORDS: &[&str] = &["display", "cpu", "L", "d", "global"];

/// Options that give a machine something to work with: no probe.
const GUEST_OPTIONS: &[&str] = &[
    "drive",
    "blockdev",
    "netdev",
    "nic",
    "net",
    "device",
    "fsdev",
    "virtfs",
    "hda",
    "hdb",
    "hdc",
    "hdd",
    "cdrom",
    "fda",
    "fdb",
    "sd",
    "mtdblock",
    "pflash",
    "kernel",
    "initrd",
    "dtb",
    "bios",
    "object",
    "tpmdev",
    "fw_cfg",
    "incoming",
    "mem-path",
    "readconfig",
    "plugin",
    IMAGE,
];

/// Why QEMU is started.
pub fn judge(entries: &[Entry]) -> Purpose {
    if entries.iter().any(asks_for_help) {
        return Purpose::Information;
    }
    let machine = entries
        .iter()
        .filter(|entry| matches!(entry.name, "machine" | "M"))
        .filter_map(|entry| entry.text("type"))
        .next_back();
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    let asked_over_stdio = entries.iter().any(|entry| {
        matches!(entry.name, "monitor" | "qmp" | "qmp-pretty") && entry.word == b"stdio"
    });
    let idle = !entries
        .iter()
        .any(|entry| GUEST_OPTIONS.contains(&entry.name));
    let probes =
        machine == Some(b"none") && idle && (asked_over_stdio || (has("S") && has("nodefaults")));
    if probes {
        Purpose::Probe
    } else {
        Purpose::Guest
    }
}

fn asks_for_help(entry: &Entry) -> bool {
    match entry.name {
        "h" | "help" | "version" => true,
        "audio" => entry.help || entry.text("model").is_some_and(bytes::is_help),
        name if EARLY_HELP.contains(&name) => entry.help,
        name if EARLY_HELP_WORDS.contains(&name) => bytes::is_help(&entry.word),
        _ => false,
    }
}
