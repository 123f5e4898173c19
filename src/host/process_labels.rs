//! The labels of every process on the host: who has which categories, and who has asked for which.

use std::collections::BTreeSet;
use std::io;

use nix::unistd::Pid;

use crate::host::procfs::Procfs;
use crate::model::label::Context;

/// The thread that all others of the kernel are children of, in the initial PID namespace.
const KTHREADD: i32 = 2;

/// Passes over /proc before giving up on a host where new processes never cease.
const MAX_PASSES: usize = 1000;

/// The labels of a process.
#[derive(Clone, Debug)]
pub struct ProcessLabels {
    /// Process ID.
    pub pid: Pid,
    /// `attr/exec`: what it has asked for at its next execve(2).
    pub pending: Option<Context>,
    /// `attr/current`.
    pub current: Option<Context>,
    /// Set if the kernel would not tell.
    pub hidden: bool,
}

impl ProcessLabels {
    /// Tells whether it has categories, or has asked for some.
    pub fn has_categories(&self) -> bool {
        [&self.pending, &self.current]
            .into_iter()
            .flatten()
            .any(|context| !context.categories().is_empty())
    }
}

/// What choosing and claiming a pair needs of the host's processes.
pub trait Processes {
    /// Returns every process but this one, with its labels.
    ///
    /// # Errors
    /// Those of reading /proc.
    fn processes(&self) -> io::Result<Vec<ProcessLabels>>;

    /// Returns them as [`Processes::processes`] does, without what was asked for and not entered yet:
    /// whoever is about to claim a pair needs no more to choose one.
    ///
    /// # Errors
    /// Those of reading /proc.
    fn entered(&self) -> io::Result<Vec<ProcessLabels>> {
        self.processes()
    }

    /// Asks for a context at the next execve(2), and reads it back.
    ///
    /// # Errors
    /// Those of setexeccon(3), and that the kernel has noted something else.
    fn claim(&self, context: &Context) -> io::Result<()>;
}

impl Procfs {
    /// Returns the labels of one process. None if it has ended.
    pub fn labels_of(&self, pid: Pid) -> Option<ProcessLabels> {
        // `exec` before `current`: the kernel clears the first only after the second has changed, so
        // in this order a claim cannot slip through in between.
        let pending = self.context(&format!("{pid}/attr/exec"));
        let current = self.context(&format!("{pid}/attr/current"));
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
        if labels.has_categories() && self.has_ended(pid) {
            return None;
        }
        Some(labels)
    }

    /// Returns the context of one process.
    pub fn context_of(&self, pid: Pid) -> Option<Context> {
        self.labels_of(pid)?.current
    }

    /// Returns the kernel's own threads, which ask for nothing at an execve(2), and the context that
    /// all of them have. The kernel's other children (`call_usermodehelper`) are among them: whoever
    /// claims a pair, a launcher, a keeper or a daemon such as libvirt's, has a context of its own.
    fn kernel_threads(&self) -> Option<(BTreeSet<Pid>, Context)> {
        let name = format!("{KTHREADD}/task/{KTHREADD}/children");
        let children = self.read(&name).ok();
        let children = children.filter(|_| self.is_initial_namespace())?;
        let context = self.context(&format!("{KTHREADD}/attr/current"));
        let pids = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        Some((pids.map(Pid::from_raw).collect(), context.ok()??))
    }

    /// Returns every process but this one and `another`, with its labels.
    ///
    /// # Errors
    /// Those of listing /proc, and processes that start faster than they can be looked at.
    pub fn processes_besides(&self, another: Option<Pid>) -> io::Result<Vec<ProcessLabels>> {
        let kernel = self.kernel_threads();
        let of_kernel = |pid| {
            let (_, context) = kernel.as_ref().filter(|(pids, _)| pids.contains(&pid))?;
            let current = self.context(&format!("{pid}/attr/current"));
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
        // A process that started while the list was read may have claimed a pair already: list again
        // until a whole pass finds no new one with categories.
        for _ in 0..MAX_PASSES {
            let mut fresh = false;
            for pid in self.pids()? {
                if !seen.insert(pid) {
                    continue;
                }
                // One without categories that claims some later will see the caller's claim, made
                // before this; one that has categories may have left others behind.
                if let Some(labels) = of_kernel(pid).or_else(|| self.labels_of(pid)) {
                    fresh |= labels.has_categories();
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

    /// Returns every process with the context that it runs in, without what it has asked for.
    pub(in crate::host) fn entered(&self) -> io::Result<Vec<ProcessLabels>> {
        let look = |pid| {
            let current = self.context(&format!("{pid}/attr/current"));
            let labels = ProcessLabels {
                pid,
                current: current.ok()?,
                pending: None,
                hidden: false,
            };
            (!labels.has_categories() || !self.has_ended(pid)).then_some(labels)
        };
        Ok(self.pids()?.into_iter().filter_map(look).collect())
    }
}
