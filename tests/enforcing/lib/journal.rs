//! The journal of original labels: a file for each guest, in a directory of root's and in one of each
//! other user's.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// What svirt-exec keeps from one boot to the next.
pub const STATE: &str = "/var/lib/svirt-exec";
/// The journal of root's guests.
pub const GUESTS: &str = "/var/lib/svirt-exec/guests";
/// Where keepers say that they could not put everything back.
pub const UNFINISHED: &str = "/var/lib/svirt-exec/unfinished";

/// What is remembered of disks, in the directory of a journal.
pub const CHAINS: &str = "chains";

/// Lists the entries of a journal.
pub fn entries(journal: impl AsRef<Path>) -> Vec<PathBuf> {
    let files = fs::read_dir(journal).unwrap().flatten();
    let paths = files.map(|file| file.path());
    paths.filter(|path| !path.ends_with(CHAINS)).collect()
}

/// Lists the entries of all users' journals.
pub fn entries_of_all() -> Vec<PathBuf> {
    let users = entries(Path::new(STATE).join("users"));
    let journals = users.into_iter().chain([PathBuf::from(GUESTS)]);
    journals.flat_map(entries).collect()
}

/// Lists the entries of a journal that have this text in them. One that is removed meanwhile has none.
pub fn entries_with(journal: impl AsRef<Path>, text: &str) -> Vec<PathBuf> {
    let mut found = entries(journal);
    found.retain(|entry| fs::read_to_string(entry).is_ok_and(|entry| entry.contains(text)));
    found
}

/// Lists the entries of root's journal that name a file, or a file below a directory.
pub fn entries_naming(path: &Path) -> Vec<PathBuf> {
    entries_with(GUESTS, path.to_str().unwrap())
}

/// Returns the one entry of a journal that names a file.
pub fn entry_of(journal: impl AsRef<Path>, file: &Path) -> PathBuf {
    let mut found = entries_with(journal, file.to_str().unwrap());
    assert_eq!(found.len(), 1, "{}: {found:?}", file.display());
    found.remove(0)
}

/// Waits until no entry of root's journal names a file, or a file below a directory.
pub fn wait_until_not_named(path: &Path) {
    wait_until("no entry names it", || entries_naming(path).is_empty());
}

/// Lists what keepers have asked root to put back.
pub fn unfinished() -> Vec<PathBuf> {
    entries(UNFINISHED)
}

/// Waits until no keeper of an ended guest is at work: a keeper ends when the
/// journal entry of its guest is gone.
pub fn keepers_done() {
    wait_until("the keepers have put everything back", || {
        let mut entries = entries(GUESTS);
        entries.retain(|path| path.extension() == Some("json".as_ref()));
        entries.iter().all(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            // An entry that is gone by now, or that of a guest that still runs.
            text.is_empty()
                || text.contains("\"pid\"") && {
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    let context = value["context"].as_str().unwrap();
                    runs_in(context)
                }
        })
    });
}
