//! The files of a guest, locked, and putting their labels back.
//!
//! Runs in the keeper's domain. It does not trust the journal: it acts only on a file that is still the
//! one recorded and that still carries the guest's categories, or the label that the launcher gave it;
//! and it never gives a label with categories.

use crate::host::pinned;
use crate::host::runtime_dir;
use crate::host::{Files, RealHost};
use crate::model::label::{Categories, Context};
use crate::model::resource::Class;
use crate::restore::entry::{JournalEntry, Record};
use crate::restore::error::{HoldError, PutBackError, ShareError};
use crate::restore::file_lock::{FileLock, Wait};
use crate::restore::journal::{Journal, JournalError};
use crate::restore::lookup::{LockedFor, Lookup, find, find_all, is_same, is_unused};
use crate::restore::proof::{GuestFiles, Word, is_given};
use crate::restore::record_labels::{ParsedLabels, RecordLabels};
use crate::restore::set_id;
use crate::restore::sweep::{MAX_NAMES, Settled, Sweep};
use crate::selinux;
use crate::text::escape::quoted;
use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// The files of a guest, locked: as long as they are, no other guest takes them and nobody else puts
/// their labels back.
pub struct Hold {
    entry: JournalEntry,
    word: Word,
    files: Option<GuestFiles>,
    /// Names in trees that are looked at still.
    pub names: usize,
    categories: Categories,
    /// Whether others have overlapping categories (`--share-level`).
    is_shared: bool,
    found: Vec<(Record, Lookup)>,
    /// What was done beside putting labels back, a line each.
    notes: Vec<String>,
}

/// What has been done so far.
#[derive(Default)]
struct Progress {
    labels: ParsedLabels,
    /// A file of each file system, by device, to sync it by.
    touched: HashMap<u64, File>,
    /// For the sweep of a tree.
    settled: Settled,
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
    /// Each file that somebody holds or that cannot be opened; an entry without a context.
    pub fn take(host: &RealHost, entry: JournalEntry) -> Result<Self, HoldError> {
        let categories = entry.context.parse::<Context>()?.categories();
        let found = find_all(host, &entry, &entry.records).map_err(HoldError::Files)?;
        Ok(Self {
            entry,
            word: Word::Own,
            files: None,
            names: MAX_NAMES,
            categories,
            is_shared: false,
            found,
            notes: Vec::new(),
        })
    }

    /// Locks those regular files of an entry that can be locked, for a guest that has ended. If it is the
    /// word of another user, no file of anybody else is touched then, and `names` of trees are looked at.
    ///
    /// # Errors
    /// An entry without a context, or of another user's with one that is no guest's.
    pub fn take_what_can_be(
        host: &RealHost,
        entry: JournalEntry,
        word: Word,
        names: usize,
    ) -> Result<Self, HoldError> {
        let context = entry.context.parse::<Context>()?;
        let categories = context.categories();
        let files = match word {
            Word::Own => None,
            Word::Trusted | Word::Of(_) => match GuestFiles::of(host, &context) {
                None => return Err(HoldError::NoGuest(Box::new(context))),
                files => files,
            },
        };
        let look = |record: &Record| {
            let found = find(host, &entry, record, LockedFor::PuttingBack(word.owner()));
            let found = found.unwrap_or_else(|error| Lookup::Unusable(error.to_string()));
            (record.clone(), found)
        };
        let found = entry.records.iter().map(look).collect();
        Ok(Self {
            entry,
            word,
            files,
            names,
            categories,
            is_shared: false,
            found,
            notes: Vec::new(),
        })
    }

    /// Locks the files of further records of the same guest.
    ///
    /// # Errors
    /// That the entry is another guest's, and those of [`Hold::take`]; nothing is held anew then.
    pub fn grow(&mut self, host: &RealHost, entry: JournalEntry) -> Result<(), HoldError> {
        let known = self.entry.records.len();
        let begins_alike = entry.records.get(..known) == Some(self.entry.records.as_slice());
        if entry.context != self.entry.context || !begins_alike {
            return Err(HoldError::OtherGuest);
        }
        let new = entry.records.get(known..).unwrap_or_default();
        let mut found = find_all(host, &entry, new).map_err(HoldError::Files)?;
        check_names_unchanged(&found)?;
        if self.is_shared {
            check_without_categories(host, &found)?;
        }
        self.found.append(&mut found);
        self.entry = entry;
        Ok(())
    }

    /// Checks that every name still leads to the file that the launcher has looked at, and will label.
    /// One that does not would be labelled without a lock, and without a way back.
    ///
    /// # Errors
    /// The first name that does not.
    pub fn check_names_unchanged(&self) -> Result<(), HoldError> {
        check_names_unchanged(&self.found)
    }

    /// Notes that others have overlapping categories (`--share-level`). A file that carries categories
    /// may be theirs then, so none that does is held, unless it keeps the label that it has.
    ///
    /// # Errors
    /// The first file that is held already and carries some.
    pub fn share_categories(&mut self, host: &RealHost) -> Result<(), HoldError> {
        self.is_shared = true;
        check_without_categories(host, &self.found)
    }

    /// Checks that nobody else holds a file of the entry, and will put its label back while this guest
    /// uses it without a keeper.
    ///
    /// # Errors
    /// The first file that somebody does hold, and those of flock(2).
    pub fn check_no_other_holder(&self, host: &RealHost) -> Result<(), HoldError> {
        for (record, found) in &self.found {
            if let Lookup::Locked(lock) = found
                && record.class != Class::Exclusive
            {
                if !lock.hold_alone(host, Wait::Never)? {
                    return Err(HoldError::OtherHolder {
                        path: record.path.clone(),
                        label: record.label.clone(),
                    });
                }
                // Others may come from now on: they find the label that they need.
                let _ = lock.share();
            }
        }
        Ok(())
    }

    /// Lets all guests read these records of private content: on disk first, then the label, then the
    /// lock.
    ///
    /// # Errors
    /// The first that cannot be shared; it stays as it was, or as the journal has it.
    pub fn share(
        &mut self,
        journal: &Journal,
        path: &Path,
        wanted: &dyn Fn(&Record) -> bool,
    ) -> Result<(), ShareError> {
        let chosen = |record: &Record| record.is_private_content() && wanted(record);
        let without_categories = |record: &mut Record| -> Result<Context, ShareError> {
            let label = record.label.parse::<Context>()?.bare();
            record.label = label.to_string();
            Ok(label)
        };
        let mut entry = self.entry.clone();
        for record in entry.records.iter_mut().filter(|record| chosen(record)) {
            without_categories(record)?;
        }
        journal.replace(path, &entry)?;
        self.entry = entry;
        for (record, found) in &mut self.found {
            if !chosen(record) {
                continue;
            }
            let path = record.path.clone();
            let cannot = |source: io::Error| ShareError::Share {
                path: path.clone(),
                source,
            };
            let Lookup::Locked(lock) = found else {
                return Err(cannot(io::Error::other("it is not locked")));
            };
            let label = without_categories(record)?;
            selinux::set_label_of_fd(lock.as_fd(), &label).map_err(cannot)?;
            lock.share().map_err(cannot)?;
        }
        Ok(())
    }

    /// Puts back every label that no other guest needs, and lets those files go. Returns what failed, a
    /// line each.
    pub fn put_back(&mut self, host: &RealHost, wait: Wait) -> Vec<String> {
        self.put_back_some(host, wait, &|_| true, &mut || ())
    }

    /// Puts labels back as [`Hold::put_back`] does, for these records only. `step` is called before each.
    pub fn put_back_some(
        &mut self,
        host: &RealHost,
        wait: Wait,
        wanted: &dyn Fn(&Record) -> bool,
        step: &mut dyn FnMut(),
    ) -> Vec<String> {
        let mut failures = Vec::new();
        let mut progress = Progress::default();
        if self.entry.records.iter().any(|record| record.tree) {
            progress.settled = Settled::of(&self.found);
        }
        let mut left = Vec::new();
        for (record, found) in std::mem::take(&mut self.found).into_iter().rev() {
            if !wanted(&record) {
                left.push((record, found));
                continue;
            }
            step();
            match self.restore_one(host, &record, &found, wait, &mut progress) {
                Ok(Standing::Done) => {}
                Ok(Standing::InUse | Standing::Later) => left.push((record, found)),
                Err(error) => {
                    let why = error.to_string();
                    failures.push(not_back(&record, &why));
                    left.push((record, Lookup::Unusable(why)));
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

    /// Returns what was done beside putting labels back since this was asked, a line each.
    pub fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Puts the label of one record back, unless the file is gone or in use.
    fn restore_one(
        &mut self,
        host: &RealHost,
        record: &Record,
        found: &Lookup,
        wait: Wait,
        progress: &mut Progress,
    ) -> Result<Standing, PutBackError> {
        let Progress {
            labels,
            touched,
            settled,
        } = progress;
        let labels = labels.of(record)?;
        let RecordLabels { given, original } = labels;
        // Only its lock was needed.
        if given == original {
            return Ok(Standing::Done);
        }
        if !original.categories().is_empty() {
            return Err(PutBackError::HasCategories(Box::new(original.clone())));
        }
        if !given.categories().is_empty() && given.categories() != self.categories {
            return Err(PutBackError::NotThisGuests(Box::new(given.clone())));
        }
        match found {
            Lookup::Gone => Ok(Standing::Done),
            Lookup::Absent | Lookup::Unusable(_) => Ok(Standing::Later),
            Lookup::Locked(lock) => {
                // An exclusive disk is held alone from the start.
                if record.class != Class::Exclusive
                    && (!lock.hold_alone(host, wait)? || !is_unused(host, record, lock, wait)?)
                {
                    return Ok(Standing::InUse);
                }
                if self.restore_locked(record, lock, labels)?
                    && let MapEntry::Vacant(first) = touched.entry(record.identity.dev)
                    && let Ok(file) = lock.file().try_clone()
                {
                    first.insert(file);
                }
                Ok(Standing::Done)
            }
            Lookup::Node => {
                self.restore_node(host, record, labels, settled)?;
                Ok(Standing::Done)
            }
        }
    }

    /// Puts back the label of a file that is locked. Returns whether there was something to do.
    fn restore_locked(
        &mut self,
        record: &Record,
        lock: &FileLock,
        labels: RecordLabels<'_>,
    ) -> Result<bool, PutBackError> {
        let now = selinux::label_of_fd(lock.as_fd())?;
        let ours = now.is_some_and(|now| self.is_ours(record, &now, labels));
        if ours {
            self.notes
                .extend(set_id::take_off_recorded(record, lock.file())?);
            selinux::set_label_of_fd(lock.as_fd(), labels.original)
                .map_err(|error| PutBackError::set(labels.original, error))?;
        }
        Ok(ours)
    }

    /// Puts back the label of a device, a socket or a directory, and what is below that.
    fn restore_node(
        &mut self,
        host: &RealHost,
        record: &Record,
        labels: RecordLabels<'_>,
        settled: &Settled,
    ) -> Result<(), PutBackError> {
        let pinned = match pinned::pin(&record.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            pinned => pinned?,
        };
        let is_foreign = |owner: u32| owner != pinned.uid;
        if !is_same(&pinned, record) || self.word.owner().is_some_and(is_foreign) {
            return Ok(());
        }
        let now = host.label_of(&pinned)?;
        if now.is_some_and(|now| self.is_ours(record, &now, labels)) {
            host.set_label(&pinned, labels.original)
                .map_err(|error| PutBackError::set(labels.original, error))?;
        }
        if record.tree {
            let sweep = Sweep {
                host,
                categories: &self.categories,
                owner: self.word.owner(),
                settled,
                left: &mut self.names,
                notes: &mut self.notes,
            };
            let failures = sweep.run(pinned);
            if !failures.is_empty() {
                return Err(PutBackError::Tree(failures));
            }
        }
        Ok(())
    }

    /// Tells whether a label is one that this guest's launch gave.
    fn is_ours(&self, record: &Record, now: &Context, labels: RecordLabels<'_>) -> bool {
        let (files, categories) = (self.files.as_ref(), &self.categories);
        is_given(self.word, files, categories, record, (now, labels))
    }

    /// Tells whether everything is back.
    pub fn is_done(&self) -> bool {
        self.found.is_empty() && self.entry.runtime.is_none()
    }

    /// Returns the entry, as it was last read or written.
    pub fn entry(&self) -> &JournalEntry {
        &self.entry
    }

    /// Returns the guest's directory below /run.
    pub fn directory(&self) -> Option<&runtime_dir::Directory> {
        self.entry.runtime.as_ref()
    }

    /// Notes that the guest's directory below /run is gone.
    pub fn directory_is_gone(&mut self) {
        self.entry.runtime = None;
    }

    /// Returns the records that are held.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.found.iter().map(|(record, _)| record)
    }

    /// Says of each of these records why its label is not back: other guests still use the file, or it
    /// cannot be had now.
    pub fn left(&self, entry: &Path, wanted: &dyn Fn(&Record) -> bool) -> Vec<String> {
        self.found
            .iter()
            .filter(|(record, _)| wanted(record))
            .map(|(record, found)| {
                let why = match found {
                    Lookup::Absent => format!(
                        "it is not there now; mount its file system and call svirt-exec restore, or \
                         remove {} where it is gone for good",
                        quoted(entry)
                    ),
                    Lookup::Unusable(why) => why.clone(),
                    Lookup::Locked(_) | Lookup::Node | Lookup::Gone => {
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
    /// Those of changing the journal.
    pub fn write_back(&mut self, journal: &Journal, path: &Path) -> Result<(), JournalError> {
        if self.is_done() {
            return journal.remove_if_there(path);
        }
        if self.found.len() == self.entry.records.len() {
            return Ok(());
        }
        self.entry.records = self.records().cloned().collect();
        journal.replace(path, &self.entry)
    }
}

fn check_names_unchanged(found: &[(Record, Lookup)]) -> Result<(), HoldError> {
    let moved = |(_, found): &&(Record, Lookup)| matches!(found, Lookup::Absent | Lookup::Gone);
    match found.iter().find(moved) {
        None => Ok(()),
        Some((record, _)) => Err(HoldError::Replaced(record.path.clone())),
    }
}

/// Checks that none of these carries categories yet, apart from what keeps its label.
fn check_without_categories(host: &RealHost, found: &[(Record, Lookup)]) -> Result<(), HoldError> {
    for (record, found) in found {
        let label = match found {
            Lookup::Locked(lock) => selinux::label_of_fd(lock.as_fd()),
            Lookup::Node => pinned::pin(&record.path).and_then(|pinned| host.label_of(&pinned)),
            Lookup::Absent | Lookup::Gone | Lookup::Unusable(_) => continue,
        };
        let label = label.map_err(|source| HoldError::Label {
            path: record.path.clone(),
            source,
        })?;
        if let Some(label) = label
            && !label.categories().is_empty()
            && record.original != record.label
        {
            return Err(HoldError::HasCategories {
                path: record.path.clone(),
                label: Box::new(label),
            });
        }
    }
    Ok(())
}

fn not_back(record: &Record, why: &str) -> String {
    format!(
        "cannot put back the label of {}: {why}",
        quoted(&record.path)
    )
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
        let mut entry = JournalEntry::new("x".to_owned(), 1, 1, boot, context);
        entry.records.push(Record {
            path: path.clone(),
            identity: pinned::pin(&path).unwrap().identity,
            file_system: None,
            tree: false,
            class: Class::Exclusive,
            set_id: None,
            original: "u:object_r:user_home_t:s0".to_owned(),
            label: "u:object_r:svirt_image_t:s0:c1,c2".to_owned(),
        });
        let there = || {
            let hold = Hold::take(&host, entry.clone()).unwrap();
            hold.check_names_unchanged()
                .map_err(|error| error.to_string())
        };
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
