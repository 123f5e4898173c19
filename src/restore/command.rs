//! Putting back what ended guests left: `svirt-exec restore`, and every launch before it begins.
//!
//! The work is done in the keeper's domain, by a process that says how it goes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, Uid, User};

use crate::host::{Policy, ProcessLabels, Processes, RealHost, VirtualContexts};
use crate::model::label::Context;
use crate::restore::entry::{JournalEntry, Record};
use crate::restore::entry_file::EntryFile;
use crate::restore::entry_lock;
use crate::restore::file_lock::Wait;
use crate::restore::hold::Hold;
use crate::restore::journal::Journal;
use crate::restore::journals::{self, Reader};
use crate::restore::keeper::job::{self, Tell};
use crate::restore::keeper::protocol::FromKeeper;
use crate::restore::liveness;
use crate::restore::notify;
use crate::restore::proof::Word;
use crate::restore::sweep::{MAX_NAMES, MAX_NAMES_OF_USER};
use crate::restore::wanted::Wanted;
use crate::seclabel::domain;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse};
use crate::text::progress::Pace;

/// The words of a [`Scope`] on the command line of the process at work, and the one before those that
/// the caller named.
const ALL: &[u8] = b"--all";
const TRUST: &[u8] = b"--trust-user";
const QUIETLY: &[u8] = b"--quiet";
const PATIENT: &[u8] = b"--patient";
const WANTED: &[u8] = b"--";

/// The users that the packages of libvirt make for its guests.
const LIBVIRT_USERS: [&str; 2] = ["libvirt-qemu", "qemu"];

/// How long a keeper may take that is at work on what its guest left.
const PATIENCE: Duration = Duration::from_secs(10);

/// Milliseconds between two looks whether it still is.
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
    /// Nothing is said of a guest or file that nothing is left of.
    pub quiet: bool,
}

/// Returns what `svirt-exec restore` is asked for by `--all`, the users of `--trust-user`, and
/// `--quiet`.
///
/// # Errors
/// That there is no such user.
pub fn scope(all: bool, trusted: &[String], quiet: bool) -> Result<Scope, Refusal> {
    let known = |name: &str| User::from_name(name).ok().flatten();
    let mut uids: Vec<u32> = LIBVIRT_USERS
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

/// Puts back what guests that have ended left, in a process of the keeper's domain. Returns whether
/// nothing of it is left.
///
/// # Errors
/// That a guest which is named still runs, or that nothing could be looked at.
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

/// Puts labels back in the process at work, and says how it goes. Returns its exit status.
pub fn run(args: &[Vec<u8>]) -> u8 {
    sys::ignore_termination();
    sys::raise_descriptor_limit();
    let (scope, wanted) = parse(args);
    job::run(|tell| {
        RealHost::new()
            .and_then(|host| put_back(&host, &wanted, &scope, tell))
            .map_err(|error| refuse(format!("cannot put labels back: {error}")))
    })
}

/// Reads the command line that [`restore`] writes.
fn parse(args: &[Vec<u8>]) -> (Scope, Vec<Wanted>) {
    let mut args = args.iter();
    let mut scope = Scope::default();
    while let Some(word) = args.next() {
        match word.as_slice() {
            ALL => scope.all = true,
            PATIENT => scope.patient = true,
            QUIETLY => scope.quiet = true,
            TRUST => {
                let uid = args.next().and_then(|uid| std::str::from_utf8(uid).ok());
                let uid = uid.and_then(|uid| uid.parse::<u32>().ok());
                scope.trusted.extend(uid);
            }
            _ => break,
        }
    }
    let wanted = args
        .as_slice()
        .chunks_exact(2)
        .filter_map(|pair| {
            let [word, path] = pair else { return None };
            let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
            Some(Wanted::new(text(word), text(path).into()))
        })
        .collect();
    (scope, wanted)
}

/// Putting back, and saying how it goes.
struct Work<'a> {
    host: &'a RealHost,
    scope: &'a Scope,
    wanted: &'a [Wanted],
    /// For each that is wanted: whether an ended guest was found, and which one runs.
    found: Vec<WantedState>,
    /// Names in trees that are looked at still, by the user whose entries name the trees.
    names: HashMap<u32, usize>,
    /// The contexts of guests, as the policy's files state them; for entries of others only.
    guests: VirtualContexts,
    tell: &'a mut Tell<'a>,
    pace: Pace,
    /// Labels looked at.
    done: usize,
    /// Whether nothing has failed.
    back: bool,
}

/// What was found of a guest or file that is wanted.
#[derive(Clone, Default)]
struct WantedState {
    ended: bool,
    /// Its process, and its name.
    running: Option<(Pid, String)>,
}

/// Puts back what ended guests left: everything if nothing is wanted, else what is. Says each label that
/// is not back. Returns whether there is none.
///
/// # Errors
/// Those of listing the journal or the processes.
pub fn put_back<'a>(
    host: &'a RealHost,
    wanted: &'a [Wanted],
    scope: &'a Scope,
    tell: &'a mut Tell<'a>,
) -> io::Result<bool> {
    let mut journals = journals::own()?;
    // One after the other: the second finds nothing left. Without such locks, what one of them holds the
    // other calls locked.
    let first = journals.first().filter(|_| scope.patient);
    let turn = first.and_then(|own| own.lock_directory().ok());
    if scope.all && Uid::effective().is_root() {
        notify::clear();
        journals.extend(journals::of_users()?);
    }
    let mut work = Work {
        host,
        scope,
        wanted,
        found: vec![WantedState::default(); wanted.len()],
        names: HashMap::new(),
        guests: if journals.iter().any(Journal::is_anothers) {
            host.virtual_contexts().unwrap_or_default()
        } else {
            VirtualContexts::default()
        },
        tell,
        pace: Pace::default(),
        done: 0,
        back: true,
    };
    let mut listed = work.list(&journals)?;
    // After the entries, since whoever wrote one had asked for its pair before. Once for all of them:
    // if many guests end together, every keeper finds the entries of all the others.
    let runs = |file: &EntryFile<'_>| liveness::runs(host.procfs(), &file.entry);
    let mut processes = if listed.iter().all(runs) {
        Vec::new()
    } else {
        host.processes()?
    };
    if scope.patient && work.wait_for_keepers(&listed, &mut processes)? {
        listed = work.list(&journals)?;
        processes = host.processes()?;
    }
    for file in listed {
        work.consider(file, &processes);
    }
    for own in journals.iter().filter(|journal| !journal.is_anothers()) {
        own.sweep(|pid, began| host.procfs().may_live(Pid::from_raw(pid), began))?;
    }
    drop(turn);
    work.report_wanted();
    Ok(work.back)
}

impl Work<'_> {
    /// Says what is not back.
    fn say(&mut self, message: FromKeeper) {
        self.back = false;
        (self.tell)(message);
    }

    fn line(&mut self, line: String) {
        self.say(FromKeeper::Line(line));
    }

    fn list<'a>(&mut self, journals: &'a [Journal]) -> io::Result<Vec<EntryFile<'a>>> {
        // A command that waits for nobody and asks for nothing need not know what keepers are at work on.
        let in_passing = self.wanted.is_empty() && !self.scope.patient;
        let wanted = self.wanted;
        let mut reader = Reader::default();
        let mut listed = Vec::new();
        for journal in journals {
            let skipped = |path: &Path| in_passing && entry_lock::is_locked(journal, path);
            let done = reader.read(journal, &skipped, &mut |journal, path, entry| match entry {
                Ok(entry) => listed.push(EntryFile::new(journal, path, entry, wanted)),
                Err(error) => self.line(error.to_string()),
            });
            match done {
                Err(error) if journal.is_anothers() => {
                    let owner = journal.owner();
                    self.line(format!("cannot list the entries of user {owner}: {error}"));
                }
                done => {
                    if let Some(left_out) = done? {
                        self.line(left_out);
                    }
                }
            }
        }
        Ok(listed)
    }

    /// Puts back what an entry says, if it is wanted and its guest has ended.
    fn consider(&mut self, file: EntryFile<'_>, processes: &[ProcessLabels]) {
        let entry = &file.entry;
        let wanted = self.wanted;
        let whole = wanted.is_empty() || wanted.iter().any(|wanted| wanted.names(entry));
        if !whole && !file.is_of.contains(&true) {
            return;
        }
        let procfs = self.host.procfs();
        let running = liveness::process_of(procfs, entry, processes).or_else(|| {
            let anothers = file.journal.is_anothers();
            anothers.then(|| self.guest_at_level_of(entry, processes))?
        });
        for (is_of, found) in file.is_of.iter().zip(&mut self.found) {
            if *is_of {
                match running {
                    None => found.ended = true,
                    Some(pid) => {
                        found.running.get_or_insert((pid, entry.name.clone()));
                    }
                }
            }
        }
        if let Some(pid) = running.filter(|_| self.scope.patient && wanted.is_empty())
            && liveness::keeper_of(procfs, entry, processes).is_some()
        {
            let name = quoted(&entry.name);
            self.line(format!(
                "the labels of guest {name}, which has ended, are still being put back by process {pid}"
            ));
        }
        // What another keeper has put back since is not touched again.
        if running.is_none()
            && let Ok(file) = file.reread()
        {
            let selected = |record: &Record| whole || wanted.iter().any(|wanted| wanted.is(record));
            self.put_back_entry(file, whole, &selected);
        }
    }

    /// Returns a guest that runs with just the categories of an entry, whatever else of its context the entry
    /// says: another user may write down a context that no process has, for files that one uses.
    fn guest_at_level_of(&self, entry: &JournalEntry, processes: &[ProcessLabels]) -> Option<Pid> {
        let categories = entry.context.parse::<Context>().ok()?.categories();
        let is_there = |process: &&ProcessLabels| {
            process.current.as_ref().is_some_and(|context| {
                context.categories() == categories && domain::is_among(&self.guests, context)
            })
        };
        processes.iter().find(is_there).map(|process| process.pid)
    }

    /// Returns what an entry is worth, and how many names are looked at in its trees. `owner` is the user
    /// whose it is, if that is another one.
    fn word_of(&self, owner: Option<u32>) -> (Word, usize) {
        let Some(owner) = owner else {
            return (Word::Own, MAX_NAMES);
        };
        let names = self.names.get(&owner).copied();
        let word = match self.scope.trusted.contains(&owner) {
            true => Word::Trusted,
            false => Word::Of(owner),
        };
        (word, names.unwrap_or(MAX_NAMES_OF_USER))
    }

    /// Puts back what an entry says, or the records of it that are selected.
    fn put_back_entry(
        &mut self,
        file: EntryFile<'_>,
        whole: bool,
        selected: &dyn Fn(&Record) -> bool,
    ) {
        let EntryFile {
            journal,
            path,
            entry,
            ..
        } = file;
        let owner = journal.is_anothers().then(|| journal.owner());
        let (word, names) = self.word_of(owner);
        let mut hold = match Hold::take_what_can_be(self.host, entry, word, names) {
            Ok(hold) => hold,
            Err(why) => {
                return self.line(format!("cannot use {}: {why}; remove it", quoted(&path)));
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
                (self.tell)(FromKeeper::Progress(text));
            }
        });
        if let Some(owner) = owner {
            self.names.insert(owner, hold.names);
        }
        let notes = hold.notes().into_iter().map(FromKeeper::Line);
        notes.for_each(&mut *self.tell);
        let mut left = hold.left(&path, selected);
        let further: Vec<String> = failures
            .into_iter()
            .filter(|why| !left.contains(why))
            .collect();
        left.extend(further);
        left.extend(cleared.err().map(|error| {
            format!("cannot remove the directory of a guest that has ended: {error}")
        }));
        // Root never writes below another user's directory: the entry goes with that user's next command.
        if owner.is_none()
            && let Err(why) = hold.write_back(journal, &path)
        {
            left.push(why.to_string());
        }
        for line in left {
            self.line(line);
        }
    }

    /// Waits for keepers that are at work on what their guests left, and looks at the processes again.
    /// Returns whether there were any.
    fn wait_for_keepers(
        &mut self,
        listed: &[EntryFile<'_>],
        processes: &mut Vec<ProcessLabels>,
    ) -> io::Result<bool> {
        let mut pace = Pace::default();
        let until = Instant::now().checked_add(PATIENCE);
        let mut some = false;
        let wanted = self.wanted;
        let meant = |file: &&EntryFile<'_>| wanted.is_empty() || file.is_of.contains(&true);
        loop {
            let at_work = listed
                .iter()
                .filter(meant)
                .map(|file| &file.entry)
                .find_map(|entry| liveness::keeper_of(self.host.procfs(), entry, processes));
            let in_time = until.is_some_and(|until| Instant::now() < until);
            let Some(pid) = at_work.filter(|_| in_time) else {
                return Ok(some);
            };
            some = true;
            if pace.is_due() {
                let text = format!("waiting for process {pid}, which puts labels back");
                (self.tell)(FromKeeper::Progress(text));
            }
            // It may give its claim up before it ends.
            if let Ok(end) = sys::pidfd(pid) {
                let mut end = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut end, PollTimeout::from(GLANCE));
            }
            *processes = self.host.processes()?;
        }
    }

    /// Says of each guest or file that is wanted if it still runs, or if nothing of it is left.
    fn report_wanted(&mut self) {
        for (wanted, found) in self.wanted.iter().zip(std::mem::take(&mut self.found)) {
            let name = quoted(wanted.word());
            match found {
                WantedState { ended: true, .. } => {}
                WantedState {
                    running: Some((pid, guest)),
                    ..
                } => self.say(FromKeeper::Refused(format!(
                    "cannot put back labels of {name}: guest {} still runs, as process {pid}; end it \
                     first",
                    quoted(&guest)
                ))),
                WantedState { running: None, .. } if self.scope.quiet => {}
                WantedState { running: None, .. } => {
                    (self.tell)(FromKeeper::Line(format!(
                        "nothing of {name} is left to put back"
                    )));
                }
            }
        }
    }
}
