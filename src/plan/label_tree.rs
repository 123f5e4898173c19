//! `--label-tree DIR`: a directory with all that is in it, handed over to one guest (9p, virtiofs,
//! fat:, hugepages).
//!
//! The way down is by descriptors, without following symbolic links and without leaving the file
//! system, so that nobody who may write in the tree can lead it elsewhere.

use crate::host::Host;
use crate::host::pinned::{self, Kind, Pinned};
use crate::model::resource::{Access, Class, Origin};
use crate::plan::protected;
use crate::plan::resource::{Collected, Resource};
use crate::text::escape::quoted;
use crate::text::message::Message;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// Most files and directories in a tree: each is held open until QEMU runs.
const MAX_ENTRIES: usize = 10_000;

/// Most names in a tree, whatever they are of: whoever fills it with links makes a launch read them all.
const MAX_NAMES: usize = 50_000;

/// Directories from the tree to the deepest one in it.
const MAX_DEPTH: usize = 128;

/// Finds everything in a tree that is to be labelled.
///
/// # Errors
/// That it is no directory, holds too much, or belongs to the host.
pub fn collect(
    host: &dyn Host,
    cwd: &Path,
    root: &Path,
    out: &mut Collected,
) -> Result<Vec<Resource>, Message> {
    let path = cwd.join(root);
    let fail = |why: String| Message::from(cannot_label(&path, &why));
    let top = host.pin(&path).map_err(|error| fail(error.to_string()))?;
    if top.kind != Kind::Dir {
        return Err(Message::new(
            cannot_label(&path, "it is no directory"),
            "name it on QEMU's line only",
        ));
    }
    if let Some(within) = protected::protected_within(&top.real_path()) {
        return Err(Message::new(
            cannot_label(&path, &format!("{within} is the host's own")),
            "name a directory of the guest's",
        ));
    }
    let device = top.identity.dev;
    let mut found = Vec::new();
    let mut others = 0_usize;
    let mut left = MAX_NAMES;
    let mut waiting = vec![(top, 0_usize)];
    while let Some((directory, depth)) = waiting.pop() {
        for name in list(&directory, &mut left, &path)? {
            let Some(entry) = open_entry(&directory, &name).map_err(fail)? else {
                continue;
            };
            match entry.kind {
                Kind::Dir | Kind::File if entry.identity.dev != device => {
                    out.warnings.push(other_file_system(&entry.path));
                }
                Kind::Dir if depth >= MAX_DEPTH => {
                    return Err(fail(format!("it is deeper than {MAX_DEPTH} directories")));
                }
                Kind::Dir => waiting.push((entry, depth.saturating_add(1))),
                Kind::File => found.push(resource(host, entry, &path, out)),
                Kind::Block | Kind::Char | Kind::Socket | Kind::Fifo | Kind::Missing => {
                    others = others.saturating_add(1);
                }
            }
            if found.len().saturating_add(waiting.len()) >= MAX_ENTRIES {
                return Err(too_large(&path));
            }
        }
        found.push(resource(host, directory, &path, out));
    }
    if others > 0 {
        out.warnings.push(neither_file_nor_directory(others, &path));
    }
    // A directory before what is in it: labels go back in the opposite order.
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn neither_file_nor_directory(count: usize, tree: &Path) -> Message {
    let tree = quoted(tree);
    format!("{count} device nodes, sockets and pipes in {tree} keep their labels (--label-tree)")
        .into()
}

fn other_file_system(path: &Path) -> Message {
    let path = quoted(path);
    format!("{path} is another file system and keeps its labels (--label-tree)").into()
}

fn too_large(tree: &Path) -> Message {
    let why = format!("it holds more than {MAX_ENTRIES} files and directories");
    Message::new(
        cannot_label(tree, &why),
        "hand over a smaller one, or give it a guest's label for good (semanage fcontext)",
    )
}

fn too_many_names(tree: &Path) -> Message {
    let why = format!("it holds more than {MAX_NAMES} names, links and nodes among them");
    Message::new(
        cannot_label(tree, &why),
        "hand over a smaller one, or give it a guest's label for good (semanage fcontext)",
    )
}

fn cannot_label(tree: &Path, why: &str) -> String {
    format!("cannot label {} (--label-tree): {why}", quoted(tree))
}

/// Lists a directory of a tree, in which `left` more names may be.
fn list(directory: &Pinned, left: &mut usize, tree: &Path) -> Result<Vec<OsString>, Message> {
    let names = pinned::names(directory, left.saturating_add(1)).map_err(|error| {
        let path = quoted(&directory.path);
        cannot_label(tree, &format!("cannot list {path}: {error}"))
    })?;
    let fewer = left.checked_sub(names.len());
    *left = fewer.ok_or_else(|| too_many_names(tree))?;
    Ok(names)
}

/// Opens an entry of a directory. None if it is gone, and for a symbolic link: what that leads to is not in
/// the tree.
fn open_entry(directory: &Pinned, name: &OsStr) -> Result<Option<Pinned>, String> {
    match pinned::pin_below(directory, name) {
        Ok((entry, is_link)) => Ok((!is_link).then_some(entry)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!(
            "cannot look at {}: {error}{}",
            quoted(directory.path.join(name)),
            match error.raw_os_error() {
                Some(libc::EMFILE) => {
                    "; each file of a tree stays open until QEMU runs: raise the limit (LimitNOFILE=, ulimit -Hn)"
                }
                _ => "",
            }
        )),
    }
}

fn resource(host: &dyn Host, pinned: Pinned, root: &Path, out: &mut Collected) -> Resource {
    let current = match host.label_of(&pinned) {
        Ok(label) => label,
        Err(error) => {
            out.obstacles.push(
                format!(
                    "cannot read the label of {} (--label-tree): {error}",
                    quoted(&pinned.path)
                )
                .into(),
            );
            None
        }
    };
    Resource {
        path: Some(pinned.path.clone()),
        fd: None,
        host: None,
        class: Class::Exclusive,
        access: Access::Write,
        origin: Origin::TreeOf {
            tree_of: root.to_path_buf(),
        },
        reason: "in a tree that is handed over",
        mapped: false,
        required: false,
        template: false,
        handed_over: true,
        kind: pinned.kind,
        pinned: Some(pinned),
        current,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use nix::fcntl::{OFlag, open, openat};
    use nix::sys::stat::{Mode, mkdirat};

    use super::*;
    use crate::host::RealHost;

    fn refusal(tree: &Path) -> String {
        let host = RealHost::new().unwrap();
        let mut out = Collected::default();
        let collected = collect(&host, Path::new("/"), tree, &mut out);
        collected
            .err()
            .map(|why| why.to_string())
            .unwrap_or_default()
    }

    /// No path is long enough to name the end of it.
    #[test]
    fn a_tree_ten_thousand_directories_deep_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut at = open(top.path(), flags, Mode::empty()).unwrap();
        for _ in 0..10_000 {
            mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(at.as_fd(), "d", flags, Mode::empty()).unwrap();
        }
        let said = refusal(top.path());
        assert!(said.contains("deeper than 128 directories"), "{said}");
        // rmdir(2) from above would need longer paths than there are, and std's way down a stack.
        let status = std::process::Command::new("rm")
            .arg("-rf")
            .arg(top.path())
            .status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn a_tree_full_of_links_is_refused() {
        let top = tempfile::tempdir().unwrap();
        for number in 0..=MAX_NAMES {
            symlink("x", top.path().join(number.to_string())).unwrap();
        }
        let said = refusal(top.path());
        assert!(said.contains("more than 50000 names"), "{said}");
    }
}
