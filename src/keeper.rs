//! The keeper: a process of its own that waits for QEMU's end and puts labels back.
//!
//! It is started before the first label changes, so that it also rolls back a
//! launcher that was killed half way, and it is entered by execve, in a domain
//! of its own: what the launcher's memory may have become does not follow. The
//! launcher may take objects from a bare level only; taking them from a level
//! with somebody's pair, which undoing needs, is the keeper's alone.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Pid;

use crate::attach;
use crate::door::{Door, Verb};
use crate::ended;
use crate::escape::quoted;
use crate::host::{Host, RealHost};
use crate::journal::Journal;
use crate::kept::Kept;
use crate::label::Context;
use crate::private;
use crate::relay;
use crate::restore::{Hold, Wait};
use crate::running;
use crate::runtime;
use crate::selinux::{self, Mode};
use crate::sys;
use crate::unfinished;
use crate::waiting::{Asked, End, wait_for_cage, wait_for_end};

/// The name by which this program is called as a keeper.
pub const NAME: &str = "svirt-exec-keeper";

/// The keeper's domain: the launcher's type with this in the place of `_t`.
pub const DOMAIN: &str = "svirt_launcher_keeper_t";

/// Descriptors of the keeper: the launcher's end, and the way to talk to it.
const PIDFD: i32 = 3;
pub(crate) const TALK: i32 = 4;

/// What the keeper says: it is ready, it has put everything back, it has not.
const READY: u8 = b'R';
pub(crate) const DONE: u8 = b'D';
pub(crate) const FAILED: u8 = b'F';
/// What the launcher says, followed by a word: which context it claims; which entry is the keeper's.
const CLAIMED: u8 = b'C';
const ENTRY: u8 = b'E';
/// And without one: the entry has more records now; put everything back now; put nothing back once
/// QEMU runs.
pub(crate) const MORE: u8 = b'M';
pub(crate) const UNDO: u8 = b'U';
pub(crate) const LEAVE: u8 = b'L';
/// Ends what is said where more may be said later.
pub(crate) const END: u8 = 0;
/// Bytes of a word.
const LONGEST: u64 = 8192;

/// Why a keeper says nothing.
pub(crate) const ENDED_AT_ONCE: &str = "the keeper ended at once; svirt-exec must be labelled \
     svirt_launcher_exec_t and the svirt_launcher module loaded";

const PROGRAM: &CStr = c"/proc/self/exe";

/// A keeper that has no entry yet: it starts, and looks who is in the cage that was claimed, while the
/// launcher goes on. Dropped, it ends.
#[derive(Debug)]
pub struct Starting {
    talk: UnixStream,
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

/// Starts this program as a keeper, in the keeper's domain.
pub(crate) fn start(own: &Context, args: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
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

impl Starting {
    /// Starts one for what this process launches.
    ///
    /// # Errors
    /// Where no process can be started.
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
        Ok(Self { talk: ours })
    }

    /// Tells it which context this process claims now. What it finds wrong with that is said when it
    /// gets its entry.
    pub fn claimed(&self, context: &Context) {
        self.tell(CLAIMED, context.to_string().as_bytes());
    }

    /// Gives it its entry, and waits until it is ready.
    ///
    /// # Errors
    /// Where it could not be started, finds a file in use by another guest, or the guest somebody
    /// else's.
    pub fn hold(self, entry: &Path) -> io::Result<Keeper> {
        use std::os::unix::ffi::OsStrExt;
        self.tell(ENTRY, entry.as_os_str().as_bytes());
        expect(&self.talk, READY)?;
        Ok(Keeper {
            talk: self.talk,
            entry: entry.to_path_buf(),
        })
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
        expect(&self.talk, wanted)
    }
}

/// Reads what a keeper says.
fn expect(talk: &UnixStream, wanted: u8) -> io::Result<()> {
    let mut talk = io::BufReader::new(talk);
    let mut byte = [0_u8; 1];
    talk.read_exact(&mut byte)
        .map_err(|_| io::Error::other(ENDED_AT_ONCE))?;
    if byte == [wanted] {
        return Ok(());
    }
    let mut said = Vec::new();
    talk.read_until(END, &mut said)?;
    let said = said.strip_suffix(&[END]).unwrap_or(&said);
    Err(io::Error::other(String::from_utf8_lossy(said).into_owned()))
}

/// The keeper's own main.
pub fn run(args: &[Vec<u8>]) -> u8 {
    let Some((verb, rest)) = args.split_first() else {
        return 125;
    };
    match (verb.as_slice(), rest) {
        (b"restore", words) => ended::run(words),
        (b"detach", words) => attach::run(words),
        (b"share", words) => private::run(words),
        (b"relay", []) => relay::run(),
        (verb @ (b"keep" | b"attend"), []) => keep(verb == b"attend"),
        _ => 125,
    }
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

/// What a keeper was told before it was ready.
struct Told {
    entry: PathBuf,
    /// Of the context that the launcher claims: who else is in the cage, as [`join`] found.
    claim: Option<(Context, Result<Option<Pid>, String>)>,
}

/// Listens until there is an entry; none where the launcher has ended before that, when nothing was
/// labelled yet.
fn listen(talk: OwnedFd) -> Option<Told> {
    use std::os::unix::ffi::OsStrExt;
    // What comes after an entry is said when this process has answered.
    let mut talk = io::BufReader::new(UnixStream::from(talk));
    let mut claim = None;
    loop {
        let mut said = Vec::new();
        (&mut talk).take(LONGEST).read_until(END, &mut said).ok()?;
        let (what, word) = said.strip_suffix(&[END])?.split_first()?;
        match *what {
            CLAIMED if claim.is_none() => {
                let context: Context = std::str::from_utf8(word).ok()?.parse().ok()?;
                let others = join(&context);
                claim = Some((context, others));
            }
            ENTRY => {
                let entry = Path::new(OsStr::from_bytes(word)).to_path_buf();
                return Some(Told { entry, claim });
            }
            _ => return None,
        }
    }
}

/// Claims what the launcher claims, and from then on: who is not in the cage now comes into it knowing
/// of this claim. Returns who is.
fn join(context: &Context) -> Result<Option<Pid>, String> {
    let host = RealHost::new().map_err(|error| error.to_string())?;
    let launcher = behind_pidfd(&host).ok_or("the guest has ended")?;
    claims(&host, launcher, context)?;
    keep_claimed(&host, context)?;
    others(&host, launcher, context)
}

/// The pair stays claimed until the labels are back.
fn keep_claimed(host: &RealHost, context: &Context) -> Result<(), String> {
    host.claim(context)
        .map_err(|error| format!("cannot keep the claim of {context}: {error}"))
}

/// Keeps the labels of an entry: of a guest that this process's launcher becomes, or, where it
/// `attends`, of one that runs already.
fn keep(attends: bool) -> u8 {
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
    let Some(told) = talk
        .and_then(|talk| talk.try_clone_to_owned().ok())
        .and_then(listen)
    else {
        return 125;
    };
    let path = told.entry.as_path();
    let setup = || -> Result<(RealHost, Journal, Hold, Context, Option<runtime::Held>), String> {
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
        let of = behind_pidfd(&host).ok_or("the guest has ended")?;
        let shared = match told.claim {
            _ if attends => {
                running::verify(&host, of, entry.started, &context)?;
                None
            }
            Some((claimed, others)) if claimed == context => {
                claims(&host, of, &context)?;
                others?
            }
            _ => {
                return Err(format!(
                    "{} is for {context}, which the launcher did not claim: a bug of svirt-exec, or \
                     its launcher was taken over; nothing was labelled",
                    quoted(path)
                ));
            }
        };
        let mut hold = Hold::take(&host, entry)?;
        hold.all_there()?;
        if let Some(other) = shared {
            hold.share_cage(&host)
                .map_err(|why| format!("process {other} is in the cage of {context}, and {why}"))?;
        }
        let directory = hold
            .directory()
            .map(|directory| directory.make(&host, &context))
            .transpose()?;
        if attends {
            keep_claimed(&host, &context)?;
        }
        Ok((host, journal, hold, context, directory))
    };
    let (host, journal, mut hold, context, directory) = match setup() {
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
    let door = Door::open(path);
    let mut kept = Kept::lock(path);
    say(talk, READY, "");
    sys::let_go_of_code();

    let mut hear = |asked: Asked| {
        let done = match asked {
            Asked::ByCaller(call) => {
                match call.verb {
                    Verb::Release => {
                        attach::release(&host, &context, &mut hold, (&journal, path), &call);
                    }
                    Verb::Share => private::open_up(&mut hold, (&journal, path), &call),
                }
                kept.renew();
                return false;
            }
            Asked::ToLeave => hold.stands_alone(),
            Asked::ForMore => Journal::read(path)
                .map_err(|error| error.to_string())
                .and_then(|entry| {
                    kept.renew();
                    hold.grow(&host, entry)
                }),
        };
        match &done {
            Ok(()) => say(talk, READY, ""),
            Err(why) => say(talk, FAILED, format!("{why}\0")),
        }
        done.is_ok()
    };
    let undo = match wait_for_end(pidfd, talk, door.as_ref(), &mut hear) {
        End::Asked => true,
        End::Ended => false,
        // The entry goes last: what is killed before that is put back by the next command.
        End::Left => return u8::from(journal.remove(path).is_err()),
    };
    if !undo {
        wait_for_cage(&host, &context, door.as_ref(), &mut hear);
    }
    drop(door);
    let removed = directory.map_or(Ok(()), runtime::Held::remove);
    if removed.is_ok() {
        hold.directory_is_gone();
    }
    let mut failures = hold.put_back(&host, Wait::Never);
    failures.extend(removed.err());
    failures.extend(hold.settle(&journal, path).err());
    kept.renew();
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
    drop(kept);
    // What a keeper that was ended left to whoever is last.
    let _ = ended::put_back(&host, &[], &ended::Scope::default(), &mut |_, _| ());
    if !failures.is_empty() {
        unfinished::tell(path);
    }
    u8::from(!failures.is_empty())
}

/// The process that the pidfd stands for; fdinfo in proc(5).
fn behind_pidfd(host: &RealHost) -> Option<Pid> {
    let info = host.read_proc(&format!("self/fdinfo/{PIDFD}")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

/// Checks that the launcher behind the pidfd claims this context.
fn claims(host: &RealHost, launcher: Pid, context: &Context) -> Result<(), String> {
    let labels = host.labels_of(launcher);
    if labels.is_some_and(|labels| labels.pending.as_ref() == Some(context)) {
        return Ok(());
    }
    Err(format!("process {launcher} does not claim {context}"))
}

/// Who but the launcher is in its cage (`--share-level`): a keeper must not be talked into taking a
/// running guest's files.
fn others(host: &RealHost, launcher: Pid, context: &Context) -> Result<Option<Pid>, String> {
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
        say(talk, FAILED, failures.join("; "));
    }
    if let Some(talk) = talk {
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&talk),
            nix::sys::socket::Shutdown::Both,
        );
    }
}
