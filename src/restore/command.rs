//! Putting back what ended guests left: `svirt-exec restore`, and every launch before it begins.
//!
//! The work is done in the keeper's domain, by a process that says how it goes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, Uid, User};

use crate::host::pinned::{self, Pinned};
use crate::host::{ProcessLabels, Processes, RealHost};
use crate::model::label::Context;
use crate::restore::entry_file::Listed;
use crate::restore::entry_lock;
use crate::restore::hold::{Hold, Wait};
use crate::restore::journal::{Entry, Journal, Record};
use crate::restore::keeper::job::{self, LINE, PROGRESS, REFUSED};
use crate::restore::lookup::{same, this_boot};
use crate::restore::notify;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse};
use crate::text::progress::Pace;

/// The words of a [`Scope`], and the one before those that the caller named.
const ALL: &[u8] = b"--all";
const TRUST: &[u8] = b"--trust-user";
const QUIETLY: &[u8] = b"--quiet";
const PATIENT: &[u8] = b"--patient";
const WANTED: &[u8] = b"--";

/// The users that the packages of libvirt make for its guests.
const OF_LIBVIRT: [&str; 2] = ["libvirt-qemu", "qemu"];

/// How long a keeper may take that is at work on what its guest left.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look whether it still is.
const GLANCE: u16 = 50;

/// Whose guests a restore is for.
#[derive(Debug, Default)]
pub struct Scope {
    /// Those of all users, not only of the one who asks.
    pub all: bool,
    /// Users whose entries are believed about files of others. Between two guests libvirt's images
    /// belong to somebody else than during one.
    pub trusted: Vec<u32>,
    /// Keepers that are at work are waited for.
    pub patient: bool,
    /// What nothing is left of is not told.
    pub quiet: bool,
}

/// A guest or a file that the caller named.
#[derive(Debug)]
pub struct Wanted {
    word: OsString,
    path: PathBuf,
    pinned: Option<Pinned>,
}

impl Wanted {
    /// What a word names that may be a path: `path`, absolute.
    pub fn new(word: OsString, path: PathBuf) -> Self {
        let pinned = pinned::pin(&path).ok();
        Self { word, path, pinned }
    }

    /// As a path.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Whether it is this guest, by name or process ID.
    pub fn names(&self, entry: &Entry) -> bool {
        self.word == OsStr::new(&entry.name) || self.word == OsStr::new(&entry.pid.to_string())
    }

    /// Whether it is this file, by any of its names.
    pub fn is(&self, record: &Record) -> bool {
        self.path == record.path
            || self
                .pinned
                .as_ref()
                .is_some_and(|pinned| same(pinned, record))
    }
}

/// What `svirt-exec restore` is asked for: `--all`, the users of `--trust-user`, and `--quiet`.
///
/// # Errors
/// Where there is no such user.
pub fn scope(all: bool, trusted: &[String], quiet: bool) -> Result<Scope, Refusal> {
    let known = |name: &str| User::from_name(name).ok().flatten();
    let mut uids: Vec<u32> = OF_LIBVIRT
        .iter()
        .filter_map(|name| Some(known(name)?.uid.as_raw()))
        .collect();
    for name in trusted {
        let user = known(name)
            .ok_or_else(|| refuse(format!("there is no user {} (--trust-user)", quoted(name))))?;
        uids.push(user.uid.as_raw());
    }
    Ok(Scope {
        all,
        trusted: if all { uids } else { Vec::new() },
        patient: true,
        quiet,
    })
}

/// Puts back what guests that have ended left, in a process of the keeper's domain. True when
/// nothing of it is left.
///
/// # Errors
/// Where a guest that is named still runs, or nothing could be looked at.
pub fn restore(
    own: &Context,
    wanted: &[OsString],
    scope: &Scope,
    tell: &mut dyn FnMut(&str),
) -> Result<bool, Refusal> {
    let paths = wanted
        .iter()
        .map(std::path::absolute)
        .collect::<io::Result<Vec<PathBuf>>>()?;
    let trusted: Vec<String> = scope.trusted.iter().map(u32::to_string).collect();
    let mut args: Vec<&[u8]> = vec![b"restore"];
    args.extend(scope.all.then_some(ALL));
    args.extend(scope.patient.then_some(PATIENT));
    args.extend(scope.quiet.then_some(QUIETLY));
    for uid in &trusted {
        args.extend([TRUST, uid.as_bytes()]);
    }
    args.push(WANTED);
    for (word, path) in wanted.iter().zip(&paths) {
        args.extend([word.as_bytes(), path.as_os_str().as_bytes()]);
    }
    job::send(own, &args, tell)
}

/// The process at work: puts back, and says how it goes.
pub fn run(args: &[Vec<u8>]) -> u8 {
    sys::ignore_termination();
    sys::raise_descriptor_limit();
    let mut args = args.iter();
    let mut scope = Scope::default();
    while let Some(word) = args.next() {
        match word.as_slice() {
            ALL => scope.all = true,
            PATIENT => scope.patient = true,
            QUIETLY => scope.quiet = true,
            TRUST => {
                let uid = args.next().and_then(|uid| std::str::from_utf8(uid).ok());
                scope
                    .trusted
                    .extend(uid.and_then(|uid| uid.parse::<u32>().ok()));
            }
            _ => break,
        }
    }
    let wanted: Vec<Wanted> = args
        .as_slice()
        .chunks_exact(2)
        .filter_map(|pair| {
            let [word, path] = pair else { return None };
            let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
            Some(Wanted::new(text(word), text(path).into()))
        })
        .collect();
    job::run(|tell| {
        RealHost::new()
            .and_then(|host| put_back(&host, &wanted, &scope, tell))
            .map_err(|error| refuse(format!("cannot put labels back: {error}")))
    })
}

/// Putting back, and saying how it goes.
struct Work<'a> {
    host: &'a RealHost,
    scope: &'a Scope,
    tell: &'a mut dyn FnMut(u8, &str),
    pace: Pace,
    /// Labels looked at.
    done: usize,
    /// Whether nothing has failed.
    back: bool,
}

/// Puts back what ended guests left: everything where nothing is wanted, else what is. Says each
/// label that is not back; true where there is none.
///
/// # Errors
/// Where the journal or the processes cannot be listed.
pub fn put_back(
    host: &RealHost,
    wanted: &[Wanted],
    scope: &Scope,
    tell: &mut dyn FnMut(u8, &str),
) -> io::Result<bool> {
    let own = Journal::open().map_err(io::Error::other)?;
    // One after the other: the second finds nothing left. Where there are no such locks, what one of
    // them holds the other calls locked.
    let turn = scope.patient.then(|| own.turn().ok()).flatten();
    let mut journals = vec![(None, own)];
    if scope.all && Uid::effective().is_root() {
        notify::clear();
        let users = Journal::of_users()?;
        journals.extend(users.into_iter().map(|(uid, journal)| (Some(uid), journal)));
    }
    let mut work = Work {
        host,
        scope,
        tell,
        pace: Pace::default(),
        done: 0,
        back: true,
    };
    let mut listed = work.list(&journals, wanted)?;
    // After the entries, since who wrote one had asked for its pair before. Once for all of them:
    // where many guests end together, every keeper finds the entries of all the others.
    let mut processes = if listed.iter().all(|listed| runs(host, &listed.entry)) {
        Vec::new()
    } else {
        host.processes()?
    };
    if scope.patient && keepers_at_work(host, &listed, wanted, &mut processes, work.tell)? {
        listed = work.list(&journals, wanted)?;
        processes = host.processes()?;
    }
    let mut running = Vec::new();
    let mut matched = vec![false; wanted.len()];
    for listed in listed {
        let entry = &listed.entry;
        let whole = wanted.is_empty() || wanted.iter().any(|wanted| wanted.names(entry));
        let selected = |record: &Record| whole || wanted.iter().any(|wanted| wanted.is(record));
        if !whole && !entry.records.iter().any(selected) {
            continue;
        }
        let alive = alive(host, entry, &processes);
        for (wanted, matched) in wanted.iter().zip(&mut matched) {
            let this = wanted.names(entry) || entry.records.iter().any(|r| wanted.is(r));
            *matched |= this && alive.is_none();
            if let Some(pid) = alive.filter(|_| this) {
                running.push((wanted, pid, entry.name.clone()));
            }
        }
        if let Some(pid) = alive.filter(|_| scope.patient && wanted.is_empty())
            && keeper(host, entry, &processes).is_some()
        {
            let name = quoted(&entry.name);
            let line = format!(
                "the labels of guest {name}, which has ended, are still being put back by process {pid}"
            );
            work.say(LINE, &line);
        }
        // What another keeper has put back since is not touched again.
        if alive.is_none()
            && let Ok(listed) = listed.as_it_is_now()
        {
            work.one(listed, whole, &selected);
        }
    }
    if let Some((None, own)) = journals.first() {
        own.sweep(|pid, began| start_time(host, pid) == Some(began))?;
    }
    drop(turn);
    for (wanted, _) in wanted.iter().zip(matched).filter(|(_, matched)| !matched) {
        let name = quoted(&wanted.word);
        let guest = running
            .iter()
            .find(|(other, _, _)| std::ptr::eq(*other, wanted));
        match guest {
            Some((_, pid, guest)) => work.say(
                REFUSED,
                &format!(
                    "cannot put back labels of {name}: guest {} still runs, as process {pid}; end \
                     it first",
                    quoted(guest)
                ),
            ),
            None if scope.quiet => {}
            None => (work.tell)(LINE, &format!("nothing of {name} is left to put back")),
        }
    }
    Ok(work.back)
}

impl Work<'_> {
    /// Says what is not back.
    fn say(&mut self, what: u8, line: &str) {
        self.back = false;
        (self.tell)(what, line);
    }

    fn list<'a>(
        &mut self,
        journals: &'a [(Option<u32>, Journal)],
        wanted: &[Wanted],
    ) -> io::Result<Vec<Listed<'a>>> {
        // Who waits for nobody and has asked for nothing needs not know what keepers are at work on.
        let in_passing = wanted.is_empty() && !self.scope.patient;
        let mut listed = Vec::new();
        for (owner, journal) in journals {
            let paths = match (journal.entries(), owner) {
                (Err(error), Some(owner)) => {
                    let line = format!("cannot list the entries of user {owner}: {error}");
                    self.say(LINE, &line);
                    continue;
                }
                (paths, _) => paths?,
            };
            for path in paths {
                if in_passing && entry_lock::is_kept(&path) {
                    continue;
                }
                match Listed::read(journal, *owner, &path) {
                    Ok(one) => listed.push(one),
                    // Another keeper has removed it since the directory was read.
                    Err(_) if !path.exists() => {}
                    Err(error) => self.say(LINE, &error.to_string()),
                }
            }
        }
        Ok(listed)
    }

    /// Puts back what an entry says, or the records of it that are selected.
    fn one(&mut self, listed: Listed<'_>, whole: bool, selected: &dyn Fn(&Record) -> bool) {
        let Listed {
            journal,
            owner,
            path,
            entry,
            ..
        } = listed;
        let only = owner.filter(|owner| !self.scope.trusted.contains(owner));
        let mut hold = match Hold::take_what_can_be(self.host, entry, only) {
            Ok(hold) => hold,
            Err(why) => {
                let line = format!("cannot use {}: {why}; remove it", quoted(&path));
                return self.say(LINE, &line);
            }
        };
        // What another user's guest left below /run, that user's next command removes.
        let cleared = match hold.directory() {
            Some(directory) if whole && owner.is_none() => directory.clear(),
            _ => Ok(()),
        };
        if whole && cleared.is_ok() {
            hold.directory_is_gone();
        }
        let host = self.host;
        let failures = hold.put_back_some(host, Wait::Never, selected, &mut || {
            self.done = self.done.saturating_add(1);
            if self.pace.is_due() {
                let text = format!("putting labels back: {} so far", self.done);
                (self.tell)(PROGRESS, &text);
            }
        });
        let mut left = hold.left(&path, selected);
        let further: Vec<String> = failures
            .into_iter()
            .filter(|why| !left.contains(why))
            .collect();
        left.extend(further);
        left.extend(cleared.err().map(|error| {
            format!("cannot remove the directory of a guest that has ended: {error}")
        }));
        match (hold.settle(journal, &path), owner) {
            // Another user's directory, where root has no right to write without
            // CAP_DAC_OVERRIDE: the entry goes with that user's next command.
            (_, Some(_)) | (Ok(()), None) => {}
            (Err(why), None) => left.push(why),
        }
        for line in left {
            self.say(LINE, &line);
        }
    }
}

/// Whether the process that an entry was written for still runs, which is told without looking at
/// all the others.
pub fn runs(host: &RealHost, entry: &Entry) -> bool {
    this_boot(host, entry) && start_time(host, entry.pid) == Some(entry.started)
}

/// When a process started, in clock ticks since boot, unless it has ended and was not
/// waited for yet; fields 3 and 22 of `/proc/PID/stat`, proc(5).
pub fn start_time(host: &RealHost, pid: i32) -> Option<u64> {
    let stat = host.procfs().read(&format!("{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; fields count from behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// The keeper of an entry whose guest has ended, while it claims the guest's pair.
fn keeper(host: &RealHost, entry: &Entry, processes: &[ProcessLabels]) -> Option<Pid> {
    let context = Some(entry.context.parse::<Context>().ok()?);
    if runs(host, entry) || processes.iter().any(|process| process.current == context) {
        return None;
    }
    let keeper = processes
        .iter()
        .find(|process| process.pending == context)?;
    Some(keeper.pid)
}

/// Waits for keepers that are at work on what their guests left, and looks at the processes again.
/// False where there are none.
fn keepers_at_work(
    host: &RealHost,
    listed: &[Listed<'_>],
    wanted: &[Wanted],
    processes: &mut Vec<ProcessLabels>,
    tell: &mut dyn FnMut(u8, &str),
) -> io::Result<bool> {
    let mut pace = Pace::default();
    let until = Instant::now().checked_add(PATIENCE);
    let mut some = false;
    let meant = |entry: &Entry| {
        wanted.is_empty()
            || wanted.iter().any(|wanted| {
                wanted.names(entry) || entry.records.iter().any(|record| wanted.is(record))
            })
    };
    loop {
        let at_work = listed
            .iter()
            .map(|listed| &listed.entry)
            .filter(|entry| meant(entry))
            .find_map(|entry| keeper(host, entry, processes));
        let in_time = until.is_some_and(|until| Instant::now() < until);
        let Some(pid) = at_work.filter(|_| in_time) else {
            return Ok(some);
        };
        some = true;
        if pace.is_due() {
            let text = format!("waiting for process {pid}, which puts labels back");
            tell(PROGRESS, &text);
        }
        // It may give its claim up before it ends.
        if let Ok(end) = sys::pidfd(pid) {
            let mut end = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut end, PollTimeout::from(GLANCE));
        }
        *processes = host.processes()?;
    }
}

/// A process of the guest of an entry, or one that is at work on its files.
pub fn alive(host: &RealHost, entry: &Entry, processes: &[ProcessLabels]) -> Option<i32> {
    if runs(host, entry) {
        return Some(entry.pid);
    }
    let context = Some(entry.context.parse::<Context>().ok()?);
    processes
        .iter()
        .find(|process| process.current == context || process.pending == context)
        .map(|process| process.pid.as_raw())
}
