//! What the parser is told, and what it returns.
//!
//! Pure values.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::model::resource::Request;

/// Tells whether a program of this name is a QEMU that runs guests: those of QEMU's own build, and `kvm` (Debian) and
/// `qemu-kvm` (Fedora, RHEL), which distributions add. The name of a file, without a directory.
pub fn is_program_name(name: &OsStr) -> bool {
    let name = name.as_bytes();
    [&b"kvm"[..], b"qemu-kvm"].contains(&name)
        || name
            .strip_prefix(b"qemu-system-")
            .is_some_and(|machine| !machine.is_empty())
}

/// The caller's environment and QEMU's build-time directories, as far as names depend on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `$TMPDIR`.
    pub tmpdir: Option<OsString>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<OsString>,
    /// QEMU's SYSCONFDIR, the directory of `qemu-ifup` and `qemu-ifdown`.
    pub sysconfdir: OsString,
    /// The directory of `qemu-bridge-helper`; `/usr/libexec` on Fedora.
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

/// The config file that QEMU reads by default (CONFDIR as Debian and Fedora build it).
pub const DEFAULT_CONFIG: &str = "/etc/qemu/qemu.conf";

/// A file whose text is part of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// The path as QEMU opens it.
    pub path: OsString,
    /// False for the default file, which may be missing.
    pub required: bool,
    /// The number of the word that names it; 1 for the default file.
    pub word: usize,
}

/// A message about one option.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The number of the word that it is about; QEMU itself is word 1.
    pub word: usize,
    /// The option with its dash.
    pub option: Cow<'static, str>,
    /// The rest of the sentence.
    pub message: String,
}

/// An accelerator that QEMU tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM.
    Kvm,
    /// Translation; it needs memory that is writable and executable.
    Tcg,
    /// Another one, by name.
    Other(String),
}

/// What QEMU is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// To run a guest, or to do something else that opens a guest's resources.
    Guest,
    /// To print something; no resource is opened.
    Information,
    /// To answer questions about its capabilities: `-machine none` and a monitor.
    Probe,
}

/// What a command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `-name X` or `-name guest=X`.
    pub name: Option<OsString>,
    /// The accelerators, in the order in which QEMU tries them.
    pub accelerators: Vec<Accelerator>,
    /// `-accel kvm,device=`.
    pub kvm_device: Option<OsString>,
    /// What QEMU is started for.
    pub run_mode: RunMode,
    /// Every host resource, sorted by word.
    pub requests: Vec<Request>,
    /// `-L`, in order.
    pub data_dirs: Vec<OsString>,
    /// `-daemonize`.
    pub daemonize: bool,
    /// `-run-with user=` or `-runas`.
    pub run_as: Option<OsString>,
    /// Whether it changes its root directory (`-run-with chroot=`, `-chroot`).
    pub chroots: bool,
    /// Warnings, sorted by word.
    pub warnings: Vec<Diagnostic>,
    /// What no table knows, so that nothing is labelled for it, sorted by word. Each is a warning,
    /// or with `--strict` an error.
    pub unknown: Vec<Diagnostic>,
    /// What QEMU would refuse, or what must not be launched, sorted by word.
    pub errors: Vec<Diagnostic>,
}
