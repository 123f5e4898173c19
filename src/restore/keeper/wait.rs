//! What a keeper waits for: the end of the launcher, of the QEMU that it became, and of every other
//! process of the guest; and what it is asked for meanwhile.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use crate::host::{Processes, RealHost};
use crate::model::label::Context;
use crate::restore::keeper::control::{ControlSocket, Request};
use crate::restore::keeper::protocol::FromLauncher;
use crate::sys;

/// How long to wait if the kernel offers nothing to wait for.
const RETRY: Duration = Duration::from_secs(1);

/// What a keeper is asked for while it waits.
pub enum Asked {
    /// To hold the files of records that were added to its entry.
    ForMore,
    /// To put nothing back once QEMU runs.
    ToLeave,
    /// What somebody asks at its control socket.
    AtSocket(Request),
}

/// What ends a keeper's wait.
pub enum End {
    /// The launcher asked for everything to be put back.
    Asked,
    /// The launcher, or the QEMU that it became, has ended.
    Ended,
    /// QEMU runs, and nothing is to be put back.
    Left,
}

/// Waits for the end of the process that a pidfd stands for, and of the launcher's work, or for the
/// launcher's word. `serve` is called for what is asked for in between, and says whether it is done.
pub fn wait_for_end(
    pidfd: BorrowedFd<'_>,
    talk: Option<BorrowedFd<'_>>,
    socket: Option<&ControlSocket>,
    serve: &mut dyn FnMut(Asked) -> bool,
) -> End {
    let mut talk = talk;
    let mut guest = Some(pidfd);
    let mut leaving = false;
    loop {
        if guest.is_none() && talk.is_none() {
            return End::Ended;
        }
        let fds = [guest, talk, socket.map(ControlSocket::as_fd)];
        let mut ends: Vec<PollFd<'_>> = fds
            .iter()
            .flatten()
            .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut ends, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return End::Ended,
            Ok(_) => {}
        }
        let mut events = ends
            .iter()
            .map(|end| end.revents().is_some_and(|e| !e.is_empty()));
        let [ended, told, called] = fds.map(|fd| fd.is_some() && events.next() == Some(true));
        if told && let Some(from) = talk {
            match read(from) {
                Some(FromLauncher::Undo) => return End::Asked,
                Some(FromLauncher::More) => {
                    serve(Asked::ForMore);
                }
                Some(FromLauncher::Leave) => leaving = serve(Asked::ToLeave),
                // Closed: the launcher has become QEMU, or is gone.
                _ if leaving => return End::Left,
                _ => talk = None,
            }
        } else if ended {
            // Whoever labels for a guest that has just ended must be done before labels go back.
            guest = None;
        } else if called && let Some(request) = socket.and_then(ControlSocket::accept) {
            serve(Asked::AtSocket(request));
        }
    }
}

/// Reads a message of the launcher; those that come after its entry have no text. None if there is no whole
/// message: a launcher that was taken over must not make this process wait for the rest of one.
fn read(talk: BorrowedFd<'_>) -> Option<FromLauncher> {
    let mut message = [0_u8; 2];
    let talk = talk.as_raw_fd();
    let count = recv(talk, &mut message, MsgFlags::MSG_DONTWAIT).ok()?;
    FromLauncher::read(&mut message.get(..count)?)
}

/// Waits until no process runs in the guest's context any more (`-daemonize`, helpers).
pub fn wait_for_context(
    host: &RealHost,
    context: &Context,
    socket: Option<&ControlSocket>,
    serve: &mut dyn FnMut(Asked) -> bool,
) {
    loop {
        let Ok(processes) = host.processes() else {
            // Not to know is not to be the last: labels stay for as long as that lasts.
            std::thread::sleep(RETRY);
            continue;
        };
        let mut members = processes
            .iter()
            .filter(|process| process.current.as_ref() == Some(context))
            .peekable();
        if members.peek().is_none() {
            return;
        }
        for process in members {
            match sys::pidfd(process.pid) {
                Ok(end) => {
                    // Still the process that was looked at, not a later one of its number.
                    let now = host.procfs().context_of(process.pid);
                    if now.as_ref() == Some(context) {
                        wait_for_end(end.as_fd(), None, socket, serve);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use nix::unistd::Pid;

    use super::*;

    fn wait(said: &[u8]) -> (bool, usize) {
        let (keeper, launcher) = UnixStream::pair().unwrap();
        (&launcher).write_all(said).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let guest = sys::pidfd(Pid::from_raw(child.id().try_into().unwrap())).unwrap();
        drop(launcher);
        let mut served = Vec::new();
        let end = wait_for_end(guest.as_fd(), Some(keeper.as_fd()), None, &mut |asked| {
            served.push(asked);
            true
        });
        child.wait().unwrap();
        (matches!(end, End::Asked), served.len())
    }

    #[test]
    fn a_message_that_comes_with_another_is_not_lost() {
        for (said, ended, served) in [
            (&b"M\0U\0"[..], true, 1),
            (b"M\0M\0U\0", true, 2),
            (b"U\0", true, 0),
            (b"M\0", false, 1),
            // Half a message is none: nobody waits for the rest.
            (b"U", false, 0),
            (b"", false, 0),
        ] {
            assert_eq!(wait(said), (ended, served), "{said:?}");
        }
    }
}
