//! What image headers name now, against what they named when a guest had the images last.
//!
//! A guest writes the header of its own disk. One that was taken over names another guest's disk there, and
//! the next launch, told that the disk is qcow2, would give it away: to be read as a backing file, to be
//! written as a data file. A format that is stated (CVE-2008-2004) does not help: it is the right one.
//! Therefore a header that names a file which it did not name, and which the line does not name either, stops
//! the launch. At the first launch of a disk nothing is known: what only a header gives is said, and given to
//! be read at most.
//!
//! Pure.

use crate::model::chain::{Chain, ChainFile, DiskKey};
use crate::plan::resource::{FollowedHeader, Role};
use crate::text::escape::{quoted, shell_word};
use crate::text::message::Message;

/// What is known of disks, and what the caller says.
pub struct Memory<'a> {
    /// Returns what the header of a disk named at its last launch. None if it had none that is known. An
    /// error says why that cannot be told.
    pub recall: &'a dyn Fn(&DiskKey) -> Result<Option<Chain>, String>,
    /// Tells whether the caller takes what the header names now (`--accept-chain`).
    pub accepts: &'a dyn Fn(&FollowedHeader) -> bool,
}

/// What comes of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Why headers are not followed.
    pub errors: Vec<Message>,
    /// What is given by a header alone, for the first time.
    pub notes: Vec<Message>,
    /// What is to be remembered if the launch is made.
    pub chains: Vec<(DiskKey, Chain)>,
}

/// Judges every header. `stated` is what the line names by itself.
pub fn judge(headers: &[FollowedHeader], stated: &[ChainFile], memory: &Memory<'_>) -> Judgement {
    let mut out = Judgement::default();
    for header in headers {
        let recalled = match (memory.recall)(&header.key) {
            Ok(recalled) => recalled,
            Err(why) => {
                if !header.direct.is_empty() && !(memory.accepts)(header) {
                    out.errors.push(unknown(header, &why));
                    continue;
                }
                None
            }
        };
        judge_names(header, stated, recalled.as_ref(), memory, &mut out);
        let chain = chain_of(header, stated, recalled.as_ref());
        let worth_it = header.is_written || !chain.files.is_empty() || recalled.is_some();
        let known = out.chains.iter_mut().find(|(key, _)| *key == header.key);
        match known {
            // Named twice: below two overlays of one base.
            Some((_, known)) => chain.files.into_iter().for_each(|file| known.add(file)),
            None if worth_it => out.chains.push((header.key.clone(), chain)),
            None => {}
        }
    }
    out.errors.dedup();
    out.notes.dedup();
    out
}

/// Judges what one header names.
fn judge_names(
    header: &FollowedHeader,
    stated: &[ChainFile],
    recalled: Option<&Chain>,
    memory: &Memory<'_>,
    out: &mut Judgement,
) {
    if (memory.accepts)(header) {
        return;
    }
    for (file, role) in &header.direct {
        if stated.iter().any(|known| known.covers(file)) {
            continue;
        }
        match recalled {
            Some(chain) if chain.covers(file) => {}
            Some(_) => out.errors.push(unheard_of(header, file, *role)),
            None if file.written => out.errors.push(not_for_writing(header, file, *role)),
            None => out.notes.push(
                format!(
                    "the header of {} ({}) names {} as its {role}, and the command line does not",
                    header.name,
                    header.origin,
                    quoted(&file.path)
                )
                .into(),
            ),
        }
    }
}

/// Returns what is to be remembered of an image: what this launch gives because of it, and what its header
/// names and this launch gives because of the line.
fn chain_of(header: &FollowedHeader, stated: &[ChainFile], recalled: Option<&Chain>) -> Chain {
    let mut chain = Chain::default();
    for (file, _) in &header.direct {
        chain.add(file.clone());
    }
    for file in &header.below {
        chain.add(file.clone());
    }
    for path in &header.replaced {
        // Nothing else that is in the header now is believed.
        let known = recalled.map_or(&[][..], |chain| chain.files.as_slice());
        let mut before = stated.iter().chain(known);
        if let Some(file) = before.find(|file| file.path == *path) {
            chain.add(file.clone());
        }
    }
    chain
}

/// Says how the caller can have a file that only a header names.
fn remedy(header: &FollowedHeader, role: Role) -> String {
    let accept = format!("--accept-chain {}", shell_word(&header.path));
    let state = match role {
        Role::Extent => return format!("if it is right, say so: {accept}"),
        Role::DataFile => "data-file.filename=",
        Role::Backing | Role::Other => "backing.file.filename=",
    };
    format!("if it is right, say so: {state} on the line, or {accept}")
}

/// Refuses a name that a header did not have.
fn unheard_of(header: &FollowedHeader, file: &ChainFile, role: Role) -> Message {
    Message::new(
        format!(
            "cannot follow the header of {} ({}): it names {} as its {role}, and did not when a guest had \
             it last, who may have written that there",
            header.name,
            header.origin,
            quoted(&file.path)
        ),
        remedy(header, role),
    )
}

/// Refuses what would be written because a header says so.
fn not_for_writing(header: &FollowedHeader, file: &ChainFile, role: Role) -> Message {
    Message::new(
        format!(
            "cannot give {} to the guest to be written: only the header of {} ({}) names it, as its {role}",
            quoted(&file.path),
            header.name,
            header.origin,
        ),
        remedy(header, role),
    )
}

/// Refuses what cannot be judged.
fn unknown(header: &FollowedHeader, why: &str) -> Message {
    Message::new(
        format!(
            "cannot tell what the header of {} ({}) named when a guest had it last: {why}",
            header.name, header.origin
        ),
        format!(
            "if what it names now is right, say so: --accept-chain {}",
            shell_word(&header.path)
        ),
    )
}

#[cfg(test)]
#[path = "remembered_tests.rs"]
mod tests;
