//! The keeper as its launcher sees it: a process of its own that waits for QEMU's end and puts labels
//! back.
//!
//! It is started before the first label changes, so that it also rolls back a launcher that was killed
//! half way. It is entered by execve(2), in a domain of its own: what the launcher's memory may have
//! become does not follow. The launcher may take objects from a level without categories only; taking
//! them from a level with somebody's pair, which undoing needs, is the keeper's alone.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Pid;
use thiserror::Error;

use crate::model::label::Context;
use crate::restore::keeper::protocol::{FromKeeper, FromLauncher};
use crate::selinux::names::{INSTALLED, KEEPER_DOMAIN, LOAD};
use crate::selinux::{self, Mode};
use crate::sys;
use crate::text::message::{Message, Refusal};

/// The name by which this program is called as a keeper.
pub const NAME: &str = "svirt-exec-keeper";

/// Descriptors of the keeper: the launcher's end, and the socket to talk to it.
pub(in crate::restore) const PIDFD: i32 = 3;
pub(in crate::restore) const TALK: i32 = 4;

const PROGRAM: &str = "/proc/self/exe";

/// A keeper that has no entry yet: it starts, and looks who has overlapping categories, while the
/// launcher goes on. Dropped, it ends.
#[derive(Debug)]
pub struct Starting {
    talk: UnixStream,
    /// Whether its look is the one that proves the claim.
    unverified: bool,
}

/// What a keeper has found of a context that was claimed without a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairVerdict {
    /// Nobody else has its pair.
    Ours,
    /// The same, as far as processes show their labels.
    Unproven,
    /// Somebody has. The keeper holds nothing, and its entry is gone.
    Taken,
}

/// The launcher's end of a running keeper.
#[derive(Debug)]
pub struct Keeper {
    talk: UnixStream,
    /// Its entry in the journal.
    pub entry: PathBuf,
}

/// Why a keeper has not done what it was told.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// It has ended without a word.
    #[error("{}", ended_at_once())]
    Ended,
    /// It cannot do it.
    #[error("{0}")]
    Cannot(String),
    /// What it cannot do: files that it cannot hold, labels that are not back. Each says so by itself.
    #[error("{}", .0.join("; "))]
    Messages(Vec<String>),
    /// It cannot be spoken to.
    #[error(transparent)]
    Talk(#[from] io::Error),
}

impl KeeperError {
    /// Returns the messages for a launch that needs the keeper.
    pub fn refusal(self) -> Refusal {
        Refusal::new(match self {
            Self::Messages(lines) => lines.into_iter().map(Message::from).collect(),
            other => vec![cannot_start(other)],
        })
    }
}

pub(in crate::restore) fn null() -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(
        "/dev/null",
        OFlag::O_RDWR | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?)
}

/// Says what a keeper takes to be started.
fn needed() -> String {
    format!(
        "svirt-exec must be labelled svirt_launcher_exec_t and the svirt_launcher module loaded: {LOAD} && \
         restorecon -F {INSTALLED}"
    )
}

/// Says why a keeper says nothing.
pub(in crate::restore) fn ended_at_once() -> Message {
    Message::new("the keeper ended at once", needed())
}

/// Refuses for want of a keeper.
pub fn cannot_start(why: impl std::fmt::Display) -> Message {
    format!("cannot start the keeper of the labels: {why}").into()
}

/// Adds to an error that the policy may be the reason of what a keeper takes to be started.
fn not_started(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EINVAL) => {
            io::Error::other(format!("{error}; {}", needed()))
        }
        _ => error,
    }
}

/// Starts this program as a keeper, in the keeper's domain.
pub(in crate::restore) fn start(
    own: &Context,
    args: &[&[u8]],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let args: Vec<&OsStr> = args.iter().map(|arg| OsStr::from_bytes(arg)).collect();
    // Nothing is labelled if SELinux is off, but a relay may be needed.
    let domain = (selinux::mode() != Mode::Disabled).then(|| own.with_type(KEEPER_DOMAIN));
    sys::start_detached(PROGRAM.as_ref(), NAME.as_ref(), &args, fds, &|| {
        nix::unistd::chdir("/")?;
        domain.as_ref().map_or(Ok(()), selinux::write_exec_context)
    })
    .map_err(not_started)
}

/// Starts a process that copies one pipe to another.
///
/// # Errors
/// Those of starting a process in the keeper's domain.
pub fn start_relay(own: &Context, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    start(own, &[b"relay"], &[from, to])
}

impl Starting {
    /// Starts a keeper for what this process launches.
    ///
    /// # Errors
    /// Those of starting a process in the keeper's domain.
    pub fn begin(own: &Context) -> io::Result<Self> {
        Self::of(own, b"keep", Pid::this())
    }

    /// Starts a keeper for what is added to a guest that runs.
    ///
    /// # Errors
    /// Those of starting a process in the keeper's domain; ESRCH if the guest has ended.
    pub fn for_guest(own: &Context, guest: i32) -> io::Result<Self> {
        Self::of(own, b"attend", Pid::from_raw(guest))
    }

    fn of(own: &Context, verb: &[u8], process: Pid) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let null = null()?;
        let null = null.as_fd();
        let pidfd = sys::pidfd(process)?;
        start(
            own,
            &[verb],
            &[null, null, null, pidfd.as_fd(), theirs.as_fd()],
        )?;
        Ok(Self {
            talk: ours,
            unverified: false,
        })
    }

    /// Tells it which context this process claims now. What it finds wrong with that is said when it
    /// gets its entry.
    pub fn claimed(&self, context: &Context) {
        self.tell(&FromLauncher::Claimed(context.clone()));
    }

    /// Tells it the same of a context of which this process has not looked who else has overlapping
    /// categories: the keeper's look is the one that proves the claim.
    pub fn claimed_unverified(&mut self, context: &Context) {
        self.unverified = true;
        self.tell(&FromLauncher::ClaimedUnverified(context.clone()));
    }

    /// Gives it its entry, and waits until it is ready.
    ///
    /// # Errors
    /// That it has ended, that a file is in use by another guest, or that the guest is somebody else's.
    pub fn hold(self, entry: &Path) -> Result<Keeper, KeeperError> {
        match self.hold_unverified(entry)? {
            (keeper, PairVerdict::Ours) => Ok(keeper),
            (_, PairVerdict::Unproven | PairVerdict::Taken) => Err(KeeperError::Ended),
        }
    }

    /// Gives it its entry, of a context that may have been claimed without a look, and waits until it is
    /// ready. Of a context that was looked at it says that it is ours.
    ///
    /// # Errors
    /// Those of [`Starting::hold`].
    pub fn hold_unverified(self, entry: &Path) -> Result<(Keeper, PairVerdict), KeeperError> {
        self.tell(&FromLauncher::Entry(entry.to_path_buf()));
        let verdict = hear_verdict(&self.talk)?;
        let keeper = Keeper {
            talk: self.talk,
            entry: entry.to_path_buf(),
        };
        Ok((keeper, verdict))
    }

    /// Returns what it has found of a context that was claimed without a look, and ends it. Waits for
    /// nothing if none was.
    ///
    /// # Errors
    /// That it has ended and found nothing.
    pub fn verdict(self) -> Result<PairVerdict, KeeperError> {
        if !self.unverified {
            return Ok(PairVerdict::Ours);
        }
        self.tell(&FromLauncher::NoEntry);
        hear_verdict(&self.talk)
    }

    /// That it has ended shows when it is waited for.
    fn tell(&self, message: &FromLauncher) {
        send(Some(self.talk.as_fd()), &message.encode());
    }
}

impl Keeper {
    /// Has it lock the files of records that were added to the entry since.
    ///
    /// # Errors
    /// That one is in use by another guest; the keeper goes on with what it had.
    pub fn grow(&mut self) -> Result<(), KeeperError> {
        self.ask(&FromLauncher::More, &FromKeeper::Ready)
    }

    /// Has it end once this process has become QEMU, and put nothing back then. Until that it undoes
    /// what it is told to.
    ///
    /// # Errors
    /// That another guest's keeper will put back a label that this guest needs.
    pub fn leave(&mut self) -> Result<(), KeeperError> {
        self.ask(&FromLauncher::Leave, &FromKeeper::Ready)
    }

    /// Has everything put back, and waits until it is.
    ///
    /// # Errors
    /// What is not back; the entry stays.
    pub fn undo(mut self) -> Result<(), KeeperError> {
        self.ask(&FromLauncher::Undo, &FromKeeper::Done)
    }

    fn ask(&mut self, message: &FromLauncher, wanted: &FromKeeper) -> Result<(), KeeperError> {
        self.talk.write_all(&message.encode())?;
        if hear(&self.talk)? == *wanted {
            return Ok(());
        }
        Err(KeeperError::Ended)
    }
}

fn hear_verdict(talk: &UnixStream) -> Result<PairVerdict, KeeperError> {
    match hear(talk)? {
        FromKeeper::Ready => Ok(PairVerdict::Ours),
        FromKeeper::ReadyUnproven => Ok(PairVerdict::Unproven),
        FromKeeper::Taken => Ok(PairVerdict::Taken),
        _ => Err(KeeperError::Ended),
    }
}

/// Reads what a keeper answers: lines, and then its last word.
fn hear(talk: &UnixStream) -> Result<FromKeeper, KeeperError> {
    let mut talk = io::BufReader::new(talk);
    let mut lines = Vec::new();
    loop {
        match FromKeeper::read(&mut talk) {
            Ok(Some(FromKeeper::Line(line))) => lines.push(line),
            Ok(Some(FromKeeper::Failed(why))) if lines.is_empty() => {
                return Err(KeeperError::Cannot(why));
            }
            Ok(Some(FromKeeper::Failed(_))) => return Err(KeeperError::Messages(lines)),
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) | Err(_) => return Err(KeeperError::Ended),
        }
    }
}

/// Sends a message to the other side, if it still listens; send(2).
pub(in crate::restore) fn send(talk: Option<BorrowedFd<'_>>, message: &[u8]) {
    let Some(talk) = talk else { return };
    let _ = nix::sys::socket::send(
        std::os::fd::AsRawFd::as_raw_fd(&talk),
        message,
        nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_policy_may_have_refused_is_said_with_what_it_takes() {
        let said = |errno| not_started(io::Error::from_raw_os_error(errno)).to_string();
        for errno in [libc::EACCES, libc::EPERM, libc::EINVAL] {
            assert!(said(errno).ends_with(&needed()), "{}", said(errno));
        }
        assert!(said(libc::EACCES).starts_with("Permission denied"));
        assert!(!said(libc::ENOMEM).contains("labelled"));
    }
}
