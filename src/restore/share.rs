//! `--private-content`: what only one guest reads gets the content type with that guest's pair, so that
//! no other guest of the host can read it, until another one names it too.
//!
//! Then the first guest's keeper takes the pair off and goes on as for any content that several guests
//! read: the label goes back when the last of them has ended, whoever that is. The keeper holds private
//! content locked for itself alone, so that no other launch labels it meanwhile.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::restore::entry::Record;
use crate::restore::hold::Hold;
use crate::restore::journal::Journal;
use crate::restore::journals;
use crate::restore::keeper::control::{self, Address, Request, Verb};
use crate::restore::keeper::job::{self, Tell};
use crate::restore::keeper::protocol::FromKeeper;
use crate::restore::wanted::Wanted;
use crate::text::escape::quoted;

/// Asks the keepers of private content to share it, in a process of their domain. Returns its exit
/// status.
pub fn run(paths: &[Vec<u8>]) -> u8 {
    job::run(|tell| Ok(ask(paths, tell)?))
}

fn ask(paths: &[Vec<u8>], tell: &mut Tell<'_>) -> io::Result<bool> {
    let mut done = true;
    for path in paths {
        let path = PathBuf::from(OsString::from_vec(path.clone()));
        done &= ask_for(&path, &holders(&path)?, tell);
    }
    Ok(done)
}

/// A keeper to be asked: whose it is, where it is reached, and the names that its entry has for the file.
type Holder = (u32, Address, Vec<PathBuf>);

/// Finds the entries that have a path as private content.
fn holders(path: &Path) -> io::Result<Vec<Holder>> {
    let wanted = Wanted::new(OsString::new(), path.to_path_buf());
    let mut found = Vec::new();
    journals::each_entry(&mut |it| {
        let names: Vec<PathBuf> = it
            .entry
            .records
            .iter()
            .filter(|record| record.is_private_content() && wanted.is(record))
            .map(|record| record.path.clone())
            .collect();
        if !names.is_empty() {
            let address = Address::new(&it.path, &it.entry);
            found.push((it.journal.owner(), address, names));
        }
    })?;
    Ok(found)
}

/// Asks every keeper that holds a path as private content. Returns whether all have shared it.
fn ask_for(path: &Path, holders: &[Holder], tell: &mut Tell<'_>) -> bool {
    let mut done = true;
    for (owner, address, names) in holders {
        let mut say = |line: &str| tell(FromKeeper::Line(line.to_owned()));
        match control::ask(address, *owner, (Verb::Share, names), &mut say) {
            Ok(shared) => done &= shared,
            Err(refusal) => {
                done = false;
                for message in refusal.messages {
                    tell(FromKeeper::Line(message.to_string()));
                }
            }
        }
    }
    if holders.is_empty() {
        done = false;
        tell(FromKeeper::Line(format!(
            "cannot have {} shared: it is the private content of a guest of another user, or of one that \
             has ended (svirt-exec restore)",
            quoted(path)
        )));
    }
    done
}

/// Lets all guests read what a keeper's guest alone has read so far.
pub fn share_held(hold: &mut Hold, (journal, entry): (&Journal, &Path), request: &Request) {
    let wanted = |record: &Record| request.paths.contains(&record.path);
    match hold.share(journal, entry, &wanted) {
        Ok(()) => request.close(true),
        Err(error) => {
            request.say(&FromKeeper::Line(error.to_string()));
            request.close(false);
        }
    }
}
