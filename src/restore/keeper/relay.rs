//! A relay between two pipes, or a pipe and a socket: if the caller's own may not be handed to a guest (`launch::inherited_fds`),
//! QEMU gets one that the launcher made, and this copies.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys;

/// Copies standard input to standard output until either end is closed.
pub fn run() -> u8 {
    let (Some(from), Some(to)) = (sys::inherited(0), sys::inherited(1)) else {
        return 125;
    };
    // What QEMU says when it is told to end still has to arrive.
    sys::ignore_termination();
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let mut ends = [
            PollFd::new(from, PollFlags::POLLIN),
            // Only for its end: a reader that went away must be noticed while nothing comes in.
            PollFd::new(to, PollFlags::empty()),
        ];
        match poll(&mut ends, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return 1,
            Ok(_) => {}
        }
        if ends[1].revents().is_some_and(|events| !events.is_empty()) {
            return 0;
        }
        let count = match nix::unistd::read(from, &mut buffer) {
            Ok(0) => return 0,
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            Err(_) => return 1,
        };
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            match nix::unistd::write(to, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                // The caller's end may be non-blocking; its flags are the caller's.
                Err(Errno::EAGAIN) => {
                    let mut room = [PollFd::new(to, PollFlags::POLLOUT)];
                    let _ = poll(&mut room, PollTimeout::NONE);
                }
                Err(_) => return 0,
            }
        }
    }
}
