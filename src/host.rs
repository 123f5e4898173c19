//! The host as the rest of the program sees it: a dozen verbs behind one trait.
//!
//! The real one speaks to the kernel through `selinux` and procfs; tests have
//! one that keeps labels in a table. Code that takes `&dyn Host` never asks which.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::fcntl::{OFlag, open, openat, readlink};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::escape::quoted;
use crate::guests;
use crate::label::Context;
use crate::selinux::{self, Mode};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A directory.
    Dir,
    /// A socket.
    Socket,
    /// A named pipe.
    Fifo,
    /// Nothing yet.
    Missing,
}

impl Kind {
    /// The SELinux class of such an object.
    pub fn class(self) -> &'static str {
        match self {
            Self::File | Self::Missing => "file",
            Self::Block => "blk_file",
            Self::Char => "chr_file",
            Self::Dir => "dir",
            Self::Socket => "sock_file",
            Self::Fifo => "fifo_file",
        }
    }
}

/// Who a file is, for as long as the host runs; with the birth time also
/// when its inode number was given to another file since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Device of the file system (`st_dev`); the same only within one boot.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth time in nanoseconds since 1970, where the file system keeps one.
    pub born: Option<u64>,
}

/// A file that was opened once, O_PATH, and is what it was checked to be from
/// then on, whatever its path comes to mean.
#[derive(Debug)]
pub struct Pinned {
    fd: OwnedFd,
    /// The path it was opened by.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Which it is.
    pub identity: Identity,
    /// Number of hard links.
    pub links: u64,
    /// Owner.
    pub uid: u32,
    /// Which device a node is (`st_rdev`).
    pub device: u64,
}

impl Pinned {
    /// The name by which system calls that take a path reach the pinned file.
    pub fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The number of its file system (`f_fsid`, statfs(2)); none where that has none.
    pub fn file_system(&self) -> Option<u64> {
        let id = nix::sys::statvfs::fstatvfs(&self.fd).ok()?.filesystem_id();
        (id != 0).then_some(id)
    }

    /// The mount that it was opened through, as mountinfo numbers them; proc_pid_fdinfo(5).
    pub fn mount_id(&self) -> Option<u64> {
        let info = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let info = std::fs::read_to_string(info).ok()?;
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
        id.trim().parse().ok()
    }

    /// Its path without symbolic links, as the kernel knows it now.
    pub fn real_path(&self) -> PathBuf {
        readlink(&self.proc_path()).map_or_else(|_| self.path.clone(), PathBuf::from)
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

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
    /// Opens a pinned regular file for reading.
    fn open(&self, pinned: &Pinned) -> io::Result<File>;
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

/// Passes over /proc before giving up on a host where new processes never cease.
const PASSES: usize = 1000;

/// This host.
#[derive(Debug)]
pub struct RealHost {
    /// A procfs that was checked to be one, so that no file of another kind can be
    /// put in the place of attr/exec (the mistake behind CVE-2025-52881).
    proc: OwnedFd,
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
        Ok(Self { proc })
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
        let mut bytes = Vec::new();
        File::from(fd).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn context_in_proc(&self, name: &str) -> io::Result<Option<Context>> {
        let text = self.read_proc(name)?;
        if text.trim_end_matches(['\0', '\n']).is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(io::Error::other)
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
        let first =
            readlink("/proc/self/ns/pid").is_ok_and(|namespace| namespace == INITIAL_PID_NAMESPACE);
        let init = self.read_proc("1/attr/current").is_ok();
        first && init
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

fn kind_of(metadata: &std::fs::Metadata) -> Kind {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Kind::Dir
    } else if kind.is_block_device() {
        Kind::Block
    } else if kind.is_char_device() {
        Kind::Char
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::File
    }
}

/// Opens a path once, O_PATH, and looks at what it opened.
pub fn pin(path: &Path) -> io::Result<Pinned> {
    let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, FileMode::empty())?;
    Ok(look_at(fd, path)?.0)
}

/// Opens what a directory has under a name, and does not follow a symbolic link: true for one.
pub fn pin_below(directory: &Pinned, name: &OsStr) -> io::Result<(Pinned, bool)> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(&directory.fd, name, flags, FileMode::empty())?;
    look_at(fd, &directory.path.join(name))
}

/// Opens a file that this process has just made in a pinned directory. Whoever else may write to
/// the directory may have put another file in its place, or a link: that is an error.
///
/// # Errors
/// Where it is not there, or is anything but an empty file of this user's with this one name.
pub fn pin_made(directory: &Pinned, name: &OsStr, path: &Path) -> io::Result<Pinned> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(&directory.fd, name, flags, FileMode::empty())?;
    let file = File::from(fd);
    let metadata = file.metadata()?;
    let as_made = metadata.is_file()
        && metadata.nlink() == 1
        && metadata.len() == 0
        && metadata.uid() == nix::unistd::Uid::effective().as_raw();
    if !as_made {
        return Err(io::Error::other(
            "another file was put in its place, by somebody who may write to its directory",
        ));
    }
    Ok(look_at(file.into(), path)?.0)
}

fn look_at(fd: OwnedFd, path: &Path) -> io::Result<(Pinned, bool)> {
    let file = File::from(fd);
    let metadata = file.metadata()?;
    let born = metadata
        .created()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|time| u64::try_from(time.as_nanos()).ok());
    let pinned = Pinned {
        path: path.to_path_buf(),
        kind: kind_of(&metadata),
        identity: Identity {
            dev: metadata.dev(),
            ino: metadata.ino(),
            born,
        },
        links: metadata.nlink(),
        uid: metadata.uid(),
        device: metadata.rdev(),
        fd: file.into(),
    };
    Ok((pinned, metadata.is_symlink()))
}

/// Opens a block device as a mount would, for itself alone; EBUSY where somebody has it so
/// (open(2), O_EXCL on block devices). It is closed again: QEMU opens it by its own rules.
pub fn open_alone(pinned: &Pinned) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_EXCL | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(open(&pinned.proc_path(), flags, FileMode::empty())?.into())
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
        pin(path)
    }

    fn open(&self, pinned: &Pinned) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Ok(open(&pinned.proc_path(), flags, FileMode::empty())?.into())
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
        let own = Pid::this();
        let mut seen = std::collections::HashSet::new();
        let mut found = Vec::new();
        // A process that started while the list was read may have claimed a pair
        // already: list again until a whole pass finds nobody new.
        for _ in 0..PASSES {
            let mut fresh = false;
            for pid in self.pids()? {
                if pid == own || !seen.insert(pid) {
                    continue;
                }
                // One that is in no cage and claims one later will see the claim of the
                // caller, made before this; one that is in a cage may have left others behind.
                if let Some(labels) = self.labels_of(pid) {
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

    fn claim(&self, context: &Context) -> io::Result<()> {
        selinux::set_exec_context(context)?;
        let set = self.context_in_proc("thread-self/attr/exec")?;
        if set.as_ref() != Some(context) {
            return Err(io::Error::other(format!(
                "the kernel has noted '{}' instead",
                set.map_or_else(String::new, |set| set.to_string())
            )));
        }
        Ok(())
    }
}
