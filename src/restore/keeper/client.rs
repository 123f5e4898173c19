//! The keeper, as its launcher sees it: a process of its own that waits for QEMU's end and puts labels back.
//!
//! It is started before the first label changes, so that it also rolls back a
//! launcher that was killed half way, and it is entered by execve, in a domain
//! of its own: what the launcher's memory may have become does not follow. The
//! launcher may take objects from a bare level only; taking them from a level
//! with somebody's pair, which undoing needs, is the keeper's alone.

use crate::model::label::Context;
use crate::selinux::names::KEEPER_DOMAIN;
use crate::selinux::names::{INSTALLED, LOAD};
use crate::selinux::{self, Mode};
use crate::sys;
use nix::fcntl::OFlag;
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The name by which this program is called as a keeper.
pub const NAME: &str = "svirt-exec-keeper";

/// Descriptors of the keeper: the launcher's end, and the way to talk to it.
pub(crate) const PIDFD: i32 = 3;

pub(crate) const TALK: i32 = 4;

/// What the keeper says: it is ready; ready, but some processes do not show their labels; the pair is
/// somebody's; it has put everything back; it has not.
pub(crate) const READY: u8 = b'R';

pub(crate) const UNPROVEN: u8 = b'U';

pub(crate) const TAKEN: u8 = b'T';

pub(crate) const DONE: u8 = b'D';

pub(crate) const FAILED: u8 = b'F';

/// What the launcher says, followed by a word: which context it claims, having looked who else is in
/// that cage; which it claims without such a look; which entry is the keeper's, an empty word where
/// there is none and only the outcome of the look is wanted.
pub(crate) const CLAIMED: u8 = b'C';

pub(crate) const ASKED: u8 = b'A';

pub(crate) const ENTRY: u8 = b'E';

/// And without one: the entry has more records now; put everything back now; put nothing back once
/// QEMU runs.
pub(crate) const MORE: u8 = b'M';

pub(crate) const UNDO: u8 = b'U';

pub(crate) const LEAVE: u8 = b'L';

/// Ends what is said where more may be said later.
pub(crate) const END: u8 = 0;

/// Bytes of a word.
pub(crate) const LONGEST: u64 = 8192;

const PROGRAM: &str = "/proc/self/exe";

/// A keeper that has no entry yet: it starts, and looks who is in the cage that was claimed, while the
/// launcher goes on. Dropped, it ends.
#[derive(Debug)]
pub struct Starting {
    talk: UnixStream,
    /// Whether its look is the one that proves the claim.
    asked: bool,
}

/// What a keeper has found of a context that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
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

pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(
        "/dev/null",
        OFlag::O_RDWR | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?)
}

/// What a keeper takes to be started.
fn needed() -> String {
    format!(
        "svirt-exec must be labelled svirt_launcher_exec_t and the svirt_launcher module loaded: {LOAD} && \
         restorecon -F {INSTALLED}"
    )
}

/// Why a keeper says nothing.
pub(crate) fn ended_at_once() -> String {
    format!("the keeper ended at once; {}", needed())
}

/// A refusal for want of a keeper.
pub(crate) fn cannot_start(why: impl std::fmt::Display) -> String {
    format!("cannot start the keeper of the labels: {why}")
}

/// Why there is none: what the policy may be the reason of says so.
fn not_started(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EINVAL) => {
            io::Error::other(format!("{error}; {}", needed()))
        }
        _ => error,
    }
}

/// Starts this program as a keeper, in the keeper's domain.
pub(crate) fn start(own: &Context, args: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let args: Vec<&OsStr> = args.iter().map(|arg| OsStr::from_bytes(arg)).collect();
    // Nothing is labelled where SELinux is off, but a relay may be needed.
    let domain = (selinux::mode() != Mode::Disabled).then(|| own.with_type(KEEPER_DOMAIN));
    sys::start_detached(PROGRAM.as_ref(), NAME.as_ref(), &args, fds, &|| {
        nix::unistd::chdir("/")?;
        domain.as_ref().map_or(Ok(()), selinux::write_exec_context)
    })
    .map_err(not_started)
}

/// Copies one pipe to another in a process of its own; see `fds`.
///
/// # Errors
/// Where no process can be started.
pub fn start_relay(own: &Context, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    start(own, &[b"relay"], &[from, to])
}

impl Starting {
    /// Starts one for what this process launches.
    ///
    /// # Errors
    /// Where no process can be started, or not in the keeper's domain.
    pub fn begin(own: &Context) -> io::Result<Self> {
        Self::of(own, b"keep", Pid::this())
    }

    /// Starts one for what is added to a guest that runs.
    ///
    /// # Errors
    /// As above, and where the guest has ended.
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
            asked: false,
        })
    }

    /// Tells it which context this process claims now. What it finds wrong with that is said when it
    /// gets its entry.
    pub fn claimed(&self, context: &Context) {
        self.tell(CLAIMED, context.to_string().as_bytes());
    }

    /// The same where this process has not looked who else is in that cage: the keeper's look is the
    /// one that proves the claim.
    pub fn asked(&mut self, context: &Context) {
        self.asked = true;
        self.tell(ASKED, context.to_string().as_bytes());
    }

    /// Gives it its entry, and waits until it is ready.
    ///
    /// # Errors
    /// Where it has ended, finds a file in use by another guest, or the guest somebody else's.
    pub fn hold(self, entry: &Path) -> io::Result<Keeper> {
        self.answer(entry, &[READY]).map(|(keeper, _)| keeper)
    }

    /// The same of a context that may be one that was asked for. Of another one it says that it is ours.
    ///
    /// # Errors
    /// As above.
    pub fn hold_asked(self, entry: &Path) -> io::Result<(Keeper, Verdict)> {
        let (keeper, said) = self.answer(entry, &[READY, UNPROVEN, TAKEN])?;
        Ok((keeper, verdict(said)))
    }

    /// What it has found of the context that was asked for; nothing is waited for where none was. It ends
    /// with that.
    ///
    /// # Errors
    /// Where it has found nothing; it has ended.
    pub fn verdict(self) -> io::Result<Verdict> {
        if !self.asked {
            return Ok(Verdict::Ours);
        }
        self.tell(ENTRY, b"");
        hear(&self.talk, &[READY, UNPROVEN, TAKEN]).map(verdict)
    }

    fn answer(self, entry: &Path, wanted: &[u8]) -> io::Result<(Keeper, u8)> {
        self.tell(ENTRY, entry.as_os_str().as_bytes());
        let said = hear(&self.talk, wanted)?;
        let keeper = Keeper {
            talk: self.talk,
            entry: entry.to_path_buf(),
        };
        Ok((keeper, said))
    }

    /// That it has ended shows when it is waited for.
    fn tell(&self, what: u8, word: &[u8]) {
        say(Some(self.talk.as_fd()), what, [word, &[END]].concat());
    }
}

impl Keeper {
    /// Has it lock the files of records that were added to the entry since.
    ///
    /// # Errors
    /// Where one is in use by another guest; the keeper goes on with what it had.
    pub fn grow(&mut self) -> io::Result<()> {
        self.talk.write_all(&[MORE])?;
        self.expect(READY)
    }

    /// Has it end when this process has become QEMU, and put nothing back then. Until that it
    /// undoes what it is told to.
    ///
    /// # Errors
    /// Where another guest's keeper will put back a label that this guest needs.
    pub fn leave(&mut self) -> io::Result<()> {
        self.talk.write_all(&[LEAVE])?;
        self.expect(READY)
    }

    /// Has everything put back, and waits until it is.
    ///
    /// # Errors
    /// Where it is not all back; the entry stays.
    pub fn undo(mut self) -> io::Result<()> {
        self.talk.write_all(&[UNDO])?;
        self.expect(DONE)
    }

    fn expect(&self, wanted: u8) -> io::Result<()> {
        hear(&self.talk, &[wanted]).map(|_| ())
    }
}

fn verdict(said: u8) -> Verdict {
    match said {
        TAKEN => Verdict::Taken,
        UNPROVEN => Verdict::Unproven,
        _ => Verdict::Ours,
    }
}

/// Reads what a keeper says, which is one of these or an error.
fn hear(talk: &UnixStream, wanted: &[u8]) -> io::Result<u8> {
    let mut talk = io::BufReader::new(talk);
    let mut byte = [0_u8; 1];
    talk.read_exact(&mut byte)
        .map_err(|_| io::Error::other(ended_at_once()))?;
    let [said] = byte;
    if wanted.contains(&said) {
        return Ok(said);
    }
    let mut said = Vec::new();
    talk.read_until(END, &mut said)?;
    let said = said.strip_suffix(&[END]).unwrap_or(&said);
    Err(io::Error::other(String::from_utf8_lossy(said).into_owned()))
}

/// Says one thing to the other side, if it still listens.
pub(crate) fn say(talk: Option<BorrowedFd<'_>>, what: u8, detail: impl AsRef<[u8]>) {
    let Some(talk) = talk else { return };
    let mut text = vec![what];
    text.extend_from_slice(detail.as_ref());
    let _ = nix::sys::socket::send(
        std::os::fd::AsRawFd::as_raw_fd(&talk),
        &text,
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
