//! Descriptors that the caller hands down.
//!
//! At execve(2) the kernel silently puts a null device in the place of every descriptor that the new domain
//! may not use (`flush_unauthorized_files`, security/selinux/hooks.c). On Debian a login shell's pipe is
//! one, because its label has categories that no guest dominates, so `svirt-exec … | tee log` would lose its
//! output. Each descriptor is therefore asked about beforehand: pipes, and sockets in their place, are made
//! usable, and what cannot be made usable stops the launch.

use crate::host::Policy;
use crate::model::label::Context;
use crate::restore::keeper::client;
use crate::selinux;
use crate::selinux::names::PIPE_TYPE;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Message, Refusal, refuse};
use nix::fcntl::{FcntlArg, OFlag, fcntl, readlink};
use nix::sys::stat::{FileStat, SFlag, fstat};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A descriptor that QEMU will inherit.
#[derive(Debug)]
pub struct Inherited {
    /// Its number.
    pub number: RawFd,
    fd: BorrowedFd<'static>,
    /// The object that it stands for: `pipe:[123]`, a path.
    pub object: PathBuf,
    class: &'static str,
    permissions: &'static [&'static str],
    label: Context,
    identity: (u64, u64),
    writes: bool,
}

impl Inherited {
    /// Tells whether it is a pipe without a name. One that has a name keeps the label that its owner gave it.
    fn is_pipe(&self) -> bool {
        self.class == "fifo_file" && self.object.as_os_str().as_bytes().starts_with(b"pipe:")
    }
}

/// What has to be done before QEMU may use the descriptors.
#[derive(Debug, Default)]
pub struct Repairs {
    /// Pipes, and sockets that stand for pipes.
    streams: Vec<Inherited>,
    /// What cannot be repaired.
    pub failures: Vec<Message>,
}

/// Returns the class that the kernel checks for a descriptor; `inode_mode_to_security_class`.
fn class_of(fd: BorrowedFd<'_>, stat: &FileStat) -> &'static str {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFSOCK => socket_class(fd),
        SFlag::S_IFIFO => "fifo_file",
        SFlag::S_IFCHR => "chr_file",
        SFlag::S_IFBLK => "blk_file",
        SFlag::S_IFDIR => "dir",
        _ => "file",
    }
}

/// Returns the class that the kernel checks for a socket; `socket_type_to_security_class`.
fn socket_class(fd: BorrowedFd<'_>) -> &'static str {
    use nix::sys::socket::{SockType, getsockopt, sockopt};
    let kind = getsockopt(&fd, sockopt::SockType).ok();
    match (sys::socket_domain(fd).unwrap_or(-1), kind) {
        (libc::AF_UNIX, Some(SockType::Datagram)) => "unix_dgram_socket",
        (libc::AF_UNIX, _) => "unix_stream_socket",
        (libc::AF_INET | libc::AF_INET6, Some(SockType::Stream)) => "tcp_socket",
        (libc::AF_INET | libc::AF_INET6, Some(SockType::Datagram)) => "udp_socket",
        (libc::AF_VSOCK, _) => "vsock_socket",
        (libc::AF_PACKET, _) => "packet_socket",
        _ => "socket",
    }
}

/// Tells whether a socket is one of a pair, as socketpair(2) makes them (Node.js, for its children): whoever has the
/// other end has it from the caller, and nobody else can be reached by it.
fn is_of_pair(socket: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{UnixAddr, getpeername, getsockname};
    let is_unnamed = |address: nix::Result<UnixAddr>| {
        address.is_ok_and(|address| address.path().is_none() && address.as_abstract().is_none())
    };
    let number = socket.as_raw_fd();
    is_unnamed(getsockname(number)) && is_unnamed(getpeername(number))
}

/// Returns what the kernel asks for at execve(2): `file_to_av` of security/selinux/hooks.c.
fn permissions(flags: OFlag) -> &'static [&'static str] {
    let append = flags.contains(OFlag::O_APPEND);
    match flags & OFlag::O_ACCMODE {
        OFlag::O_WRONLY if append => &["append"],
        OFlag::O_WRONLY => &["write"],
        OFlag::O_RDWR if append => &["read", "append"],
        OFlag::O_RDWR => &["read", "write"],
        _ => &["read"],
    }
}

fn taken_away(number: RawFd) -> Message {
    // What it was is gone: a standard descriptor was a file most likely, and another one a lock.
    Message::new(
        format!(
            "cannot hand descriptor {number} to QEMU: SELinux took it away when svirt-exec was started, \
             since svirt_launcher_t may not use what was behind it (ausearch -m avc -ts recent)"
        ),
        advice("file", number, number != 0),
    )
}

/// Says what to do about a descriptor of a class that a guest may not use.
fn advice(class: &str, number: RawFd, writes: bool) -> String {
    match (class, number) {
        ("file", 0) => "send it through a pipe instead (cat FILE | svirt-exec …)".to_owned(),
        ("file", 1 | 2) => {
            "send it through a pipe instead (| cat > FILE), or write it to a directory that is labelled for \
             guests"
                .to_owned()
        }
        ("file", _) if writes => {
            format!("close it for QEMU ({number}>&-), which needs no lock or log of the caller's (flock -o)")
        }
        ("file", _) => format!("name the file on QEMU's command line instead, or close it ({number}<&-)"),
        ("dir", _) => format!("close it ({number}<&-): QEMU uses no directory that way"),
        ("chr_file" | "blk_file", _) => {
            format!("name the device on QEMU's command line instead, or close it ({number}<&-)")
        }
        ("unix_stream_socket", 0..=2) => {
            "hand down a pipe, or a socket of socketpair(2): one that has a name leads to whoever listens there"
                .to_owned()
        }
        // qemu:///session: the monitor is a socket of the user's own libvirtd, at a login's level.
        ("unix_stream_socket", _) => {
            "close it, or hand down a pipe; where a libvirt daemon of a user's own has opened it, leave the \
             guest's label to that (no <seclabel type='none'/>)"
                .to_owned()
        }
        _ => format!("close it ({number}<&-), or hand down a pipe"),
    }
}

fn numbers() -> io::Result<Vec<RawFd>> {
    let mut numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Looks at every descriptor that QEMU would inherit, for a guest in `domain`.
///
/// # Errors
/// Those of reading /proc, and of asking the policy.
pub fn inspect(host: &dyn Policy, domain: &Context) -> io::Result<Repairs> {
    let mut repairs = Repairs::default();
    for number in numbers()? {
        let Some(fd) = sys::handed_on(number) else {
            continue;
        };
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap_or(0));
        if flags.contains(OFlag::O_PATH) {
            continue;
        }
        let object = readlink(&PathBuf::from(format!("/proc/self/fd/{number}")))
            .map(PathBuf::from)
            .unwrap_or_default();
        let Ok(stat) = fstat(fd) else { continue };
        if sys::was_taken_away(fd) {
            repairs.failures.push(taken_away(number));
            continue;
        }
        // Anonymous inodes (eventfd, epoll, KVM's own) carry no label and are not checked.
        let Ok(Some(label)) = selinux::label_of_fd(fd) else {
            continue;
        };
        let class = class_of(fd, &stat);
        let permissions = permissions(flags);
        let denied = host.denied(domain, &label, class, permissions)?;
        if denied.is_empty() {
            continue;
        }
        let is_stream = class == "unix_stream_socket" && number <= 2 && is_of_pair(fd);
        let inherited = Inherited {
            number,
            fd,
            object,
            class,
            permissions,
            label,
            identity: (stat.st_dev, stat.st_ino),
            writes: if is_stream {
                number != 0
            } else {
                flags & OFlag::O_ACCMODE != OFlag::O_RDONLY
            },
        };
        if inherited.is_pipe() || is_stream {
            repairs.streams.push(inherited);
        } else {
            repairs.failures.push(unusable(&inherited, domain, &denied));
        }
    }
    Ok(repairs)
}

fn unusable(inherited: &Inherited, domain: &Context, denied: &[&str]) -> Message {
    Message::new(
        format!(
            "cannot hand descriptor {} ({}) to QEMU: {} may not {} {} {}, and the kernel would put a null \
             device in its place",
            inherited.number,
            quoted(&inherited.object),
            domain.short(),
            denied.join(", "),
            inherited.label,
            inherited.class,
        ),
        advice(inherited.class, inherited.number, inherited.writes),
    )
}

/// A descriptor that takes the place of one of the caller's at the last moment.
#[derive(Debug)]
pub struct Replacement {
    end: OwnedFd,
    number: RawFd,
}

impl Repairs {
    /// Makes the streams usable: a pipe by its label or, if that may not be set (the pipe of another user), by a
    /// pipe of our own and a process that copies, and a socket by the latter. Bytes pass, and nothing else that a
    /// socket can carry.
    ///
    /// Labels of pipes are not put back: a pipe ends with its users.
    ///
    /// # Errors
    /// A stream that can be made usable in neither way, with its number and label.
    pub fn apply(
        self,
        host: &dyn Policy,
        own: &Context,
        domain: &Context,
    ) -> Result<Vec<Replacement>, Refusal> {
        let mut label = own.with_type(PIPE_TYPE).bare();
        "object_r".clone_into(&mut label.role);
        let mut replacements: Vec<(Replacement, (u64, u64), bool)> = Vec::new();
        for inherited in self.streams {
            if selinux::label_of_fd(inherited.fd).is_ok_and(|now| now.as_ref() == Some(&label)) {
                continue;
            }
            let usable = inherited.is_pipe()
                && host
                    .denied(domain, &label, inherited.class, inherited.permissions)
                    .is_ok_and(|denied| denied.is_empty());
            if usable && selinux::set_label_of_fd(inherited.fd, &label).is_ok() {
                continue;
            }
            // Standard output and error are often one pipe: what is written to both stays in order only if
            // it goes through one pipe again.
            let twin = replacements
                .iter()
                .find(|(_, identity, writes)| {
                    *identity == inherited.identity && *writes == inherited.writes
                })
                .map(|(twin, ..)| twin.end.try_clone());
            let end = match twin {
                Some(end) => end,
                None => relay(own, &inherited, &label),
            }
            .map_err(|error| {
                refuse(format!(
                    "{}: {error}",
                    unusable(&inherited, domain, &["use"])
                ))
            })?;
            replacements.push((
                Replacement {
                    end,
                    number: inherited.number,
                },
                inherited.identity,
                inherited.writes,
            ));
        }
        Ok(replacements
            .into_iter()
            .map(|(replacement, ..)| replacement)
            .collect())
    }
}

/// Makes a pipe with a label, and starts the process that copies between it and the caller's.
fn relay(own: &Context, inherited: &Inherited, label: &Context) -> io::Result<OwnedFd> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    selinux::set_label_of_fd(read.as_fd(), label)?;
    if inherited.writes {
        client::start_relay(own, read.as_fd(), inherited.fd)?;
        Ok(write)
    } else {
        client::start_relay(own, inherited.fd, write.as_fd())?;
        Ok(read)
    }
}

/// Puts the replacements in place. Nothing may be opened afterwards but QEMU.
///
/// # Errors
/// Those of dup2(2).
pub fn place(replacements: &[Replacement]) -> io::Result<()> {
    for replacement in replacements {
        sys::place(replacement.end.as_fd(), replacement.number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_fits_what_the_descriptor_is() {
        for (class, number, writes, part) in [
            ("file", 0, false, "cat FILE |"),
            ("file", 1, true, "| cat > FILE"),
            ("file", 2, true, "| cat > FILE"),
            ("file", 9, true, "flock -o"),
            ("file", 9, true, "(9>&-)"),
            ("file", 9, false, "command line"),
            ("dir", 4, false, "(4<&-)"),
            ("blk_file", 4, true, "name the device"),
            ("tcp_socket", 0, true, "hand down a pipe"),
            ("unix_stream_socket", 0, true, "socketpair"),
            ("unix_stream_socket", 5, true, "libvirt"),
        ] {
            let said = advice(class, number, writes);
            assert!(said.contains(part), "{class} {number}: {said}");
        }
    }
}
