//! The second half of `tables`: what QMP's own description of its commands says, against our
//! tables. The same options can be written on the command line, as JSON or with dots.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use svirt_exec::qemu::{self, Meaning, ValueKind};

use crate::tables::{
    Key, Qmp, heard, list, meaning_of_some_type, none_left, string, texts, unknown_keys,
};

/// Where the options of a family are in the schema: family, command, whether its argument or what
/// it returns, the members on the way (`backend.data`) that the command line leaves out.
const PLACES: &[(&str, &str, &str, &[&str])] = &[
    ("audiodev", "query-audiodevs", "ret-type", &[]),
    ("blockdev", "blockdev-add", "arg-type", &[]),
    ("chardev", "chardev-add", "arg-type", &["backend", "data"]),
    ("display", "query-display-options", "ret-type", &[]),
    ("incoming", "migrate-incoming", "arg-type", &["channels"]),
    ("netdev", "netdev_add", "arg-type", &[]),
    ("object", "object-add", "arg-type", &[]),
    ("tpmdev", "query-tpm", "ret-type", &["options", "data"]),
];

/// Keys of `-chardev` that QMP calls otherwise; None for what the command line cannot say.
const CHARDEV_NAMES: &[(&str, &str, Option<&str>)] = &[
    ("file", "in", Some("input-path")),
    ("file", "out", Some("path")),
    ("parallel", "device", Some("path")),
    ("pipe", "device", Some("path")),
    ("serial", "device", Some("path")),
    ("socket", "addr.cid", None),
    ("socket", "addr.host", Some("host")),
    ("socket", "addr.path", Some("path")),
    ("socket", "addr.port", Some("port")),
    ("socket", "addr.str", Some("fd")),
    ("spiceport", "fqdn", Some("name")),
    ("spicevmc", "type", Some("name")),
    // qemu_chr_parse_udp makes Internet addresses only.
    ("udp", "local.cid", None),
    ("udp", "local.host", Some("localaddr")),
    ("udp", "local.path", None),
    ("udp", "local.port", Some("localport")),
    ("udp", "local.str", None),
    ("udp", "remote.cid", None),
    ("udp", "remote.host", Some("host")),
    ("udp", "remote.path", None),
    ("udp", "remote.port", Some("port")),
    ("udp", "remote.str", None),
];

/// Members of the commands themselves.
const NO_KEYS: &[(&str, &str)] = &[("incoming", "uri")];

/// A text in the schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Leaf {
    /// The type that it belongs to: the first variant on the way.
    kind: String,
    key: String,
    /// Instead of the text an object of the family may stand there: a block node.
    is_child: bool,
}

struct Schema(BTreeMap<String, Value>);

impl Schema {
    fn ask(qmp: &mut Qmp) -> Self {
        let schema = qmp.ask("query-qmp-schema", json!({}));
        let entities = list(&schema).iter();
        Self(
            entities
                .map(|e| (string(e, "name").to_owned(), e.clone()))
                .collect(),
        )
    }

    fn root(&self, command: &str, which: &str) -> &str {
        let mut root = string(&self.0[command], which);
        while string(&self.0[root], "meta-type") == "array" {
            root = string(&self.0[root], "element-type");
        }
        root
    }

    /// Every text below a type. `within` are the types on the way, which may come again: blocks
    /// within blocks.
    fn leaves(&self, name: &str, at: &Leaf, within: &[&str], leaves: &mut BTreeSet<Leaf>) {
        let entity = &self.0[name];
        if within.contains(&name) {
            return;
        }
        let within: Vec<&str> = within.iter().copied().chain([name]).collect();
        match string(entity, "meta-type") {
            "builtin" if string(entity, "json-type") == "string" => {
                leaves.insert(at.clone());
            }
            "builtin" | "enum" => {}
            "array" => self.leaves(string(entity, "element-type"), at, &within, leaves),
            "alternate" => {
                let types: Vec<&str> = list(&entity["members"])
                    .iter()
                    .map(|member| string(member, "type"))
                    .collect();
                let is_child = types.iter().any(|name| within.contains(name));
                let at = Leaf {
                    is_child,
                    ..at.clone()
                };
                for name in types {
                    self.leaves(name, &at, &within, leaves);
                }
            }
            "object" => {
                for member in list(&entity["members"]) {
                    let dot = if at.key.is_empty() { "" } else { "." };
                    let key = format!("{}{dot}{}", at.key, string(member, "name"));
                    let at = Leaf { key, ..at.clone() };
                    self.leaves(string(member, "type"), &at, &within, leaves);
                }
                for variant in entity["variants"].as_array().into_iter().flatten() {
                    let mut at = at.clone();
                    if at.kind.is_empty() {
                        string(variant, "case").clone_into(&mut at.kind);
                    }
                    self.leaves(string(variant, "type"), &at, &within, leaves);
                }
            }
            other => panic!("{name} is a {other}"),
        }
    }

    /// The types, drivers or backends: the words of the enumeration that tells the variants apart,
    /// of the first object that has variants.
    fn kinds(&self, name: &str, way: &[&str]) -> Vec<String> {
        let entity = &self.0[name];
        let member = |name: &str| {
            let members = list(&entity["members"]);
            let member = members.iter().find(|member| string(member, "name") == name);
            string(member.unwrap(), "type")
        };
        match entity["tag"].as_str() {
            Some(tag) => list(&self.0[member(tag)]["values"])
                .iter()
                .map(|value| value.as_str().unwrap().to_owned())
                .collect(),
            None => match way.split_first() {
                Some((first, rest)) => self.kinds(member(first), rest),
                None => panic!("{name} has no variants"),
            },
        }
    }
}

/// The texts of a family as the command line calls them, and which are block nodes.
fn keys_of(schema: &Schema, place: &(&str, &str, &str, &[&str])) -> BTreeMap<Key, bool> {
    let (family, command, which, way) = *place;
    let mut leaves = BTreeSet::new();
    let start = Leaf {
        kind: String::new(),
        key: String::new(),
        is_child: false,
    };
    schema.leaves(schema.root(command, which), &start, &[], &mut leaves);
    assert!(!leaves.is_empty(), "{command}");
    let mut keys = BTreeMap::new();
    for leaf in leaves {
        // Wrapped in `data` where QMP needs a place for a variant's members.
        let parts = leaf.key.split('.').filter(|part| !way.contains(part));
        let key = parts.collect::<Vec<&str>>().join(".");
        if NO_KEYS.contains(&(family, &key)) {
            continue;
        }
        let renamed = CHARDEV_NAMES
            .iter()
            .find(|(kind, name, _)| family == "chardev" && *kind == leaf.kind && *name == key);
        let key = match renamed {
            Some((.., None)) => continue,
            Some((.., Some(name))) => (*name).to_owned(),
            None => key,
        };
        keys.insert((family.to_owned(), leaf.kind, key), leaf.is_child);
    }
    keys
}

#[test]
#[ignore = "needs the bed: make test"]
fn every_type_of_the_schema_is_in_the_tables() {
    let mut qmp = Qmp::start();
    let schema = Schema::ask(&mut qmp);
    qmp.end();
    let mut left = BTreeSet::new();
    for (family, command, which, way) in PLACES {
        let way: &[&str] = match *family {
            "incoming" => &["channels", "addr"],
            _ => way,
        };
        let root = schema.root(command, which);
        let kinds = match *family {
            "incoming" => Vec::new(),
            _ => schema.kinds(root, way),
        };
        assert_eq!(kinds.is_empty(), *family == "incoming");
        for kind in kinds.iter().filter(|kind| !qemu::knows(family, kind)) {
            left.insert(format!("{family}: {kind}"));
        }
    }
    none_left(&left);
}

#[test]
#[ignore = "needs the bed: make test"]
fn every_text_of_the_schema_is_in_the_tables() {
    let mut qmp = Qmp::start();
    let schema = Schema::ask(&mut qmp);
    qmp.end();
    let mut left = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for place in PLACES {
        let keys = keys_of(&schema, place);
        left.append(&mut unknown_keys(keys.keys()));
        heard_all(place.0, &keys, &mut silent);
    }
    left.append(&mut silent);
    none_left(&left);
}

/// What a key needs beside it to count: family, type, key (empty for all), what to add.
const COMPANY: &[(&str, &str, &str, &str)] = &[
    ("incoming", "", "", "channel-type=main,"),
    ("netdev", "stream", "", "server=on,"),
    ("object", "tls-creds-anon", "", "endpoint=server,"),
];

/// Every key that a table calls a resource makes a request.
fn heard_all(family: &str, keys: &BTreeMap<Key, bool>, silent: &mut BTreeSet<String>) {
    let kind_key = match family {
        "tpmdev" => "type",
        _ => qemu::family(family).unwrap().kind,
    };
    let kind_key = if family == "blockdev" {
        "driver"
    } else {
        kind_key
    };
    let children = |kind: &str, but: &str| -> String {
        keys.iter()
            .filter(|((_, of, key), is_child)| **is_child && of == kind && key != but)
            .map(|((_, _, key), _)| {
                let key = if key == "children" { "children.0" } else { key };
                format!("{key}.driver=null-co,")
            })
            .collect()
    };
    for ((_, kind, key), is_child) in keys {
        if qemu::meaning(family, kind, key) != Some(Meaning::Resource) {
            continue;
        }
        let company = COMPANY
            .iter()
            .filter(|(of, at, ..)| *of == family && (at.is_empty() || *at == kind))
            .map(|(.., add)| *add)
            .collect::<String>();
        // A SocketAddress says first what it is.
        let address = match key.rsplit_once('.') {
            Some((base, "path")) => format!("{base}.type=unix,"),
            Some((base, "str")) if base != "guestfwd" => format!("{base}.type=fd,"),
            _ => String::new(),
        };
        let (key, value) = match key.as_str() {
            "children" => ("children.0.driver=file,children.0.filename".to_owned(), ""),
            key if *is_child => (format!("{key}.driver=file,{key}.filename"), ""),
            "guestfwd.str" => ("guestfwd".to_owned(), "tcp:10.0.2.1:1-file:"),
            "addr" if kind == "dbus" || kind == "dbus-vmstate" => (key.clone(), "unix:path="),
            "addr.args" => ("addr.args.0".to_owned(), ""),
            "rendernode" => (format!("gl=on,{key}"), ""),
            "server.path" | "server.str" if kind == "gluster" => {
                (key.replace("server", "server.0"), "")
            }
            _ => (key.clone(), ""),
        };
        let address = match kind.as_str() {
            "gluster" => address.replace("server", "server.0"),
            _ => address,
        };
        let option = format!("-{family}");
        let id = match family {
            "audiodev" | "chardev" | "netdev" | "object" | "tpmdev" => "id=x,",
            "blockdev" => "node-name=x,",
            _ => "",
        };
        let first = key.split('.').next().unwrap();
        let children = children(kind, first);
        let before = format!("{kind_key}={kind},{id}{company}{children}{address}{key}={value}");
        heard(&option, &before, &key, silent);
    }
}

/// Objects that the schema does not have, and the options whose keys QEMU lists itself.
#[test]
#[ignore = "needs the bed: make test"]
fn every_object_and_every_listed_key_is_in_the_tables() {
    let mut qmp = Qmp::start();
    let schema = Schema::ask(&mut qmp);
    let described = schema.kinds(schema.root("object-add", "arg-type"), &[]);
    let types = qmp.ask(
        "qom-list-types",
        json!({"implements": "user-creatable", "abstract": false}),
    );
    let mut left = BTreeSet::new();
    for class in list(&types) {
        let name = string(class, "name");
        if !qemu::knows("object", name) {
            left.insert(format!("object: {name}"));
        }
        // Some of the others cannot be listed: QEMU 10.0 stops at colo-compare.
        if !described.iter().any(|kind| kind == name) {
            let properties = qmp.ask("qom-list-properties", json!({"typename": name}));
            let keys = texts("object", name, &properties).into_iter();
            let keys: Vec<Key> = keys.filter(|(.., key)| key != "type").collect();
            left.append(&mut unknown_keys(&keys));
        }
    }
    let options = qmp.ask("query-command-line-options", json!({}));
    qmp.end();
    for option in list(&options) {
        let name = match string(option, "option") {
            // QEMU's names of lists, and one list without name.
            "" => continue,
            "acpi" => "acpitable",
            "boot-opts" => "boot",
            "memory" => "m",
            "smp-opts" => "smp",
            name => name,
        };
        match qemu::value_kind(name) {
            None => {
                left.insert(format!("-{name}"));
            }
            Some(ValueKind::Resource | ValueKind::Nothing) => {}
            Some(ValueKind::Keys) => {
                let family = qemu::family(name).unwrap();
                for parameter in list(&option["parameters"]) {
                    let key = string(parameter, "name");
                    if string(parameter, "type") == "string"
                        && key != family.kind
                        && qemu::meaning(family.name, "", key).is_none()
                        && meaning_of_some_type(family.name, key).is_none()
                    {
                        left.insert(format!("-{name}: {key}"));
                    }
                }
            }
        }
    }
    none_left(&left);
}
