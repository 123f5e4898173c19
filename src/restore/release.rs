//! Giving files of a guest back while it runs (`detach`): a process of the keeper's domain asks each
//! keeper of the guest, which does so only if no process of the guest has the file open or mapped.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::host::mappings::InMaps;
use crate::host::pinned::Identity;
use crate::host::{RealHost, Sought};
use crate::model::label::Context;
use crate::restore::entry::Record;
use crate::restore::file_lock::Wait;
use crate::restore::hold::Hold;
use crate::restore::journal::Journal;
use crate::restore::journals;
use crate::restore::keeper::control::{self, Address, Request, Verb};
use crate::restore::keeper::job::{self, Tell};
use crate::restore::keeper::protocol::FromKeeper;
use crate::restore::wanted::Wanted;
use crate::text::escape::quoted;
use crate::text::message::{Message, Refusal};

/// Asks the keepers of a guest for files, in a process of their domain: `args` are the guest's context
/// and the files' paths. Returns its exit status.
pub fn run(args: &[Vec<u8>]) -> u8 {
    job::run(|tell| match args.split_first() {
        Some((context, paths)) => ask(&String::from_utf8_lossy(context), paths, tell),
        None => Ok(false),
    })
}

/// Asks every keeper of a guest for what it holds of these paths.
fn ask(context: &str, paths: &[Vec<u8>], tell: &mut Tell<'_>) -> Result<bool, Refusal> {
    let mut wanted: Vec<(Wanted, bool)> = paths
        .iter()
        .map(|path| {
            let path = PathBuf::from(OsString::from_vec(path.clone()));
            (Wanted::new(OsString::new(), path), false)
        })
        .collect();
    let mut asked = Vec::new();
    journals::each_entry(&mut |found| {
        if found.entry.context != context {
            return;
        }
        let mut names = Vec::new();
        for record in &found.entry.records {
            for (_, found) in wanted.iter_mut().filter(|(wanted, _)| wanted.is(record)) {
                *found = true;
                names.push(record.path.clone());
            }
        }
        if !names.is_empty() {
            let address = Address::new(&found.path, &found.entry);
            asked.push((found.journal.owner(), address, names));
        }
    })?;
    let unknown: Vec<Message> = wanted
        .iter()
        .filter(|(_, found)| !found)
        .map(|(wanted, _)| {
            Message::new(
                format!(
                    "cannot detach {}: nothing was labelled under this name for the guest in the journal",
                    quoted(wanted.path().as_os_str())
                ),
                "what another user attached, that user detaches",
            )
        })
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal::new(unknown));
    }
    let mut done = true;
    for (owner, address, names) in asked {
        let mut say = |line: &str| tell(FromKeeper::Line(line.to_owned()));
        done &= control::ask(&address, owner, (Verb::Release, &names), &mut say)?;
    }
    Ok(done)
}

/// Gives back what a caller asks a keeper for, unless the guest uses it.
pub fn release_held(
    host: &RealHost,
    context: &Context,
    hold: &mut Hold,
    (journal, entry): (&Journal, &Path),
    request: &Request,
) {
    let wanted = |record: &Record| request.paths.contains(&record.path);
    let mut refused = false;
    for record in hold.records().filter(|record| wanted(record)) {
        let why = match user_of(host, context, record) {
            Ok(None) => continue,
            Ok(Some((pid, Use::Open))) => format!(
                "process {pid} of the guest has it open; take it from the guest first (device_del, then \
                 blockdev-del)"
            ),
            Ok(Some((pid, Use::Mapped))) => format!(
                "process {pid} of the guest has it mapped, and can go on changing it; take it from the \
                 guest first (device_del, then object-del), or end the guest"
            ),
            Err(error) => format!(
                "whether the guest has it open or mapped cannot be told: {error}; ask as the user who runs \
                 it"
            ),
        };
        refused = true;
        request.say(&FromKeeper::Refused(format!(
            "cannot detach {}: {why}",
            quoted(&record.path)
        )));
    }
    if refused {
        return request.close(false);
    }
    let mut left = hold.put_back_some(host, Wait::Never, &wanted, &mut || ());
    for note in hold.notes() {
        request.say(&FromKeeper::Line(note));
    }
    if left.is_empty() {
        left = hold.left(entry, &wanted);
    }
    let written = hold.write_back(journal, entry);
    left.extend(written.err().map(|error| error.to_string()));
    let done = left.is_empty();
    for line in left {
        request.say(&FromKeeper::Line(line));
    }
    request.close(done);
}

/// How a process uses a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Open,
    Mapped,
}

/// Returns a process of the guest that has a file open or mapped. What is nowhere to be seen, only the guest's
/// end ends: pages of it in a pipe (splice(2)), a descriptor that is on its way through a socket (unix(7),
/// SCM_RIGHTS), a file registered with io_uring.
fn user_of(host: &RealHost, context: &Context, record: &Record) -> io::Result<Option<(Pid, Use)>> {
    let in_maps = InMaps::of(host, &record.path, record.identity);
    for process in host.look_besides(None, Sought::Processes)?.complete()? {
        if process.current.as_ref() != Some(context) {
            continue;
        }
        if has_open(host, process.pid, record.identity)? {
            return Ok(Some((process.pid, Use::Open)));
        }
        if in_maps.is_mapped(host, process.pid)? {
            return Ok(Some((process.pid, Use::Mapped)));
        }
    }
    Ok(None)
}

/// Tells whether a process has a file open.
fn has_open(host: &RealHost, pid: Pid, file: Identity) -> io::Result<bool> {
    let fds = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        fds => fds?,
    };
    for fd in fds {
        let number = fd?.file_name();
        // Its inode number first: only files that may be the one are looked at themselves.
        let info = format!("{pid}/fdinfo/{}", number.to_string_lossy());
        let Ok(info) = host.procfs().read(&info) else {
            continue;
        };
        let inode = info.lines().find_map(|line| line.strip_prefix("ino:"));
        if inode.is_some_and(|inode| inode.trim() != file.ino.to_string()) {
            continue;
        }
        let link = Path::new("/proc")
            .join(pid.to_string())
            .join("fd")
            .join(&number);
        match std::fs::metadata(&link) {
            Ok(open) if open.ino() == file.ino && open.dev() == file.dev => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A file of another kind that the keeper may not look at has this number by chance.
            Err(_) if inode.is_some() && !is_path(&link) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Tells whether a link below /proc/PID/fd leads to something that has a path.
fn is_path(link: &Path) -> bool {
    std::fs::read_link(link).is_ok_and(|to| to.as_os_str().as_bytes().starts_with(b"/"))
}
