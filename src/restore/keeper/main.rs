//! What the keeper itself does. How it is started and spoken to: `keeper`.

use std::ffi::OsStr;
use std::io::{self, BufRead, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::host::runtime_dir;
use crate::host::{Processes, RealHost};
use crate::launch::attach;
use crate::model::label::Context;
use crate::restore::command;
use crate::restore::entry_lock::Kept;
use crate::restore::hold::{Hold, Wait};
use crate::restore::journal::Journal;
use crate::restore::keeper::client::{
    ASKED, CLAIMED, DONE, END, ENTRY, FAILED, LONGEST, PIDFD, READY, TAKEN, TALK, UNPROVEN, say,
};
use crate::restore::keeper::control::{Door, Verb};
use crate::restore::keeper::relay;
use crate::restore::keeper::wait::{Asked, End, wait_for_cage, wait_for_end};
use crate::restore::notify;
use crate::restore::running_guest;
use crate::restore::share;
use crate::seclabel::mcs;
use crate::selinux;
use crate::sys;
use crate::text::escape::quoted;

/// The keeper's own main.
pub fn run(args: &[Vec<u8>]) -> u8 {
    let Some((verb, rest)) = args.split_first() else {
        return 125;
    };
    match (verb.as_slice(), rest) {
        (b"restore", words) => command::run(words),
        (b"detach", words) => attach::run(words),
        (b"share", words) => share::run(words),
        (b"relay", []) => relay::run(),
        (verb @ (b"keep" | b"attend"), []) => keep(verb == b"attend"),
        _ => 125,
    }
}

/// What a keeper was told before it was ready.
struct Told {
    entry: PathBuf,
    claim: Option<Claimed>,
}

/// A context that the launcher claims.
struct Claimed {
    context: Context,
    /// Whether the launcher leaves it to this process to find that nobody else has its pair.
    asked: bool,
    /// As [`join`] found.
    around: Result<Around, String>,
}

/// Who is there besides the launcher.
struct Around {
    /// Somebody in an overlapping cage.
    other: Option<Pid>,
    /// Whether there are processes that do not show their labels.
    hidden: bool,
}

impl Claimed {
    /// What is said of a context that was asked for; of another one the launcher knows itself.
    fn found(&self) -> u8 {
        match &self.around {
            Ok(Around { other: Some(_), .. }) if self.asked => TAKEN,
            Ok(Around { hidden: true, .. }) if self.asked => UNPROVEN,
            _ => READY,
        }
    }
}

/// Listens until there is an entry; none where the launcher has ended before that, when nothing was
/// labelled yet.
fn listen(host: &RealHost, talk: OwnedFd) -> Option<Told> {
    // What comes after an entry is said when this process has answered.
    let mut talk = io::BufReader::new(UnixStream::from(talk));
    let mut claim = None;
    loop {
        let mut said = Vec::new();
        (&mut talk).take(LONGEST).read_until(END, &mut said).ok()?;
        let (what, word) = said.strip_suffix(&[END])?.split_first()?;
        match *what {
            CLAIMED | ASKED if claim.is_none() => {
                let context: Context = std::str::from_utf8(word).ok()?.parse().ok()?;
                let around = join(host, &context);
                claim = Some(Claimed {
                    context,
                    asked: *what == ASKED,
                    around,
                });
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
fn join(host: &RealHost, context: &Context) -> Result<Around, String> {
    let launcher = behind_pidfd(host).ok_or("the guest has ended")?;
    claims(host, launcher, context)?;
    keep_claimed(host, context)?;
    others(host, launcher, context)
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
    let Some(pidfd) = sys::inherited(PIDFD) else {
        return 125;
    };
    let _ = nix::sys::prctl::set_name(c"svirt-keeper");
    // A service manager ends everything in the guest's control group at once; labels
    // go back first. Nothing here lasts longer than the guest.
    sys::ignore_termination();
    sys::raise_descriptor_limit();
    let host = match RealHost::new() {
        Ok(host) => host,
        Err(error) => {
            say(talk, FAILED, error.to_string());
            return 125;
        }
    };
    let Some(told) = talk
        .and_then(|talk| talk.try_clone_to_owned().ok())
        .and_then(|talk| listen(&host, talk))
    else {
        return 125;
    };
    let path = told.entry.as_path();
    let claim = told.claim;
    let found = claim.as_ref().map_or(READY, Claimed::found);
    if path.as_os_str().is_empty() {
        match claim.map(|claim| claim.around) {
            Some(Err(why)) => say(talk, FAILED, why),
            _ => say(talk, found, ""),
        }
        return 0;
    }
    // Nothing is labelled yet.
    let give_up = |what: u8, why: String| {
        if let Ok(journal) = Journal::open()
            && journal.holds(path)
        {
            let _ = journal.remove(path);
        }
        say(talk, what, why);
        125
    };
    if found == TAKEN {
        return give_up(TAKEN, String::new());
    }
    let setup = || -> Result<(Journal, Hold, Context, Option<runtime_dir::Held>), String> {
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
        let shared = match claim {
            _ if attends => {
                running_guest::verify(&host, of, entry.started, &context)?;
                None
            }
            Some(claim) if claim.context == context => {
                claims(&host, of, &context)?;
                claim.around?.other
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
        Ok((journal, hold, context, directory))
    };
    let (journal, mut hold, context, directory) = match setup() {
        Ok(all) => all,
        Err(why) => return give_up(FAILED, why),
    };
    let door = Door::open(path);
    let mut kept = Kept::lock(path);
    say(talk, found, "");
    sys::drop_code_pages();

    let mut hear = |asked: Asked| {
        let done = match asked {
            Asked::ByCaller(call) => {
                match call.verb {
                    Verb::Release => {
                        attach::release(&host, &context, &mut hold, (&journal, path), &call);
                    }
                    Verb::Share => share::open_up(&mut hold, (&journal, path), &call),
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
    let removed = directory.map_or(Ok(()), runtime_dir::Held::remove);
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
    let _ = command::put_back(&host, &[], &command::Scope::default(), &mut |_, _| ());
    if !failures.is_empty() {
        notify::tell(path);
    }
    u8::from(!failures.is_empty())
}

/// The process that the pidfd stands for; fdinfo in proc(5).
fn behind_pidfd(host: &RealHost) -> Option<Pid> {
    let info = host.procfs().read(&format!("self/fdinfo/{PIDFD}")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

/// Checks that the launcher behind the pidfd claims this context.
fn claims(host: &RealHost, launcher: Pid, context: &Context) -> Result<(), String> {
    let labels = host.procfs().labels_of(launcher);
    if labels.is_some_and(|labels| labels.pending.as_ref() == Some(context)) {
        return Ok(());
    }
    Err(format!("process {launcher} does not claim {context}"))
}

/// Who but the launcher is in its cage. A launcher that has looked itself may mean to share it
/// (`--share-level`), and still must not talk a keeper into taking a running guest's files.
fn others(host: &RealHost, launcher: Pid, context: &Context) -> Result<Around, String> {
    let processes = host
        .procfs()
        .processes_besides(Some(launcher))
        .map_err(|error| error.to_string())?;
    Ok(Around {
        other: mcs::holder(&context.cage(), &processes).map(|(pid, _)| pid),
        hidden: processes.iter().any(|process| process.hidden),
    })
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
