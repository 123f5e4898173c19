//! The labels of every process on the host: who has which categories, and who has asked for which.

use std::collections::{BTreeSet, HashSet};
use std::io;

use nix::unistd::Pid;

use crate::host::procfs::Procfs;
use crate::model::label::Context;

/// The thread that all others of the kernel are children of, in the initial PID namespace.
const KTHREADD: i32 = 2;

/// Passes over /proc before a look is called incomplete: on a host where processes start and end without
/// pause, or where somebody has them do so.
const MAX_PASSES: usize = 128;

/// Processes that ended before they could be looked at, after which a look is called incomplete, too.
const MAX_LOST: usize = 256;

/// Passes in a row that find nothing new, after which nobody can have been missed; [`Procfs::look_besides`].
const QUIET_PASSES: usize = 2;

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
    /// Which of them keep others from these categories.
    pub reserves: Reserves,
}

/// Which labels of a process keep others from their categories; `host::reserving` decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserves {
    /// What it has asked for.
    pub pending: bool,
    /// What it has.
    pub current: bool,
}

impl Reserves {
    /// Both do.
    pub const BOTH: Self = Self {
        pending: true,
        current: true,
    };
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

/// A look at the processes of the host.
#[derive(Clone, Debug, Default)]
pub struct ProcessLook {
    /// Those that were seen.
    pub processes: Vec<ProcessLabels>,
    /// Whether nothing of what was sought is missing: it may be if processes start and end faster than they can be
    /// looked at.
    pub is_complete: bool,
}

impl ProcessLook {
    /// Returns the processes, if they are all.
    ///
    /// # Errors
    /// That processes start and end faster than they can be looked at.
    pub fn complete(self) -> io::Result<Vec<ProcessLabels>> {
        if self.is_complete {
            return Ok(self.processes);
        }
        Err(io::Error::other(INCOMPLETE))
    }

    /// Tells whether it proves anything about processes that it does not show: no process hides its labels
    /// (hidepid, a PID namespace, the policy), and none was missed.
    pub fn shows_all(&self) -> bool {
        self.is_complete && !self.processes.iter().any(|process| process.hidden)
    }
}

/// What choosing and claiming a pair needs of the host's processes.
pub trait Processes {
    /// Looks at the processes other than this one until each label with categories has been seen.
    ///
    /// # Errors
    /// Those of reading /proc.
    fn look(&self) -> io::Result<ProcessLook>;

    /// Returns the processes of such a look.
    ///
    /// # Errors
    /// Those of [`Processes::look`] and [`ProcessLook::complete`].
    fn processes(&self) -> io::Result<Vec<ProcessLabels>> {
        self.look()?.complete()
    }

    /// Returns them as [`Processes::processes`] does, without what was asked for and not entered yet:
    /// whoever is about to claim a pair needs no more to choose one.
    ///
    /// # Errors
    /// Those of reading /proc.
    fn entered(&self) -> io::Result<Vec<ProcessLabels>> {
        Ok(self.look()?.processes)
    }

    /// Asks for a context at the next execve(2), and reads it back.
    ///
    /// # Errors
    /// Those of setexeccon(3), and that the kernel has noted something else.
    fn claim(&self, context: &Context) -> io::Result<()>;
}

/// What a look goes on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Each label with categories that some process has: who has which pair, and whether a guest has ended. A
    /// process that forks keeps its label, so one of a label is enough.
    Labels,
    /// Each process that has categories.
    Processes,
}

/// Why a look is incomplete.
pub const INCOMPLETE: &str = "processes start and end faster than they can be looked at; stop what starts them, and try again";

impl Procfs {
    /// Returns the labels of one process. None if it has ended.
    pub fn labels_of(&self, pid: Pid) -> Option<ProcessLabels> {
        // `exec` before `current`: the kernel clears the first only after the second has changed, so
        // in this order a claim cannot slip through in between.
        let pending = self.context(&format!("{pid}/attr/exec"));
        let current = self.context(&format!("{pid}/attr/current"));
        let gone =
            |error: &io::Error| Self::is_gone(error) || error.raw_os_error() == Some(libc::EINVAL);
        if pending.as_ref().is_err_and(gone) || current.as_ref().is_err_and(gone) {
            return None;
        }
        let labels = ProcessLabels {
            pid,
            hidden: pending.is_err() || current.is_err(),
            pending: pending.unwrap_or_default(),
            current: current.unwrap_or_default(),
            reserves: Reserves::BOTH,
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

    /// Returns the labels of one of these threads, if it has their context.
    fn labels_of_kernel(
        &self,
        pid: Pid,
        kernel: Option<&(BTreeSet<Pid>, Context)>,
    ) -> Option<ProcessLabels> {
        let (_, context) = kernel.filter(|(pids, _)| pids.contains(&pid))?;
        let current = self.context(&format!("{pid}/attr/current"));
        let current = current.ok()?.filter(|current| current == context)?;
        Some(ProcessLabels {
            pid,
            pending: None,
            current: Some(current),
            hidden: false,
            reserves: Reserves::BOTH,
        })
    }

    /// Looks at the processes other than this one and `another`.
    ///
    /// The kernel lists processes by ascending number (`next_tgid` of fs/proc/base.c), and a child has a
    /// higher one than its parent, unless numbers have started again from the bottom. So the descendants of a
    /// process that forks and ends without pause cannot slip through a list unseen: one of them is always
    /// still to come, and is listed, though it may have ended by the time that it is looked at. A pass that
    /// lost nobody so, found nothing new of what is sought, and in which numbers did not start again has
    /// therefore seen every line of descent that began below the last number given; one that began above that
    /// (its process is older than the last start from the bottom) has been seen by the pass before, or has
    /// come down below it. After two such passes in a row nobody is missing.
    ///
    /// # Errors
    /// Those of listing /proc.
    pub(in crate::host) fn look_besides(
        &self,
        another: Option<Pid>,
        sought: Sought,
    ) -> io::Result<ProcessLook> {
        let kernel = self.kernel_threads();
        let besides: BTreeSet<Pid> = another.into_iter().chain([Pid::this()]).collect();
        let mut seen = besides.clone();
        let mut known = HashSet::new();
        let mut look = ProcessLook::default();
        let (mut quiet, mut lost) = (0_usize, 0_usize);
        let mut last = self.last_pid()?;
        for _ in 0..MAX_PASSES {
            let mut moves = false;
            for pid in self.pids()? {
                if !seen.insert(pid) {
                    continue;
                }
                // One without categories that claims some later will see the caller's claim, made before
                // this. One that has categories, or has ended since it was listed, may have left others
                // behind.
                let labels = self
                    .labels_of_kernel(pid, kernel.as_ref())
                    .or_else(|| self.labels_of(pid));
                moves |= labels.as_ref().is_none_or(|labels| {
                    labels.has_categories()
                        && (known.insert((labels.pending.clone(), labels.current.clone()))
                            || sought == Sought::Processes)
                });
                lost = lost.saturating_add(usize::from(labels.is_none()));
                look.processes.extend(labels);
            }
            let now = self.last_pid()?;
            if now < last {
                // A number may stand for another process by now.
                seen.clone_from(&besides);
                known.clear();
                look.processes.clear();
                moves = true;
            }
            last = now;
            quiet = if moves { 0 } else { quiet.saturating_add(1) };
            if quiet == QUIET_PASSES {
                look.is_complete = true;
                break;
            }
            if lost > MAX_LOST {
                break;
            }
        }
        Ok(look)
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
                reserves: Reserves::BOTH,
            };
            (!labels.has_categories() || !self.has_ended(pid)).then_some(labels)
        };
        Ok(self.pids()?.into_iter().filter_map(look).collect())
    }
}
