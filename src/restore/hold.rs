//! Putting labels back, with the files locked.
//!
//! Runs in the keeper's domain. It does not trust the journal: it acts only on a file that
//! is still the one recorded and that still carries the guest's categories, or the label
//! that the launcher gave it; and it never gives a label with categories.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::FlockArg;

use crate::host::pinned::{self, Pinned};
use crate::host::runtime_dir;
use crate::host::{Files, RealHost};
use crate::model::label::Context;
use crate::model::resource::Class;
use crate::restore::journal::{Entry, Journal, Record};
use crate::restore::lookup::{Found, Purpose, all_there, alone, find, free, same, unused};
use crate::restore::sweep;
use crate::selinux;
use crate::text::escape::{quoted, shell_word};

/// Whether to wait for other guests that use the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Leave it to a later time.
    Never,
    /// Until the last of them has ended.
    ForOthers,
}

/// The files of a guest, locked: as long as they are, no other guest takes them and
/// nobody else puts their labels back.
pub struct Hold {
    entry: Entry,
    /// Whose files it may touch; none: everybody's.
    owner: Option<u32>,
    cage: crate::model::label::Categories,
    shared: bool,
    found: Vec<(Record, Found)>,
}

/// What has been done so far.
#[derive(Default)]
struct Progress {
    labels: Labels,
    /// A file of each file system, by device, to sync it by.
    touched: HashMap<u64, File>,
    /// For the sweep of a tree, files that are back, by their paths: their inode numbers.
    back: HashMap<PathBuf, u64>,
}

/// How a file's record stands.
enum Standing {
    Done,
    InUse,
    Later,
}

impl Hold {
    /// Locks every regular file of an entry.
    ///
    /// # Errors
    /// Where somebody holds some, or some cannot be opened: a line for each.
    pub fn take(host: &RealHost, entry: Entry) -> Result<Self, String> {
        let cage = parse(&entry.context)?.cage();
        let found = find_all(host, &entry, &entry.records)?;
        Ok(Self {
            entry,
            owner: None,
            cage,
            shared: false,
            found,
        })
    }

    /// Locks those regular files of an entry that can be locked, for a guest that has ended.
    ///
    /// `owner` is the user who wrote the entry, where that is another one: nothing of
    /// anybody else is touched then.
    ///
    /// # Errors
    /// Where the entry's context is none.
    pub fn take_what_can_be(
        host: &RealHost,
        entry: Entry,
        owner: Option<u32>,
    ) -> Result<Self, String> {
        let cage = parse(&entry.context)?.cage();
        let found = entry
            .records
            .iter()
            .map(|record| {
                let found = find(host, &entry, record, Purpose::PuttingBack(owner))
                    .unwrap_or_else(Found::Unusable);
                (record.clone(), found)
            })
            .collect();
        Ok(Self {
            entry,
            owner,
            cage,
            shared: false,
            found,
        })
    }

    /// Locks the files of further records of the same guest.
    ///
    /// # Errors
    /// Where the entry is another guest's, or as [`Hold::take`]; nothing is held anew then.
    pub fn grow(&mut self, host: &RealHost, entry: Entry) -> Result<(), String> {
        let known = self.entry.records.len();
        let begins_alike = entry.records.get(..known) == Some(self.entry.records.as_slice());
        if entry.context != self.entry.context || !begins_alike {
            return Err("the entry is no longer that of this guest".to_owned());
        }
        let mut found = find_all(host, &entry, entry.records.get(known..).unwrap_or_default())?;
        all_there(&found)?;
        if self.shared {
            free(host, &found)?;
        }
        self.found.append(&mut found);
        self.entry = entry;
        Ok(())
    }

    /// Whether every name still leads to the file that the launcher has looked at, and will label.
    /// One that does not would be labelled without a lock, and without a way back.
    ///
    /// # Errors
    /// Where one does not, in words.
    pub fn all_there(&self) -> Result<(), String> {
        all_there(&self.found)
    }

    /// Says that others are in the guest's cage (`--share-level`). A file that carries categories may
    /// be theirs then, so none that does is held, unless to keep the label that it has.
    ///
    /// # Errors
    /// Where a file that is held already is such a one, in words.
    pub fn share_cage(&mut self, host: &RealHost) -> Result<(), String> {
        self.shared = true;
        free(host, &self.found)
    }

    /// Whether nobody else holds a file of the entry, and will put its label back while this guest
    /// uses it without a keeper.
    ///
    /// # Errors
    /// Where somebody does, in words.
    pub fn stands_alone(&self) -> Result<(), String> {
        for (record, found) in &self.found {
            if let Found::Locked(lock) = found
                && record.class != Class::Exclusive
            {
                if alone(lock, Wait::Never).map_err(|error| error.to_string())? {
                    // Others may come from now on: they find the label that they need.
                    let _ = lock.relock(FlockArg::LockShared);
                    continue;
                }
                return Err(format!(
                    "another guest uses {} too, and its label goes back when that one ends; give it \
                     a lasting one (chcon {} {}), or launch without --no-restore",
                    quoted(&record.path),
                    record.label,
                    shell_word(&record.path)
                ));
            }
        }
        Ok(())
    }

    /// Lets all guests read these records of private content: on disk first, then the label, then
    /// the lock.
    ///
    /// # Errors
    /// Where one cannot be, in words; it stays as it was, or as the journal has it.
    pub fn share(
        &mut self,
        journal: &Journal,
        path: &Path,
        wanted: &dyn Fn(&Record) -> bool,
    ) -> Result<(), String> {
        let chosen = |record: &Record| record.is_private_content() && wanted(record);
        let open_up = |record: &mut Record| -> Result<(), String> {
            record.label = parse(&record.label)?.bare().to_string();
            Ok(())
        };
        let mut entry = self.entry.clone();
        for record in entry.records.iter_mut().filter(|record| chosen(record)) {
            open_up(record)?;
        }
        journal
            .replace(path, &entry)
            .map_err(|error| error.to_string())?;
        self.entry = entry;
        for (record, found) in &mut self.found {
            if !chosen(record) {
                continue;
            }
            let Found::Locked(lock) = found else {
                return Err(not_shared(record, "it is not locked"));
            };
            open_up(record)?;
            let label = parse(&record.label)?;
            selinux::set_label_of_fd(lock.as_fd(), &label)
                .map_err(|error| not_shared(record, &error.to_string()))?;
            lock.relock(FlockArg::LockShared)
                .map_err(|error| not_shared(record, &error.to_string()))?;
        }
        Ok(())
    }

    /// Puts back every label that no other guest needs, and lets those files go.
    /// Returns what failed, a line each.
    pub fn put_back(&mut self, host: &RealHost, wait: Wait) -> Vec<String> {
        self.put_back_some(host, wait, &|_| true, &mut || ())
    }

    /// As [`Hold::put_back`], for these records only; `step` is called before each.
    pub fn put_back_some(
        &mut self,
        host: &RealHost,
        wait: Wait,
        wanted: &dyn Fn(&Record) -> bool,
        step: &mut dyn FnMut(),
    ) -> Vec<String> {
        let mut failures = Vec::new();
        let mut progress = Progress::default();
        let sweeps = self.entry.records.iter().any(|record| record.tree);
        let mut left = Vec::new();
        for (record, found) in std::mem::take(&mut self.found).into_iter().rev() {
            if !wanted(&record) {
                left.push((record, found));
                continue;
            }
            step();
            match self.one(host, &record, &found, wait, &mut progress) {
                Ok(Standing::Done) => {
                    if sweeps && matches!(found, Found::Locked(_)) {
                        progress.back.insert(record.path, record.identity.ino);
                    }
                }
                Ok(Standing::InUse | Standing::Later) => left.push((record, found)),
                Err(why) => {
                    failures.push(not_back(&record, &why));
                    left.push((record, Found::Unusable(why)));
                }
            }
        }
        left.reverse();
        self.found = left;
        // On disk before the entry that could repeat it is gone.
        for file in progress.touched.values() {
            if let Err(error) = nix::unistd::syncfs(file) {
                failures.push(format!("cannot sync the labels to disk: {error}"));
            }
        }
        failures
    }

    fn one(
        &self,
        host: &RealHost,
        record: &Record,
        found: &Found,
        wait: Wait,
        progress: &mut Progress,
    ) -> Result<Standing, String> {
        let Progress {
            labels,
            touched,
            back,
        } = progress;
        let (given, original) = labels.of(record)?;
        // Only its lock was needed.
        if given == original {
            return Ok(Standing::Done);
        }
        if !original.cage().is_empty() {
            return Err(format!("'{original}' carries categories"));
        }
        if !given.cage().is_empty() && given.cage() != self.cage {
            return Err(format!("'{given}' is not a label of this guest"));
        }
        // restorecon on Debian resets the type and keeps the categories: still ours.
        let ours = |current: &Context| {
            // Private content that libvirt has given to a guest of its own, too.
            let shared = record.class == Class::Content && *current == given.bare();
            let kept = current.cage() == self.cage && !self.cage.is_empty();
            current != original && (current == given || shared || kept)
        };
        let failed = |error: io::Error| format!("cannot set {original}: {error}");
        match found {
            Found::Gone => {}
            Found::Absent | Found::Unusable(_) => return Ok(Standing::Later),
            Found::Locked(lock) => {
                // An exclusive disk is held alone from the start.
                if record.class != Class::Exclusive
                    && (!alone(lock, wait).map_err(|error| error.to_string())?
                        || !unused(host, record, lock, wait)?)
                {
                    return Ok(Standing::InUse);
                }
                let label = selinux::label_of_fd(lock.as_fd()).map_err(|e| e.to_string())?;
                if label.is_some_and(|label| ours(&label)) {
                    selinux::set_label_of_fd(lock.as_fd(), original).map_err(failed)?;
                    if let MapEntry::Vacant(first) = touched.entry(record.identity.dev)
                        && let Ok(file) = lock.try_clone()
                    {
                        first.insert(file);
                    }
                }
            }
            Found::Node => {
                let pinned = match pinned::pin(&record.path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(Standing::Done);
                    }
                    other => other.map_err(|error| error.to_string())?,
                };
                if !same(&pinned, record) || !self.may_touch(&pinned) {
                    return Ok(Standing::Done);
                }
                let label = host.label_of(&pinned).map_err(|error| error.to_string())?;
                if label.is_some_and(|label| ours(&label)) {
                    host.set_label(&pinned, original).map_err(failed)?;
                }
                if record.tree {
                    let failures = sweep::sweep(host, pinned, &self.cage, back);
                    if !failures.is_empty() {
                        return Err(failures.join("; "));
                    }
                }
            }
        }
        Ok(Standing::Done)
    }

    /// Whether everything is back.
    pub fn is_done(&self) -> bool {
        self.found.is_empty() && self.entry.runtime.is_none()
    }

    /// The guest's directory below /run.
    pub fn directory(&self) -> Option<&runtime_dir::Directory> {
        self.entry.runtime.as_ref()
    }

    /// Says that the guest's directory below /run is gone.
    pub fn directory_is_gone(&mut self) {
        self.entry.runtime = None;
    }

    /// What is held.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.found.iter().map(|(record, _)| record)
    }

    fn may_touch(&self, pinned: &Pinned) -> bool {
        self.owner.is_none_or(|owner| owner == pinned.uid)
    }

    /// Files of these records that other guests still use, or that cannot be had now, in words.
    pub fn left(&self, entry: &Path, wanted: &dyn Fn(&Record) -> bool) -> Vec<String> {
        self.found
            .iter()
            .filter(|(record, _)| wanted(record))
            .map(|(record, found)| {
                let why = match found {
                    Found::Absent => format!(
                        "it is not there now; mount its file system and call svirt-exec restore, or \
                         remove {} where it is gone for good",
                        quoted(entry)
                    ),
                    Found::Unusable(why) => why.clone(),
                    Found::Locked(_) | Found::Node | Found::Gone => {
                        "another guest still uses it, and it is put back when that ends".to_owned()
                    }
                };
                not_back(record, &why)
            })
            .collect()
    }

    /// Brings the journal to what is left to do: nothing, or less than before.
    ///
    /// # Errors
    /// Where the journal cannot be changed.
    pub fn settle(&mut self, journal: &Journal, path: &Path) -> Result<(), String> {
        if self.is_done() {
            return match journal.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(format!("cannot remove {}: {error}", quoted(path)))
                }
                _ => Ok(()),
            };
        }
        if self.found.len() == self.entry.records.len() {
            return Ok(());
        }
        self.entry.records = self
            .found
            .iter()
            .map(|(record, _)| record.clone())
            .collect();
        journal
            .replace(path, &self.entry)
            .map_err(|error| error.to_string())
    }
}

/// Finds and locks the files of these records, or says what is wrong with each that is not to be had.
fn find_all(
    host: &RealHost,
    entry: &Entry,
    records: &[Record],
) -> Result<Vec<(Record, Found)>, String> {
    let mut found = Vec::with_capacity(records.len());
    let mut failures = Vec::new();
    for record in records {
        match find(host, entry, record, Purpose::Guest) {
            Ok(it) => found.push((record.clone(), it)),
            Err(why) => failures.push(why),
        }
    }
    if failures.is_empty() {
        Ok(found)
    } else {
        Err(failures.join("\n"))
    }
}

/// The labels of a record, which are often those of the one before.
#[derive(Default)]
struct Labels {
    texts: (String, String),
    labels: Option<(Context, Context)>,
}

impl Labels {
    /// What was given, and what was there before.
    fn of(&mut self, record: &Record) -> Result<(&Context, &Context), String> {
        let texts = (&record.label, &record.original);
        if self.labels.is_none() || texts != (&self.texts.0, &self.texts.1) {
            self.labels = None;
            self.texts = (texts.0.clone(), texts.1.clone());
        }
        let (given, original) = match &mut self.labels {
            Some(labels) => labels,
            none => none.insert((parse(&record.label)?, parse(&record.original)?)),
        };
        Ok((given, original))
    }
}

fn not_back(record: &Record, why: &str) -> String {
    format!(
        "cannot put back the label of {}: {why}",
        quoted(&record.path)
    )
}

fn not_shared(record: &Record, why: &str) -> String {
    format!("cannot share {}: {why}", quoted(&record.path))
}

fn parse(text: &str) -> Result<Context, String> {
    text.parse::<Context>().map_err(|error| error.to_string())
}
#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_given_to_another_file_before_the_lock_is_no_file_to_label() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        fs::write(&path, "").unwrap();
        let host = RealHost::new().unwrap();
        let boot = host.procfs().boot().unwrap().to_owned();
        let context = "u:r:svirt_t:s0:c1,c2".to_owned();
        let mut entry = Entry::new("x".to_owned(), 1, 1, boot, context);
        entry.records.push(Record {
            path: path.clone(),
            identity: pinned::pin(&path).unwrap().identity,
            file_system: None,
            tree: false,
            class: Class::Exclusive,
            original: "u:object_r:user_home_t:s0".to_owned(),
            label: "u:object_r:svirt_image_t:s0:c1,c2".to_owned(),
        });
        let there = || Hold::take(&host, entry.clone()).unwrap().all_there();
        there().unwrap();
        fs::rename(&path, path.with_extension("old")).unwrap();
        assert!(there().unwrap_err().contains("was given another file"));
        std::os::unix::fs::symlink(path.with_extension("old"), &path).unwrap();
        there().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        assert!(there().unwrap_err().contains("was given another file"));
    }
}
