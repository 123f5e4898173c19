//! The only module with `unsafe`: one safe wrapper for each thing that nix and
//! std do not offer.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use nix::unistd::Pid;

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

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A descriptor by which the end of a process can be waited for; pidfd_open(2).
pub fn pidfd(process: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just made this descriptor and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor that the caller handed down, borrowed for the rest of the program.
///
/// None where the number is not open.
pub fn inherited(number: RawFd) -> Option<BorrowedFd<'static>> {
    open_with_flags(number).map(|(fd, _)| fd)
}

/// A descriptor that the program keeps which this process becomes: open, and without FD_CLOEXEC.
pub fn handed_on(number: RawFd) -> Option<BorrowedFd<'static>> {
    let (fd, flags) = open_with_flags(number)?;
    (flags & libc::FD_CLOEXEC == 0).then_some(fd)
}

/// A descriptor that is open, and its flags.
fn open_with_flags(number: RawFd) -> Option<(BorrowedFd<'static>, libc::c_int)> {
    if number < 0 {
        return None;
    }
    // SAFETY: F_GETFD only looks the number up.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags == -1 {
        return None;
    }
    // SAFETY: it is open, and this program closes no descriptor that it was handed
    // before it becomes another program.
    Some((unsafe { BorrowedFd::borrow_raw(number) }, flags))
}

/// Reads from a socket, together with a descriptor where one was sent with the bytes; SCM_RIGHTS of
/// unix(7). The number of bytes is 0 at the end.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::AsRawFd;
    let mut into = [io::IoSliceMut::new(into)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut space), flags)?;
    let mut received = None;
    // Where the policy does not let this domain have it, the message comes without.
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel made it for this process just now; nobody else knows it.
                received = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((message.bytes, received))
}

/// The kernel's ring buffer, oldest first; klogctl(3).
///
/// # Errors
/// Where the caller may not read it: it takes CAP_SYSLOG where kernel.dmesg_restrict is set.
pub fn kernel_log() -> io::Result<Vec<u8>> {
    /// SYSLOG_ACTION_READ_ALL and SYSLOG_ACTION_SIZE_BUFFER of syslog(2).
    const READ_ALL: libc::c_int = 3;
    const SIZE: libc::c_int = 10;
    // SAFETY: this action takes no buffer.
    let size = check(libc::c_long::from(unsafe {
        libc::klogctl(SIZE, std::ptr::null_mut(), 0)
    }))?;
    let size = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX);
    let mut text = vec![0_u8; usize::try_from(size).unwrap_or_default()];
    // SAFETY: the kernel writes at most `size` bytes to the buffer, which is that large.
    let count = check(libc::c_long::from(unsafe {
        libc::klogctl(READ_ALL, text.as_mut_ptr().cast(), size)
    }))?;
    text.truncate(usize::try_from(count).unwrap_or_default());
    Ok(text)
}

/// The address family of a socket (`AF_UNIX`, …); SO_DOMAIN of socket(7).
pub fn socket_domain(socket: BorrowedFd<'_>) -> io::Result<i32> {
    use std::os::fd::AsRawFd;
    let mut domain: libc::c_int = 0;
    let mut size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: the kernel writes at most `size` bytes to `domain`, which is that large.
    check(libc::c_long::from(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DOMAIN,
            (&raw mut domain).cast(),
            &raw mut size,
        )
    }))?;
    Ok(domain)
}

/// Puts `from` in the place of descriptor `number`, to be inherited; dup2(2).
pub fn place(from: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: dup2 takes two integers. What was open under `number` is closed, and
    // callers pass only numbers that no owned descriptor of theirs has.
    check(libc::c_long::from(unsafe {
        libc::dup2(from.as_raw_fd(), number)
    }))?;
    Ok(())
}

/// Closes every descriptor from `first` on; close_range(2).
fn close_from(first: libc::c_uint) {
    // SAFETY: only called in a child that uses no descriptor from `first` on.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0);
    }
}

/// Starts a program that is nobody's child, init reaps it: QEMU, which this process becomes, never sees
/// an end of a child that it did not start. It is in a session that is not the caller's, has no
/// environment, `fds` as its descriptors 0, 1, 2 …, and no others. Returns once it is executed.
///
/// A child starts it that shares this process's memory: none is copied, which would take longer than
/// all else here. What `before_exec` has remembered there, libselinux's notes of a process's attributes
/// for one, this process finds.
///
/// # Errors
/// Where no process can be started, or it cannot be executed.
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
    let sources = out_of_the_way(fds)?;
    let mut done = Err(io::Error::other(
        "the process that starts it was killed; try again, and if it is killed again see dmesg",
    ));
    let mut stack = vec![0_u8; STACK];
    let start = || -> io::Result<()> {
        // At first: a child that a terminal stops would hold this process up.
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
    // Where the caller has SIGCHLD ignored, the kernel has waited for it.
    let _ = nix::sys::wait::waitpid(child, None);
    done.map_err(none_left)
}

/// What fork(2) and clone(2) mean by EAGAIN.
fn none_left(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => io::Error::other(
            "no further process may be started; raise RLIMIT_NPROC (ulimit -u) or pids.max of the \
             control group",
        ),
        _ => error,
    }
}

/// The status of a starter that was refused a process, EAGAIN of fork(2).
const NONE_LEFT: i32 = 1;

/// Children that have done nothing but start another process: [`apart`].
static STARTERS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Waits for what [`apart`] has left to be waited for: before this process becomes QEMU.
///
/// # Errors
/// Where one of them could start no process.
pub fn wait_for_starters() -> io::Result<()> {
    use nix::sys::wait::{WaitStatus, waitpid};
    let mut starters = STARTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut done = Ok(());
    for starter in starters.drain(..) {
        // Where the caller has SIGCHLD ignored, the kernel has waited for it.
        if let Ok(WaitStatus::Exited(_, NONE_LEFT)) = waitpid(starter, None) {
            done = Err(none_left(nix::errno::Errno::EAGAIN.into()));
        }
    }
    done
}

/// Does something in a copy of this process that is nobody's child, as [`start_detached`] has it, but
/// in the caller's session. Its status is 126 when it fails.
///
/// Copied twice, for which nobody waits: on the stack that this process has, with a guard below it.
///
/// # Errors
/// Where fork(2) fails. That it fails in the child which starts the process shows by the end of the
/// descriptors, and in [`wait_for_starters`].
pub fn apart(fds: &[BorrowedFd<'_>], work: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    use nix::unistd::{ForkResult, fork};
    let sources = out_of_the_way(fds)?;
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

/// Copies of descriptors, above every number that [`take_places`] will fill: no source is overwritten
/// before it was copied.
fn out_of_the_way(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
    use std::os::fd::AsRawFd;
    let base = RawFd::try_from(fds.len()).unwrap_or(RawFd::MAX).max(3);
    let mut sources = Vec::with_capacity(fds.len());
    for fd in fds {
        // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor and touches no memory.
        let copy = check(libc::c_long::from(unsafe {
            libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, base)
        }))?;
        let copy = RawFd::try_from(copy).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: just made, known to nobody else.
        sources.push(unsafe { OwnedFd::from_raw_fd(copy) });
    }
    Ok(sources)
}

/// Has a child with descriptors of its own know these as 0, 1, 2 …, and no others.
fn take_places(sources: &[OwnedFd]) -> io::Result<()> {
    for (number, source) in (0..).zip(sources) {
        place(source.as_fd(), number)?;
    }
    close_from(u32::try_from(sources.len()).unwrap_or(3));
    Ok(())
}

/// Lets go of the memory that holds this program's code, until it is needed again: a process that
/// waits for a guest's end needs little of it. The kernel reads it anew from the file; madvise(2),
/// MADV_DONTNEED.
pub fn let_go_of_code() {
    let here = let_go_of_code as fn() as usize;
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
        // SAFETY: this mapping is of code, which nobody has written to, so that the file still has
        // what is dropped.
        unsafe {
            libc::madvise(
                start as *mut libc::c_void,
                end.saturating_sub(start),
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Ends the process without running destructors or exit handlers.
fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Lets this process open as many files as it is allowed to: a guest of a thousand disks
/// needs a descriptor for each. Returns the limits as they were, for QEMU.
pub fn raise_descriptor_limit() -> Option<(u64, u64)> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok()?;
    Some((soft, hard))
}

/// Sets the limits back to what the caller had.
pub fn restore_descriptor_limit(limits: Option<(u64, u64)>) {
    use nix::sys::resource::{Resource, setrlimit};
    if let Some((soft, hard)) = limits {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}

/// Goes on when asked to end: SIGTERM, SIGINT and SIGHUP; signal(7).
pub fn ignore_termination() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler that could run.
        let _ = unsafe { signal(which, SigHandler::SigIgn) };
    }
}

/// Ends again when asked to.
pub fn heed_termination() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for which in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: the default action installs no handler that could run.
        let _ = unsafe { signal(which, SigHandler::SigDfl) };
    }
}

/// Writes to standard error. A reader that went away is no reason to end, so the
/// SIGPIPE that the write may raise is taken back before it is delivered.
pub fn write_error(text: &[u8]) {
    use std::io::Write;
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

/// Occupies closed standard descriptors, so that no file that this program opens
/// becomes its standard error. They close at execve(2): QEMU finds them as closed
/// as the caller left them.
pub fn hold_standard_descriptors() {
    use nix::fcntl::{OFlag, open};
    while let Ok(fd) = open(
        "/dev/null",
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    ) {
        let number = std::os::fd::IntoRawFd::into_raw_fd(fd);
        if number > 2 {
            // SAFETY: opened above and known to nobody else.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
            return;
        }
    }
}

/// The mount that a file was opened through, as mountinfo numbers them; STATX_MNT_ID of statx(2).
///
/// # Errors
/// Those of statx(2); ENOTSUP from a kernel before 5.8.
pub fn mount_id(file: BorrowedFd<'_>) -> io::Result<u64> {
    use std::os::fd::AsRawFd;
    // SAFETY: all fields are numbers, for which zero is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path names the descriptor itself, and `found` is what the kernel fills.
    check(libc::c_long::from(unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID,
            &raw mut found,
        )
    }))?;
    if found.stx_mask & libc::STATX_MNT_ID == 0 {
        return Err(io::Error::from_raw_os_error(libc::ENOTSUP));
    }
    Ok(found.stx_mnt_id)
}

/// The bytes of a small file that the kernel makes up: a label or a number below /proc and selinuxfs,
/// which it gives whole to a read(2) with room for it.
///
/// # Errors
/// Those of openat(2) and read(2).
pub fn read_at_once(directory: BorrowedFd<'_>, name: &str) -> io::Result<Vec<u8>> {
    use nix::fcntl::{OFlag, openat};
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, nix::sys::stat::Mode::empty())?;
    rest_at_once(file.as_fd())
}

/// As [`read_at_once`], of a file that is open.
///
/// # Errors
/// Those of read(2).
pub fn rest_at_once(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut page = [0; 4096];
    let mut bytes = Vec::new();
    loop {
        let count = nix::unistd::read(file, &mut page)?;
        bytes.extend_from_slice(page.get(..count).unwrap_or_default());
        if count < page.len() {
            return Ok(bytes);
        }
    }
}

/// The environment as the caller set it.
///
/// Not `std::env`: when the kernel set AT_SECURE, the dynamic loader has taken
/// variables such as TMPDIR out of it, and QEMU is to see what the caller said.
///
/// # Errors
/// Where /proc/self/environ cannot be read.
pub fn caller_environment() -> io::Result<Vec<CString>> {
    let bytes = read_at_once(nix::fcntl::AT_FDCWD, "/proc/self/environ")?;
    Ok(bytes
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|entry| std::ffi::CStr::from_bytes_until_nul(entry).ok())
        .map(CString::from)
        .collect())
}

/// A variable of [`caller_environment`].
pub fn variable(environment: &[CString], name: &str) -> Option<OsString> {
    environment.iter().find_map(|entry| {
        let rest = entry.as_bytes().strip_prefix(name.as_bytes())?;
        let value = rest.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value).to_owned())
    })
}

#[cfg(test)]
#[path = "sys_tests.rs"]
mod tests;
