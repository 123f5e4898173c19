//! Disks: `-blockdev`, `-drive` and its short forms, and the devices that use them.
//!
//! Pure. Facts: `drive_new` and `blockdev_init` in blockdev.c, `default_drive` and `drive_add`
//! in system/vl.c (QEMU 10).

use std::os::unix::ffi::OsStrExt;

use crate::model::resource::{Format, Origin, Target};
use crate::qemu::block::context::{Context, Keys, overlay_start};
use crate::qemu::block::drivers::Kind;
use crate::qemu::block::graph::{Graph, Node, User};
use crate::qemu::entry::{Entry, IMAGE};
use crate::qemu::requests::{Found, Use};
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::{Scalar, Tree};

/// A short form of `-drive`: the option, the `-drive` keys it stands for, whether it is a CD.
/// Its word is the file name, taken literally (system/vl.c: `HD_OPTS`, `CDROM_OPTS`, …).
const SHORT_FORMS: &[(&str, &str, bool)] = &[
    (IMAGE, "index=0,media=disk", false),
    ("hda", "index=0,media=disk", false),
    ("hdb", "index=1,media=disk", false),
    ("hdc", "index=2,media=disk", false),
    ("hdd", "index=3,media=disk", false),
    ("cdrom", "index=2,media=cdrom", true),
    ("fda", "index=0,if=floppy", false),
    ("fdb", "index=1,if=floppy", false),
    ("mtdblock", "if=mtd", false),
    ("sd", "if=sd", false),
    ("pflash", "if=pflash", false),
];

/// Devices that only read their drive (hw/ide/ide-dev.c, hw/scsi/scsi-disk.c).
const READERS: &[&str] = &["ide-cd", "scsi-cd"];

/// The first flash holds the firmware's code (hw/i386/pc_sysfw.c).
const FLASH_WARNING: &str = "the firmware code is opened for writing; \
     -drive if=pflash,unit=0,readonly=on,format=raw,file=… would protect it";

/// os_daemonize's child changes to / (os-posix.c, os_setup_post); a node with auto-read-only is
/// opened again by its name whenever a writer comes or goes (block/file-posix.c).
const RELATIVE_WARNING: &str = "is relative, and -daemonize changes the working directory to /, from \
     where QEMU looks for the file when it opens it again; write the whole path";

/// Lists everything that the block layer opens.
pub fn list(entries: &[Entry], found: &mut Found<'_>) {
    let mut graph = Graph::default();
    // -blockdev comes before -drive whatever the order of the line (qemu_create_early_backends).
    for entry in entries.iter().filter(|entry| entry.name == "blockdev") {
        blockdev(entry, &mut graph, found);
    }
    let snapshot = entries.iter().any(|entry| entry.name == "snapshot");
    let mut unnamed = 0_usize;
    for entry in entries {
        if entry.name == "drive" {
            drive(entry, snapshot, &mut unnamed, &mut graph, found);
        } else if let Some((_, instead, cdrom)) =
            SHORT_FORMS.iter().find(|(name, ..)| *name == entry.name)
        {
            short_form(entry, instead, *cdrom, snapshot, &mut graph, found);
        }
    }
    let mut code_seen = false;
    for entry in entries {
        match entry.name {
            "device" => device(entry, &mut graph, found),
            "machine" | "M" => {
                for key in ["pflash0", "pflash1"] {
                    if let Some(node) = entry.text(key).and_then(|name| graph.lookup(name)) {
                        graph.attach(node, User::Writer);
                    }
                }
            }
            "pflash" | "drive" if !code_seen && is_flash(entry) => {
                code_seen = true;
                if entry.name == "pflash" || !is_read_only(entry) {
                    found.warn(&entry.site, FLASH_WARNING);
                }
            }
            _ => {}
        }
    }
    let before = found.requests.len();
    graph.finish(found);
    if entries.iter().any(|entry| entry.name == "daemonize") {
        let relative: Vec<Origin> = found
            .requests
            .iter()
            .skip(before)
            .filter(|request| match &request.target {
                Target::Path(path) => !path.as_bytes().starts_with(b"/"),
                _ => false,
            })
            .map(|request| request.origin.clone())
            .collect();
        for origin in relative {
            found.warn_at(&origin, RELATIVE_WARNING);
        }
    }
}

fn blockdev<'s>(entry: &'s Entry, graph: &mut Graph<'s>, found: &mut Found<'_>) {
    if entry.tree == Tree::default() {
        // The word was refused already.
        return;
    }
    if entry.text("driver").is_none() {
        found.error(&entry.site, "needs 'driver'");
        return;
    }
    let context = Context {
        filename: None,
        keys: Keys::Below(String::new()),
        read_only: false,
        auto_read_only: false,
        protocol: false,
        unstated: Format::Unstated { add: "driver=" },
        depth: 0,
    };
    graph.open(&entry.tree, &context, &entry.site, found);
}

fn short_form<'s>(
    entry: &'s Entry,
    instead: &str,
    cdrom: bool,
    snapshot: bool,
    graph: &mut Graph<'s>,
    found: &mut Found<'_>,
) {
    if entry.word.is_empty() {
        return;
    }
    let context = Context {
        filename: Some((&entry.word, None)),
        keys: Keys::Fixed(String::new(), None),
        read_only: cdrom || snapshot,
        auto_read_only: true,
        protocol: false,
        unstated: Format::CannotState {
            instead: instead.to_owned(),
        },
        depth: 0,
    };
    if let Some(node) = graph.open(&Tree::default(), &context, &entry.site, found) {
        graph.attach(node, User::Writer);
        if snapshot {
            overlay(entry, "", found);
        }
    }
}

fn drive<'s>(
    entry: &'s Entry,
    snapshot: bool,
    unnamed: &mut usize,
    graph: &mut Graph<'s>,
    found: &mut Found<'_>,
) {
    let tree = &entry.tree;
    let interface = tree.text("if");
    // blockdev_init names drives without id; only the ones of if=none can be used by name.
    let own_name = format!("none{unnamed}");
    if interface == Some(b"none") {
        *unnamed = unnamed.saturating_add(1);
    }
    let file = tree.leaf("file").filter(|leaf| !leaf.text.is_empty());
    let format = match (tree.leaf("format"), tree.leaf("driver")) {
        (Some(_), Some(_)) => {
            found.error(&entry.site, "takes either format= or driver=");
            return;
        }
        (format, driver) => format.or(driver).filter(|leaf| !bytes::is_help(leaf.text)),
    };
    let has_file_options = tree.child("file").is_some_and(Tree::has_children);
    if file.is_none() && format.is_none() && !has_file_options {
        // An empty drive: a name, and nothing to open.
        let node = graph.add(Node::new(&entry.site, Kind::Protocol, true, true));
        name_drive(entry, &own_name, node, graph);
        return;
    }
    let read_only = is_read_only(entry);
    let snapshot = tree.boolean("snapshot").unwrap_or(snapshot);
    let mut options = tree.clone();
    // At the top of -drive it is a file name, everywhere else it would be a node's name.
    options.clear_value("file");
    let mut put = |key: &str, value: Scalar| {
        // One fragment is never too deep.
        let _ = options.insert(key.as_bytes(), value, None);
    };
    put("read-only", Scalar::Bool(read_only || snapshot));
    if let Some(format) = format {
        put("driver", Scalar::Text(format.text.to_vec()));
    }
    let context = Context {
        filename: file.map(|leaf| (leaf.text, leaf.set_by)),
        keys: Keys::Below(String::new()),
        read_only: read_only || snapshot,
        auto_read_only: true,
        protocol: false,
        unstated: Format::Unstated { add: "format=" },
        depth: 0,
    };
    let Some(node) = graph.open(&options, &context, &entry.site, found) else {
        return;
    };
    name_drive(entry, &own_name, node, graph);
    if interface != Some(b"none") {
        graph.attach(node, User::Writer);
    }
    if snapshot {
        overlay(entry, "snapshot", found);
    }
}

fn name_drive(entry: &Entry, own_name: &str, node: usize, graph: &mut Graph<'_>) {
    match entry.text("id") {
        Some(id) => graph.name(id, node),
        None if entry.text("if") == Some(b"none") => graph.name(own_name.as_bytes(), node),
        None => {}
    }
}

/// Of several `readonly=` the first counts, that of `-set` last of all: renaming them to
/// `read-only` turns their order around (`qemu_opt_rename`, blockdev.c).
fn is_read_only(entry: &Entry) -> bool {
    let renamed = entry.opts.all("readonly").next();
    entry.text("media") == Some(b"cdrom")
        || entry.tree.boolean("read-only") == Some(true)
        || renamed.and_then(|pair| bytes::boolean(&pair.value)) == Some(true)
}

/// A flash that can be unit 0: no unit means the next free one.
fn is_flash(entry: &Entry) -> bool {
    entry.name == "pflash"
        || (entry.text("if") == Some(b"pflash")
            && entry.text("unit").is_none_or(|unit| unit == b"0"))
}

fn overlay(entry: &Entry, key: &str, found: &mut Found<'_>) {
    let start = overlay_start(found);
    let how = Use::create("temporary changes to a disk (snapshot)");
    found.template(entry.site.origin(key, None), &start, how);
}

fn device(entry: &Entry, graph: &mut Graph<'_>, found: &mut Found<'_>) {
    let Some(name) = entry.text("drive").filter(|name| !name.is_empty()) else {
        return;
    };
    let Some(node) = graph.lookup(name) else {
        let message = format!("there is no drive or block node '{}'", bytes::show(name));
        found.warn(&entry.site, message);
        return;
    };
    let reads = entry
        .text("driver")
        .is_some_and(|driver| READERS.iter().any(|reader| reader.as_bytes() == driver));
    graph.attach(
        node,
        if reads {
            User::Reader
        } else if entry.tree.boolean("share-rw") == Some(true) {
            User::SharedWriter
        } else {
            User::Writer
        },
    );
}
