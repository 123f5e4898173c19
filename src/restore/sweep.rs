//! The sweep of a directory that was handed over (`--label-tree`): what the guest made in it, and what
//! was moved there, gets the label of the directory that it is in.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use crate::host::pinned::{self, Kind, Pinned, names};
use crate::host::{Files, RealHost};
use crate::model::label::{Categories, Context};
use crate::text::escape::quoted;

/// Gives what carries the guest's categories below a directory the label of the directory that it is in.
/// `back` are files that have their labels already: inode numbers by path. Returns what failed, a line each.
pub fn sweep(
    host: &RealHost,
    root: Pinned,
    categories: &Categories,
    back: &HashMap<PathBuf, u64>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let device = root.identity.dev;
    let mut waiting = vec![root];
    while let Some(directory) = waiting.pop() {
        let mut fail = |path: PathBuf, error: io::Error| {
            failures.push(format!(
                "cannot put back the label of {}: {error}",
                quoted(&path)
            ));
        };
        let parent = match host.label_of(&directory) {
            Ok(Some(label)) if label.categories().is_empty() => label,
            // Another guest's by now, or without labels.
            Ok(_) => continue,
            Err(error) => {
                fail(directory.path.clone(), error);
                continue;
            }
        };
        let names = match names(&directory) {
            Ok(names) => names,
            Err(error) => {
                fail(directory.path.clone(), error);
                continue;
            }
        };
        for (name, inode) in names {
            let path = directory.path.join(&name);
            if back.get(&path) == Some(&inode) {
                continue;
            }
            let entry = match pinned::pin_below(&directory, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    fail(path, error);
                    continue;
                }
                Ok((entry, _)) if entry.identity.dev != device => continue,
                Ok((entry, _)) => entry,
            };
            if let Err(error) = put_back(host, &entry, &parent, categories) {
                fail(path, error);
            }
            if entry.kind == Kind::Dir {
                waiting.push(entry);
            }
        }
    }
    failures
}

/// Gives `entry` the type and user of the directory it is in, if it carries just these categories.
fn put_back(
    host: &RealHost,
    entry: &Pinned,
    parent: &Context,
    categories: &Categories,
) -> io::Result<()> {
    let own = host
        .label_of(entry)?
        .filter(|label| !categories.is_empty() && label.categories() == *categories);
    if let Some(label) = own {
        let mut new = label.with_type(&parent.type_).bare();
        new.user.clone_from(&parent.user);
        host.set_label(entry, &new)?;
    }
    Ok(())
}
