//! What a keeper and its launcher say to each other: one enum for each side.
//!
//! On the socket a message is a byte that says which, its text, and a NUL. The answers to requests at a
//! keeper's control socket are the same: there the two sides may be of different versions.

use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::model::label::Context;

/// Ends a message, and a path in a request.
pub const END: u8 = 0;

/// Bytes of a message of the launcher: a path, PATH_MAX of limits.h, and more than any context.
const MAX_FROM_LAUNCHER: u64 = 8192;

/// What the launcher tells its keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromLauncher {
    /// It claims this context, and has looked who else has overlapping categories.
    Claimed(Context),
    /// It claims this context, and leaves that look to the keeper.
    ClaimedUnverified(Context),
    /// The journal entry is this one. The answer is `Ready`, `ReadyUnproven` or `Taken`, or why not.
    Entry(PathBuf),
    /// There is no entry: only the outcome of the look is wanted, answered as above.
    NoEntry,
    /// The entry has more records now. Answered by `Ready`, or why not.
    More,
    /// Everything is to be put back now. Answered by `Done`, or why not.
    Undo,
    /// Nothing is to be put back once QEMU runs. Answered by `Ready`, or why not.
    Leave,
}

impl FromLauncher {
    /// Returns the bytes of a message.
    pub fn encode(&self) -> Vec<u8> {
        let (byte, text): (u8, Vec<u8>) = match self {
            Self::Claimed(context) => (b'C', context.to_string().into()),
            Self::ClaimedUnverified(context) => (b'A', context.to_string().into()),
            Self::Entry(path) => (b'E', path.as_os_str().as_bytes().to_vec()),
            Self::NoEntry => (b'E', Vec::new()),
            Self::More => (b'M', Vec::new()),
            Self::Undo => (b'U', Vec::new()),
            Self::Leave => (b'L', Vec::new()),
        };
        [&[byte], text.as_slice(), &[END]].concat()
    }

    fn decode(byte: u8, text: Vec<u8>) -> Option<Self> {
        let context = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        Some(match (byte, text.is_empty()) {
            (b'C', false) => Self::Claimed(context(&text)?),
            (b'A', false) => Self::ClaimedUnverified(context(&text)?),
            (b'E', false) => Self::Entry(OsString::from_vec(text).into()),
            (b'E', true) => Self::NoEntry,
            (b'M', true) => Self::More,
            (b'U', true) => Self::Undo,
            (b'L', true) => Self::Leave,
            _ => return None,
        })
    }

    /// Reads a message. None at the end, and for what is none.
    pub fn read(from: &mut impl BufRead) -> Option<Self> {
        let (byte, text) = read_message(&mut from.take(MAX_FROM_LAUNCHER)).ok()??;
        Self::decode(byte, text)
    }
}

/// What a keeper tells its launcher, and what a process of the keeper's domain tells a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromKeeper {
    /// It holds every file, and nobody else has the pair.
    Ready,
    /// The same, as far as processes show their labels.
    ReadyUnproven,
    /// Somebody else has the pair. It holds nothing, and its entry is gone.
    Taken,
    /// Everything was done.
    Done,
    /// Something was not done: why, unless lines before it have said so.
    Failed(String),
    /// A line for the caller.
    Line(String),
    /// How far it is, for whoever waits.
    Progress(String),
    /// Why it refuses.
    Refused(String),
}

impl FromKeeper {
    /// Returns the bytes of a message.
    pub fn encode(&self) -> Vec<u8> {
        let (byte, text) = match self {
            Self::Ready => (b'R', ""),
            Self::ReadyUnproven => (b'U', ""),
            Self::Taken => (b'T', ""),
            Self::Done => (b'D', ""),
            Self::Failed(why) => (b'F', why.as_str()),
            Self::Line(line) => (b'L', line.as_str()),
            Self::Progress(line) => (b'P', line.as_str()),
            Self::Refused(line) => (b'X', line.as_str()),
        };
        [&[byte], text.as_bytes(), &[END]].concat()
    }

    fn decode(byte: u8, text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text).into_owned();
        Some(match byte {
            b'R' => Self::Ready,
            b'U' => Self::ReadyUnproven,
            b'T' => Self::Taken,
            b'D' => Self::Done,
            b'F' => Self::Failed(text),
            b'L' => Self::Line(text),
            b'P' => Self::Progress(text),
            b'X' => Self::Refused(text),
            _ => return None,
        })
    }

    /// Reads a message. None at the end.
    ///
    /// # Errors
    /// Those of read(2), and InvalidData for what is no message.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some((byte, text)) = read_message(from)? else {
            return Ok(None);
        };
        let message = Self::decode(byte, &text).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(message))
    }
}

/// Reads a byte and the text up to the next NUL. None at the end, and for a message that is cut off.
fn read_message(from: &mut impl BufRead) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut message = Vec::new();
    from.read_until(END, &mut message)?;
    if message.pop() != Some(END) || message.is_empty() {
        return Ok(None);
    }
    let text = message.split_off(1);
    Ok(message.first().map(|byte| (*byte, text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context() -> impl Strategy<Value = Context> {
        "[a-z_]{1,9}:[a-z_]{1,9}:[a-z_]{1,9}(:s0(:c1,c[2-9])?)?"
            .prop_map(|text| text.parse().unwrap())
    }

    fn from_launcher() -> impl Strategy<Value = FromLauncher> {
        prop_oneof![
            context().prop_map(FromLauncher::Claimed),
            context().prop_map(FromLauncher::ClaimedUnverified),
            prop::collection::vec(1_u8.., 1..99)
                .prop_map(|path| FromLauncher::Entry(OsString::from_vec(path).into())),
            Just(FromLauncher::NoEntry),
            Just(FromLauncher::More),
            Just(FromLauncher::Undo),
            Just(FromLauncher::Leave),
        ]
    }

    fn from_keeper() -> impl Strategy<Value = FromKeeper> {
        let text = "[^\0]{0,99}";
        prop_oneof![
            Just(FromKeeper::Ready),
            Just(FromKeeper::ReadyUnproven),
            Just(FromKeeper::Taken),
            Just(FromKeeper::Done),
            text.prop_map(FromKeeper::Failed),
            text.prop_map(FromKeeper::Line),
            text.prop_map(FromKeeper::Progress),
            text.prop_map(FromKeeper::Refused),
        ]
    }

    proptest! {
        #[test]
        fn what_a_launcher_says_is_heard(said in prop::collection::vec(from_launcher(), 0..5)) {
            let bytes: Vec<u8> = said.iter().flat_map(FromLauncher::encode).collect();
            let mut bytes = bytes.as_slice();
            for message in said {
                prop_assert_eq!(FromLauncher::read(&mut bytes), Some(message));
            }
            prop_assert_eq!(FromLauncher::read(&mut bytes), None);
        }

        #[test]
        fn what_a_keeper_says_is_heard(said in prop::collection::vec(from_keeper(), 0..5)) {
            let bytes: Vec<u8> = said.iter().flat_map(FromKeeper::encode).collect();
            let mut bytes = bytes.as_slice();
            for message in said {
                prop_assert_eq!(FromKeeper::read(&mut bytes).unwrap(), Some(message));
            }
            prop_assert_eq!(FromKeeper::read(&mut bytes).unwrap(), None);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            let _ = FromLauncher::read(&mut bytes.as_slice());
            let _ = FromKeeper::read(&mut bytes.as_slice());
        }
    }

    #[test]
    fn a_message_that_is_cut_off_is_none() {
        let whole = FromLauncher::Claimed("u:r:t:s0:c1,c2".parse().unwrap()).encode();
        for end in 0..whole.len() {
            assert_eq!(FromLauncher::read(&mut &whole[..end]), None);
        }
    }
}
