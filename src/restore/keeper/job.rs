//! Jobs: what a command has done for it by a process of the keeper's domain, which does that one thing,
//! says how it goes, and ends.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::model::label::Context;
use crate::restore::keeper::client::{self, TALK};
use crate::restore::keeper::protocol::FromKeeper;
use crate::sys;
use crate::text::message::{Refusal, refuse, say};

/// How the process at work says what it does.
pub type Tell<'a> = dyn FnMut(FromKeeper) + 'a;

/// Starts a process for a job that `args` name, and hears it out. Returns whether it has done
/// everything.
///
/// # Errors
/// Those of [`listen`], and of starting a process in the keeper's domain.
pub fn send(own: &Context, args: &[&[u8]], tell: &mut dyn FnMut(&str)) -> Result<bool, Refusal> {
    let (ours, theirs) = UnixStream::pair()?;
    let null = client::null()?;
    let null = null.as_fd();
    client::start(own, args, &[null, null, null, null, theirs.as_fd()])
        .map_err(|error| refuse(client::cannot_start(error)))?;
    drop(theirs);
    listen(&ours, tell)
}

/// Hears out a process at work: its lines go to `tell`, its progress to standard error. Returns whether
/// it has done everything.
///
/// # Errors
/// What it refuses, or that it ended without a last word.
pub fn listen(talk: &UnixStream, tell: &mut dyn FnMut(&str)) -> Result<bool, Refusal> {
    let mut talk = io::BufReader::new(talk);
    let mut refused = Vec::new();
    loop {
        match FromKeeper::read(&mut talk) {
            Ok(Some(FromKeeper::Line(line))) => tell(&line),
            Ok(Some(FromKeeper::Progress(line))) => say(line),
            Ok(Some(FromKeeper::Refused(line))) => refused.push(line.into()),
            Ok(Some(_)) if !refused.is_empty() => return Err(Refusal::new(refused)),
            Ok(Some(last)) => return Ok(last == FromKeeper::Done),
            Ok(None) | Err(_) => return Err(refuse(client::ended_at_once())),
        }
    }
}

/// Does the work in the process itself, and says how it went. Returns its exit status.
pub fn run(work: impl FnOnce(&mut Tell<'_>) -> Result<bool, Refusal>) -> u8 {
    let talk = sys::inherited(TALK);
    let mut tell = |message: FromKeeper| client::send(talk, &message.encode());
    let done = work(&mut tell).unwrap_or_else(|refusal| {
        for message in refusal.messages {
            tell(FromKeeper::Refused(message.to_string()));
        }
        false
    });
    tell(if done {
        FromKeeper::Done
    } else {
        FromKeeper::Failed(String::new())
    });
    u8::from(!done)
}
