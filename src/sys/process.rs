//! Processes: starting one, the C `main`, limits, the environment.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use nix::unistd::Pid;

use crate::sys::fd::{dup_above, take_places};
use crate::sys::proc_file::read_at_once;

/// Defines the program's C `main`, which calls a function `fn() -> u8`.
///
/// Rust's own start-up opens closed standard descriptors and ignores SIGPIPE,
/// and both would reach QEMU through execve(2). With a C `main` the process
/// stays as the caller made it.
#[macro_export]
macro_rules! c_main {
    ($run:path) => {
        /// The C runtime's entry.
        // SAFETY: the C runtime calls exactly one function of this name, with
        // these arguments; no other item of the program is called `main`.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
            i32::from($run())
        }
    };
}

/// Starts a program as a child of init, and returns once it is executed.
///
/// QEMU, which this process becomes, must never see the end of a child that it did not start. The new
/// process has a session of its own, no environment, `fds` as its descriptors 0, 1, 2 …, and no others.
///
/// A child that shares this process's memory starts it (CLONE_VM of clone(2)): copying the memory would
/// take longer than all else here. Whatever `before_exec` writes to memory, such as libselinux's cache
/// of a process's attributes, stays in this process.
///
/// # Errors
/// Those of clone(2) and posix_spawn(3), and those of `before_exec`.
pub fn start_detached(
    program: &OsStr,
    name: &OsStr,
    args: &[&OsStr],
    fds: &[BorrowedFd<'_>],
    before_exec: &dyn Fn() -> io::Result<()>,
) -> io::Result<()> {
    use nix::sched::{CloneFlags, clone};
    use nix::sys::signal::Signal;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    /// bytes; posix_spawn(3) makes a stack of its own.
    const STACK: usize = 256 << 10;
    let sources = dup_above(fds)?;
    let mut done = Err(io::Error::other(
        "the process that starts it was killed; try again, and if it is killed again see dmesg",
    ));
    let mut stack = vec![0_u8; STACK];
    let start = || -> io::Result<()> {
        // First of all: a child that a terminal stops would hold this process up.
        nix::unistd::setsid()?;
        take_places(&sources)?;
        before_exec()?;
        let mut command = Command::new(program);
        command.arg0(name).args(args).env_clear().spawn()?;
        Ok(())
    };
    let in_child = Box::new(|| {
        done = start();
        0
    });
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: CLONE_VFORK has this thread wait until the child has ended, so that only one of them uses
    // what is this thread's alone (its stack, errno), and the child's stack outlives its user.
    let child = unsafe { clone(in_child, &mut stack, flags, Some(Signal::SIGCHLD as i32)) };
    let child = child.map_err(|error| none_left(error.into()))?;
    // If the caller ignores SIGCHLD, the kernel has reaped it already.
    let _ = nix::sys::wait::waitpid(child, None);
    done.map_err(none_left)
}

/// Says what EAGAIN of fork(2) and clone(2) means.
fn none_left(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => io::Error::other(
            "no further process may be started; raise RLIMIT_NPROC (ulimit -u) or pids.max of the \
             control group",
        ),
        _ => error,
    }
}

/// Exit status of a starter whose fork(2) failed with EAGAIN.
const NONE_LEFT: i32 = 1;

/// Children of [`double_fork`] that have not been waited for.
static STARTERS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Waits for the children that [`double_fork`] has left, before this process becomes QEMU.
///
/// # Errors
/// EAGAIN in words, if one of them could start no process.
pub fn wait_for_starters() -> io::Result<()> {
    use nix::sys::wait::{WaitStatus, waitpid};
    let mut starters = STARTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut done = Ok(());
    for starter in starters.drain(..) {
        // If the caller ignores SIGCHLD, the kernel has reaped it already.
        if let Ok(WaitStatus::Exited(_, NONE_LEFT)) = waitpid(starter, None) {
            done = Err(none_left(nix::errno::Errno::EAGAIN.into()));
        }
    }
    done
}

/// Runs `work` in a copy of this process that is a child of init, in the caller's session. The copy
/// exits with status 126 if `work` fails.
///
/// Forks twice and waits for neither. The copy has this process's stack with the guard page below it,
/// which parsing hostile input needs.
///
/// # Errors
/// Those of the first fork(2). If the second fails, the descriptors are closed, and
/// [`wait_for_starters`] says so.
pub fn double_fork(fds: &[BorrowedFd<'_>], work: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    use nix::unistd::{ForkResult, fork};
    let sources = dup_above(fds)?;
    // SAFETY: the program has one thread, so the child may do what the parent may.
    match unsafe { fork() }.map_err(|error| none_left(error.into()))? {
        ForkResult::Parent { child } => {
            let mut starters = STARTERS.lock().unwrap_or_else(PoisonError::into_inner);
            starters.push(child);
            Ok(())
        }
        ForkResult::Child => {
            let run = || -> io::Result<()> {
                take_places(&sources)?;
                // SAFETY: as above.
                match unsafe { fork() } {
                    Ok(ForkResult::Parent { .. }) => Ok(()),
                    Ok(ForkResult::Child) => work(),
                    Err(nix::errno::Errno::EAGAIN) => exit_now(NONE_LEFT),
                    Err(error) => Err(error.into()),
                }
            };
            // Nothing of the caller may go on in this process, whatever happens here.
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(Ok(())) => exit_now(0),
                Ok(Err(_)) | Err(_) => exit_now(126),
            }
        }
    }
}

/// Ends the process without running destructors or exit handlers.
fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Waits until the process that a pidfd stands for has ended; poll(2).
pub fn wait_for_exit(pidfd: BorrowedFd<'_>) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut end = [PollFd::new(pidfd, PollFlags::POLLIN)];
    while poll(&mut end, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
}

/// Drops the pages of this program's code until they are needed again: a process that waits for a
/// guest's end needs few of them. The kernel reads them anew from the file; MADV_DONTNEED of madvise(2).
pub fn drop_code_pages() {
    let here = drop_code_pages as fn() as usize;
    // Lines of proc_pid_maps(5): START-END PERMISSIONS …
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let code = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        (rest.starts_with("r-xp") && (start..end).contains(&here)).then_some((start, end))
    });
    if let Some((start, end)) = code {
        // SAFETY: nobody has written to this mapping of code, so the file still has what is dropped.
        unsafe {
            libc::madvise(
                start as *mut libc::c_void,
                end.saturating_sub(start),
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Raises the soft limit of open files to the hard one: a guest of a thousand disks needs a descriptor
/// for each. Returns the limits (soft, hard) as they were, for QEMU.
pub fn raise_descriptor_limit() -> Option<(u64, u64)> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok()?;
    Some((soft, hard))
}

/// Sets the limits (soft, hard) back to what the caller had.
pub fn restore_descriptor_limit(limits: Option<(u64, u64)>) {
    use nix::sys::resource::{Resource, setrlimit};
    if let Some((soft, hard)) = limits {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}

/// Returns the environment as the caller set it.
///
/// Not `std::env`: when the kernel set AT_SECURE, the dynamic loader has taken
/// variables such as TMPDIR out of it, and QEMU is to see what the caller said.
///
/// # Errors
/// Those of reading /proc/self/environ.
pub fn caller_environment() -> io::Result<Vec<CString>> {
    let bytes = read_at_once(nix::fcntl::AT_FDCWD, "/proc/self/environ")?;
    Ok(bytes
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|entry| std::ffi::CStr::from_bytes_until_nul(entry).ok())
        .map(CString::from)
        .collect())
}

/// Returns the value of a variable of [`caller_environment`].
pub fn variable(environment: &[CString], name: &str) -> Option<OsString> {
    environment.iter().find_map(|entry| {
        let rest = entry.as_bytes().strip_prefix(name.as_bytes())?;
        let value = rest.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value).to_owned())
    })
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
