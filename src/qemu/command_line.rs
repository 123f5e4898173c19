//! The command line as a list of parsed options, config files and `-set` worked in.
//!
//! Pure. Order and merging follow `qemu_init` (system/vl.c, QEMU 10).

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::qemu::entry::{Entry, IMAGE, is_json, is_modern_netdev};
use crate::qemu::requests::{Found, Site};
use crate::qemu::syntax::argv::{Age, Item, Spec, Syntax};
use crate::qemu::syntax::opts::Opts;
use crate::qemu::syntax::tree::{Scalar, Tree};
use crate::qemu::syntax::{argv, bytes, readconfig};
use crate::qemu::tables::unknown;
use crate::text::escape::quoted;

/// QemuOpts lists as config files and `-set` call them, where that differs from the option
/// (`vm_config_groups`, `drive_config_groups`).
const GROUPS: &[(&str, &str)] = &[
    ("memory", "m"),
    ("smp-opts", "smp"),
    ("boot-opts", "boot"),
    ("fsdev", "fsdev"),
];

/// Lists that config files may fill although nothing is made of it.
const IDLE_GROUPS: &[&str] = &[
    "acpi",
    "smbios",
    "option-rom",
    "virtfs",
    "trace",
    "plugin",
    "run-with",
    "overcommit",
    "chardev-backend",
    "semihosting-config",
    "msg",
];

/// Lists that config files may fill (`qemu_read_config_file`).
const CONFIG_GROUPS: &[&str] = &[
    "drive", "chardev", "device", "netdev", "nic", "net", "fsdev", "object", "machine", "audiodev",
    "accel", "m", "smp", "boot", "numa", "global", "mon", "fw_cfg", "tpmdev", "vnc", "spice",
    "iscsi", "add-fd", "sandbox", "name", "rtc", "icount", "action",
];

/// Config files that the line reads, in order: path, whether it must exist, word.
pub fn config_files(args: &[OsString], default: &str) -> Vec<(OsString, bool, usize)> {
    config_files_of(&argv::split(args), default)
}

fn config_files_of(items: &[Item<'_>], default: &str) -> Vec<(OsString, bool, usize)> {
    let mut files = Vec::new();
    let user_config = !items
        .iter()
        .any(|item| matches!(item, Item::Option { spec, .. } if spec.name == "no-user-config"));
    if user_config {
        files.push((OsString::from(default), false, 1));
    }
    for item in items {
        if let Item::Option { word, spec, value } = item
            && spec.name == "readconfig"
        {
            files.push((bytes::os(value), true, *word));
        }
    }
    files
}

/// Reads the whole line. What QEMU would refuse becomes an error in `found`.
pub fn read(
    args: &[OsString],
    configs: &BTreeMap<OsString, Vec<u8>>,
    default_config: &str,
    found: &mut Found<'_>,
) -> Vec<Entry> {
    let mut reader = Reader {
        entries: Vec::new(),
        ids: BTreeMap::new(),
    };
    let items = argv::split(args);
    for (path, required, word) in config_files_of(&items, default_config) {
        if !required {
            reader.config(&path, configs, word, false, found);
        }
    }
    for item in items {
        match item {
            Item::Image { word, value } => reader.entries.push(Entry {
                name: IMAGE,
                site: Site::new(word, IMAGE),
                word: value.to_vec(),
                opts: Opts::default(),
                tree: Tree::default(),
                help: false,
                is_opts: false,
            }),
            Item::Option { word, spec, value } => match spec.name {
                "readconfig" => reader.config(&bytes::os(value), configs, word, true, found),
                "set" => reader.set(word, value, found),
                _ => reader.option(word, spec, value, found),
            },
            Item::NoValue { word, spec } => {
                let site = Site::new(word, spec.dashed);
                found.error(&site, "needs a value");
            }
            Item::Unknown { word, option, next } => unknown::option(word, option, next, found),
            Item::Malformed { word, value } => {
                let site = Site::new(word, bytes::show(value));
                found.error(&site, "is no option of QEMU");
            }
        }
    }
    reader.entries
}

struct Reader {
    entries: Vec<Entry>,
    /// QemuOpts entries by group and id, for `-set`.
    ids: BTreeMap<(&'static str, Vec<u8>), usize>,
}

impl Reader {
    fn option(&mut self, word: usize, spec: &'static Spec, value: &[u8], found: &mut Found<'_>) {
        let site = Site::new(word, spec.dashed);
        if spec.age == Age::Removed {
            found.warn(&site, "QEMU 10 no longer has this option");
        }
        let mut entry = Entry {
            name: spec.name,
            site,
            word: value.to_vec(),
            opts: Opts::default(),
            tree: Tree::default(),
            help: false,
            is_opts: false,
        };
        let read = match spec.syntax {
            Syntax::Flag | Syntax::Verbatim => Ok(()),
            Syntax::Opts(implied) => entry.read_opts(value, implied),
            Syntax::Keyval(implied) => entry.read_keyval(value, Some(implied)),
            Syntax::KeyvalOrJson(_) if is_json(value) => entry.read_json(value),
            Syntax::KeyvalOrJson(implied) => entry.read_keyval(value, implied),
            Syntax::OptsOrJson(_) if is_json(value) => entry.read_json(value),
            Syntax::OptsOrJson(implied) => entry.read_opts(value, Some(implied)),
            Syntax::Netdev if is_json(value) => entry.read_json(value),
            Syntax::Netdev if is_modern_netdev(value) => entry.read_keyval(value, Some("type")),
            Syntax::Netdev => entry.read_opts(value, Some("type")),
        };
        if let Err(message) = read {
            found.error(&entry.site, message);
        }
        self.add(entry);
    }

    fn add(&mut self, entry: Entry) {
        if entry.is_opts
            && let Some(id) = entry.opts.id()
        {
            self.ids
                .entry((group_of(entry.name), id.to_vec()))
                .or_insert(self.entries.len());
        }
        self.entries.push(entry);
    }

    fn config(
        &mut self,
        path: &OsString,
        configs: &BTreeMap<OsString, Vec<u8>>,
        word: usize,
        required: bool,
        found: &mut Found<'_>,
    ) {
        use crate::qemu::requests::Use;
        use std::os::unix::ffi::OsStrExt;
        let site = Site::new(word, "-readconfig");
        let Some(file) = configs.get(path) else {
            if required {
                found.path(
                    site.origin("", None),
                    path.as_bytes(),
                    Use::content("configuration file"),
                );
                let message = format!("cannot read {}", quoted(path));
                found.error(&site, message);
            }
            return;
        };
        let how = if required {
            Use::content("configuration file")
        } else {
            Use::read_only("configuration file").optional()
        };
        found.path(site.origin("", None), path.as_bytes(), how);
        let sections = match readconfig::parse(file) {
            Ok(sections) => sections,
            Err(error) => {
                found.error(&site, format!("{}: {error}", quoted(path)));
                return;
            }
        };
        for section in sections {
            self.section(section, word, found);
        }
    }

    fn section(&mut self, section: readconfig::Section, word: usize, found: &mut Found<'_>) {
        let group = bytes::show(&section.group);
        let renamed = GROUPS.iter().find(|(list, _)| *list == group);
        let name = renamed.map_or(group.as_str(), |(_, option)| option);
        let mut site = Site::new(word, "-readconfig");
        site.prefix = format!("{group}.");
        let Some(name) = CONFIG_GROUPS.iter().find(|known| **known == name) else {
            if !IDLE_GROUPS.contains(&group.as_str()) {
                unknown::group(&site, &group, &section.pairs, found);
            }
            return;
        };
        let mut opts = Opts::default();
        if let Some(id) = section.id {
            opts.push(b"id".to_vec(), id, None);
        }
        for (key, value) in section.pairs {
            opts.push(key, value, None);
        }
        let mut entry = Entry {
            name,
            site,
            word: Vec::new(),
            opts: Opts::default(),
            tree: Tree::default(),
            help: false,
            // These become a QDict at once, where -set does not reach.
            is_opts: !matches!(*name, "object" | "machine" | "audiodev" | "smp" | "boot"),
        };
        if let Err(message) = entry.take_opts(opts) {
            found.error(&entry.site, message);
        }
        self.add(entry);
    }

    /// `GROUP.ID.KEY=VALUE` (`qemu_set_option`).
    fn set(&mut self, word: usize, value: &[u8], found: &mut Found<'_>) {
        let site = Site::new(word, "-set");
        let parts = bytes::split_once(value, b'.').and_then(|(group, rest)| {
            let (id, rest) = bytes::split_once(rest, b'.')?;
            let (key, value) = bytes::split_once(rest, b'=')?;
            Some((group, id, key, value))
        });
        let Some((group, id, key, value)) = parts else {
            found.error(&site, "must be GROUP.ID.KEY=VALUE");
            return;
        };
        let known = argv::OPTIONS
            .iter()
            .map(|spec| group_of(spec.name))
            .find(|name| name.as_bytes() == group);
        let entry = known
            .and_then(|group| self.ids.get(&(group, id.to_vec())))
            .and_then(|at| self.entries.get_mut(*at));
        let Some(entry) = entry else {
            let message = format!(
                "there is no {} '{}' before this word",
                bytes::show(group),
                bytes::show(id)
            );
            found.error(&site, message);
            return;
        };
        entry.site.set_path = format!("{}.{}.", bytes::show(group), bytes::show(id));
        entry.opts.push(key.to_vec(), value.to_vec(), Some(word));
        let insert = entry
            .tree
            .insert(key, Scalar::Text(value.to_vec()), Some(word));
        if let Err(error) = insert {
            found.error(&site, error.to_string());
        }
    }
}

/// The QemuOpts list an option fills.
fn group_of(option: &'static str) -> &'static str {
    let virtfs = if option == "virtfs" { "fsdev" } else { option };
    GROUPS
        .iter()
        .find(|(_, name)| *name == virtfs)
        .map_or(virtfs, |(list, _)| list)
}
