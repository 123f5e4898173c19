//! The command line as a list of parsed options, with config files and `-set` applied.
//!
//! Pure. Order and merging follow `qemu_init` (system/vl.c, QEMU 10).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::qemu::invocation::ConfigFile;
use crate::qemu::parsed_option::{IMAGE, ParsedOption, is_modern_netdev};
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::argv::{Age, Item, Spec, Syntax};
use crate::qemu::syntax::opts::Opts;
use crate::qemu::syntax::tree::Scalar;
use crate::qemu::syntax::value::is_json;
use crate::qemu::syntax::{argv, bytes, readconfig};
use crate::qemu::tables::unknown;
use crate::qemu::usage::Usage;
use crate::text::escape::quoted;

/// QemuOpts lists whose name in config files and `-set` differs from the option's
/// (`vm_config_groups`, `drive_config_groups`): list, option.
const GROUPS: &[(&str, &str)] = &[
    ("memory", "m"),
    ("smp-opts", "smp"),
    ("boot-opts", "boot"),
    ("fsdev", "fsdev"),
];

/// Lists that config files may fill without an effect on resources.
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

/// Returns the config files that QEMU reads, in order.
pub fn config_files(args: &[OsString], default: &str) -> Vec<ConfigFile> {
    config_files_of(&argv::split(args), default)
}

fn config_files_of(items: &[Item<'_>], default: &str) -> Vec<ConfigFile> {
    let mut files = Vec::new();
    let user_config = !items
        .iter()
        .any(|item| matches!(item, Item::Option { spec, .. } if spec.name == "no-user-config"));
    if user_config {
        files.push(ConfigFile {
            path: OsString::from(default),
            required: false,
            word: 1,
        });
    }
    for item in items {
        if let Item::Option { word, spec, value } = item
            && spec.name == "readconfig"
        {
            files.push(ConfigFile {
                path: bytes::os_string(value),
                required: true,
                word: *word,
            });
        }
    }
    files
}

/// Parses the whole line. What QEMU would refuse is added to `requests` as an error.
pub fn read(
    args: &[OsString],
    configs: &BTreeMap<OsString, Vec<u8>>,
    default_config: &str,
    requests: &mut Requests<'_>,
) -> Vec<ParsedOption> {
    let mut reader = Reader {
        options: Vec::new(),
        ids: BTreeMap::new(),
    };
    let items = argv::split(args);
    for file in config_files_of(&items, default_config) {
        if !file.required {
            reader.read_config(&file, configs, requests);
        }
    }
    for item in items {
        match item {
            Item::Image { word, value } => {
                let site = Site::new(word, IMAGE);
                reader
                    .options
                    .push(ParsedOption::new(IMAGE, site, value.to_vec()));
            }
            Item::Option { word, spec, value } => match spec.name {
                "readconfig" => {
                    let file = ConfigFile {
                        path: bytes::os_string(value),
                        required: true,
                        word,
                    };
                    reader.read_config(&file, configs, requests);
                }
                "set" => reader.apply_set(word, value, requests),
                _ => reader.read_option(word, spec, value, requests),
            },
            Item::NoValue { word, spec } => {
                let site = Site::new(word, spec.dashed);
                requests.error(&site, "needs a value");
            }
            Item::Unknown { word, option, next } => {
                unknown::report_option(word, option, next, requests)
            }
            Item::Malformed { word, value } => {
                let site = Site::new(word, bytes::show(value));
                requests.error(&site, "is no option of QEMU");
            }
        }
    }
    reader.options
}

struct Reader {
    options: Vec<ParsedOption>,
    /// The index of every QemuOpts option by list and id, for `-set`.
    ids: BTreeMap<(&'static str, Vec<u8>), usize>,
}

impl Reader {
    fn read_option(
        &mut self,
        word: usize,
        spec: &'static Spec,
        value: &[u8],
        requests: &mut Requests<'_>,
    ) {
        let site = Site::new(word, spec.dashed);
        if spec.age == Age::Removed {
            requests.warn(&site, "QEMU 10 no longer has this option");
        }
        let mut option = ParsedOption::new(spec.name, site, value.to_vec());
        let read = match spec.syntax {
            Syntax::Flag | Syntax::Verbatim => Ok(()),
            Syntax::Opts(implied) => option.read_opts(value, implied),
            Syntax::Keyval(implied) => option.read_keyval(value, Some(implied)),
            Syntax::KeyvalOrJson(_) if is_json(value) => option.read_json(value),
            Syntax::KeyvalOrJson(implied) => option.read_keyval(value, implied),
            Syntax::OptsOrJson(_) if is_json(value) => option.read_json(value),
            Syntax::OptsOrJson(implied) => option.read_opts(value, Some(implied)),
            Syntax::Netdev if is_json(value) => option.read_json(value),
            Syntax::Netdev if is_modern_netdev(value) => option.read_keyval(value, Some("type")),
            Syntax::Netdev => option.read_opts(value, Some("type")),
        };
        if let Err(error) = read {
            requests.error(&option.site, error.to_string());
        }
        self.add(option);
    }

    fn add(&mut self, option: ParsedOption) {
        if option.is_opts
            && let Some(id) = option.opts.id()
        {
            self.ids
                .entry((group_of(option.name), id.to_vec()))
                .or_insert(self.options.len());
        }
        self.options.push(option);
    }

    fn read_config(
        &mut self,
        file: &ConfigFile,
        configs: &BTreeMap<OsString, Vec<u8>>,
        requests: &mut Requests<'_>,
    ) {
        let ConfigFile {
            path,
            required,
            word,
        } = file;
        let site = Site::new(*word, "-readconfig");
        let Some(text) = configs.get(path) else {
            if *required {
                requests.add_path(
                    site.origin("", None),
                    path.as_bytes(),
                    Usage::content("configuration file"),
                );
                let message = format!("cannot read {}", quoted(path));
                requests.error(&site, message);
            }
            return;
        };
        let how = if *required {
            Usage::content("configuration file")
        } else {
            Usage::read_only("configuration file").optional()
        };
        requests.add_path(site.origin("", None), path.as_bytes(), how);
        let sections = match readconfig::parse(text) {
            Ok(sections) => sections,
            Err(error) => {
                requests.error(&site, format!("{}: {error}", quoted(path)));
                return;
            }
        };
        for section in sections {
            self.read_section(section, *word, requests);
        }
    }

    fn read_section(
        &mut self,
        section: readconfig::Section,
        word: usize,
        requests: &mut Requests<'_>,
    ) {
        let group = bytes::show(&section.group);
        let renamed = GROUPS.iter().find(|(list, _)| *list == group);
        let name = renamed.map_or(group.as_str(), |(_, option)| option);
        let mut site = Site::new(word, "-readconfig");
        site.prefix = format!("{group}.");
        let Some(name) = CONFIG_GROUPS.iter().find(|known| **known == name) else {
            if !IDLE_GROUPS.contains(&group.as_str()) {
                unknown::report_group(&site, &group, &section.pairs, requests);
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
        let mut option = ParsedOption::new(name, site, Vec::new());
        // QEMU turns these into a QDict at once, which -set does not change.
        option.is_opts = !matches!(*name, "object" | "machine" | "audiodev" | "smp" | "boot");
        if let Err(error) = option.take_opts(opts) {
            requests.error(&option.site, error.to_string());
        }
        self.add(option);
    }

    /// Applies a `-set GROUP.ID.KEY=VALUE` (`qemu_set_option`).
    fn apply_set(&mut self, word: usize, value: &[u8], requests: &mut Requests<'_>) {
        let site = Site::new(word, "-set");
        let parts = bytes::split_once(value, b'.').and_then(|(group, rest)| {
            let (id, rest) = bytes::split_once(rest, b'.')?;
            let (key, value) = bytes::split_once(rest, b'=')?;
            Some((group, id, key, value))
        });
        let Some((group, id, key, value)) = parts else {
            requests.error(&site, "must be GROUP.ID.KEY=VALUE");
            return;
        };
        let known = argv::OPTIONS
            .iter()
            .map(|spec| group_of(spec.name))
            .find(|name| name.as_bytes() == group);
        let option = known
            .and_then(|group| self.ids.get(&(group, id.to_vec())))
            .and_then(|at| self.options.get_mut(*at));
        let Some(option) = option else {
            let message = format!(
                "there is no {} '{}' before this word",
                bytes::show(group),
                bytes::show(id)
            );
            requests.error(&site, message);
            return;
        };
        option.site.set_path = format!("{}.{}.", bytes::show(group), bytes::show(id));
        option.opts.push(key.to_vec(), value.to_vec(), Some(word));
        let insert = option
            .tree
            .insert(key, Scalar::Text(value.to_vec()), Some(word));
        if let Err(error) = insert {
            requests.error(&site, error.to_string());
        }
    }
}

/// Returns the name of the QemuOpts list that an option fills.
fn group_of(option: &'static str) -> &'static str {
    let virtfs = if option == "virtfs" { "fsdev" } else { option };
    GROUPS
        .iter()
        .find(|(_, name)| *name == virtfs)
        .map_or(virtfs, |(list, _)| list)
}
