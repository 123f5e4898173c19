//! `--private-content`: what only one guest reads gets the content type with that guest's pair, so
//! that no other guest of the host can read it, until another one names it too.
//!
//! Then the first guest's keeper takes the pair off and goes on as for any content that several
//! guests read: the label goes back when the last of them has ended, whoever that is. The keeper
//! holds private content locked for itself alone, so that no other launch labels it meanwhile.

use crate::restore::command::Wanted;
use crate::restore::hold::Hold;
use crate::restore::journal::Journal;
use crate::restore::keeper::client::{DONE, FAILED};
use crate::restore::keeper::control::{self, Call, Verb};
use crate::restore::keeper::job::{self, LINE};
use crate::restore::running_guest;
use crate::text::escape::quoted;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

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
                .filter(|record| record.is_private_content() && wanted.is(record))
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
