//! Errands: what a command has done for it by a process of the keeper's domain, which does that one
//! thing, says how it goes, and ends.

use std::io::{self, BufRead, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::model::label::Context;
use crate::restore::keeper::client::{self, DONE, END, FAILED, TALK};
use crate::sys;
use crate::text::message::{Refusal, refuse, say};

/// What the process at work says: a line for the caller; how far it is, for whoever waits; that it
/// refuses, and why.
pub(crate) const LINE: u8 = b'L';
pub(crate) const PROGRESS: u8 = b'P';
pub(crate) const REFUSED: u8 = b'X';

/// Sends a process on an errand: `args` say on which. True when it has done everything.
///
/// # Errors
/// As [`listen`], or where no process can be started.
pub fn send(own: &Context, args: &[&[u8]], tell: &mut dyn FnMut(&str)) -> Result<bool, Refusal> {
    let (ours, theirs) = UnixStream::pair()?;
    let null = client::null()?;
    let null = null.as_fd();
    client::start(own, args, &[null, null, null, null, theirs.as_fd()])
        .map_err(|error| refuse(client::cannot_start(error)))?;
    drop(theirs);
    listen(&ours, tell)
}

/// Hears out a process at work. True when it has done everything.
///
/// # Errors
/// What it refuses, or that it ended without a last word.
pub fn listen(talk: &UnixStream, tell: &mut dyn FnMut(&str)) -> Result<bool, Refusal> {
    let mut talk = io::BufReader::new(talk);
    let mut refused = Vec::new();
    loop {
        let mut what = [0_u8; 1];
        talk.read_exact(&mut what)
            .map_err(|_| refuse(client::ended_at_once()))?;
        let mut said = Vec::new();
        talk.read_until(END, &mut said)?;
        let said = String::from_utf8_lossy(said.strip_suffix(&[END]).unwrap_or(&said)).into_owned();
        match what {
            [LINE] => tell(&said),
            [PROGRESS] => say(&said),
            [REFUSED] => refused.push(said),
            _ if !refused.is_empty() => return Err(Refusal::new(refused)),
            what => return Ok(what == [DONE]),
        }
    }
}

/// The process itself: does the work, and says how it went.
pub fn run(work: impl FnOnce(&mut dyn FnMut(u8, &str)) -> Result<bool, Refusal>) -> u8 {
    let talk = sys::inherited(TALK);
    let mut tell = |what: u8, text: &str| client::say(talk, what, format!("{text}\0"));
    let done = work(&mut tell).unwrap_or_else(|refusal| {
        refusal.messages.iter().for_each(|line| tell(REFUSED, line));
        false
    });
    tell(if done { DONE } else { FAILED }, "");
    u8::from(!done)
}
