//! The host as the rest of the program sees it: a dozen verbs behind one trait.
//!
//! The real one speaks to the kernel through `selinux` and procfs; tests have
//! one that keeps labels in a table. Code that takes `&dyn Host` never asks which.

pub mod block_use;
pub mod devices;
pub mod image_lock;
pub mod pinned;
pub mod privsep;
pub mod runtime_dir;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{OFlag, open, openat, readlink};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::Pid;

use crate::host::pinned::{Kind, Pinned};
use crate::host::privsep::Assistants;
use crate::image::{self, ImageFormat, References};
use crate::model::label::Context;
use crate::observe::guests;
use crate::selinux::{self, Mode};
use crate::sys;
use crate::text::escape::quoted;

/// What a process is labelled with.
#[derive(Clone, Debug)]
pub struct ProcessLabels {
    /// Process ID.
    pub pid: Pid,
    /// `attr/exec`: what it has asked for at its next execve(2).
    pub pending: Option<Context>,
    /// `attr/current`.
    pub current: Option<Context>,
    /// Set when the kernel would not tell.
    pub hidden: bool,
}

impl ProcessLabels {
    /// Whether it is in a cage, or has asked for one.
    pub fn is_caged(&self) -> bool {
        [&self.pending, &self.current]
            .into_iter()
            .flatten()
            .any(|context| !context.cage().is_empty())
    }
}

/// What launching needs of the host.
pub trait Host {
    /// Whether SELinux is on, and enforcing.
    fn mode(&self) -> Mode;
    /// The launcher's own context.
    fn own_context(&self) -> io::Result<Context>;
    /// Opens a path once; follows symbolic links.
    fn pin(&self, path: &Path) -> io::Result<Pinned>;
    /// Opens a pinned file for reading.
    fn open(&self, pinned: &Pinned) -> io::Result<File>;
    /// The format of an image, and what its header makes QEMU open; `name` is the file's, by which
    /// QEMU guesses a format that nobody states.
    ///
    /// # Errors
    /// In words.
    fn header(
        &self,
        mut file: File,
        stated: Option<ImageFormat>,
        name: &OsStr,
    ) -> Result<(ImageFormat, References), String> {
        image::header(stated, &mut file, name.as_bytes()).map_err(|error| error.to_string())
    }
    /// The label of a pinned file; none where its file system has no labels.
    fn label_of(&self, pinned: &Pinned) -> io::Result<Option<Context>>;
    /// Labels a pinned file.
    fn set_label(&self, pinned: &Pinned, label: &Context) -> io::Result<()>;
    /// Which of these permissions the policy does not give.
    fn denied<'p>(
        &self,
        source: &Context,
        target: &Context,
        class: &str,
        permissions: &[&'p str],
    ) -> io::Result<Vec<&'p str>>;
    /// The label that `source` gives an object that it makes in a directory.
    fn label_of_new(
        &self,
        source: &Context,
        directory: &Context,
        kind: Kind,
        name: &OsStr,
    ) -> io::Result<Context>;
    /// Whether the policy knows this context.
    fn is_valid(&self, context: &Context) -> bool;
    /// Lines of `virtual_domain_context` and `virtual_image_context`.
    fn virtual_contexts(&self) -> io::Result<VirtualContexts>;
    /// Every process but this one, with its labels.
    fn processes(&self) -> io::Result<Vec<ProcessLabels>>;
    /// As [`Host::processes`], and without what was asked for and not entered yet: who is about to
    /// claim a pair needs no more to choose one.
    ///
    /// # Errors
    /// As there.
    fn entered(&self) -> io::Result<Vec<ProcessLabels>> {
        self.processes()
    }
    /// What a process calls itself, where it is a QEMU: for messages only.
    fn guest_name(&self, _pid: Pid) -> Option<String> {
        None
    }
    /// Asks for a context at the next execve(2), and reads it back.
    fn claim(&self, context: &Context) -> io::Result<()>;
}

/// What the policy's two files for virtual machines say, as libvirt reads them.
#[derive(Clone, Debug, Default)]
pub struct VirtualContexts {
    /// Domains of guests: with KVM, and, where there is a second line, with TCG.
    pub domains: Vec<Context>,
    /// Labels: of a guest's own images, and of what guests only read.
    pub images: Vec<Context>,
}

/// The initial PID namespace: its number is `PROC_PID_INIT_INO` of linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The thread that all others of the kernel are children of, in the initial PID namespace.
const KTHREADD: i32 = 2;

/// Passes over /proc before giving up on a host where new processes never cease.
const PASSES: usize = 1000;

/// This host.
#[derive(Debug)]
pub struct RealHost {
    /// A procfs that was checked to be one, so that no file of another kind can be
    /// put in the place of attr/exec (the mistake behind CVE-2025-52881).
    proc: OwnedFd,
    assistants: Assistants,
    boot: OnceCell<String>,
}

/// A label as the kernel shows it; none where it shows none.
fn parsed(text: &str) -> io::Result<Option<Context>> {
    if text.trim_end_matches(['\0', '\n']).is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(io::Error::other)
}

impl RealHost {
    /// # Errors
    /// Where /proc is no procfs.
    pub fn new() -> io::Result<Self> {
        let proc = open(
            "/proc",
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            FileMode::empty(),
        )?;
        let kind = nix::sys::statfs::fstatfs(&proc)?.filesystem_type();
        if kind != nix::sys::statfs::PROC_SUPER_MAGIC {
            return Err(io::Error::other("/proc is not a proc file system"));
        }
        Ok(Self {
            proc,
            assistants: Assistants::default(),
            boot: OnceCell::new(),
        })
    }

    /// Which boot of the host this is.
    ///
    /// # Errors
    /// Where /proc does not tell.
    pub fn boot(&self) -> io::Result<&str> {
        if self.boot.get().is_none() {
            let boot = self.read_proc("sys/kernel/random/boot_id")?;
            let _ = self.boot.set(boot.trim().to_owned());
        }
        Ok(self.boot.get().map_or("", String::as_str))
    }

    /// Text of a file below /proc.
    pub fn read_proc(&self, name: &str) -> io::Result<String> {
        String::from_utf8(self.read_proc_bytes(name)?).map_err(io::Error::other)
    }

    /// The bytes of a file below /proc.
    pub fn read_proc_bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let fd = openat(
            self.proc.as_fd(),
            name,
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            FileMode::empty(),
        )?;
        // `take` keeps std from asking for the size first, which is 0 here.
        let mut bytes = Vec::with_capacity(4096);
        File::from(fd).take(u64::MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn context_in_proc(&self, name: &str) -> io::Result<Option<Context>> {
        let bytes = sys::read_at_once(self.proc.as_fd(), name)?;
        parsed(&String::from_utf8(bytes).map_err(io::Error::other)?)
    }

    /// The labels of one process; none when it has ended.
    pub fn labels_of(&self, pid: Pid) -> Option<ProcessLabels> {
        // `exec` before `current`: the kernel clears the first only once the second
        // has changed, so in this order a claim cannot slip through in between.
        let pending = self.context_in_proc(&format!("{pid}/attr/exec"));
        let current = self.context_in_proc(&format!("{pid}/attr/current"));
        let gone = |error: &io::Error| {
            matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ESRCH | libc::EINVAL)
            )
        };
        if pending.as_ref().is_err_and(gone) || current.as_ref().is_err_and(gone) {
            return None;
        }
        let labels = ProcessLabels {
            pid,
            hidden: pending.is_err() || current.is_err(),
            pending: pending.unwrap_or_default(),
            current: current.unwrap_or_default(),
        };
        // What has ended and was not waited for yet touches nothing any more.
        if labels.is_caged() && self.has_ended(pid) {
            return None;
        }
        Some(labels)
    }

    /// Whether a process is a zombie; field 3 of `/proc/PID/stat`, proc(5).
    fn has_ended(&self, pid: Pid) -> bool {
        let stat = self.read_proc(&format!("{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_whitespace().next());
        matches!(state, None | Some("Z" | "X"))
    }

    /// Whether /proc shows every process of the host: not in a PID namespace, and not
    /// where it is mounted with hidepid=; proc(5).
    pub fn sees_all(&self) -> bool {
        self.is_first() && self.read_proc("1/attr/current").is_ok()
    }

    /// The kernel's own threads, which ask for nothing at an execve(2), and the context that all of
    /// them have. The kernel's other children (`call_usermodehelper`) are among them: whoever claims a
    /// pair, a launcher, a keeper or a daemon such as libvirt's, has a context of its own.
    fn kernel_threads(&self) -> Option<(BTreeSet<Pid>, Context)> {
        let name = format!("{KTHREADD}/task/{KTHREADD}/children");
        let children = self.read_proc(&name).ok().filter(|_| self.is_first())?;
        let context = self.context_in_proc(&format!("{KTHREADD}/attr/current"));
        let pids = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        Some((pids.map(Pid::from_raw).collect(), context.ok()??))
    }

    /// Whether this is the initial PID namespace.
    fn is_first(&self) -> bool {
        readlink("/proc/self/ns/pid").is_ok_and(|namespace| namespace == INITIAL_PID_NAMESPACE)
    }

    /// Every process but this one and another, with its labels.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub fn processes_besides(&self, another: Option<Pid>) -> io::Result<Vec<ProcessLabels>> {
        let kernel = self.kernel_threads();
        let of_kernel = |pid| {
            let (_, context) = kernel.as_ref().filter(|(pids, _)| pids.contains(&pid))?;
            let current = self.context_in_proc(&format!("{pid}/attr/current"));
            let current = current.ok()?.filter(|current| current == context)?;
            Some(ProcessLabels {
                pid,
                pending: None,
                current: Some(current),
                hidden: false,
            })
        };
        let mut seen: BTreeSet<Pid> = another.into_iter().chain([Pid::this()]).collect();
        let mut found = Vec::new();
        // A process that started while the list was read may have claimed a pair
        // already: list again until a whole pass finds nobody new.
        for _ in 0..PASSES {
            let mut fresh = false;
            for pid in self.pids()? {
                if !seen.insert(pid) {
                    continue;
                }
                // One that is in no cage and claims one later will see the claim of the
                // caller, made before this; one that is in a cage may have left others behind.
                if let Some(labels) = of_kernel(pid).or_else(|| self.labels_of(pid)) {
                    fresh |= labels.is_caged();
                    found.push(labels);
                }
            }
            if !fresh {
                return Ok(found);
            }
        }
        Err(io::Error::other(
            "processes start faster than they can be looked at",
        ))
    }

    fn pids(&self) -> io::Result<Vec<Pid>> {
        let mut dir = nix::dir::Dir::openat(
            self.proc.as_fd(),
            ".",
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            FileMode::empty(),
        )?;
        let mut pids = Vec::new();
        for entry in dir.iter() {
            if let Some(number) = entry?
                .file_name()
                .to_str()
                .ok()
                .and_then(|name| name.parse().ok())
            {
                pids.push(Pid::from_raw(number));
            }
        }
        Ok(pids)
    }
}

impl Host for RealHost {
    fn mode(&self) -> Mode {
        selinux::mode()
    }

    fn guest_name(&self, pid: Pid) -> Option<String> {
        guests::line(self, pid)?.name()
    }

    fn own_context(&self) -> io::Result<Context> {
        selinux::own_context()
    }

    fn pin(&self, path: &Path) -> io::Result<Pinned> {
        pinned::pin(path)
    }

    fn open(&self, pinned: &Pinned) -> io::Result<File> {
        match self.assistants.reader()? {
            Some(reader) => reader.open(pinned.as_fd()),
            None => pinned::open_to_read(pinned.as_fd()),
        }
    }

    fn header(
        &self,
        mut file: File,
        stated: Option<ImageFormat>,
        name: &OsStr,
    ) -> Result<(ImageFormat, References), String> {
        match self.assistants.probe().map_err(|error| error.to_string())? {
            Some(probe) => probe.header(file.as_fd(), stated, name),
            None => {
                image::header(stated, &mut file, name.as_bytes()).map_err(|error| error.to_string())
            }
        }
    }

    fn label_of(&self, pinned: &Pinned) -> io::Result<Option<Context>> {
        match selinux::label_of_path(&pinned.proc_path()) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            other => other,
        }
    }

    fn set_label(&self, pinned: &Pinned, label: &Context) -> io::Result<()> {
        selinux::set_label_of_path(&pinned.proc_path(), label)
    }

    fn denied<'p>(
        &self,
        source: &Context,
        target: &Context,
        class: &str,
        permissions: &[&'p str],
    ) -> io::Result<Vec<&'p str>> {
        selinux::denied(source, target, class, permissions)
    }

    fn label_of_new(
        &self,
        source: &Context,
        directory: &Context,
        kind: Kind,
        name: &OsStr,
    ) -> io::Result<Context> {
        // Names only matter to rules for named files, and those are text.
        selinux::label_of_new(source, directory, kind.class(), &name.to_string_lossy())
    }

    fn is_valid(&self, context: &Context) -> bool {
        selinux::is_valid(context)
    }

    fn virtual_contexts(&self) -> io::Result<VirtualContexts> {
        let read = |path: &Path| -> io::Result<Vec<Context>> {
            let name = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", quoted(path)))
            };
            std::fs::read_to_string(path)
                .map_err(name)?
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(|line| line.parse().map_err(|e| name(io::Error::other(e))))
                .collect()
        };
        Ok(VirtualContexts {
            domains: read(selinux::virtual_domain_context()?)?,
            images: read(selinux::virtual_image_context()?)?,
        })
    }

    fn processes(&self) -> io::Result<Vec<ProcessLabels>> {
        self.processes_besides(None)
    }

    fn entered(&self) -> io::Result<Vec<ProcessLabels>> {
        let look = |pid| {
            let current = self.context_in_proc(&format!("{pid}/attr/current"));
            let labels = ProcessLabels {
                pid,
                current: current.ok()?,
                pending: None,
                hidden: false,
            };
            (!labels.is_caged() || !self.has_ended(pid)).then_some(labels)
        };
        Ok(self.pids()?.into_iter().filter_map(look).collect())
    }

    fn claim(&self, context: &Context) -> io::Result<()> {
        selinux::set_exec_context(context)?;
        // Not what somebody has mounted over the file. (openat2(2), which could say so, is
        // refused by the filters of services with RestrictSUIDSGID=.)
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let name = "thread-self/attr/exec";
        let noted = openat(self.proc.as_fd(), name, flags, FileMode::empty())?;
        if sys::mount_id(noted.as_fd())? != sys::mount_id(self.proc.as_fd())? {
            return Err(io::Error::other(
                "something is mounted over /proc/thread-self/attr/exec: umount it, or run svirt-exec \
                 where it is not",
            ));
        }
        let text = sys::rest_at_once(noted.as_fd())?;
        let set = parsed(&String::from_utf8(text).map_err(io::Error::other)?)?;
        if set.as_ref() != Some(context) {
            return Err(io::Error::other(format!(
                "the kernel has noted '{}' instead",
                set.map_or_else(String::new, |set| set.to_string())
            )));
        }
        Ok(())
    }
}
