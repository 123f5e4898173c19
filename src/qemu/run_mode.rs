//! Whether a line starts a guest, a capability probe, or only prints help or the version.
//!
//! Pure. Facts: system/vl.c of QEMU 10.0, checked with 10.0.2. Help that QEMU prints only after it
//! has opened drives counts as a guest.

use crate::qemu::invocation::RunMode;
use crate::qemu::parsed_option::{IMAGE, ParsedOption};
use crate::qemu::syntax::bytes;

/// Options whose help QEMU prints before it opens any resource.
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

/// The same for options whose value is not parsed.
const EARLY_HELP_VERBATIM: &[&str] = &["display", "cpu", "L", "d", "global"];

/// Options that give a machine resources, so that the line is no probe.
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

/// Returns what QEMU is started for.
pub fn detect(options: &[ParsedOption]) -> RunMode {
    if options.iter().any(asks_for_help) {
        return RunMode::Information;
    }
    let machine = options
        .iter()
        .filter(|option| matches!(option.name, "machine" | "M"))
        .filter_map(|option| option.text("type"))
        .next_back();
    let has = |name: &str| options.iter().any(|option| option.name == name);
    let asked_over_stdio = options.iter().any(|option| {
        matches!(option.name, "monitor" | "qmp" | "qmp-pretty") && option.value == b"stdio"
    });
    let idle = !options
        .iter()
        .any(|option| GUEST_OPTIONS.contains(&option.name));
    let probes =
        machine == Some(b"none") && idle && (asked_over_stdio || (has("S") && has("nodefaults")));
    if probes {
        RunMode::Probe
    } else {
        RunMode::Guest
    }
}

fn asks_for_help(option: &ParsedOption) -> bool {
    match option.name {
        "h" | "help" | "version" => true,
        "audio" => option.help || option.text("model").is_some_and(bytes::is_help),
        name if EARLY_HELP.contains(&name) => option.help,
        name if EARLY_HELP_VERBATIM.contains(&name) => bytes::is_help(&option.value),
        _ => false,
    }
}
