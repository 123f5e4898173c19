//! Disks: `-blockdev`, `-drive` and its short forms, and the devices that use them.
//!
//! Pure. Facts: `drive_new` and `blockdev_init` in blockdev.c, `default_drive` and `drive_add`
//! in system/vl.c (QEMU 10).

use std::os::unix::ffi::OsStrExt;

use crate::model::resource::{Format, Origin, Target};
use crate::qemu::block::context::{KeyNames, NodeContext, overlay_start};
use crate::qemu::block::drivers::Kind;
use crate::qemu::block::graph::{Graph, Node, User};
use crate::qemu::parsed_option::{IMAGE, ParsedOption};
use crate::qemu::requests::Requests;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::{Leaf, Scalar, Tree};
use crate::qemu::usage::Usage;

/// Short forms of `-drive`: the option, the `-drive` keys that it stands for, whether it is a CD.
/// The value is the file name, verbatim (system/vl.c: `HD_OPTS`, `CDROM_OPTS`, …).
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

/// Devices that never write their drive (hw/ide/ide-dev.c, hw/scsi/scsi-disk.c).
const READERS: &[&str] = &["ide-cd", "scsi-cd"];

/// The first flash contains the firmware code (hw/i386/pc_sysfw.c).
const FLASH_WARNING: &str = "the firmware code is opened for writing; \
     -drive if=pflash,unit=0,readonly=on,format=raw,file=… would protect it";

/// After `-daemonize` QEMU's working directory is / (`os_setup_post`, os-posix.c), and a node with
/// auto-read-only is opened again by name when its first writer attaches or its last one detaches
/// (block/file-posix.c).
const RELATIVE_WARNING: &str = "is relative, and -daemonize changes the working directory to /, from \
     where QEMU looks for the file when it opens it again; write the whole path";

/// Requests everything that the block layer opens.
pub fn add_requests(options: &[ParsedOption], requests: &mut Requests<'_>) {
    let mut graph = Graph::default();
    // -blockdev comes before -drive whatever the order of the line (qemu_create_early_backends).
    for option in options.iter().filter(|option| option.name == "blockdev") {
        open_blockdev(option, &mut graph, requests);
    }
    let snapshot = options.iter().any(|option| option.name == "snapshot");
    let mut unnamed = 0_usize;
    for option in options {
        if option.name == "drive" {
            open_drive(option, snapshot, &mut unnamed, &mut graph, requests);
        } else if let Some((_, instead, cdrom)) =
            SHORT_FORMS.iter().find(|(name, ..)| *name == option.name)
        {
            open_short_form(option, instead, *cdrom, snapshot, &mut graph, requests);
        }
    }
    let mut code_seen = false;
    for option in options {
        match option.name {
            "device" => attach_device(option, &mut graph, requests),
            "machine" | "M" => {
                for key in ["pflash0", "pflash1"] {
                    if let Some(node) = option.text(key).and_then(|name| graph.lookup(name)) {
                        graph.attach(node, User::Writer);
                    }
                }
            }
            "pflash" | "drive" if !code_seen && is_flash(option) => {
                code_seen = true;
                if option.name == "pflash" || !is_read_only(option) {
                    requests.warn(&option.site, FLASH_WARNING);
                }
            }
            _ => {}
        }
    }
    let before = requests.list.len();
    graph.finish(requests);
    if options.iter().any(|option| option.name == "daemonize") {
        warn_of_relative_paths(before, requests);
    }
}

/// Warns of every requested path after the first `before` requests that is relative.
fn warn_of_relative_paths(before: usize, requests: &mut Requests<'_>) {
    let relative: Vec<Origin> = requests
        .list
        .iter()
        .skip(before)
        .filter(|request| match &request.target {
            Target::Path(path) => !path.as_bytes().starts_with(b"/"),
            _ => false,
        })
        .map(|request| request.origin.clone())
        .collect();
    for origin in relative {
        requests.warn_at(&origin, RELATIVE_WARNING);
    }
}

fn open_blockdev<'s>(option: &'s ParsedOption, graph: &mut Graph<'s>, requests: &mut Requests<'_>) {
    if option.tree == Tree::default() {
        // The value was refused already.
        return;
    }
    if option.text("driver").is_none() {
        requests.error(&option.site, "needs 'driver'");
        return;
    }
    let context = NodeContext {
        filename: None,
        keys: KeyNames::Below(String::new()),
        read_only: false,
        auto_read_only: false,
        protocol: false,
        unstated: Format::Unstated { add: "driver=" },
        depth: 0,
    };
    graph.open(&option.tree, &context, &option.site, requests);
}

fn open_short_form<'s>(
    option: &'s ParsedOption,
    instead: &str,
    cdrom: bool,
    snapshot: bool,
    graph: &mut Graph<'s>,
    requests: &mut Requests<'_>,
) {
    if option.value.is_empty() {
        return;
    }
    let context = NodeContext {
        filename: Some((&option.value, None)),
        keys: KeyNames::Fixed(String::new(), None),
        read_only: cdrom || snapshot,
        auto_read_only: true,
        protocol: false,
        unstated: Format::CannotState {
            instead: instead.to_owned(),
        },
        depth: 0,
    };
    if let Some(node) = graph.open(&Tree::default(), &context, &option.site, requests) {
        graph.attach(node, User::Writer);
        if snapshot {
            add_overlay(option, "", requests);
        }
    }
}

fn open_drive<'s>(
    option: &'s ParsedOption,
    snapshot: bool,
    unnamed: &mut usize,
    graph: &mut Graph<'s>,
    requests: &mut Requests<'_>,
) {
    let tree = &option.tree;
    let interface = tree.text("if");
    // blockdev_init names drives without id; only those of if=none can be used by name.
    let own_name = format!("none{unnamed}");
    if interface == Some(b"none") {
        *unnamed = unnamed.saturating_add(1);
    }
    let file = tree.leaf("file").filter(|leaf| !leaf.text.is_empty());
    let format = match (tree.leaf("format"), tree.leaf("driver")) {
        (Some(_), Some(_)) => {
            requests.error(&option.site, "takes either format= or driver=");
            return;
        }
        (format, driver) => format.or(driver).filter(|leaf| !bytes::is_help(leaf.text)),
    };
    let has_file_options = tree.child("file").is_some_and(Tree::has_children);
    if file.is_none() && format.is_none() && !has_file_options {
        // An empty drive has a name and opens nothing.
        let node = graph.add(Node::new(&option.site, Kind::Protocol, true, true));
        name_drive(option, &own_name, node, graph);
        return;
    }
    let read_only = is_read_only(option);
    let snapshot = tree.boolean("snapshot").unwrap_or(snapshot);
    let block_options = block_options(tree, read_only || snapshot, format);
    let context = NodeContext {
        filename: file.map(|leaf| (leaf.text, leaf.set_by)),
        keys: KeyNames::Below(String::new()),
        read_only: read_only || snapshot,
        auto_read_only: true,
        protocol: false,
        unstated: Format::Unstated { add: "format=" },
        depth: 0,
    };
    let Some(node) = graph.open(&block_options, &context, &option.site, requests) else {
        return;
    };
    name_drive(option, &own_name, node, graph);
    if interface != Some(b"none") {
        graph.attach(node, User::Writer);
    }
    if snapshot {
        add_overlay(option, "snapshot", requests);
    }
}

/// Returns the options of a drive's block node.
fn block_options(tree: &Tree, read_only: bool, format: Option<Leaf<'_>>) -> Tree {
    let mut options = tree.clone();
    // In -drive itself it is a file name, not the name of a node.
    options.clear_value("file");
    let mut put = |key: &str, value: Scalar| {
        // One fragment is never too deep.
        let _ = options.insert(key.as_bytes(), value, None);
    };
    put("read-only", Scalar::Bool(read_only));
    if let Some(format) = format {
        put("driver", Scalar::Text(format.text.to_vec()));
    }
    options
}

fn name_drive(option: &ParsedOption, own_name: &str, node: usize, graph: &mut Graph<'_>) {
    match option.text("id") {
        Some(id) => graph.name(id, node),
        None if option.text("if") == Some(b"none") => graph.name(own_name.as_bytes(), node),
        None => {}
    }
}

/// Returns whether a drive is read-only. Of several `readonly=` the first counts, and that of
/// `-set` last, because renaming them to `read-only` reverses their order (`qemu_opt_rename`,
/// blockdev.c).
fn is_read_only(option: &ParsedOption) -> bool {
    let renamed = option.opts.all("readonly").next();
    option.text("media") == Some(b"cdrom")
        || option.tree.boolean("read-only") == Some(true)
        || renamed.and_then(|pair| bytes::boolean(&pair.value)) == Some(true)
}

/// Returns whether the option is a flash that may be unit 0; without a unit QEMU takes the next
/// free one.
fn is_flash(option: &ParsedOption) -> bool {
    option.name == "pflash"
        || (option.text("if") == Some(b"pflash")
            && option.text("unit").is_none_or(|unit| unit == b"0"))
}

fn add_overlay(option: &ParsedOption, key: &str, requests: &mut Requests<'_>) {
    let start = overlay_start(requests);
    let how = Usage::create("temporary changes to a disk (snapshot)");
    requests.add_template(option.site.origin(key, None), &start, how);
}

fn attach_device(option: &ParsedOption, graph: &mut Graph<'_>, requests: &mut Requests<'_>) {
    let Some(name) = option.text("drive").filter(|name| !name.is_empty()) else {
        return;
    };
    let Some(node) = graph.lookup(name) else {
        let message = format!("there is no drive or block node '{}'", bytes::show(name));
        requests.warn(&option.site, message);
        return;
    };
    let reads = option
        .text("driver")
        .is_some_and(|driver| READERS.iter().any(|reader| reader.as_bytes() == driver));
    graph.attach(
        node,
        if reads {
            User::Reader
        } else if option.tree.boolean("share-rw") == Some(true) {
            User::SharedWriter
        } else {
            User::Writer
        },
    );
}
