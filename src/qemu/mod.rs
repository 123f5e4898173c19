//! Reads a QEMU 10 command line and lists every host resource that it names.
//!
//! Pure: words and a few facts of the environment in, values out; no file is opened, nothing is
//! asked of the host. Facts come from the manual and the sources of QEMU 10.0.
//!
//! The words are split (`words`), each value is parsed by its option's syntax (`opts`, `keyval`,
//! `json`, `readconfig`) into one kind of tree (`tree`, `line`), and one module per family of
//! options says what the trees mean.
//!
//! Devices that the line names by address stay addresses (`HostDevice`): their nodes are the
//! host's to tell.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::model::resource::Request;
use block::drives;
use options::{accel, audio, boot, chardev, device, display, fsdev, net, object, process};
use syntax::bytes;
use tables::unknown;

mod block;
mod command_line;
mod options;
mod requests;
mod run_mode;
mod syntax;
mod tables;

pub use block::backing::{BackingError, backing_requests};
pub use syntax::argv::takes_value;
pub use tables::keys::{Family, Meaning, Words, family, knows, meaning, words};

/// The syntaxes by themselves, for tests/checks only.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::qemu::syntax::json::{JsonError, Value, parse as json};
    pub use crate::qemu::syntax::keyval::parse as keyval;
    pub use crate::qemu::syntax::opts::Opts;
    pub use crate::qemu::syntax::readconfig::{Section, parse as readconfig};
    pub use crate::qemu::syntax::tree::{Scalar, Tree};
}

/// What pure code has to be told of the caller's environment and of how QEMU was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `$TMPDIR`.
    pub tmpdir: Option<OsString>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<OsString>,
    /// QEMU's SYSCONFDIR: `qemu-ifup` and `qemu-ifdown` are there.
    pub sysconfdir: OsString,
    /// Where `qemu-bridge-helper` is; `/usr/libexec` on Fedora.
    pub helper_dir: OsString,
}

impl Default for Environment {
    fn default() -> Self {
        Environment {
            tmpdir: None,
            xdg_runtime_dir: None,
            sysconfdir: OsString::from("/etc"),
            helper_dir: OsString::from("/usr/lib/qemu"),
        }
    }
}

/// The config file that QEMU reads unasked (CONFDIR as Debian and Fedora build it).
pub const DEFAULT_CONFIG: &str = "/etc/qemu/qemu.conf";

/// Something to tell the user about one option.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The word it is about; QEMU itself is word 1.
    pub word: usize,
    /// The option with its dash.
    pub option: Cow<'static, str>,
    /// The rest of the sentence.
    pub message: String,
}

/// An accelerator that QEMU tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The kernel's virtual machines.
    Kvm,
    /// Translation; needs memory that is writable and executable.
    Tcg,
    /// Another one, by name.
    Other(String),
}

/// Why QEMU is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run a guest, or something that opens a guest's resources.
    Guest,
    /// To print something: no resource is opened.
    Information,
    /// To be asked for its capabilities: `-machine none` and a monitor.
    Probe,
}

/// What a command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `-name X` or `-name guest=X`.
    pub name: Option<OsString>,
    /// In the order QEMU tries them.
    pub accelerators: Vec<Accelerator>,
    /// `-accel kvm,device=`.
    pub kvm_device: Option<OsString>,
    /// Why QEMU is started.
    pub purpose: Purpose,
    /// Every host resource, sorted by word.
    pub requests: Vec<Request>,
    /// `-L`, in order.
    pub data_dirs: Vec<OsString>,
    /// `-daemonize`.
    pub daemonize: bool,
    /// `-run-with user=` or `-runas`.
    pub run_as: Option<OsString>,
    /// Worth saying, sorted by word.
    pub warnings: Vec<Diagnostic>,
    /// What no table knows and nothing is labelled for: worth saying, or a reason not to launch
    /// for a caller who wants to be sure. Sorted by word.
    pub unknown: Vec<Diagnostic>,
    /// What QEMU would refuse, or what must not be launched; sorted by word.
    pub errors: Vec<Diagnostic>,
}

/// A file whose text is part of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// As QEMU opens it.
    pub path: OsString,
    /// False for the default file, which may be missing.
    pub required: bool,
    /// The word that names it; 1 for the default file.
    pub word: usize,
}

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
