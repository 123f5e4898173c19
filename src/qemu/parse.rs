//! Reads a whole command line: every family of options in turn.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::model::resource::Request;
use crate::qemu::block::drives;
use crate::qemu::invocation::{ConfigFile, DEFAULT_CONFIG, Environment, Invocation, RunMode};
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
    let mut requests = requests::Requests::new(env);
    let options = command_line::read(args, configs, DEFAULT_CONFIG, &mut requests);
    let last = |name: &str| options.iter().rfind(|option| option.name == name);
    let mut line = Invocation {
        name: options
            .iter()
            .filter(|option| option.name == "name")
            .filter_map(|option| option.text("guest"))
            .next_back()
            .map(bytes::os),
        accelerators: Vec::new(),
        kvm_device: None,
        run_mode: run_mode::detect(&options),
        requests: Vec::new(),
        data_dirs: options
            .iter()
            .filter(|option| option.name == "L" && !bytes::is_help(&option.value))
            .map(|option| bytes::os(&option.value))
            .collect(),
        daemonize: last("daemonize").is_some(),
        run_as: options
            .iter()
            .filter_map(|option| match option.name {
                "run-with" => option.text("user"),
                "runas" => Some(option.value.as_slice()),
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
    process::add_descriptors(&options, &mut requests);
    accel::add_requests(program, &options, &mut line, &mut requests);
    drives::add_requests(&options, &mut requests);
    boot::add_requests(program, &options, &mut requests);
    chardev::add_requests(&options, &mut requests);
    net::add_requests(&options, &mut requests);
    object::add_requests(&options, &mut requests);
    device::add_requests(&options, &mut requests);
    fsdev::add_requests(&options, &mut requests);
    let name = line.name.as_ref().map(|name| name.as_bytes());
    display::add_requests(name, &options, &mut requests);
    audio::add_requests(&options, &mut requests);
    process::add_requests(&options, &mut requests);
    unknown::report(&options, &mut requests);
    requests.add_unused_fdsets();
    line.requests = match line.run_mode {
        // QEMU prints and exits; nothing of the line is opened.
        RunMode::Information => Vec::new(),
        RunMode::Guest | RunMode::Probe => sorted(requests.list),
    };
    line.warnings = requests.warnings;
    line.warnings.sort();
    line.unknown = requests.unknown;
    line.unknown.sort();
    line.unknown.dedup();
    line.errors = requests.errors;
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
