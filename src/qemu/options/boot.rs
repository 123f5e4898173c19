//! What a guest boots from: kernel, firmware, option ROMs, tables and blobs.
//!
//! Pure. Facts: system/vl.c, hw/core/loader.c, hw/nvram/fw_cfg.c, hw/acpi/core.c,
//! hw/smbios/smbios.c, hw/i386/multiboot.c (QEMU 10).

use crate::qemu::parsed_option::{ParsedOption, is_last};
use crate::qemu::requests::Requests;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::Leaf;
use crate::qemu::usage::Usage;

/// The usage of the initial ramdisk, which QEMU maps (`g_mapped_file_new`, hw/i386/x86-common.c).
const INITIAL_RAMDISK: Usage = Usage::content("initial ramdisk").mapped();

/// Keys of `-machine` that hold paths: key, option that sets the same key, usage. The last one on
/// the line counts (`qemu_apply_machine_options` and the merging of QDicts in system/vl.c).
const MACHINE_FILES: &[(&str, &str, Usage)] = &[
    ("kernel", "kernel", Usage::content("kernel")),
    ("dtb", "dtb", Usage::content("device tree")),
    ("shim", "shim", Usage::content("boot shim")),
    ("firmware", "bios", Usage::content("firmware")),
    ("initrd", "initrd", INITIAL_RAMDISK),
    ("dumpdtb", "", Usage::create("device tree to write")),
    ("signature", "", Usage::create("signature to write")),
];

/// Returns whether a key of one of the family's options names a host resource.
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

/// Requests everything that this family names.
pub fn add_requests(program: &[u8], options: &[ParsedOption], requests: &mut Requests<'_>) {
    for (key, short_form, how) in MACHINE_FILES {
        let last = options
            .iter()
            .filter_map(|option| match option.name {
                "machine" | "M" => option.tree.leaf(key).map(|leaf| (option, *key, leaf)),
                name if name == *short_form => {
                    let text = option.value.as_slice();
                    Some((option, "", Leaf { text, set_by: None }))
                }
                _ => None,
            })
            .next_back();
        let Some((option, key_written, leaf)) = last else {
            continue;
        };
        let origin = option.site.origin(key_written, leaf.set_by);
        match *key {
            "firmware" => {
                // For RISC-V two values are no files (hw/riscv/boot.c).
                let no_file = matches!(leaf.text, b"none" | b"default");
                if !(no_file && bytes::contains(program, b"riscv")) {
                    requests.add_data_file(origin, leaf.text, *how);
                }
            }
            "initrd" => add_initrd(option, key_written, leaf, requests),
            _ => requests.add_path(origin, leaf.text, *how),
        }
    }
    // -boot sets the machine's key `boot` (`machine_parse_property_opt`); the last one counts.
    let mut splash = options.iter().filter_map(|option| {
        let key = match option.name {
            "machine" | "M" => "boot.splash",
            "boot" => "splash",
            _ => return None,
        };
        Some((option, key, option.tree.leaf(key)?))
    });
    if let Some((option, key, leaf)) = splash.next_back() {
        let how = Usage::content("boot splash picture").optional();
        requests.add_data_file(option.site.origin(key, leaf.set_by), leaf.text, how);
    }
    for option in options {
        add_option_files(option, options, requests);
    }
}

/// Requests the initial ramdisk. For Linux the value is one file name; a multiboot kernel splits it
/// at commas, and each part at the first space. Only the kernel's header tells which it is, so a
/// value that can be read both ways is requested both ways.
fn add_initrd(option: &ParsedOption, key: &str, leaf: Leaf<'_>, requests: &mut Requests<'_>) {
    let origin = option.site.origin(key, leaf.set_by);
    let how = INITIAL_RAMDISK;
    if !leaf.text.iter().any(|b| matches!(b, b',' | b' ')) {
        requests.add_path(origin, leaf.text, how);
        return;
    }
    requests.add_path(origin.clone(), leaf.text, how.optional());
    let how = Usage::content("multiboot module").optional();
    let mut rest = leaf.text;
    while !rest.is_empty() {
        let (module, tail) = bytes::until_comma(rest);
        rest = tail.strip_prefix(b",").unwrap_or(tail);
        requests.add_path(origin.clone(), bytes::until(&module, b" ").0, how);
    }
}

fn add_option_files(option: &ParsedOption, options: &[ParsedOption], requests: &mut Requests<'_>) {
    let (site, tree) = (&option.site, &option.tree);
    match option.name {
        "L" if !bytes::is_help(&option.value) => {
            let how = Usage::tree("directory of firmware").optional();
            requests.add_path(site.origin("", None), &option.value, how);
        }
        "option-rom" => {
            if let Some(leaf) = tree.leaf("romfile") {
                let origin = site.origin("romfile", leaf.set_by);
                requests.add_data_file(origin, leaf.text, Usage::content("option ROM"));
            }
        }
        "acpitable" => {
            for key in ["file", "data"] {
                let Some(leaf) = tree.leaf(key) else { continue };
                for path in leaf.text.split(|b| *b == b':') {
                    let origin = site.origin(key, leaf.set_by);
                    requests.add_path(origin, path, Usage::content("ACPI table"));
                }
            }
        }
        "smbios" => {
            for key in ["file", "path"] {
                for pair in option.opts.all(key) {
                    let how = Usage::content("SMBIOS table").fdset();
                    requests.add_path(site.origin(key, pair.set_by), &pair.value, how);
                }
            }
        }
        "fw_cfg" => {
            requests.add_key(
                site,
                tree,
                "file",
                Usage::content("firmware configuration blob"),
            );
        }
        "k" if is_last(options, option) => {
            // QEMU looks for the name itself, then for the keymap (ui/keymaps.c).
            let how = Usage::content("keyboard layout").optional();
            requests.add_data_file(site.origin("", None), &option.value, how);
            let name = [b"keymaps/", option.value.as_slice()].concat();
            requests.add_data_file(site.origin("", None), &name, how);
        }
        "machine" | "M" if option.text("type") == Some(b"nitro-enclave") => {
            let start = bytes::join(&requests.tmp_dir(), b"");
            let how = Usage::create("parts of an enclave image");
            requests.add_template(site.origin("type", None), &start, how);
        }
        _ => {}
    }
}
