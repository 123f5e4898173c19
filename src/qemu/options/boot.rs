//! What a guest boots from: kernel, firmware, option ROMs, tables and blobs.
//!
//! Pure. Facts: system/vl.c, hw/core/loader.c, hw/nvram/fw_cfg.c, hw/acpi/core.c,
//! hw/smbios/smbios.c, hw/i386/multiboot.c (QEMU 10).

use crate::qemu::entry::{Entry, is_last};
use crate::qemu::requests::{Found, Use};
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::Leaf;

/// QEMU maps the initial ramdisk (`g_mapped_file_new`, hw/i386/x86-common.c).
const INITIAL_RAMDISK: Use = Use::content("initial ramdisk").mapped();

/// Keys of the machine, the option that sets the same key, and what it is. The last word on the
/// line counts (`qemu_apply_machine_options` and `qdict` merging in system/vl.c).
const MACHINE_FILES: &[(&str, &str, Use)] = &[
    ("kernel", "kernel", Use::content("kernel")),
    ("dtb", "dtb", Use::content("device tree")),
    ("shim", "shim", Use::content("boot shim")),
    ("firmware", "bios", Use::content("firmware")),
    ("initrd", "initrd", INITIAL_RAMDISK),
    ("dumpdtb", "", Use::create("device tree to write")),
    ("signature", "", Use::create("signature to write")),
];

/// Whether a key of one of the family's options names a host resource.
pub fn names_resource(option: &str, key: &str) -> bool {
    match option {
        "machine" => key == "boot.splash" || MACHINE_FILES.iter().any(|row| row.0 == key),
        "boot" => key == "splash",
        "option-rom" => key == "romfile",
        "acpitable" => matches!(key, "data" | "file"),
        "smbios" => matches!(key, "file" | "path"),
        "fw_cfg" => key == "file",
        _ => false,
    }
}

/// Lists everything of this family.
pub fn list(program: &[u8], entries: &[Entry], found: &mut Found<'_>) {
    for (key, option, how) in MACHINE_FILES {
        let last = entries
            .iter()
            .filter_map(|entry| match entry.name {
                "machine" | "M" => entry.tree.leaf(key).map(|leaf| (entry, *key, leaf)),
                name if name == *option => {
                    let text = entry.word.as_slice();
                    Some((entry, "", Leaf { text, set_by: None }))
                }
                _ => None,
            })
            .next_back();
        let Some((entry, key_written, leaf)) = last else {
            continue;
        };
        let origin = entry.site.origin(key_written, leaf.set_by);
        match *key {
            "firmware" => {
                // RISC-V has two words that are no files (hw/riscv/boot.c).
                let no_file = matches!(leaf.text, b"none" | b"default");
                if !(no_file && bytes::contains(program, b"riscv")) {
                    found.data_file(origin, leaf.text, *how);
                }
            }
            "initrd" => initrd(entry, key_written, leaf, found),
            _ => found.path(origin, leaf.text, *how),
        }
    }
    // -boot is the machine's key `boot` (`machine_parse_property_opt`): again the last counts.
    let mut splash = entries.iter().filter_map(|entry| {
        let key = match entry.name {
            "machine" | "M" => "boot.splash",
            "boot" => "splash",
            _ => return None,
        };
        Some((entry, key, entry.tree.leaf(key)?))
    });
    if let Some((entry, key, leaf)) = splash.next_back() {
        let how = Use::content("boot splash picture").optional();
        found.data_file(entry.site.origin(key, leaf.set_by), leaf.text, how);
    }
    for entry in entries {
        one(entry, entries, found);
    }
}

/// One file for Linux. A multiboot kernel splits the word at commas and each part at the first
/// space; which one it is only the kernel's header tells, so a word that can be read both ways
/// is listed both ways.
fn initrd(entry: &Entry, key: &str, leaf: Leaf<'_>, found: &mut Found<'_>) {
    let origin = entry.site.origin(key, leaf.set_by);
    let how = INITIAL_RAMDISK;
    if !leaf.text.iter().any(|b| matches!(b, b',' | b' ')) {
        found.path(origin, leaf.text, how);
        return;
    }
    found.path(origin.clone(), leaf.text, how.optional());
    let how = Use::content("multiboot module").optional();
    let mut rest = leaf.text;
    while !rest.is_empty() {
        let mut module = Vec::new();
        loop {
            let (head, tail) = bytes::until(rest, b",");
            module.extend_from_slice(head);
            match tail.strip_prefix(b",,") {
                Some(tail) => {
                    module.push(b',');
                    rest = tail;
                }
                None => {
                    rest = tail.strip_prefix(b",").unwrap_or(tail);
                    break;
                }
            }
        }
        found.path(origin.clone(), bytes::until(&module, b" ").0, how);
    }
}

fn one(entry: &Entry, entries: &[Entry], found: &mut Found<'_>) {
    let (site, tree) = (&entry.site, &entry.tree);
    match entry.name {
        "L" if !bytes::is_help(&entry.word) => {
            let how = Use::tree("directory of firmware").optional();
            found.path(site.origin("", None), &entry.word, how);
        }
        "option-rom" => {
            if let Some(leaf) = tree.leaf("romfile") {
                let origin = site.origin("romfile", leaf.set_by);
                found.data_file(origin, leaf.text, Use::content("option ROM"));
            }
        }
        "acpitable" => {
            for key in ["file", "data"] {
                let Some(leaf) = tree.leaf(key) else { continue };
                for path in leaf.text.split(|b| *b == b':') {
                    let origin = site.origin(key, leaf.set_by);
                    found.path(origin, path, Use::content("ACPI table"));
                }
            }
        }
        "smbios" => {
            for key in ["file", "path"] {
                for pair in entry.opts.all(key) {
                    let how = Use::content("SMBIOS table").fdset();
                    found.path(site.origin(key, pair.set_by), &pair.value, how);
                }
            }
        }
        "fw_cfg" => {
            found.prop(
                site,
                tree,
                "file",
                Use::content("firmware configuration blob"),
            );
        }
        "k" if is_last(entries, entry) => {
            // Looked up as it is, then among the keymaps (ui/keymaps.c).
            let how = Use::content("keyboard layout").optional();
            found.data_file(site.origin("", None), &entry.word, how);
            let name = [b"keymaps/", entry.word.as_slice()].concat();
            found.data_file(site.origin("", None), &name, how);
        }
        "machine" | "M" if entry.text("type") == Some(b"nitro-enclave") => {
            let start = bytes::join(&found.tmp_dir(), b"");
            let how = Use::create("parts of an enclave image");
            found.template(site.origin("type", None), &start, how);
        }
        _ => {}
    }
}
