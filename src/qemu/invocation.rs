//! What is told to the parser, and what it returns.
//!
//! Pure values.

use std::borrow::Cow;
use std::ffi::OsString;

use crate::model::resource::Request;

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
pub enum RunMode {
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
    pub run_mode: RunMode,
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
