//! Word to root, from keepers without privilege, that something is left to do.
//!
//! When a guest of libvirt's has ended, its images may belong to root again before its keeper, which
//! runs as the guest's user, has put their labels back. Such a keeper leaves an empty file in a
//! directory that svirt-exec-restore.path watches. The file says nothing but that: what is to be done
//! is in the journals.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::restore::journals::STATE;

fn directory() -> PathBuf {
    Path::new(STATE).join("unfinished")
}

/// Tells root that an entry of this user's is left.
pub fn leave(entry: &Path) {
    let uid = Uid::effective();
    if uid.is_root() {
        return;
    }
    let name = entry.file_stem().unwrap_or_default().to_string_lossy();
    let word = directory().join(format!("{uid}-{name}"));
    // If it is there, or cannot be left, the next restore finds the entry.
    let _ = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(word);
}

/// Removes every word: for root, before it looks at the journals.
pub fn clear() {
    for word in fs::read_dir(directory()).into_iter().flatten().flatten() {
        let _ = fs::remove_file(word.path());
    }
}
