//! QEMU as a process: logs, pid file, traces, migration, descriptors, plugins.
//!
//! Pure. Facts: system/vl.c, util/log.c, trace/control.c, migration/migration.c, replay/ and
//! plugins/loader.c (QEMU 10).

use crate::qemu::entry::{Entry, is_last, merged};
use crate::qemu::options::chardev;
use crate::qemu::requests::{Found, Site, Use};
use crate::qemu::syntax::{bytes, keyval};

/// Options whose word is a path, verbatim.
const WORDS: &[(&str, Use)] = &[
    ("pidfile", Use::create("pid file").fdset()),
    (
        "dump-vmstate",
        Use::create("description of the machine's state"),
    ),
    ("qtest-log", Use::create("test log")),
    ("writeconfig", Use::create("configuration to write")),
    ("chroot", Use::tree("root directory")),
    ("tftp", Use::tree("directory served by TFTP")),
    ("smb", Use::tree("directory shared by SMB")),
];

/// Those of them of which the last one counts; the others act while the line is read, or are gone.
const LAST: &[&str] = &["pidfile", "qtest-log"];

/// Options with keys.
const KEYS: &[(&str, &str, Use)] = &[
    ("trace", "events", Use::content("list of trace events")),
    ("trace", "file", Use::create("trace")),
    ("run-with", "chroot", Use::tree("root directory")),
    ("plugin", "file", Use::content("plugin")),
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

/// Whether a key of one of the family's options names a host resource.
pub fn names_resource(option: &str, key: &str) -> bool {
    KEYS.iter().any(|row| row.0 == option && row.1 == key)
        || matches!(
            (option, key),
            ("add-fd", "fd") | ("icount", "rrfile") | ("incoming", "addr.args" | "addr.filename")
        )
}

/// Whether the word of an option is a path.
pub fn is_path(option: &str) -> bool {
    WORDS.iter().any(|row| row.0 == option)
}

/// `-add-fd`; must come before everything that may name `/dev/fdset/N`.
pub fn descriptors(entries: &[Entry], found: &mut Found<'_>) {
    for entry in entries.iter().filter(|entry| entry.name == "add-fd") {
        let fd = entry.text("fd").and_then(bytes::number::<i32>);
        let set = entry.text("set").and_then(bytes::number::<i64>);
        match (fd, set) {
            // parse_add_fd refuses the standard descriptors.
            (Some(fd), Some(set)) if fd > 2 => {
                found.fdset_member(set, fd, entry.site.origin("fd", None));
            }
            _ if entry.help => {}
            _ => found.error(&entry.site, "needs fd= (above 2) and set="),
        }
    }
}

/// Everything else of this family.
pub fn list(entries: &[Entry], found: &mut Found<'_>) {
    log(entries, found);
    icount(entries, found);
    for entry in entries {
        let (site, tree) = (&entry.site, &entry.tree);
        for (_, how) in WORDS.iter().filter(|(name, _)| *name == entry.name) {
            let replaced = LAST.contains(&entry.name) && !is_last(entries, entry);
            let nothing = entry.name == "qtest-log" && entry.word == b"none";
            if !(replaced || nothing) {
                found.path(site.origin("", None), &entry.word, *how);
            }
        }
        for (_, key, how) in KEYS.iter().filter(|(name, ..)| *name == entry.name) {
            // Every -trace replaces the file, be it by none (`trace_opt_parse`).
            if *key == "file" && entry.name == "trace" && !is_last(entries, entry) {
                continue;
            }
            found.prop(site, tree, key, *how);
        }
        for (_, message) in OPAQUE.iter().filter(|(name, _)| *name == entry.name) {
            found.warn(site, *message);
        }
        match entry.name {
            "incoming" => incoming(entry, found),
            "perfmap" => {
                let how = Use::create("map for perf");
                found.template(site.origin("", None), b"/tmp/perf-", how);
            }
            "jitdump" => {
                let how = Use::create("dump for perf");
                found.template(site.origin("", None), b"jit-", how);
            }
            "semihosting-config" => {
                let off = tree.boolean("enable") == Some(false);
                if !off && tree.text("target") != Some(b"gdb") {
                    found.warn(
                        site,
                        "lets the guest open any file that QEMU may open: these cannot be known",
                    );
                }
            }
            _ => {}
        }
    }
}

/// `-D FILE`; a `%d` in it becomes the process's number, or with `-d tid` a thread's
/// (`qemu_set_log_internal`).
fn log(entries: &[Entry], found: &mut Found<'_>) {
    // The last one counts.
    let Some(entry) = entries.iter().rfind(|entry| entry.name == "D") else {
        return;
    };
    let how = Use::create("log");
    let origin = entry.site.origin("", None);
    let percent = entry.word.iter().filter(|b| **b == b'%').count();
    match percent {
        0 => found.path(origin, &entry.word, how),
        1 if bytes::contains(&entry.word, b"%d") => {
            found.template(origin, bytes::until(&entry.word, b"%").0, how);
        }
        _ => found.error(&entry.site, "may have one %d in its name, and no other %"),
    }
}

/// All words of `-icount` add up. A config file's count only where the line has one too
/// (`icount_opts`, system/vl.c).
fn icount(entries: &[Entry], found: &mut Found<'_>) {
    let mut words = entries.iter().filter(|entry| entry.name == "icount");
    if !words.any(|entry| !entry.word.is_empty()) {
        return;
    }
    let mode = merged(entries, "icount", "rr").map(|(_, leaf)| leaf.text);
    let how = match mode {
        Some(b"record") => Use::create("recorded execution"),
        Some(b"replay") => Use::secret("recorded execution"),
        _ => return,
    };
    if let Some((entry, leaf)) = merged(entries, "icount", "rrfile") {
        found.path(entry.site.origin("rrfile", leaf.set_by), leaf.text, how);
    }
}

/// `migrate_uri_parse` and `migration_channels`.
fn incoming(entry: &Entry, found: &mut Found<'_>) {
    let (site, word) = (&entry.site, entry.word.as_slice());
    let how = Use::secret("state of a migrated guest").fdset();
    let origin = site.origin("", None);
    if let Some(rest) = word.strip_prefix(b"file:") {
        let end = rest
            .windows(b",offset=".len())
            .position(|part| part == b",offset=")
            .unwrap_or(rest.len());
        let path = rest.split_at_checked(end).map_or(rest, |(path, _)| path);
        found.path(origin, path, how);
    } else if let Some(path) = word.strip_prefix(b"unix:") {
        found.path(origin, path, Use::bind("socket for migration"));
    } else if word.starts_with(b"exec:") {
        found.path(origin, b"/bin/sh", Use::exec("shell for migration"));
        found.warn(site, "is a shell command: what it opens cannot be known");
    } else if let Some(fd) = word.strip_prefix(b"fd:") {
        found.fd(origin, fd, "migration stream");
    } else if is_channel(word) {
        channel(site, word, found);
    }
}

/// Whether the word of `-incoming` is a MigrationChannel: neither `defer` nor a URI.
pub fn is_channel(word: &[u8]) -> bool {
    word.starts_with(b"{") || word.starts_with(b"channel-type=") || is_keyval(word)
}

fn is_keyval(word: &[u8]) -> bool {
    let (head, tail) = bytes::until(word, b":=,");
    tail.starts_with(b"=") || matches!(head, b"main" | b"cpr")
}

/// keyval or JSON with `channel-type` and `addr` (qapi/migration.json, MigrationChannel).
fn channel(site: &Site, word: &[u8], found: &mut Found<'_>) {
    let tree = match keyval::parse_or_json(word, "channel-type") {
        Ok(tree) => tree,
        Err(error) => {
            found.error(site, error);
            return;
        }
    };
    match tree.text("addr.transport") {
        Some(b"file") => {
            let how = Use::secret("state of a migrated guest").fdset();
            found.prop(site, &tree, "addr.filename", how);
        }
        Some(b"exec") => {
            found.prop(site, &tree, "addr.args.0", Use::exec("migration command"));
            found.warn(site, "runs a command: what it opens cannot be known");
        }
        Some(b"socket") => chardev::address(site, "addr", &tree, true, found),
        _ => {}
    }
}
