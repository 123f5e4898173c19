//! Signals: being asked to end, and writing to a reader that has gone away.

use std::io;

use crate::sys::unheard;

/// Ignores SIGTERM, SIGINT and SIGHUP; signal(7).
pub fn ignore_termination() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler that could run.
        let _ = unsafe { signal(which, SigHandler::SigIgn) };
    }
}

/// Gives SIGTERM, SIGINT and SIGHUP their default action back.
pub fn heed_termination() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: the default action installs no handler that could run.
        let _ = unsafe { signal(which, SigHandler::SigDfl) };
    }
}

/// Writes to standard error, or where it is heard if the kernel took that away. A reader that went away is no reason to end, so the SIGPIPE that the write
/// may raise is taken back before it is delivered.
pub fn write_error(text: &[u8]) {
    use std::io::Write;
    use std::os::fd::AsFd;
    if unheard::was_taken_away(io::stderr().as_fd()) {
        unheard::say(text);
        return;
    }
    let mut pipe = nix::sys::signal::SigSet::empty();
    pipe.add(nix::sys::signal::Signal::SIGPIPE);
    let Ok(before) = pipe.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK) else {
        return;
    };
    if io::stderr().write_all(text).is_err() {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: both pointers are to values that live through the call; the third may be null.
        unsafe { libc::sigtimedwait(pipe.as_ref(), std::ptr::null_mut(), &raw const now) };
    }
    let _ = before.thread_set_mask();
}
