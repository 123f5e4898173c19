//! QEMU as a process: logs, pid file, traces, migration, descriptors, plugins.
//!
//! Pure. Facts: system/vl.c, util/log.c, trace/control.c, migration/migration.c, replay/ and
//! plugins/loader.c (QEMU 10).

use crate::qemu::options::chardev;
use crate::qemu::parsed_option::{ParsedOption, is_last, merged};
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::{bytes, value};
use crate::qemu::usage::Usage;

/// Options whose value is a path, verbatim.
const PATHS: &[(&str, Usage)] = &[
    ("pidfile", Usage::create("pid file").fdset()),
    (
        "dump-vmstate",
        Usage::create("description of the machine's state"),
    ),
    ("qtest-log", Usage::create("test log")),
    ("writeconfig", Usage::create("configuration to write")),
    ("chroot", Usage::tree("root directory")),
    ("tftp", Usage::tree("directory served by TFTP")),
    ("smb", Usage::tree("directory shared by SMB")),
];

/// Those of which the last one counts; QEMU acts on the others while it reads the line, or no
/// longer has them.
const LAST: &[&str] = &["pidfile", "qtest-log"];

/// Keys that hold paths.
const KEYS: &[(&str, &str, Usage)] = &[
    ("trace", "events", Usage::content("list of trace events")),
    ("trace", "file", Usage::create("trace")),
    ("run-with", "chroot", Usage::tree("root directory")),
    ("plugin", "file", Usage::content("plugin")),
];

/// Options whose effect on the host cannot be known.
const OPAQUE: &[(&str, &str)] = &[
    (
        "plugin",
        "runs foreign code: what a plugin opens cannot be known",
    ),
    (
        "semihosting",
        "lets the guest open any file that QEMU may open: these cannot be known",
    ),
    (
        "xen-attach",
        "opens the Xen nodes below /dev/xen, which are not listed",
    ),
];

/// Returns whether a key of one of the family's options names a host resource.
pub fn names_resource(option: &str, key: &str) -> bool {
    KEYS.iter().any(|row| row.0 == option && row.1 == key)
        || matches!(
            (option, key),
            ("add-fd", "fd") | ("icount", "rrfile") | ("incoming", "addr.args" | "addr.filename")
        )
}

/// Returns whether the value of an option is a path.
pub fn is_path(option: &str) -> bool {
    PATHS.iter().any(|row| row.0 == option)
}

/// Records the fd sets of `-add-fd`; must be called before anything that may name `/dev/fdset/N`.
pub fn add_descriptors(options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options.iter().filter(|option| option.name == "add-fd") {
        let fd = option.text("fd").and_then(bytes::number::<i32>);
        let set = option.text("set").and_then(bytes::number::<i64>);
        match (fd, set) {
            // parse_add_fd refuses the standard descriptors.
            (Some(fd), Some(set)) if fd > 2 => {
                requests.add_fdset_member(set, fd, option.site.origin("fd", None));
            }
            _ if option.help => {}
            _ => requests.error(&option.site, "needs fd= (above 2) and set="),
        }
    }
}

/// Requests everything else that this family names.
pub fn add_requests(options: &[ParsedOption], requests: &mut Requests<'_>) {
    add_log(options, requests);
    add_icount(options, requests);
    for option in options {
        let (site, tree) = (&option.site, &option.tree);
        for (_, how) in PATHS.iter().filter(|(name, _)| *name == option.name) {
            let replaced = LAST.contains(&option.name) && !is_last(options, option);
            let nothing = option.name == "qtest-log" && option.value == b"none";
            if !(replaced || nothing) {
                requests.add_path(site.origin("", None), &option.value, *how);
            }
        }
        for (_, key, how) in KEYS.iter().filter(|(name, ..)| *name == option.name) {
            // Every -trace replaces the file, even one without file= (`trace_opt_parse`).
            if *key == "file" && option.name == "trace" && !is_last(options, option) {
                continue;
            }
            requests.add_key(site, tree, key, *how);
        }
        for (_, message) in OPAQUE.iter().filter(|(name, _)| *name == option.name) {
            requests.warn(site, *message);
        }
        match option.name {
            "incoming" => add_incoming(option, requests),
            "perfmap" => {
                let how = Usage::create("map for perf");
                requests.add_template(site.origin("", None), b"/tmp/perf-", how);
            }
            "jitdump" => {
                let how = Usage::create("dump for perf");
                requests.add_template(site.origin("", None), b"jit-", how);
            }
            "semihosting-config" => {
                let off = tree.boolean("enable") == Some(false);
                if !off && tree.text("target") != Some(b"gdb") {
                    requests.warn(
                        site,
                        "lets the guest open any file that QEMU may open: these cannot be known",
                    );
                }
            }
            _ => {}
        }
    }
}

/// Requests the file of `-D FILE`; QEMU replaces `%d` in it by the process ID, or with `-d tid` by
/// a thread ID (`qemu_set_log_internal`).
fn add_log(options: &[ParsedOption], requests: &mut Requests<'_>) {
    // The last one counts.
    let Some(option) = options.iter().rfind(|option| option.name == "D") else {
        return;
    };
    let how = Usage::create("log");
    let origin = option.site.origin("", None);
    let percent = option.value.iter().filter(|b| **b == b'%').count();
    match percent {
        0 => requests.add_path(origin, &option.value, how),
        1 if bytes::contains(&option.value, b"%d") => {
            requests.add_template(origin, bytes::until(&option.value, b"%").0, how);
        }
        _ => requests.error(&option.site, "may have one %d in its name, and no other %"),
    }
}

/// Requests the file of `-icount`, whose repetitions are merged. Sections in config files count
/// only if the line has the option too (`icount_opts`, system/vl.c).
fn add_icount(options: &[ParsedOption], requests: &mut Requests<'_>) {
    let mut words = options.iter().filter(|option| option.name == "icount");
    if !words.any(|option| !option.value.is_empty()) {
        return;
    }
    let mode = merged(options, "icount", "rr").map(|(_, leaf)| leaf.text);
    let how = match mode {
        Some(b"record") => Usage::create("recorded execution"),
        Some(b"replay") => Usage::secret("recorded execution"),
        _ => return,
    };
    if let Some((option, leaf)) = merged(options, "icount", "rrfile") {
        requests.add_path(option.site.origin("rrfile", leaf.set_by), leaf.text, how);
    }
}

/// Requests what `-incoming` names (`migrate_uri_parse`, `migration_channels`).
fn add_incoming(option: &ParsedOption, requests: &mut Requests<'_>) {
    let (site, value) = (&option.site, option.value.as_slice());
    let how = Usage::secret("state of a migrated guest").fdset();
    let origin = site.origin("", None);
    if let Some(rest) = value.strip_prefix(b"file:") {
        let path = bytes::before(rest, b",offset=");
        requests.add_path(origin, path, how);
    } else if let Some(path) = value.strip_prefix(b"unix:") {
        requests.add_path(origin, path, Usage::bind("socket for migration"));
    } else if value.starts_with(b"exec:") {
        requests.add_path(origin, b"/bin/sh", Usage::exec("shell for migration"));
        requests.warn(site, "is a shell command: what it opens cannot be known");
    } else if let Some(fd) = value.strip_prefix(b"fd:") {
        requests.add_fd(origin, fd, "migration stream");
    } else if is_channel(value) {
        add_migration_channel(site, value, requests);
    }
}

/// Returns whether the value of `-incoming` is a MigrationChannel, neither `defer` nor a URI.
pub fn is_channel(value: &[u8]) -> bool {
    value.starts_with(b"{") || value.starts_with(b"channel-type=") || is_keyval(value)
}

fn is_keyval(value: &[u8]) -> bool {
    let (head, tail) = bytes::until(value, b":=,");
    tail.starts_with(b"=") || matches!(head, b"main" | b"cpr")
}

/// Requests what a MigrationChannel names: keyval or JSON with `channel-type` and `addr`
/// (qapi/migration.json).
fn add_migration_channel(site: &Site, text: &[u8], requests: &mut Requests<'_>) {
    let tree = match value::parse_keyval_or_json(text, "channel-type") {
        Ok(tree) => tree,
        Err(error) => {
            requests.error(site, error.to_string());
            return;
        }
    };
    match tree.text("addr.transport") {
        Some(b"file") => {
            let how = Usage::secret("state of a migrated guest").fdset();
            requests.add_key(site, &tree, "addr.filename", how);
        }
        Some(b"exec") => {
            requests.add_key(site, &tree, "addr.args.0", Usage::exec("migration command"));
            requests.warn(site, "runs a command: what it opens cannot be known");
        }
        Some(b"socket") => chardev::add_socket_address(site, "addr", &tree, true, requests),
        _ => {}
    }
}
