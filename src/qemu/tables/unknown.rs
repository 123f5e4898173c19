//! Warnings about what no table knows: options, types, and keys whose values look like paths.
//! Nothing is labelled for these.
//!
//! Pure. A newer QEMU has options that this program does not know. What they open keeps its label,
//! which a guest's domain may not use, so that QEMU fails and no file of the host is exposed.
//! Therefore these are warnings, or errors with `--strict`.

use crate::qemu::block::context::KeyNames;
use crate::qemu::block::drivers::Driver;
use crate::qemu::options::device::Global;
use crate::qemu::options::process;
use crate::qemu::parsed_option::ParsedOption;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::{Scalar, Tree};
use crate::qemu::syntax::value::parse_keyval_or_json;
use crate::qemu::tables::keys;

/// Usual suffixes of files that QEMU uses: images, firmware, sockets, keys, logs.
const SUFFIXES: &[&str] = &[
    "bin", "cfg", "conf", "crt", "dmg", "dtb", "efi", "elf", "fd", "gz", "img", "ini", "iso",
    "json", "key", "log", "luks", "pcap", "pem", "pid", "qcow", "qcow2", "qed", "raw", "rom", "so",
    "sock", "socket", "trace", "txt", "vdi", "vhd", "vhdx", "vmdk", "xml", "xz", "zst",
];

/// Returns whether a text, or a part of it after `=`, `,` or `:`, looks like a path: it has a slash
/// or a usual suffix.
pub fn looks_like_path(text: &[u8]) -> bool {
    if text.contains(&b'/') {
        return true;
    }
    text.split(|b| matches!(b, b'=' | b',' | b':' | b' '))
        .filter_map(|part| bytes::rsplit_once(part, b'.'))
        .any(|(stem, suffix)| {
            !stem.is_empty()
                && SUFFIXES
                    .iter()
                    .any(|known| suffix.eq_ignore_ascii_case(known.as_bytes()))
        })
}

/// Reports an option that is not in the table. `next` is the word after it; only a QEMU that has
/// the option can tell whether that is its value or a disk image.
pub fn report_option(word: usize, option: &[u8], next: Option<&[u8]>, requests: &mut Requests<'_>) {
    let site = Site::new(word, bytes::show(option));
    match next {
        Some(next) if looks_like_path(next) => {
            let message = format!(
                "is not an option that svirt-exec knows, so that it cannot be told whether '{}' is \
                 its value or a disk image, nor what QEMU does with it; check its spelling, give an \
                 image with -drive, or use a svirt-exec that knows this QEMU",
                bytes::show(next)
            );
            requests.error(&site, message);
        }
        Some(next) => {
            let message = format!(
                "is not an option that svirt-exec knows; nothing is labelled for it, nor for '{}' \
                 after it",
                bytes::show(next)
            );
            requests.warn_unknown(&site, message);
        }
        None => requests.warn_unknown(
            &site,
            "is not an option that svirt-exec knows; nothing is labelled for it",
        ),
    }
}

/// Reports a section of a config file that belongs to no option in the table.
pub fn report_group(
    site: &Site,
    group: &str,
    pairs: &[(Vec<u8>, Vec<u8>)],
    requests: &mut Requests<'_>,
) {
    let file = pairs.iter().find(|(_, value)| looks_like_path(value));
    match file {
        Some((key, value)) => {
            let message = format!(
                "group '{group}' is not one that svirt-exec knows, so that it cannot be told what \
                 QEMU does with {}={}; say it with an option, or use a svirt-exec that knows this \
                 QEMU",
                bytes::show(key),
                bytes::show(value)
            );
            requests.error(site, message);
        }
        None => {
            let message = format!(
                "group '{group}' is not one that svirt-exec knows; nothing is labelled for it"
            );
            requests.warn_unknown(site, message);
        }
    }
}

/// Reports a type, driver or backend that no table has.
pub fn report_type(site: &Site, key: &str, kind: &[u8], requests: &mut Requests<'_>) {
    let message = format!(
        "{}{key}={} is not known to svirt-exec: nothing is labelled for what it opens by itself",
        site.prefix,
        bytes::show(kind)
    );
    requests.warn_unknown(site, message);
}

/// Reports unknown types and keys of all options that have tables of keys.
pub fn report(options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options {
        if option.name == "global" {
            report_global(option, requests);
        }
        let Some(family) = keys::family(option.name) else {
            continue;
        };
        // Options whose value is keyval or JSON in most cases.
        let parsed = match option.name {
            "display" if !option.value.starts_with(b"vnc=") => {
                parse_keyval_or_json(&option.value, "type").ok()
            }
            "incoming" if process::is_channel(&option.value) => {
                parse_keyval_or_json(&option.value, "channel-type").ok()
            }
            _ => None,
        };
        let tree = parsed.as_ref().unwrap_or(&option.tree);
        let named = tree.text(family.kind).unwrap_or_default();
        if !named.is_empty() && !bytes::is_help(named) && !family.knows(named) {
            report_type(&option.site, family.kind, named, requests);
        }
        if family.name != "blockdev" {
            report_keys(&option.site, family.name, named, tree, "", requests);
        }
    }
}

/// Reports a `-global` that looks like a path and that no table knows.
fn report_global(option: &ParsedOption, requests: &mut Requests<'_>) {
    let Some(global) = Global::parse(option) else {
        return;
    };
    if !looks_like_path(&global.value) || global.names_resource() {
        return;
    }
    let property = bytes::show(&global.property);
    if keys::lookup("device", &global.driver, &property).is_none() {
        let key = format!("{}.{property}", bytes::show(&global.driver));
        report_key(&option.site, &key, &global.value, requests);
    }
}

/// Reports the values of a tree that look like paths, if no table has their keys. `above` is the
/// prefix of the keys, with its dot.
pub fn report_keys(
    site: &Site,
    family: &str,
    kind: &[u8],
    tree: &Tree,
    above: &str,
    requests: &mut Requests<'_>,
) {
    let mut leaves = Vec::new();
    collect_paths(tree, &mut Vec::new(), &mut leaves);
    for (key, value) in leaves {
        if keys::lookup(family, kind, &key).is_none() {
            report_key(site, &format!("{above}{key}"), value, requests);
        }
    }
}

/// Reports the unknown keys of one block node; its children are reported when they are opened.
pub fn report_node_keys(
    driver: &Driver,
    tree: &Tree,
    keys: &KeyNames,
    site: &Site,
    requests: &mut Requests<'_>,
) {
    let mut leaves = Vec::new();
    collect_paths(tree, &mut Vec::new(), &mut leaves);
    for (key, value) in leaves {
        let first = key.split('.').next().unwrap_or_default();
        let is_child = driver
            .children
            .iter()
            .any(|child| child.key.trim_end_matches('.') == first);
        let kind = driver.name.as_bytes();
        if !is_child && keys::lookup("blockdev", kind, &key).is_none() {
            report_key(site, &keys.key(&key), value, requests);
        }
    }
}

/// Reports an unknown key whose value looks like a path.
pub fn report_key(site: &Site, key: &str, value: &[u8], requests: &mut Requests<'_>) {
    let message = format!(
        "{}{key}={} is not known to name a host resource, and looks like one: it is not labelled",
        site.prefix,
        bytes::show(value)
    );
    requests.warn_unknown(site, message);
}

/// Collects every text in a tree that looks like a path, with its dotted key, in the order of keys.
/// `above` holds the keys from the root to the tree.
fn collect_paths<'t>(
    tree: &'t Tree,
    above: &mut Vec<&'t [u8]>,
    leaves: &mut Vec<(String, &'t [u8])>,
) {
    if let Some(Scalar::Text(value)) = &tree.value
        && looks_like_path(value)
    {
        leaves.push((bytes::show(&above.join(&b'.')), value));
    }
    for (name, child) in tree.children() {
        above.push(name);
        collect_paths(child, above, leaves);
        above.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_by_their_looks() {
        for path in [
            "/x",
            "a/b",
            "./disk",
            "disk.img",
            "file=disk.QCOW2",
            "id=x,log=a.log",
            "unix:guest.sock,server",
        ] {
            assert!(looks_like_path(path.as_bytes()), "{path}");
        }
        for word in [
            "",
            "on",
            "1.5",
            ".img",
            "host.example.com",
            "a=b,c=d",
            "52:54:00:12:34:56",
        ] {
            assert!(!looks_like_path(word.as_bytes()), "{word}");
        }
    }
}
