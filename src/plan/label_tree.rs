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
use std::io;
use std::path::Path;

/// Most files and directories in a tree: each is held open until QEMU runs.
const MOST: usize = 10_000;

/// Deepest directory.
const DEEPEST: usize = 128;

/// Finds everything in a tree that is to be labelled.
///
/// # Errors
/// Where it is no directory, holds too much, or belongs to the host, in words.
pub fn collect(
    host: &dyn Host,
    cwd: &Path,
    root: &Path,
    out: &mut Collected,
) -> Result<Vec<Resource>, String> {
    let path = cwd.join(root);
    let fail = |why: String| format!("cannot label {} (--label-tree): {why}", quoted(&path));
    let top = host.pin(&path).map_err(|error| fail(error.to_string()))?;
    if top.kind != Kind::Dir {
        return Err(fail(
            "it is no directory; name it on QEMU's line only".into(),
        ));
    }
    if let Some(within) = protected::protected_within(&top.real_path()) {
        return Err(fail(format!(
            "{within} is the host's own; name a directory of the guest's"
        )));
    }
    let device = top.identity.dev;
    let mut found = Vec::new();
    let mut others = 0_usize;
    let mut waiting = vec![(top, 0_usize)];
    while let Some((directory, depth)) = waiting.pop() {
        let names = pinned::names(&directory)
            .map_err(|error| fail(format!("cannot list {}: {error}", quoted(&directory.path))))?;
        for (name, _) in names {
            let entry = match pinned::pin_below(&directory, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entry => entry.map_err(|error| {
                    fail(format!(
                        "cannot look at {}: {error}",
                        quoted(directory.path.join(&name))
                    ))
                })?,
            };
            let (entry, is_link) = entry;
            match entry.kind {
                // What it leads to is not in the tree.
                _ if is_link => {}
                Kind::Dir | Kind::File if entry.identity.dev != device => {
                    out.warnings.push(format!(
                        "{} is another file system and keeps its labels (--label-tree)",
                        quoted(&entry.path)
                    ));
                }
                Kind::Dir if depth >= DEEPEST => {
                    return Err(fail(format!("it is deeper than {DEEPEST} directories")));
                }
                Kind::Dir => waiting.push((entry, depth.saturating_add(1))),
                Kind::File => found.push(resource(host, entry, &path, out)),
                Kind::Block | Kind::Char | Kind::Socket | Kind::Fifo | Kind::Missing => {
                    others = others.saturating_add(1);
                }
            }
            if found.len().saturating_add(waiting.len()) >= MOST {
                return Err(fail(format!(
                    "it holds more than {MOST} files and directories; hand over a smaller one, or \
                     give it a guest's label for good (semanage fcontext)"
                )));
            }
        }
        found.push(resource(host, directory, &path, out));
    }
    if others > 0 {
        out.warnings.push(format!(
            "{others} device nodes, sockets and pipes in {} keep their labels (--label-tree)",
            quoted(&path)
        ));
    }
    // A directory before what is in it: labels go back in the opposite order.
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn resource(host: &dyn Host, pinned: Pinned, root: &Path, out: &mut Collected) -> Resource {
    let current = match host.label_of(&pinned) {
        Ok(label) => label,
        Err(error) => {
            out.obstacles.push(format!(
                "cannot read the label of {} (--label-tree): {error}",
                quoted(&pinned.path)
            ));
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
