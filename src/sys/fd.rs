//! Descriptors: those that the caller hands down, and what one stands for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

use crate::sys::errno::check;

/// Opens a descriptor by which the end of a process can be waited for; pidfd_open(2).
///
/// # Errors
/// Those of pidfd_open(2); ESRCH if there is no such process.
pub fn pidfd(process: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel just made this descriptor and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Borrows a descriptor that the caller handed down for the rest of the program. None if the number is
/// not open.
pub fn inherited(number: RawFd) -> Option<BorrowedFd<'static>> {
    open_with_flags(number).map(|(fd, _)| fd)
}

/// Borrows a descriptor that stays open at execve(2): one without FD_CLOEXEC.
pub fn handed_on(number: RawFd) -> Option<BorrowedFd<'static>> {
    let (fd, flags) = open_with_flags(number)?;
    (flags & libc::FD_CLOEXEC == 0).then_some(fd)
}

/// Borrows a descriptor that is open, with its flags.
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

/// Reads from a socket, together with a descriptor if one was sent with the bytes; SCM_RIGHTS of
/// unix(7). The number of bytes is 0 at the end.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut into = [io::IoSliceMut::new(into)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut space), flags)?;
    let mut received = None;
    // If the policy does not let this domain have the descriptor, the message comes without it.
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

/// Returns the address family of a socket (`AF_UNIX`, …); SO_DOMAIN of socket(7).
///
/// # Errors
/// Those of getsockopt(2).
pub fn socket_domain(socket: BorrowedFd<'_>) -> io::Result<i32> {
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
///
/// # Errors
/// Those of dup2(2).
pub fn place(from: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
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

/// Duplicates descriptors above every number that [`take_places`] will fill, so that no source is
/// overwritten before it was copied; F_DUPFD_CLOEXEC of fcntl(2).
pub(in crate::sys) fn dup_above(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
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

/// Makes these the descriptors 0, 1, 2 … of a child with a descriptor table of its own, and closes all
/// others.
pub(in crate::sys) fn take_places(sources: &[OwnedFd]) -> io::Result<()> {
    for (number, source) in (0..).zip(sources) {
        place(source.as_fd(), number)?;
    }
    close_from(u32::try_from(sources.len()).unwrap_or(3));
    Ok(())
}

/// Occupies closed standard descriptors, so that no file that this program opens becomes its standard
/// error. They close at execve(2): QEMU finds them as closed as the caller left them.
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

/// Returns the mount that a file was opened through, as mountinfo numbers them; STATX_MNT_ID of
/// statx(2).
///
/// # Errors
/// Those of statx(2); ENOTSUP from a kernel before 5.8.
pub fn mount_id(file: BorrowedFd<'_>) -> io::Result<u64> {
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

/// How a file is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Beside others who share it.
    Shared,
    /// By one alone.
    Alone,
    /// By this description no more, whoever else has a descriptor of it.
    No,
}

/// Locks an open file, or changes its lock, without waiting; flock(2).
///
/// # Errors
/// Those of flock(2); EWOULDBLOCK if somebody else has it, and then this file's own lock is gone.
pub fn flock(file: BorrowedFd<'_>, kind: LockKind) -> io::Result<()> {
    let how = match kind {
        LockKind::Shared => libc::LOCK_SH,
        LockKind::Alone => libc::LOCK_EX,
        LockKind::No => libc::LOCK_UN,
    };
    // SAFETY: takes two numbers, the first of a descriptor that is borrowed.
    check(libc::c_long::from(unsafe {
        libc::flock(file.as_raw_fd(), how | libc::LOCK_NB)
    }))
    .map(drop)
}
