//! Parses a whole command line, one family of options after the other.
//!
//! Pure.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::qemu::block::drives;
use crate::qemu::invocation::{ConfigFile, DEFAULT_CONFIG, Environment, Invocation, RunMode};
use crate::qemu::options::accel::{self, Accelerators};
use crate::qemu::options::{
    audio, boot, chardev, device, display, fsdev, listening, net, object, process,
};
use crate::qemu::parsed_option::ParsedOption;
use crate::qemu::requests::{Requests, sorted};
use crate::qemu::syntax::bytes;
use crate::qemu::tables::unknown;
use crate::qemu::{command_line, run_mode};

/// Returns the files whose text is part of the command line: `-readconfig`, and the default file
/// unless `-no-user-config` is given. The caller reads them and passes them to [`parse`].
pub fn config_files(args: &[OsString]) -> Vec<ConfigFile> {
    command_line::config_files(args, DEFAULT_CONFIG)
}

/// Parses a command line. `args` are the words after the program's name; `configs` holds the text
/// of the [`config_files`] that could be read.
pub fn parse(
    program: &OsStr,
    args: &[OsString],
    configs: &BTreeMap<OsString, Vec<u8>>,
    env: &Environment,
) -> Invocation {
    let mut requests = Requests::new(env);
    let options = command_line::read(args, configs, DEFAULT_CONFIG, &mut requests);
    let name = last_key(&options, "name", "guest");
    let accelerators = add_families(program.as_bytes(), name, &options, &mut requests);
    unknown::report(&options, &mut requests);
    requests.add_unused_fdsets();

    let run_mode = run_mode::detect(&options);
    let Requests {
        list,
        mut warnings,
        mut unknown,
        mut errors,
        ..
    } = requests;
    warnings.sort();
    unknown.sort();
    unknown.dedup();
    errors.sort();
    Invocation {
        name: name.map(bytes::os_string),
        accelerators: accelerators.tried,
        kvm_device: accelerators.kvm_device,
        run_mode,
        requests: match run_mode {
            // QEMU prints and exits; nothing of the line is opened.
            RunMode::Information => Vec::new(),
            RunMode::Guest | RunMode::Probe => sorted(list),
        },
        data_dirs: options
            .iter()
            .filter(|option| option.name == "L" && !bytes::is_help(&option.value))
            .map(|option| bytes::os_string(&option.value))
            .collect(),
        daemonize: options.iter().any(|option| option.name == "daemonize"),
        run_as: run_as(&options),
        chroots: chroots(&options),
        warnings,
        unknown,
        errors,
    }
}

/// Requests what every family of options names.
fn add_families(
    program: &[u8],
    name: Option<&[u8]>,
    options: &[ParsedOption],
    requests: &mut Requests<'_>,
) -> Accelerators {
    // First, because later families may name /dev/fdset/N.
    process::add_descriptors(options, requests);
    let accelerators = accel::add_requests(program, options, requests);
    drives::add_requests(options, requests);
    boot::add_requests(program, options, requests);
    chardev::add_requests(options, requests);
    net::add_requests(options, requests);
    object::add_requests(options, requests);
    device::add_requests(options, requests);
    fsdev::add_requests(options, requests);
    display::add_requests(name, options, requests);
    audio::add_requests(options, requests);
    process::add_requests(options, requests);
    listening::add_warnings(options, requests);
    accelerators
}

/// Returns the value of a key in the last option of that name that has it.
fn last_key<'a>(options: &'a [ParsedOption], name: &str, key: &str) -> Option<&'a [u8]> {
    options
        .iter()
        .filter(|option| option.name == name)
        .filter_map(|option| option.text(key))
        .next_back()
}

/// Tells whether QEMU changes its root directory.
fn chroots(options: &[ParsedOption]) -> bool {
    options.iter().any(|option| {
        option.name == "chroot" || option.name == "run-with" && option.text("chroot").is_some()
    })
}

/// Returns the user that QEMU becomes: the last of `-run-with user=` and `-runas`.
fn run_as(options: &[ParsedOption]) -> Option<OsString> {
    options
        .iter()
        .filter_map(|option| match option.name {
            "run-with" => option.text("user"),
            "runas" => Some(option.value.as_slice()),
            _ => None,
        })
        .next_back()
        .map(bytes::os_string)
}
