//! Holds the tables of `qemu` against the lists that the real QEMU gives of itself: its help and
//! what QMP tells. Whatever a new QEMU has more than the tables fails here by name. To repair
//! that, read in QEMU's sources what is done with it, then add a row to the table of its family
//! (src/qemu/) where it names a host resource, and to src/qemu/tables/not_paths.rs where it does not.
//!
//! Needs no SELinux. On a machine with a QEMU of the bed's version, which the variable names:
//! `SVIRT_TEST_QEMU=/usr/bin/qemu-system-x86_64 cargo test --test enforcing tables -- --ignored`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use svirt_exec::model::resource::{Origin, Target};
use svirt_exec::qemu::{self, Environment, Meaning, ValueKind};

use crate::lib::{QEMU, SVIRT_EXEC};

/// In the bed through svirt-exec, as a probe: its domain may do what TCG needs at the start.
fn qemu() -> Command {
    match std::env::var_os("SVIRT_TEST_QEMU") {
        Some(name) => Command::new(name),
        None => {
            let mut command = Command::new(SVIRT_EXEC);
            command.arg(QEMU);
            command
        }
    }
}

/// A key that a QEMU has: family, type, dotted key.
pub type Key = (String, String, String);

/// Fails with everything at once.
pub fn none_left(left: &BTreeSet<String>) {
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    assert!(
        left.is_empty(),
        "this QEMU has what no table knows (see the head of this file):\n  {}",
        left.join("\n  ")
    );
}

pub fn unknown_keys<'k>(keys: impl IntoIterator<Item = &'k Key>) -> BTreeSet<String> {
    let mut kinds: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (family, kind, key) in keys {
        if qemu::meaning(family, kind, key).is_none() {
            kinds.entry((family, key)).or_default().push(kind);
        }
    }
    kinds
        .iter()
        .map(|((family, key), kinds)| match kinds.as_slice() {
            [kind] => format!("{family} {kind}: {key}"),
            kinds => format!("{family} {} and {} more: {key}", kinds[0], kinds.len() - 1),
        })
        .collect()
}

/// An option of the help: its names, whether an argument follows, and how it is written.
struct Usage {
    names: Vec<String>,
    takes_value: bool,
    syntax: String,
}

/// Options start in column 0; descriptions in column 16 or after a gap; the syntax goes on in
/// lines that start with `[` or `,`.
fn usages(help: &str) -> Vec<Usage> {
    let mut usages: Vec<Usage> = Vec::new();
    for line in help.lines() {
        let Some(rest) = line.strip_prefix('-') else {
            let more = line.trim_start();
            if let (true, Some(last)) = (more.starts_with(['[', ',']), usages.last_mut()) {
                last.syntax.push_str(more);
            }
            continue;
        };
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        let (names, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        let argument = tail.trim_start();
        let gap = tail.len() - argument.len();
        let column = line.len() - argument.len();
        let mut names: Vec<String> = names
            .split('/')
            .map(|name| name.trim_start_matches('-').to_owned())
            .collect();
        // "-h or -help     display this help and exit"
        let second = argument
            .strip_prefix("or -")
            .and_then(|a| a.split_once(' '));
        names.extend(second.map(|(name, _)| name.to_owned()));
        // "-M              as -machine"
        let same = argument.strip_prefix("as -").and_then(|name| {
            let mut others = usages.iter();
            others.find(|other| other.names.iter().any(|other| other == name))
        });
        if let Some(same) = same {
            let (takes_value, syntax) = (same.takes_value, same.syntax.clone());
            usages.push(Usage {
                names,
                takes_value,
                syntax,
            });
            continue;
        }
        usages.push(Usage {
            names,
            takes_value: second.is_none() && !argument.is_empty() && (gap == 0 || column < 16),
            syntax: argument.to_owned(),
        });
    }
    usages
}

/// `key=value` of a syntax; `{a|b}=value` are two.
fn pairs(syntax: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for item in syntax.split([',', '[', ']', ' ']) {
        let Some((keys, value)) = item.split_once('=') else {
            continue;
        };
        for key in keys.trim_matches(['{', '}']).split('|') {
            pairs.push((key.to_owned(), value.to_owned()));
        }
    }
    pairs
}

#[test]
fn the_help_is_read_as_it_is_written() {
    let help = "-h or -help     display this help\n\
                -fda/-fdb file  use 'file' as floppy disk\n\
                -dtb    file    use 'file' as device tree\n\
                --preconfig     pause QEMU\n\
                -xen-domid-restrict     restrict set\n\
                -no-user-config\n                do not load\n\
                -M              as -dtb\n\
                -acpitable [sig=str][,{data|file}=file1]\n\
                -chardev file,id=id,path=path\n         [,logfile=PATH]\n";
    let seen: Vec<(Vec<String>, bool)> = usages(help)
        .into_iter()
        .map(|usage| (usage.names, usage.takes_value))
        .collect();
    let want = [
        (&["h", "help"][..], false),
        (&["fda", "fdb"], true),
        (&["dtb"], true),
        (&["preconfig"], false),
        (&["xen-domid-restrict"], false),
        (&["no-user-config"], false),
        (&["M"], true),
        (&["acpitable"], true),
        (&["chardev"], true),
    ];
    let want = want.map(|(names, takes)| (names.iter().map(|n| (*n).to_owned()).collect(), takes));
    assert_eq!(seen, want);
    let keys: Vec<String> = usages(help)
        .iter()
        .flat_map(|usage| pairs(&usage.syntax))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, ["sig", "data", "file", "id", "path", "logfile"]);
}

/// ValueKind by which the help calls files, and keys that name some.
const FILE_WORDS: &[&str] = &[
    "file", "path", "dir", "sock", "fd", "dev", "script", "helper", "node", "chroot",
];

#[test]
#[ignore = "needs the bed: make test"]
fn every_option_of_the_help_is_in_the_tables() {
    let output = qemu().arg("-help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let usages = usages(&help);
    assert!(usages.len() > 100, "this is no help: {help}");
    let mut left = BTreeSet::new();
    for usage in &usages {
        for name in &usage.names {
            match qemu::takes_value(name) {
                None => {
                    left.insert(format!("-{name}"));
                }
                Some(takes) if takes != usage.takes_value => {
                    left.insert(format!("-{name} with a value: {}", usage.takes_value));
                }
                Some(true) if qemu::value_kind(name).is_none() => {
                    left.insert(format!("-{name}: what its word is"));
                }
                Some(_) => {}
            }
            if qemu::value_kind(name) != Some(ValueKind::Keys) {
                continue;
            }
            let family = qemu::family(name).unwrap().name;
            let first = usage.syntax.split([',', '[', ' ']).next().unwrap();
            for (key, value) in pairs(&usage.syntax) {
                let says_file = |text: &str| FILE_WORDS.iter().any(|word| text.contains(word));
                let names_file = says_file(&key) || says_file(&value);
                if names_file
                    && !value.contains('|')
                    && qemu::meaning(family, first, &key).is_none()
                    && meaning_of_some_type(family, &key).is_none()
                {
                    left.insert(format!("-{name} {first}: {key}={value}"));
                }
            }
        }
    }
    none_left(&left);
}

/// Where a list does not tell for which type a key is.
pub fn meaning_of_some_type(family: &str, key: &str) -> Option<Meaning> {
    let kinds = qemu::family(family).unwrap().kinds.iter().copied();
    let drivers = ["file", "qcow2", "nbd"];
    kinds
        .chain(drivers)
        .find_map(|kind| qemu::meaning(family, kind, key))
}

/// A QEMU without machine, asked through QMP.
pub struct Qmp {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Qmp {
    pub fn start() -> Self {
        let mut child = qemu()
            .args(["-machine", "none", "-S", "-nodefaults"])
            .args(["-display", "none", "-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut qmp = Self {
            child,
            input,
            output,
        };
        let greeting = qmp.line("nothing");
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        qmp.ask("qmp_capabilities", json!({}));
        qmp
    }

    fn line(&mut self, asked: &str) -> Value {
        loop {
            let mut line = String::new();
            let count = self.output.read_line(&mut line).unwrap();
            assert!(count > 0, "QEMU ended when it was asked for {asked}");
            // Some devices print a line of their own when they are looked at.
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }

    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.input, "{request}").unwrap();
        loop {
            let mut answer = self.line(&request.to_string());
            if let Some(answer) = answer.get_mut("return") {
                return answer.take();
            }
            assert!(answer.get("error").is_none(), "{request}: {answer}");
        }
    }

    pub fn end(mut self) {
        self.ask("quit", json!({}));
        self.child.wait().unwrap();
    }
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

pub fn string<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap()
}

/// Properties that hold text. Everything else is a number, a word of an enumeration, or a link.
pub fn texts(family: &str, kind: &str, properties: &Value) -> Vec<Key> {
    list(properties)
        .iter()
        .filter(|property| matches!(string(property, "type"), "str" | "string" | "strList"))
        .map(|property| {
            let name = string(property, "name").trim_end_matches("[*]");
            (family.to_owned(), kind.to_owned(), name.to_owned())
        })
        .collect()
}

/// The texts of every device. All models of a processor have the same properties, and hundreds of
/// them: one model of each parent class is asked.
fn device_keys(qmp: &mut Qmp) -> Vec<Key> {
    let types = qmp.ask(
        "qom-list-types",
        json!({"implements": "device", "abstract": false}),
    );
    let mut processors = BTreeSet::new();
    let mut keys = Vec::new();
    for class in list(&types) {
        let (name, parent) = (string(class, "name"), class["parent"].as_str());
        let parent = parent.unwrap_or_default();
        if parent.ends_with("-cpu") && !processors.insert(parent.to_owned()) {
            continue;
        }
        let properties = qmp.ask("device-list-properties", json!({"typename": name}));
        keys.extend(texts("device", name, &properties));
    }
    keys
}

#[test]
#[ignore = "needs the bed: make test"]
fn every_text_of_a_device_is_in_the_tables() {
    let mut qmp = Qmp::start();
    let keys = device_keys(&mut qmp);
    qmp.end();
    assert!(!keys.is_empty());
    none_left(&unknown_keys(&keys));
    let mut silent = BTreeSet::new();
    for (_, kind, key) in &keys {
        if qemu::meaning("device", kind, key) == Some(Meaning::Resource) {
            let extra = match kind.as_str() {
                "ccid-card-emulated" => ",backend=certificates",
                _ => "",
            };
            let word = format!("{kind}{extra},{key}=");
            heard("-device", &word, key, &mut silent);
            // As a default it is listed too, but for a database that has one of its own.
            if kind != "ccid-card-emulated" {
                heard(
                    "-global",
                    &format!("driver={kind},property={key},value="),
                    key,
                    &mut silent,
                );
            }
        }
    }
    none_left(&silent);
}

/// Whether a value in this key becomes a request, or is refused as what it should name (an address).
/// A descriptor's number does where a path does not.
pub fn heard(option: &str, before: &str, key: &str, silent: &mut BTreeSet<String>) {
    let heard = ["/probe/x", "77"].iter().any(|value| {
        let args = [option.into(), OsString::from(format!("{before}{value}"))];
        let line = qemu::parse(
            "qemu-system-x86_64".as_ref(),
            &args,
            &BTreeMap::new(),
            &Environment::default(),
        );
        line.requests.iter().any(|request| {
            let named = match &request.target {
                Target::Path(name) | Target::DataFile(name) | Target::Template(name) => {
                    name.to_string_lossy().contains("probe")
                }
                Target::Device(device) => device.to_string().contains("probe"),
                Target::Fd(fd) => *fd == 77,
            };
            named && matches!(&request.origin, Origin::Word { word: 3, .. })
        }) || line.errors.iter().any(|error| error.word == 3)
    });
    if !heard {
        silent.insert(format!(
            "{option} {before}: '{key}' is in a table and is not listed"
        ));
    }
}
