//! Privilege separation: what the launcher has done by forks of itself that gave up its rights.
//!
//! Images are opened by a *reader*, whose domain may write to nothing: the launcher itself may write
//! to files that it was handed open, and with the right to open such files too it could write to any
//! of them. Headers, which guests may have written, are read by a *probe*, whose domain may open
//! nothing: it gets one descriptor at a time, and what it says is as untrusted as the header was.
//!
//! Both are started when they are first needed, and end with the launcher: their socket closes when that
//! becomes QEMU. If the launcher is in no domain of its own (a plan without SELinux) it does the work itself.

use crate::host::pinned;
use crate::image::{self, ImageFormat, References};
use crate::model::label::Context;
use crate::selinux::names::{LOAD, OWN_DOMAIN, PROBE_DOMAIN, READER_DOMAIN};
use crate::selinux::{self, Mode};
use crate::sys;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

/// Bytes of a message; the largest is that of a VMDK descriptor with many extents.
const MAX_MESSAGE: u32 = 1 << 26;

/// What a probe is asked besides the image itself.
#[derive(Serialize, Deserialize)]
struct Question {
    /// The name of the format, if one is stated.
    stated: Option<Vec<u8>>,
    /// The image's name.
    name: Vec<u8>,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
struct Header {
    format: Vec<u8>,
    references: References,
}

/// Why something was not done.
#[derive(Serialize, Deserialize)]
struct Failure {
    text: String,
    errno: Option<i32>,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self {
            errno: error.raw_os_error(),
            text: error.to_string(),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, errno: None }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure.errno {
            Some(errno) => Self::from_raw_os_error(errno),
            None => Self::other(failure.text),
        }
    }
}

/// The assistants of this process.
#[derive(Debug, Default)]
pub struct Assistants {
    reader: OnceCell<Option<Assistant>>,
    probe: OnceCell<Option<Assistant>>,
}

impl Assistants {
    /// Returns the process that opens images. None if this process does it.
    ///
    /// # Errors
    /// Those of starting it.
    pub fn reader(&self) -> io::Result<Option<&Assistant>> {
        get(&self.reader, READER_DOMAIN, Assistant::reader)
    }

    /// Returns the process that reads headers. None if this process does it.
    ///
    /// # Errors
    /// Those of starting it.
    pub fn probe(&self) -> io::Result<Option<&Assistant>> {
        get(&self.probe, PROBE_DOMAIN, Assistant::probe)
    }
}

fn get<'a>(
    cell: &'a OnceCell<Option<Assistant>>,
    domain: &str,
    start: fn(Option<Context>) -> io::Result<Assistant>,
) -> io::Result<Option<&'a Assistant>> {
    if cell.get().is_none() {
        let own = match selinux::mode() {
            Mode::Disabled => None,
            Mode::Permissive | Mode::Enforcing => {
                Some(selinux::own_context()?).filter(|own| own.type_ == OWN_DOMAIN)
            }
        };
        let assistant = match own {
            Some(own) => Some(start(Some(own.with_type(domain)))?),
            None => None,
        };
        let _ = cell.set(assistant);
    }
    Ok(cell.get().and_then(Option::as_ref))
}

/// One request: what was handed over and asked, and the answer, with what is handed back.
type Work = fn(OwnedFd, &[u8]) -> Result<(Vec<u8>, Option<OwnedFd>), Failure>;

/// Opens what it is handed as an O_PATH descriptor.
fn read_only(pinned: OwnedFd, _: &[u8]) -> Result<(Vec<u8>, Option<OwnedFd>), Failure> {
    let file = pinned::open_to_read(pinned.as_fd())?;
    Ok((Vec::new(), Some(file.into())))
}

/// Reads the header of the image that it is handed.
fn look_into(image: OwnedFd, question: &[u8]) -> Result<(Vec<u8>, Option<OwnedFd>), Failure> {
    let Question { stated, name } = from_json(question)?;
    let stated = stated.map(|name| ImageFormat::from_name(&name));
    let (format, references) =
        image::header(stated, &mut File::from(image), &name).map_err(|error| error.to_string())?;
    let header = Header {
        format: format.name().to_vec(),
        references,
    };
    Ok((to_json(&header)?, None))
}

fn to_json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(io::Error::other)
}

/// A process at work for this one.
#[derive(Debug)]
pub struct Assistant {
    talk: UnixStream,
    domain: String,
}

impl Assistant {
    /// Starts one that opens images, in a domain of its own if one is named.
    ///
    /// # Errors
    /// Those of fork(2).
    pub fn reader(domain: Option<Context>) -> io::Result<Self> {
        Self::start(domain, read_only)
    }

    /// Starts one that reads headers, in a domain of its own if one is named.
    ///
    /// # Errors
    /// Those of fork(2).
    pub fn probe(domain: Option<Context>) -> io::Result<Self> {
        Self::start(domain, look_into)
    }

    fn start(domain: Option<Context>, work: Work) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        sys::double_fork(&[theirs.as_fd()], &|| {
            let talk = sys::inherited(0).ok_or(io::ErrorKind::BrokenPipe)?;
            serve(talk.try_clone_to_owned()?.into(), domain.as_ref(), work)
        })?;
        Ok(Self {
            talk: ours,
            domain: domain.map_or_else(String::new, |domain| domain.type_),
        })
    }

    /// Opens a file to be read.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(&self, pinned: BorrowedFd<'_>) -> io::Result<File> {
        match self.ask(pinned, &[])? {
            (_, Some(file)) => Ok(file.into()),
            (_, None) => Err(io::Error::other(NOT_HANDED_OVER)),
        }
    }

    /// Has a header read as [`image::header`] reads it.
    ///
    /// # Errors
    /// Those of [`image::header`], in words, and that the process has ended.
    pub fn header(
        &self,
        image: BorrowedFd<'_>,
        stated: Option<ImageFormat>,
        name: &OsStr,
    ) -> io::Result<(ImageFormat, References)> {
        let question = to_json(&Question {
            stated: stated.map(|format| format.name().to_vec()),
            name: name.as_bytes().to_vec(),
        })?;
        let header: Header = from_json(&self.ask(image, &question)?.0)?;
        Ok((ImageFormat::from_name(&header.format), header.references))
    }

    fn ask(
        &self,
        about: BorrowedFd<'_>,
        question: &[u8],
    ) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let answer = send(&self.talk, question, Some(about)).and_then(|()| receive(&self.talk));
        match answer {
            Ok(Some((said, fd))) => match said.split_first() {
                Some((&DONE, said)) => Ok((said.to_vec(), fd)),
                Some((_, said)) => Err(from_json::<Failure>(said)?.into()),
                None => Err(self.ended()),
            },
            Ok(None) | Err(_) => {
                // If its start is what failed, that says why.
                sys::wait_for_starters()?;
                Err(self.ended())
            }
        }
    }

    fn ended(&self) -> io::Error {
        io::Error::other(format!(
            "the process that does this for svirt-exec, in {}, has ended without an answer (killed, \
             or broken by the file); try again, and if it ends again give this file to no guest",
            self.domain
        ))
    }
}

/// What is said of a descriptor that did not arrive.
const NOT_HANDED_OVER: &str = "the policy does not let the svirt_launcher domains pass this file on \
                               to each other; ausearch -m avc -ts recent";

/// What an answer begins with.
const DONE: u8 = b'+';

const FAILED: u8 = b'-';

/// Serves in the process itself, until its socket is closed.
fn serve(talk: UnixStream, domain: Option<&Context>, work: Work) -> io::Result<()> {
    let changed = domain.map_or(Ok(()), |domain| {
        // The pair that the launcher may have claimed is not this process's.
        selinux::clear_exec_context()?;
        selinux::set_own_context(domain).map_err(|error| {
            io::Error::other(format!(
                "cannot change into {}: {error}; load the svirt_launcher module of this version: \
                 {LOAD}",
                domain.type_
            ))
        })
    });
    let refused = changed.err().map(|error| error.to_string());
    while let Some((question, fd)) = receive(&talk)? {
        let done = match (&refused, fd) {
            (Some(why), _) => Err(Failure::from(why.clone())),
            (None, Some(fd)) => work(fd, &question),
            (None, None) => Err(Failure::from(NOT_HANDED_OVER.to_owned())),
        };
        let (word, said, fd) = match done {
            Ok((said, fd)) => (DONE, said, fd),
            Err(failure) => (FAILED, to_json(&failure)?, None),
        };
        send(
            &talk,
            &[&[word], said.as_slice()].concat(),
            fd.as_ref().map(AsFd::as_fd),
        )?;
    }
    Ok(())
}

/// Sends a message: its length, with a descriptor, and its bytes.
fn send(mut talk: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let numbers: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(
        talk.as_raw_fd(),
        &[IoSlice::new(&length.to_ne_bytes())],
        if numbers.is_empty() { &[] } else { &rights },
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    talk.write_all(bytes)
}

/// Receives a message. None if there are no more.
fn receive(mut talk: &UnixStream) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut length = [0_u8; 4];
    let (count, fd) = sys::receive(talk.as_fd(), &mut length)?;
    if count == 0 {
        return Ok(None);
    }
    talk.read_exact(length.get_mut(count..).unwrap_or_default())?;
    let length = u32::from_ne_bytes(length);
    if length > MAX_MESSAGE {
        return Err(io::Error::other("a message of impossible length"));
    }
    let mut bytes = vec![0_u8; usize::try_from(length).unwrap_or_default()];
    talk.read_exact(&mut bytes)?;
    Ok(Some((bytes, fd)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn a_file(bytes: &[u8]) -> (tempfile::NamedTempFile, pinned::Pinned) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let pinned = pinned::pin(file.path()).unwrap();
        (file, pinned)
    }

    #[test]
    fn a_reader_opens_what_it_is_handed() {
        let reader = Assistant::reader(None).unwrap();
        for bytes in [b"one".as_slice(), b"", &[7; 5000]] {
            let (_file, pinned) = a_file(bytes);
            let mut read = Vec::new();
            let mut opened = reader.open(pinned.as_fd()).unwrap();
            opened.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes);
            assert_eq!(
                opened.write(b"x").unwrap_err().raw_os_error(),
                Some(libc::EBADF)
            );
        }
        let socket = tempfile::tempdir().unwrap();
        let path = socket.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = reader.open(pinned::pin(&path).unwrap().as_fd());
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::ENXIO));
    }

    #[test]
    fn a_probe_reads_headers_as_this_process_would() {
        let reader = Assistant::reader(None).unwrap();
        let probe = Assistant::probe(None).unwrap();
        let qed = {
            let mut header = vec![0; 4096];
            header[..4].copy_from_slice(b"QED\0");
            header
        };
        for (bytes, stated, name) in [
            (b"".as_slice(), None, "x"),
            (&[0; 600], None, "x.dmg"),
            (&qed, None, "x"),
            (&qed, Some(ImageFormat::Qed), "x"),
            (b"no header", Some(ImageFormat::Qcow2), "x"),
            (
                &[0; 600],
                Some(ImageFormat::Other(b"a\xffb".to_vec())),
                "\u{e4}",
            ),
        ] {
            let (_file, pinned) = a_file(bytes);
            let file = reader.open(pinned.as_fd()).unwrap();
            let here = image::header(
                stated.clone(),
                &mut std::io::Cursor::new(bytes),
                name.as_bytes(),
            )
            .map_err(|error| error.to_string());
            let there = probe.header(file.as_fd(), stated, OsStr::new(name));
            assert_eq!(there.map_err(|error| error.to_string()), here);
        }
    }

    #[test]
    fn one_that_dies_is_an_error_and_not_a_wait() {
        let dies: Work = |_, _| panic!("a header that breaks it");
        let probe = Assistant::start(None, dies).unwrap();
        let file = File::open(Path::new("/dev/null")).unwrap();
        for _ in 0..2 {
            let error = probe
                .header(file.as_fd(), None, OsStr::new("x"))
                .unwrap_err();
            assert!(error.to_string().contains("has ended"), "{error}");
        }
    }

    #[test]
    fn a_lie_about_lengths_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&theirs).write_all(&u32::MAX.to_ne_bytes()).unwrap();
        assert!(receive(&ours).is_err());
        (&theirs).write_all(&9_u32.to_ne_bytes()).unwrap();
        drop(theirs);
        assert!(receive(&ours).is_err());
    }
}
