//! `--private-content`: what only one guest reads gets the content type with that guest's pair, so
//! that no other guest of the host can read it, until another one names it too.
//!
//! Then the first guest's keeper takes the pair off and goes on as for any content that several
//! guests read: the label goes back when the last of them has ended, whoever that is. The keeper
//! holds private content locked for itself alone, so that no other launch labels it meanwhile.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::host::{Host, RealHost};
use crate::model::label::Context;
use crate::model::resource::Class;
use crate::plan::GuestLabels;
use crate::plan::collect::Collected;
use crate::restore::command::Wanted;
use crate::restore::hold::Hold;
use crate::restore::journal::{Journal, Record};
use crate::restore::keeper::client::{DONE, FAILED};
use crate::restore::keeper::control::{self, Call, Verb};
use crate::restore::keeper::job::{self, LINE};
use crate::restore::running_guest;
use crate::seclabel::domain;
use crate::text::escape::quoted;
use crate::text::message::Refusal;

/// The label of content that only this guest reads.
pub fn label(labels: &GuestLabels) -> Context {
    labels.content.at(labels.process.level())
}

/// Whether a record is of content that is private still.
pub fn is_private(record: &Record) -> bool {
    let given = record.label.parse::<Context>();
    record.class == Class::Content && given.is_ok_and(|given| !given.cage().is_empty())
}

/// Whether content may be made private: the caller's own file, that no guest can read now.
pub fn may_be(host: &dyn Host, labels: &GuestLabels, current: &Context, own: bool) -> bool {
    own && current.cage().is_empty()
        && current != &labels.content
        && !domain::may_any_read(host, &labels.process, current)
}

/// Has the keepers of other guests share what is private to these and named by this one, too. What
/// cannot be shared is an obstacle.
///
/// # Errors
/// Where no process can be started that asks them.
pub fn share(
    host: &RealHost,
    own: &Context,
    labels: &GuestLabels,
    collected: &mut Collected,
) -> Result<(), Refusal> {
    let theirs = |current: Option<&Context>| {
        current.is_some_and(|now| now.kind == labels.content.kind && !now.cage().is_empty())
    };
    let mut wanted = collected
        .resources
        .iter_mut()
        .filter(|one| one.class == Class::Content && theirs(one.current.as_ref()))
        .filter_map(|one| one.pinned.as_ref().map(|pinned| (pinned, &mut one.current)))
        .collect::<Vec<_>>();
    if wanted.is_empty() {
        return Ok(());
    }
    let paths: Vec<PathBuf> = wanted
        .iter()
        .map(|(pinned, _)| pinned.real_path())
        .collect();
    let mut args: Vec<&[u8]> = vec![b"share"];
    args.extend(paths.iter().map(|path| path.as_os_str().as_bytes()));
    let mut lines = Vec::new();
    let done = job::send(own, &args, &mut |line| lines.push(line.to_owned()));
    lines.extend(done.err().into_iter().flat_map(|refusal| refusal.messages));
    for (pinned, current) in &mut wanted {
        **current = host.label_of(pinned)?;
    }
    let left = wanted.iter().any(|(_, current)| theirs(current.as_ref()));
    if left {
        collected.obstacles.append(&mut lines);
    }
    Ok(())
}

/// The process that asks the keepers, in their domain.
pub fn run(paths: &[Vec<u8>]) -> u8 {
    job::run(|tell| Ok(ask(paths, tell)?))
}

fn ask(paths: &[Vec<u8>], tell: &mut dyn FnMut(u8, &str)) -> io::Result<bool> {
    let entries = running_guest::entries()?;
    let mut done = true;
    for path in paths {
        let path = PathBuf::from(OsString::from_vec(path.clone()));
        let wanted = Wanted::new(OsString::new(), path.clone());
        let mut found = false;
        for (owner, entry, content) in &entries {
            let names: Vec<PathBuf> = content
                .records
                .iter()
                .filter(|record| is_private(record) && wanted.is(record))
                .map(|record| record.path.clone())
                .collect();
            if names.is_empty() {
                continue;
            }
            found = true;
            let mut say = |line: &str| tell(LINE, line);
            match control::ask(entry, *owner, (Verb::Share, &names), &mut say) {
                Ok(shared) => done &= shared,
                Err(refusal) => {
                    done = false;
                    refusal.messages.iter().for_each(|line| tell(LINE, line));
                }
            }
        }
        if !found {
            done = false;
            tell(
                LINE,
                &format!(
                    "cannot have {} shared: it is the private content of a guest of another user, \
                     or of one that has ended (svirt-exec restore)",
                    quoted(&path)
                ),
            );
        }
    }
    Ok(done)
}

/// A keeper lets all guests read what its guest alone has read so far.
pub fn open_up(hold: &mut Hold, (journal, entry): (&Journal, &Path), call: &Call) {
    match hold.share(journal, entry, &|record| call.paths.contains(&record.path)) {
        Ok(()) => call.say(DONE, ""),
        Err(why) => {
            call.say(LINE, &why);
            call.say(FAILED, "");
        }
    }
}
