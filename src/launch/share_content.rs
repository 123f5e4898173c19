//! Content that another guest of this user keeps private, and that this launch names, too: the other
//! guest's keeper lets all guests read it.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::host::{Files, RealHost};
use crate::model::label::Context;
use crate::model::resource::Class;
use crate::plan::resource::Collected;
use crate::restore::keeper::job;
use crate::seclabel::labels::GuestLabels;
use crate::text::message::{Message, Refusal};

/// Has the keepers of other guests share what is private to those and named by this one, too. What cannot be
/// shared is an obstacle.
///
/// # Errors
/// Those of starting the process that asks them, and of reading labels.
pub fn share(
    host: &RealHost,
    own: &Context,
    labels: &GuestLabels,
    collected: &mut Collected,
) -> Result<(), Refusal> {
    let theirs = |current: Option<&Context>| {
        current.is_some_and(|now| now.type_ == labels.content.type_ && !now.categories().is_empty())
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
    let mut lines: Vec<Message> = Vec::new();
    let done = job::send(own, &args, &mut |line| lines.push(line.into()));
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
