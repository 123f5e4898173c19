//! Reads a whole command line: every family of options in turn.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::model::resource::Request;
use crate::qemu::block::drives;
use crate::qemu::invocation::{ConfigFile, DEFAULT_CONFIG, Environment, Invocation, Purpose};
use crate::qemu::options::{
    accel, audio, boot, chardev, device, display, fsdev, net, object, process,
};
use crate::qemu::syntax::bytes;
use crate::qemu::tables::unknown;
use crate::qemu::{command_line, requests, run_mode};

/// Files whose text the command line is made of: `-readconfig`, and the default file unless
/// `-no-user-config`. The caller reads them and hands them to [`parse`].
pub fn config_files(args: &[OsString]) -> Vec<ConfigFile> {
    command_line::config_files(args, DEFAULT_CONFIG)
        .into_iter()
        .map(|(path, required, word)| ConfigFile {
            path,
            required,
            word,
        })
        .collect()
}

/// Reads a command line. `args` are the words after the program's name.
pub fn parse(
    program: &OsStr,
    args: &[OsString],
    configs: &BTreeMap<OsString, Vec<u8>>,
    env: &Environment,
) -> Invocation {
    let mut found = requests::Found::new(env);
    let entries = command_line::read(args, configs, DEFAULT_CONFIG, &mut found);
    let last = |name: &str| entries.iter().rfind(|entry| entry.name == name);
    let mut line = Invocation {
        name: entries
            .iter()
            .filter(|entry| entry.name == "name")
            .filter_map(|entry| entry.text("guest"))
            .next_back()
            .map(bytes::os),
        accelerators: Vec::new(),
        kvm_device: None,
        purpose: run_mode::judge(&entries),
        requests: Vec::new(),
        data_dirs: entries
            .iter()
            .filter(|entry| entry.name == "L" && !bytes::is_help(&entry.word))
            .map(|entry| bytes::os(&entry.word))
            .collect(),
        daemonize: last("daemonize").is_some(),
        run_as: entries
            .iter()
            .filter_map(|entry| match entry.name {
                "run-with" => entry.text("user"),
                "runas" => Some(entry.word.as_slice()),
                _ => None,
            })
            .next_back()
            .map(bytes::os),
        warnings: Vec::new(),
        unknown: Vec::new(),
        errors: Vec::new(),
    };
    let program = program.as_bytes();
    // First, because later families may name /dev/fdset/N.
    process::descriptors(&entries, &mut found);
    accel::list(program, &entries, &mut line, &mut found);
    drives::list(&entries, &mut found);
    boot::list(program, &entries, &mut found);
    chardev::list(&entries, &mut found);
    net::list(&entries, &mut found);
    object::list(&entries, &mut found);
    device::list(&entries, &mut found);
    fsdev::list(&entries, &mut found);
    let name = line.name.as_ref().map(|name| name.as_bytes());
    display::list(name, &entries, &mut found);
    audio::list(&entries, &mut found);
    process::list(&entries, &mut found);
    unknown::list(&entries, &mut found);
    found.unused_fdsets();
    line.requests = match line.purpose {
        // QEMU prints and exits; nothing of the line is opened.
        Purpose::Information => Vec::new(),
        Purpose::Guest | Purpose::Probe => sorted(found.requests),
    };
    line.warnings = found.warnings;
    line.warnings.sort();
    line.unknown = found.unknown;
    line.unknown.sort();
    line.unknown.dedup();
    line.errors = found.errors;
    line.errors.sort();
    line
}

/// By word, identical ones once.
fn sorted(mut requests: Vec<Request>) -> Vec<Request> {
    use crate::model::resource::Origin;
    requests.sort_by_key(|request| match request.origin {
        Origin::Word { word, .. } => word,
        Origin::BackingOf { .. }
        | Origin::DataFileOf { .. }
        | Origin::ExtentOf { .. }
        | Origin::TreeOf { .. } => 0,
    });
    // Requests with an image cannot be hashed; their duplicates stand side by side.
    requests.dedup();
    let mut seen = BTreeSet::new();
    let mut fresh = requests
        .iter()
        .map(|request| {
            let Request {
                target,
                class,
                access,
                origin,
                ..
            } = request;
            request.image.is_some() || seen.insert((target, class, access, origin))
        })
        .collect::<Vec<bool>>()
        .into_iter();
    requests.retain(|_| fresh.next().unwrap_or(true));
    requests
}
