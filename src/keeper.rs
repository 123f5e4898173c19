//! The keeper: a process of its own that waits for QEMU's end and puts labels back.
//!
//! It is started before the first label changes, so that it also rolls back a
//! launcher that was killed half way, and it is entered by execve, in a domain
//! of its own: what the launcher's memory may have become does not follow. The
//! launcher may take objects from a bare level only; taking them from a level
//! with somebody's pair, which undoing needs, is the keeper's alone.

use std::ffi::{CStr, CString};
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::ended;
use crate::escape::quoted;
use crate::host::{Host, RealHost};
use crate::journal::Journal;
use crate::label::Context;
use crate::relay;
use crate::restore::{Hold, Wait};
use crate::selinux::{self, Mode};
use crate::sys;

/// The name by which this program is called as a keeper.
pub const NAME: &str = "svirt-exec-keeper";

/// The keeper's domain: the launcher's type with this in the place of `_t`.
pub const DOMAIN: &str = "svirt_launcher_keeper_t";

/// Descriptors of the keeper: the launcher's end, and the way to talk to it.
const PIDFD: i32 = 3;
const TALK: i32 = 4;

/// What the keeper says: it is ready, it has put everything back, it has not.
const READY: u8 = b'R';
const DONE: u8 = b'D';
const FAILED: u8 = b'F';
/// What the launcher says: the processes in between have ended; the entry has more records now;
/// put everything back now; put nothing back once QEMU runs.
const GO: u8 = b'G';
const MORE: u8 = b'M';
const UNDO: u8 = b'U';
const LEAVE: u8 = b'L';
/// Ends what is said where more may be said later.
const END: u8 = 0;

/// How long to wait where the kernel offers nothing to wait for.
const RETRY: Duration = Duration::from_secs(1);

const PROGRAM: &CStr = c"/proc/self/exe";

/// The launcher's end of a running keeper.
#[derive(Debug)]
pub struct Keeper {
    talk: UnixStream,
    /// Its entry in the journal.
    pub entry: PathBuf,
}

fn null() -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(
        "/dev/null",
        OFlag::O_RDWR | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?)
}

/// Starts this program as a keeper, in the keeper's domain.
fn start(own: &Context, args: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut words = vec![CString::new(NAME)?];
    for arg in args {
        words.push(CString::new(*arg)?);
    }
    let domain = own.with_type(DOMAIN);
    sys::start_detached(PROGRAM, &words, fds, &|| {
        nix::unistd::chdir("/")?;
        // Nothing is labelled where SELinux is off, but a relay may be needed.
        if selinux::mode() == Mode::Disabled {
            return Ok(());
        }
        selinux::set_exec_context(&domain)
    })
}

/// Copies one pipe to another in a process of its own; see `fds`.
///
/// # Errors
/// Where no process can be started.
pub fn start_relay(own: &Context, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    start(own, &[b"relay"], &[from, to])
}

impl Keeper {
    /// Starts a keeper for an entry and waits until it is ready.
    ///
    /// # Errors
    /// Where it cannot be started, or finds a file in use by another guest.
    pub fn start(own: &Context, entry: &Path) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        let (ours, theirs) = UnixStream::pair()?;
        let null = null()?;
        let pidfd = sys::pidfd(Pid::this())?;
        start(
            own,
            &[b"keep", entry.as_os_str().as_bytes()],
            &[
                null.as_fd(),
                null.as_fd(),
                null.as_fd(),
                pidfd.as_fd(),
                theirs.as_fd(),
            ],
        )?;
        drop(theirs);
        let mut keeper = Self {
            talk: ours,
            entry: entry.to_path_buf(),
        };
        // The child in between carried the claim too, and is reaped by now.
        let _ = keeper.talk.write_all(&[GO]);
        keeper.expect(READY)?;
        Ok(keeper)
    }

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
        expect(&self.talk, wanted)
    }
}

/// Reads what a keeper says.
fn expect(talk: &UnixStream, wanted: u8) -> io::Result<()> {
    let mut talk = io::BufReader::new(talk);
    let mut byte = [0_u8; 1];
    talk.read_exact(&mut byte).map_err(|_| {
        io::Error::other(
            "the keeper ended at once; svirt-exec must be labelled svirt_launcher_exec_t and the \
             svirt_launcher module loaded",
        )
    })?;
    if byte == [wanted] {
        return Ok(());
    }
    let mut said = Vec::new();
    talk.read_until(END, &mut said)?;
    let said = said.strip_suffix(&[END]).unwrap_or(&said);
    Err(io::Error::other(String::from_utf8_lossy(said).into_owned()))
}

/// Puts back what guests that have ended left, in a keeper, and waits for it.
///
/// # Errors
/// What could not be put back, one reason a line.
pub fn restore_ended(own: &Context) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let null = null()?;
    start(
        own,
        &[b"restore"],
        &[
            null.as_fd(),
            null.as_fd(),
            null.as_fd(),
            null.as_fd(),
            theirs.as_fd(),
        ],
    )?;
    drop(theirs);
    expect(&ours, DONE)
}

/// The keeper's own main.
pub fn run(args: &[Vec<u8>]) -> u8 {
    let mut words = args.iter().map(Vec::as_slice);
    match (words.next(), words.next()) {
        (Some(b"relay"), None) => relay::run(),
        (Some(b"keep"), Some(path)) => {
            use std::os::unix::ffi::OsStrExt;
            keep(Path::new(std::ffi::OsStr::from_bytes(path)))
        }
        (Some(b"restore"), None) => restore(),
        _ => 125,
    }
}

/// Says one thing to the launcher, if it still listens.
fn say(talk: Option<BorrowedFd<'static>>, what: u8, detail: &str) {
    let Some(talk) = talk else { return };
    let mut text = vec![what];
    text.extend_from_slice(detail.as_bytes());
    let _ = nix::sys::socket::send(
        std::os::fd::AsRawFd::as_raw_fd(&talk),
        &text,
        nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
    );
}

fn keep(path: &Path) -> u8 {
    let talk = sys::inherited(TALK);
    let fail = |why: String| {
        say(talk, FAILED, &why);
        125
    };
    let Some(pidfd) = sys::inherited(PIDFD) else {
        return 125;
    };
    let _ = nix::sys::prctl::set_name(c"svirt-keeper");
    // A service manager ends everything in the guest's control group at once; labels
    // go back first. Nothing here lasts longer than the guest.
    sys::ignore_termination();
    sys::raise_descriptor_limit();
    let mut go = [0_u8; 1];
    let told = talk.is_some_and(|talk| nix::unistd::read(talk, &mut go) == Ok(1) && go == [GO]);
    if !told {
        // The launcher was killed; nothing was labelled yet.
        if let Ok(journal) = Journal::open()
            && journal.holds(path)
        {
            let _ = journal.remove(path);
        }
        return 125;
    }
    let setup = || -> Result<(RealHost, Journal, Hold, Context), String> {
        let host = RealHost::new().map_err(|error| error.to_string())?;
        let journal = Journal::open().map_err(|error| error.to_string())?;
        if !journal.holds(path) {
            return Err(format!("{} is no journal entry", quoted(path)));
        }
        let entry = Journal::read(path).map_err(|error| error.to_string())?;
        let context: Context = entry
            .context
            .parse()
            .map_err(|error| format!("{}: {error}", quoted(path)))?;
        let shared = whose(&host, &context)?;
        let mut hold = Hold::take(&host, entry)?;
        hold.all_there()?;
        if let Some(other) = shared {
            hold.share_cage(&host)
                .map_err(|why| format!("process {other} is in the cage of {context}, and {why}"))?;
        }
        // The pair stays claimed until the labels are back.
        host.claim(&context)
            .map_err(|error| format!("cannot keep the claim of {context}: {error}"))?;
        Ok((host, journal, hold, context))
    };
    let (host, journal, mut hold, context) = match setup() {
        Ok(all) => all,
        Err(why) => {
            if let Ok(journal) = Journal::open()
                && journal.holds(path)
            {
                // Nothing was labelled yet.
                let _ = journal.remove(path);
            }
            return fail(why);
        }
    };
    say(talk, READY, "");

    let end = wait_for_end(pidfd, talk, |word| {
        let done = if word == LEAVE {
            hold.stands_alone()
        } else {
            Journal::read(path)
                .map_err(|error| error.to_string())
                .and_then(|entry| hold.grow(&host, entry))
        };
        match &done {
            Ok(()) => say(talk, READY, ""),
            Err(why) => say(talk, FAILED, &format!("{why}\0")),
        }
        done.is_ok()
    });
    let undo = match end {
        End::Asked => true,
        End::Ended => false,
        // The entry goes last: what is killed before that is put back by the next command.
        End::Left => return u8::from(journal.remove(path).is_err()),
    };
    if !undo {
        wait_for_cage(&host, &context);
    }
    let mut failures = hold.put_back(&host, Wait::Never);
    failures.extend(hold.settle(&journal, path).err());
    if undo {
        report(talk, &failures);
    }
    // The pair is free again: what is left carries none.
    let _ = selinux::clear_exec_context();
    if failures.is_empty() && !hold.is_done() {
        // The rest is in the journal, and may wait for as long as other guests run:
        // from here on a service manager may end this process.
        sys::heed_termination();
        failures = hold.put_back(&host, Wait::ForOthers);
        failures.extend(hold.settle(&journal, path).err());
    }
    // What a keeper that was ended left to whoever is last.
    let _ = ended::put_back(&host, &journal);
    u8::from(!failures.is_empty())
}

/// Checks that the launcher behind the pidfd claims this context. Returns who else is in its cage
/// (`--share-level`): a keeper must not be talked into taking a running guest's files.
fn whose(host: &RealHost, context: &Context) -> Result<Option<Pid>, String> {
    let launcher = host
        .read_proc(&format!("self/fdinfo/{PIDFD}"))
        .ok()
        .and_then(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
            line.trim().parse().ok().map(Pid::from_raw)
        })
        .ok_or("the launcher has ended")?;
    let claims = host
        .labels_of(launcher)
        .is_some_and(|labels| labels.pending.as_ref() == Some(context));
    if !claims {
        return Err(format!("process {launcher} does not claim {context}"));
    }
    let processes = host.processes().map_err(|error| error.to_string())?;
    let other = processes.iter().find(|process| {
        process.pid != launcher
            && [&process.pending, &process.current]
                .into_iter()
                .flatten()
                .any(|label| label.cage().overlaps(&context.cage()))
    });
    Ok(other.map(|other| other.pid))
}

/// Tells the launcher how it went.
fn report(talk: Option<BorrowedFd<'static>>, failures: &[String]) {
    if failures.is_empty() {
        say(talk, DONE, "");
    } else {
        say(talk, FAILED, &failures.join("; "));
    }
    if let Some(talk) = talk {
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&talk),
            nix::sys::socket::Shutdown::Both,
        );
    }
}

/// What a keeper waits for.
enum End {
    /// The launcher asked for everything to be put back.
    Asked,
    /// The launcher, or the QEMU that it became, has ended.
    Ended,
    /// QEMU runs, and nothing shall be put back.
    Left,
}

/// Waits for the end of the process behind a pidfd, or for the launcher's word; `hear` is called
/// for the words that ask for something in between, and says whether that is done.
fn wait_for_end(
    pidfd: BorrowedFd<'static>,
    talk: Option<BorrowedFd<'static>>,
    mut hear: impl FnMut(u8) -> bool,
) -> End {
    let mut talk = talk;
    let mut leaving = false;
    loop {
        let mut ends = vec![PollFd::new(pidfd, PollFlags::POLLIN)];
        ends.extend(talk.map(|talk| PollFd::new(talk, PollFlags::POLLIN)));
        match poll(&mut ends, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return End::Ended,
            Ok(_) => {}
        }
        let ready = |index: usize| {
            ends.get(index)
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty())
        };
        if ready(1)
            && let Some(from) = talk
        {
            let mut byte = [0_u8; 1];
            match nix::unistd::read(from, &mut byte) {
                Ok(1) if byte == [UNDO] => return End::Asked,
                Ok(1) if byte == [MORE] => {
                    hear(MORE);
                }
                Ok(1) if byte == [LEAVE] => leaving = hear(LEAVE),
                // Closed: the launcher has become QEMU, or is gone.
                _ if leaving => return End::Left,
                _ => talk = None,
            }
        } else if ready(0) {
            return End::Ended;
        }
    }
}

/// Waits until no process is in the guest's cage any more (`-daemonize`, helpers).
fn wait_for_cage(host: &RealHost, context: &Context) {
    loop {
        let Ok(processes) = host.processes() else {
            // Not to know is not to be the last: labels stay for as long as that lasts.
            std::thread::sleep(RETRY);
            continue;
        };
        let mut caged = processes
            .iter()
            .filter(|process| process.current.as_ref() == Some(context))
            .peekable();
        if caged.peek().is_none() {
            return;
        }
        for process in caged {
            match sys::pidfd(process.pid) {
                Ok(end) => {
                    // Still the process that was looked at, not a later one of its number.
                    let now = host
                        .labels_of(process.pid)
                        .and_then(|labels| labels.current);
                    if now.as_ref() == Some(context) {
                        let mut ends = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
                        while poll(&mut ends, PollTimeout::NONE) == Err(Errno::EINTR) {}
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }
}

fn restore() -> u8 {
    let talk = sys::inherited(TALK);
    sys::ignore_termination();
    sys::raise_descriptor_limit();
    let outcome = || -> Result<Vec<String>, String> {
        let host = RealHost::new().map_err(|error| error.to_string())?;
        let journal = Journal::open().map_err(|error| error.to_string())?;
        ended::put_back(&host, &journal).map_err(|error| error.to_string())
    };
    let left = outcome().unwrap_or_else(|why| vec![why]);
    report(talk, &left);
    u8::from(!left.is_empty())
}
