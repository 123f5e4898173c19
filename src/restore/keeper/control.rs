//! The control socket of a keeper: how it is asked for something while its guest runs. Its name is
//! abstract (unix(7)), so that it ends with the keeper; any user can take such a name, so a part of it is
//! written in the journal entry only. Only processes of the keeper's domain, of the same user or of root,
//! are heard.

use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;

use crate::restore::entry::JournalEntry;
use crate::restore::keeper::job;
use crate::restore::keeper::protocol::{END, FromKeeper};
use crate::text::escape::quoted;
use crate::text::message::{Message, Refusal, refuse};

/// How long a keeper listens to a caller who says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of the longest request: 10,000 names.
const MAX_REQUEST: u64 = 40 << 20;

/// What a keeper is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To give files back.
    Release,
    /// To let other guests read content.
    Share,
}

impl Verb {
    fn byte(self) -> u8 {
        match self {
            Self::Release => b'R',
            Self::Share => b'S',
        }
    }
}

/// Where a keeper listens.
#[derive(Debug)]
pub struct ControlSocket(UnixListener);

/// Which keeper is meant: the path of its entry, and what the entry has for the end of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    entry: PathBuf,
    control: Option<String>,
}

impl Address {
    /// Names the keeper of an entry.
    pub fn new(path: &Path, entry: &JournalEntry) -> Self {
        Self {
            entry: path.to_path_buf(),
            control: entry.control.clone(),
        }
    }

    fn socket(&self) -> io::Result<SocketAddr> {
        let mut name = self.entry.as_os_str().as_bytes().to_vec();
        if let Some(control) = &self.control {
            name.push(b'@');
            name.extend_from_slice(control.as_bytes());
        }
        SocketAddr::from_abstract_name(name)
    }
}

impl ControlSocket {
    /// Opens the socket of an entry's keeper. None if that fails: nothing is given back or shared before
    /// the guest's end then.
    pub fn open(address: &Address) -> Option<Self> {
        UnixListener::bind_addr(&address.socket().ok()?)
            .ok()
            .map(Self)
    }

    /// Returns the descriptor to wait for.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Accepts a request. None if the caller may not ask, or asks for nothing that is known.
    pub fn accept(&self) -> Option<Request> {
        let (stream, _) = self.0.accept().ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let uid = getsockopt(&stream, PeerCredentials).ok()?.uid();
        if uid != 0 && uid != Uid::effective().as_raw() {
            return None;
        }
        let (verb, paths) = decode(&stream).ok()?;
        Some(Request {
            verb,
            paths,
            stream,
        })
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Request {
    /// What for.
    pub verb: Verb,
    /// Of which files.
    pub paths: Vec<PathBuf>,
    stream: UnixStream,
}

impl Request {
    /// Says one thing to whoever asks.
    pub fn say(&self, message: &FromKeeper) {
        let mut stream = &self.stream;
        let _ = stream.write_all(&message.encode());
    }

    /// Says the last thing: whether everything was done.
    pub fn close(&self, done: bool) {
        self.say(&if done {
            FromKeeper::Done
        } else {
            FromKeeper::Failed(String::new())
        });
    }
}

fn decode(from: impl Read) -> io::Result<(Verb, Vec<PathBuf>)> {
    let mut reader = io::BufReader::new(from.take(MAX_REQUEST));
    let mut byte = [0_u8];
    reader.read_exact(&mut byte)?;
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let verb = [Verb::Release, Verb::Share]
        .into_iter()
        .find(|verb| [verb.byte()] == byte)
        .ok_or_else(bad)?;
    let mut paths = Vec::new();
    loop {
        let mut path = Vec::new();
        reader.read_until(END, &mut path)?;
        if path.pop() != Some(END) {
            return Err(bad());
        }
        if path.is_empty() {
            return Ok((verb, paths));
        }
        paths.push(OsString::from_vec(path).into());
    }
}

fn encode(verb: Verb, paths: &[PathBuf]) -> Vec<u8> {
    let mut text = vec![verb.byte()];
    for path in paths {
        text.extend_from_slice(path.as_os_str().as_bytes());
        text.push(END);
    }
    text.push(END);
    text
}

/// Asks the keeper of an entry that belongs to the user `owner`. Returns whether it has done everything.
///
/// # Errors
/// That it cannot be reached, or what it refuses.
pub fn ask(
    address: &Address,
    owner: u32,
    (verb, paths): (Verb, &[PathBuf]),
    tell: &mut dyn FnMut(&str),
) -> Result<bool, Refusal> {
    let connect = || -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect_addr(&address.socket()?)?;
        if getsockopt(&stream, PeerCredentials)?.uid() != owner {
            return Err(io::Error::other("its name is taken by somebody else"));
        }
        stream.write_all(&encode(verb, paths))?;
        Ok(stream)
    };
    let keeper = connect().map_err(|error| {
        refuse(Message::new(
            format!(
                "cannot reach the keeper of {}: {error}",
                quoted(&address.entry)
            ),
            "labels go back at the guest's end, or, where the keeper was killed, with svirt-exec restore \
             after that",
        ))
    })?;
    job::listen(&keeper, tell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_arrives() {
        let odd: PathBuf = OsString::from_vec(b"/x \xff\n".to_vec()).into();
        for verb in [Verb::Release, Verb::Share] {
            for paths in [vec![], vec!["/a".into()], vec!["/a".into(), odd.clone()]] {
                let text = encode(verb, &paths);
                assert_eq!(decode(text.as_slice()).unwrap(), (verb, paths));
                for end in 0..text.len() {
                    assert!(decode(&text[..end]).is_err());
                }
            }
        }
        assert!(decode(&b"X\0"[..]).is_err());
    }
}
