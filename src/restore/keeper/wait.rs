//! What a keeper waits for: the end of the launcher, of the QEMU that it became, and of every other
//! process in the guest's cage; and what it is asked for meanwhile.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::{Processes, RealHost};
use crate::model::label::Context;
use crate::restore::keeper::client::{LEAVE, MORE, UNDO};
use crate::restore::keeper::control::{Call, Door};
use crate::sys;

/// How long to wait where the kernel offers nothing to wait for.
const RETRY: Duration = Duration::from_secs(1);

/// What a keeper is asked for while it waits.
pub enum Asked {
    /// The entry has grown.
    ForMore,
    /// Nothing shall be put back once QEMU runs.
    ToLeave,
    /// Somebody knocks.
    ByCaller(Call),
}

/// What a keeper waits for.
pub enum End {
    /// The launcher asked for everything to be put back.
    Asked,
    /// The launcher, or the QEMU that it became, has ended.
    Ended,
    /// QEMU runs, and nothing shall be put back.
    Left,
}

/// Waits for the end of the process behind a pidfd and of the launcher's work, or for the
/// launcher's word; `hear` is called for what is asked for in between, and says whether it is done.
pub fn wait_for_end(
    pidfd: BorrowedFd<'_>,
    talk: Option<BorrowedFd<'_>>,
    door: Option<&Door>,
    hear: &mut dyn FnMut(Asked) -> bool,
) -> End {
    let mut talk = talk;
    let mut guest = Some(pidfd);
    let mut leaving = false;
    loop {
        if guest.is_none() && talk.is_none() {
            return End::Ended;
        }
        let fds = [guest, talk, door.map(Door::as_fd)];
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
            let mut byte = [0_u8; 1];
            match nix::unistd::read(from, &mut byte) {
                Ok(1) if byte == [UNDO] => return End::Asked,
                Ok(1) if byte == [MORE] => {
                    hear(Asked::ForMore);
                }
                Ok(1) if byte == [LEAVE] => leaving = hear(Asked::ToLeave),
                // Closed: the launcher has become QEMU, or is gone.
                _ if leaving => return End::Left,
                _ => talk = None,
            }
        } else if ended {
            // Who labels for a guest that has just ended must be done before labels go back.
            guest = None;
        } else if called && let Some(call) = door.and_then(Door::answer) {
            hear(Asked::ByCaller(call));
        }
    }
}

/// Waits until no process is in the guest's cage any more (`-daemonize`, helpers).
pub fn wait_for_cage(
    host: &RealHost,
    context: &Context,
    door: Option<&Door>,
    hear: &mut dyn FnMut(Asked) -> bool,
) {
    loop {
        let Ok(processes) = host.processes() else {
            // Not to know is not to be the last: labels stay for as long as that lasts.
            std::thread::sleep(RETRY);
            continue;
        };
        let mut caged = processes
            .iter()
            .filter(|process| process.current.as_ref() == Some(context))
            .peekable();
        if caged.peek().is_none() {
            return;
        }
        for process in caged {
            match sys::pidfd(process.pid) {
                Ok(end) => {
                    // Still the process that was looked at, not a later one of its number.
                    let now = host.procfs().context_of(process.pid);
                    if now.as_ref() == Some(context) {
                        wait_for_end(end.as_fd(), None, door, hear);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }
}
