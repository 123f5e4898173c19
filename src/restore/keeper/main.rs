//! What the keeper itself does: it receives its entry, takes the files over, serves requests while the
//! guest runs, and puts the labels back. How it is started and spoken to: `client`.
//!
//! When QEMU ends, [`wait_for_end`] returns in [`Keeping::keep`]. Helpers, and a QEMU that has become a
//! daemon, are waited for too ([`wait_for_context`]). Then [`Keeping::restore`] puts the labels back.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::host::RealHost;
use crate::host::runtime_dir;
use crate::model::label::{Context, LabelError};
use crate::restore::command;
use crate::restore::entry::JournalEntry;
use crate::restore::entry_lock::EntryLock;
use crate::restore::error::HoldError;
use crate::restore::file_lock::Wait;
use crate::restore::hold::Hold;
use crate::restore::journal::Journal;
use crate::restore::journals;
use crate::restore::keeper::claim::{Claim, ClaimError, check_claim, claim, join};
use crate::restore::keeper::client::{PIDFD, TALK, send};
use crate::restore::keeper::control::{Address, ControlSocket, Verb};
use crate::restore::keeper::protocol::{FromKeeper, FromLauncher};
use crate::restore::keeper::relay;
use crate::restore::keeper::wait::{Asked, End, wait_for_context, wait_for_end};
use crate::restore::notify;
use crate::restore::release;
use crate::restore::running_guest;
use crate::restore::share;
use crate::selinux;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::REFUSED;

/// Runs what a process of the keeper's domain is started for: the first word says what. Returns its exit
/// status.
pub fn run(args: &[Vec<u8>]) -> u8 {
    let Some((verb, rest)) = args.split_first() else {
        return REFUSED;
    };
    match (verb.as_slice(), rest) {
        (b"restore", words) => command::run(words),
        (b"detach", words) => release::run(words),
        (b"share", words) => share::run(words),
        (b"relay", []) => relay::run(),
        (b"keep", []) => take_over(Guest::OfLauncher),
        (b"attend", []) => take_over(Guest::Running),
        _ => REFUSED,
    }
}

/// Whose labels a keeper keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// Of the QEMU that this process's launcher becomes.
    OfLauncher,
    /// Of a guest that runs already (`attach`).
    Running,
}

/// What a keeper was told before it was ready.
struct Told {
    /// The journal entry. None if only the outcome of the look is wanted.
    entry: Option<PathBuf>,
    claim: Option<Claim>,
}

/// Why a keeper gives its entry up before anything is labelled.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    /// Files that cannot be held.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// Files of a level that others have, too.
    #[error("process {other} has overlapping MCS categories with {context}, and {why}")]
    Shared {
        other: Pid,
        context: Box<Context>,
        why: HoldError,
    },
    /// The claim cannot be kept.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The guest is none, or somebody else's.
    #[error(transparent)]
    Guest(#[from] running_guest::GuestError),
    /// The path is no entry of this user's journal.
    #[error("{} is no journal entry", quoted(.0))]
    NoEntry(PathBuf),
    /// The entry holds no context.
    #[error("{}: {source}", quoted(path))]
    NoContext { path: PathBuf, source: LabelError },
    /// The entry is for another context than was claimed.
    #[error(
        "{} is for {context}, which the launcher did not claim: a bug of svirt-exec, or its launcher was \
         taken over; nothing was labelled",
        quoted(path)
    )]
    OtherContext {
        path: PathBuf,
        context: Box<Context>,
    },
}

/// Listens until there is an entry. None if the launcher has ended before that, when nothing was
/// labelled yet.
fn listen(host: &RealHost, talk: OwnedFd) -> Option<Told> {
    // What comes after an entry is said when this process has answered.
    let mut talk = io::BufReader::new(UnixStream::from(talk));
    let mut claim = None;
    loop {
        let (context, unverified) = match FromLauncher::read(&mut talk)? {
            FromLauncher::Claimed(context) if claim.is_none() => (context, false),
            FromLauncher::ClaimedUnverified(context) if claim.is_none() => (context, true),
            FromLauncher::Entry(path) => {
                return Some(Told {
                    entry: Some(path),
                    claim,
                });
            }
            FromLauncher::NoEntry => return Some(Told { entry: None, claim }),
            _ => return None,
        };
        claim = Some(Claim {
            others: join(host, &context),
            context,
            unverified,
        });
    }
}

/// Keeps the labels of an entry. Returns this process's exit status.
fn take_over(guest: Guest) -> u8 {
    let talk = sys::inherited(TALK);
    let Some(pidfd) = sys::inherited(PIDFD) else {
        return REFUSED;
    };
    let _ = nix::sys::prctl::set_name(c"svirt-keeper");
    // A service manager ends everything in the guest's control group at once; labels go back first.
    // Nothing here lasts longer than the guest.
    sys::ignore_termination();
    sys::raise_descriptor_limit();
    let say = |message: FromKeeper| send(talk, &message.encode());
    let host = match RealHost::new() {
        Ok(host) => host,
        Err(error) => {
            say(FromKeeper::Failed(error.to_string()));
            return REFUSED;
        }
    };
    let told = talk
        .and_then(|talk| talk.try_clone_to_owned().ok())
        .and_then(|talk| listen(&host, talk));
    let Some(Told { entry, claim }) = told else {
        return REFUSED;
    };
    let verdict = claim.as_ref().map_or(FromKeeper::Ready, Claim::verdict);
    let Some(path) = entry else {
        say(match claim.map(|claim| claim.others) {
            Some(Err(why)) => FromKeeper::Failed(why.to_string()),
            _ => verdict,
        });
        return 0;
    };
    if verdict == FromKeeper::Taken {
        give_up(talk, &path, None);
        return REFUSED;
    }
    match Keeping::begin(&host, talk, path.clone(), guest, claim) {
        Ok(keeping) => {
            // Who is told that it is ready may call at once.
            let socket = ControlSocket::open(&keeping.address());
            say(verdict);
            sys::drop_code_pages();
            keeping.keep(pidfd, socket)
        }
        Err(why) => {
            give_up(talk, &path, Some(&why));
            REFUSED
        }
    }
}

/// Takes the files of an entry over. `overlapping` is a process with overlapping categories, if there is
/// one: the files may be its guest's too then.
fn take_files(
    host: &RealHost,
    entry: JournalEntry,
    context: &Context,
    overlapping: Option<Pid>,
) -> Result<Hold, SetupError> {
    let mut hold = Hold::take(host, entry)?;
    hold.check_names_unchanged()?;
    if let Some(other) = overlapping {
        hold.share_categories(host)
            .map_err(|why| SetupError::Shared {
                other,
                context: Box::new(context.clone()),
                why,
            })?;
    }
    Ok(hold)
}

/// Removes the entry, of which nothing is labelled yet, and says why: the pair is somebody's, or what is
/// wrong.
fn give_up(talk: Option<BorrowedFd<'_>>, path: &Path, why: Option<&SetupError>) {
    if let Some(journal) = journals::of_entry(path) {
        let _ = journal.remove(path);
    }
    match why {
        None => send(talk, &FromKeeper::Taken.encode()),
        Some(SetupError::Hold(error)) => say_failed(talk, error),
        Some(error @ SetupError::Claim(ClaimError::Claim(..))) => {
            say_messages(talk, [error.to_string()]);
        }
        Some(error) => send(talk, &FromKeeper::Failed(error.to_string()).encode()),
    }
}

/// Says why files are not held.
fn say_failed(talk: Option<BorrowedFd<'_>>, error: &HoldError) {
    match error {
        HoldError::Files(files) => say_messages(talk, files.iter().map(ToString::to_string)),
        HoldError::Journal(_) | HoldError::Directory(_) => say_messages(talk, [error.to_string()]),
        other => send(talk, &FromKeeper::Failed(other.to_string()).encode()),
    }
}

/// Says what cannot be done, in messages that need no other words before them.
fn say_messages(talk: Option<BorrowedFd<'_>>, messages: impl IntoIterator<Item = String>) {
    for message in messages {
        send(talk, &FromKeeper::Line(message).encode());
    }
    send(talk, &FromKeeper::Failed(String::new()).encode());
}

/// A keeper at work.
struct Keeping<'a> {
    host: &'a RealHost,
    /// The launcher, as long as it listens.
    talk: Option<BorrowedFd<'static>>,
    journal: Journal,
    /// Its entry.
    path: PathBuf,
    /// The guest's.
    context: Context,
    hold: Hold,
    directory: Option<runtime_dir::HeldDirectory>,
    lock: EntryLock,
}

impl<'a> Keeping<'a> {
    /// Takes the files of an entry over, for a guest whose claim was looked at.
    fn begin(
        host: &'a RealHost,
        talk: Option<BorrowedFd<'static>>,
        path: PathBuf,
        guest: Guest,
        claimed: Option<Claim>,
    ) -> Result<Self, SetupError> {
        let Some(journal) = journals::of_entry(&path) else {
            return Err(SetupError::NoEntry(path));
        };
        let entry = journal.read(&path).map_err(HoldError::from)?;
        let context: Context = match entry.context.parse() {
            Ok(context) => context,
            Err(source) => return Err(SetupError::NoContext { path, source }),
        };
        let process = host.procfs().process_behind(PIDFD);
        let process = process.ok_or(ClaimError::Ended)?;
        let overlapping = match (guest, claimed) {
            (Guest::Running, _) => {
                running_guest::verify(host, process, entry.started, &context)?;
                None
            }
            (Guest::OfLauncher, Some(claim)) if claim.context == context => {
                check_claim(host, process, &context)?;
                claim.others?.overlapping
            }
            (Guest::OfLauncher, _) => {
                let context = Box::new(context);
                return Err(SetupError::OtherContext { path, context });
            }
        };
        let hold = take_files(host, entry, &context, overlapping)?;
        let directory = hold
            .directory()
            .map(|directory| directory.make(host, &context))
            .transpose()
            .map_err(HoldError::from)?;
        if guest == Guest::Running {
            claim(host, &context)?;
        }
        let lock = EntryLock::take(&journal, &path);
        Ok(Self {
            host,
            talk,
            journal,
            path,
            context,
            hold,
            directory,
            lock,
        })
    }

    /// Returns where it is to be reached.
    fn address(&self) -> Address {
        Address::new(&self.path, self.hold.entry())
    }

    /// Serves until the guest has ended, and puts the labels back. Returns the exit status.
    fn keep(mut self, pidfd: BorrowedFd<'_>, socket: Option<ControlSocket>) -> u8 {
        let talk = self.talk;
        let end = wait_for_end(pidfd, talk, socket.as_ref(), &mut |asked| self.serve(asked));
        let undo = match end {
            End::Asked => true,
            End::Ended => false,
            // The entry goes last: what is killed before that is put back by the next command.
            End::Left => return u8::from(self.journal.remove(&self.path).is_err()),
        };
        if !undo {
            let (host, context) = (self.host, self.context.clone());
            wait_for_context(host, &context, socket.as_ref(), &mut |asked| {
                self.serve(asked)
            });
        }
        drop(socket);
        self.restore(undo)
    }

    /// Does what is asked for while the guest runs. Returns whether it was done.
    fn serve(&mut self, asked: Asked) -> bool {
        let done = match asked {
            Asked::AtSocket(request) => {
                let entry = (&self.journal, self.path.as_path());
                match request.verb {
                    Verb::Release => {
                        let hold = &mut self.hold;
                        release::release_held(self.host, &self.context, hold, entry, &request);
                    }
                    Verb::Share => share::share_held(&mut self.hold, entry, &request),
                }
                self.lock.renew(&self.journal);
                return false;
            }
            Asked::ToLeave => self.hold.check_no_other_holder(self.host),
            Asked::ForMore => self
                .journal
                .read(&self.path)
                .map_err(HoldError::from)
                .and_then(|entry| {
                    self.lock.renew(&self.journal);
                    self.hold.grow(self.host, entry)
                }),
        };
        match &done {
            Ok(()) => send(self.talk, &FromKeeper::Ready.encode()),
            Err(why) => say_failed(self.talk, why),
        }
        done.is_ok()
    }

    /// Puts the labels back, says how it went if the launcher asked for that, and cleans up. Returns the
    /// exit status.
    fn restore(mut self, undo: bool) -> u8 {
        let removed = self
            .directory
            .take()
            .map_or(Ok(()), runtime_dir::HeldDirectory::remove);
        if removed.is_ok() {
            self.hold.directory_is_gone();
        }
        let mut failures = self.hold.put_back(self.host, Wait::Never);
        failures.extend(removed.err().map(|error| error.to_string()));
        failures.extend(self.write_back());
        self.lock.renew(&self.journal);
        if undo {
            report(self.talk, &failures);
        }
        // The pair is free again: what is left carries none.
        let _ = selinux::clear_exec_context();
        if failures.is_empty() && !self.hold.is_done() {
            // The rest is in the journal, and may wait for as long as other guests run: from here on a
            // service manager may end this process.
            sys::heed_termination();
            failures = self.hold.put_back(self.host, Wait::ForOthers);
            failures.extend(self.write_back());
        }
        drop(self.lock);
        // What a keeper that was ended left to whoever is last.
        let scope = command::Scope::default();
        let _ = command::put_back(self.host, &[], &scope, &mut |_| ());
        if !failures.is_empty() {
            notify::leave(&self.path);
        }
        u8::from(!failures.is_empty())
    }

    fn write_back(&mut self) -> Option<String> {
        let written = self.hold.write_back(&self.journal, &self.path);
        written.err().map(|error| error.to_string())
    }
}

/// Tells the launcher how putting back went, and nothing more.
fn report(talk: Option<BorrowedFd<'static>>, failures: &[String]) {
    send(
        talk,
        &if failures.is_empty() {
            FromKeeper::Done
        } else {
            FromKeeper::Failed(failures.join("; "))
        }
        .encode(),
    );
    if let Some(talk) = talk {
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&talk),
            nix::sys::socket::Shutdown::Both,
        );
    }
}
