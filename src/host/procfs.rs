//! /proc: a file system that was checked to be one, and what it tells of single processes.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, open, openat, readlink};
use nix::sys::stat::Mode as FileMode;
use nix::unistd::Pid;

use crate::model::label::Context;
use crate::sys;

/// The initial PID namespace: its number is `PROC_PID_INIT_INO` of linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Bytes that are read of a file below /proc. A command line of QEMU's has a few KiB; with prctl(PR_SET_MM_ARG_END)
/// a process can let its own have as many as it has memory.
const LONGEST: u64 = 256 * 1024;

/// A procfs that was checked to be one, so that no file of another kind can be put in the place of
/// attr/exec (the mistake behind CVE-2025-52881).
#[derive(Debug)]
pub struct Procfs {
    directory: OwnedFd,
    boot: OnceCell<String>,
}

/// What `/proc/PID/stat` tells of a process; proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 3.
    pub state: u8,
    /// Field 4, the parent's process ID.
    pub parent: i32,
    /// Field 6.
    pub session: i32,
    /// Field 20, the number of its threads.
    pub threads: i64,
    /// Field 22, in clock ticks since boot.
    pub started: u64,
}

impl Stat {
    /// Reads the file's text. None if it is none.
    pub fn parse(stat: &[u8]) -> Option<Self> {
        // The name, in parentheses, may hold any byte; fields count from its end.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let fields = std::str::from_utf8(stat.get(end.checked_add(1)?..)?).ok()?;
        let mut fields = fields.split_whitespace();
        Some(Self {
            state: *fields.next()?.as_bytes().first()?,
            parent: fields.next()?.parse().ok()?,
            session: fields.nth(1)?.parse().ok()?,
            threads: fields.nth(13)?.parse().ok()?,
            started: fields.nth(1)?.parse().ok()?,
        })
    }

    /// Tells whether the process has ended, though it may not have been waited for yet. A process whose first
    /// thread has ended is shown as a zombie while its other threads go on (do_task_stat of fs/proc/array.c).
    pub fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

/// Whether a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It has ended.
    Ended,
    /// It lives, and started at this time, in clock ticks since boot.
    Since(u64),
    /// It may live: the kernel would not tell, or said what cannot be read.
    Unknown,
}

/// Reads a label as the kernel shows it. None if it shows none.
pub(in crate::host) fn parsed(text: &str) -> io::Result<Option<Context>> {
    if text.trim_end_matches(['\0', '\n']).is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(io::Error::other)
}

impl Procfs {
    /// Opens /proc.
    ///
    /// # Errors
    /// Those of open(2), and that it is no procfs.
    pub fn open() -> io::Result<Self> {
        let directory = open(
            "/proc",
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            FileMode::empty(),
        )?;
        let type_ = nix::sys::statfs::fstatfs(&directory)?.filesystem_type();
        if type_ != nix::sys::statfs::PROC_SUPER_MAGIC {
            return Err(io::Error::other("/proc is not a proc file system"));
        }
        Ok(Self {
            directory,
            boot: OnceCell::new(),
        })
    }

    /// Returns the ID of this boot of the host.
    ///
    /// # Errors
    /// Those of reading `/proc/sys/kernel/random/boot_id`.
    pub fn boot(&self) -> io::Result<&str> {
        if self.boot.get().is_none() {
            let boot = self.read("sys/kernel/random/boot_id")?;
            let _ = self.boot.set(boot.trim().to_owned());
        }
        Ok(self.boot.get().map_or("", String::as_str))
    }

    /// Reads the text of a file below /proc.
    ///
    /// # Errors
    /// Those of openat(2) and read(2), and bytes that are no UTF-8.
    pub fn read(&self, name: &str) -> io::Result<String> {
        String::from_utf8(self.read_bytes(name)?).map_err(io::Error::other)
    }

    /// Reads the first bytes of a file below /proc, [`LONGEST`] at most: how long some of them are is for the
    /// process to say that they are about.
    ///
    /// # Errors
    /// Those of openat(2) and read(2).
    pub fn read_bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(4096);
        let file = File::from(self.open_file(name)?);
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file below /proc for reading.
    pub(in crate::host) fn open_file(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(openat(&self.directory, name, flags, FileMode::empty())?)
    }

    /// Reads a label from a file below /proc.
    pub(in crate::host) fn context(&self, name: &str) -> io::Result<Option<Context>> {
        let bytes = sys::read_at_once(self.directory.as_fd(), name)?;
        parsed(&String::from_utf8(bytes).map_err(io::Error::other)?)
    }

    /// Lists the processes.
    pub(in crate::host) fn pids(&self) -> io::Result<Vec<Pid>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = nix::dir::Dir::openat(&self.directory, ".", flags, FileMode::empty())?;
        let mut pids = Vec::new();
        for entry in dir.iter() {
            let name = entry?;
            let number = name.file_name().to_str().ok();
            if let Some(number) = number.and_then(|name| name.parse().ok()) {
                pids.push(Pid::from_raw(number));
            }
        }
        Ok(pids)
    }

    /// Returns what /proc tells of a process. None if it is gone.
    pub fn stat(&self, pid: Pid) -> Option<Stat> {
        Stat::parse(&self.read_bytes(&format!("{pid}/stat")).ok()?)
    }

    /// Tells whether an error of a process's files means that it is gone, or a descriptor of it.
    pub fn is_gone(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
    }

    /// Returns whether a process lives, and since when.
    pub fn lifetime(&self, pid: Pid) -> Lifetime {
        match self.read_bytes(&format!("{pid}/stat")) {
            Ok(stat) => match Stat::parse(&stat) {
                Some(stat) if stat.has_ended() => Lifetime::Ended,
                Some(stat) => Lifetime::Since(stat.started),
                None => Lifetime::Unknown,
            },
            Err(error) if Self::is_gone(&error) => Lifetime::Ended,
            Err(_) => Lifetime::Unknown,
        }
    }

    /// Tells whether a process is a zombie or gone.
    pub fn has_ended(&self, pid: Pid) -> bool {
        self.lifetime(pid) == Lifetime::Ended
    }

    /// Tells whether the process that started at this time, in clock ticks since boot, may still live.
    pub fn may_live(&self, pid: Pid, started: u64) -> bool {
        match self.lifetime(pid) {
            Lifetime::Since(since) => since == started,
            Lifetime::Unknown => true,
            Lifetime::Ended => false,
        }
    }

    /// Returns when a process started, in clock ticks since boot. None if it has ended, also if it was
    /// not waited for yet.
    pub fn start_time(&self, pid: Pid) -> Option<u64> {
        match self.lifetime(pid) {
            Lifetime::Since(started) => Some(started),
            Lifetime::Ended | Lifetime::Unknown => None,
        }
    }

    /// Returns the effective user of a process; `Uid:` of /proc/PID/status, proc_pid_status(5).
    pub fn user_of(&self, pid: Pid) -> Option<u32> {
        // The name, in the first line, may hold any byte but a newline, which is escaped.
        let status = self.read_bytes(&format!("{pid}/status")).ok()?;
        let mut lines = status.split(|byte| *byte == b'\n');
        let line = lines.find_map(|line| line.strip_prefix(b"Uid:"))?;
        let mut users = std::str::from_utf8(line).ok()?.split_whitespace();
        users.nth(1)?.parse().ok()
    }

    /// Returns the process that a pidfd of this process stands for; fdinfo of pidfd_open(2).
    pub fn process_behind(&self, pidfd: i32) -> Option<Pid> {
        let info = self.read(&format!("self/fdinfo/{pidfd}")).ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        line.trim().parse().ok().map(Pid::from_raw)
    }

    /// Returns the process ID that was given last; proc_loadavg(5).
    ///
    /// # Errors
    /// Those of reading `/proc/loadavg`.
    pub(in crate::host) fn last_pid(&self) -> io::Result<i32> {
        let text = self.read("loadavg")?;
        let last = text.split_whitespace().nth(4);
        last.and_then(|last| last.parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Tells whether this is the initial PID namespace.
    pub(in crate::host) fn is_initial_namespace(&self) -> bool {
        readlink("/proc/self/ns/pid").is_ok_and(|namespace| namespace == INITIAL_PID_NAMESPACE)
    }

    /// Tells whether /proc shows every process of the host: not in a PID namespace, and not if it is
    /// mounted with hidepid=; proc(5).
    pub fn sees_all(&self) -> bool {
        self.is_initial_namespace() && self.read("1/attr/current").is_ok()
    }
}

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_count_from_behind_a_name_that_may_hold_anything() {
        let stat = b"7 (a) R 1 (b\xff) S 5 7 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9999 1 2";
        assert_eq!(
            Stat::parse(stat),
            Some(Stat {
                state: b'S',
                parent: 5,
                session: 3,
                threads: 1,
                started: 9999
            })
        );
        assert_eq!(Stat::parse(b"7 (a"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn a_process_with_threads_lives_though_its_first_thread_has_ended() {
        for (state, threads, ended) in [
            ("Z", 1, true),
            ("X", 0, true),
            ("Z", 2, false),
            ("S", 1, false),
            ("T", 1, false),
            ("t", 1, false),
            // A state that some later kernel may have.
            ("Q", 1, false),
        ] {
            let stat =
                format!("7 (a) {state} 5 7 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 9999 1");
            let stat = Stat::parse(stat.as_bytes()).unwrap();
            assert_eq!(stat.has_ended(), ended, "{state} {threads}");
        }
    }
}
