//! What svirt-exec@.service says to a guest's monitor: waits until QEMU answers, or presses the power
//! button and waits for the end. The time limits are systemd's (TimeoutStartSec=, TimeoutStopSec=).
//!
//! A program of its own, so that it does not run in svirt-exec's domain: that one may talk to no
//! guest's monitor.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// How often to try whether QEMU has made its socket.
const RETRY: Duration = Duration::from_millis(50);

/// How often to press the power button: a guest that is only booting does not notice.
const PRESS: Duration = Duration::from_secs(10);

/// Bytes of a message, a line. Events and the answers to what is asked here have some hundred; a QEMU that was
/// taken over can send a line without end.
const LONGEST: u64 = 1 << 20;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["ready", socket, pid] => ready(socket, pid),
        ["shutdown", socket] => shutdown(socket),
        _ => {
            eprintln!("usage: svirt-exec-qmp ready SOCKET PID | shutdown SOCKET");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("svirt-exec-qmp: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A monitor that has greeted; QEMU's docs/interop/qmp-spec.rst.
struct Monitor {
    socket: BufReader<UnixStream>,
    /// What has been read of a message: a time limit may come in the middle of it.
    line: String,
}

impl Monitor {
    fn new(socket: UnixStream) -> Self {
        Self {
            socket: BufReader::new(socket),
            line: String::new(),
        }
    }

    fn connect(path: &str) -> io::Result<Self> {
        let mut monitor = Self::new(UnixStream::connect(path)?);
        monitor.hear(|message| message.get("QMP").is_some())?;
        monitor.ask("qmp_capabilities")?;
        Ok(monitor)
    }

    /// Reads messages up to one that will do; events come in between.
    fn hear(&mut self, will_do: impl Fn(&Value) -> bool) -> io::Result<Value> {
        loop {
            let room = LONGEST.saturating_sub(self.line.len().try_into().unwrap_or(LONGEST));
            let count = (&mut self.socket).take(room).read_line(&mut self.line)?;
            if !self.line.ends_with('\n') {
                return Err(match room {
                    0 => io::Error::other(format!("a message has more than {LONGEST} bytes")),
                    _ if count > 0 => continue,
                    _ => ErrorKind::UnexpectedEof.into(),
                });
            }
            let message: Value = serde_json::from_str(&self.line)?;
            self.line.clear();
            if will_do(&message) {
                return Ok(message);
            }
        }
    }

    fn ask(&mut self, command: &str) -> io::Result<()> {
        let question = serde_json::json!({ "execute": command });
        writeln!(self.socket.get_mut(), "{question}")?;
        let answer =
            self.hear(|message| message.get("return").or(message.get("error")).is_some())?;
        match answer.get("error") {
            Some(error) => Err(io::Error::other(error.to_string())),
            None => Ok(()),
        }
    }
}

/// Waits until QEMU answers, for as long as its process is there.
fn ready(path: &str, pid: &str) -> anyhow::Result<()> {
    let process = Path::new("/proc").join(pid);
    loop {
        match Monitor::connect(path) {
            Err(error) if not_there(&error) && process.exists() => thread::sleep(RETRY),
            other => {
                return other
                    .map(drop)
                    .with_context(|| format!("QEMU does not answer at {path}"));
            }
        }
    }
}

/// Has the guest shut itself down, and waits until QEMU is gone.
fn shutdown(path: &str) -> anyhow::Result<()> {
    let mut monitor = match Monitor::connect(path) {
        // It has ended already.
        Err(error) if not_there(&error) => return Ok(()),
        other => other.with_context(|| format!("QEMU does not answer at {path}"))?,
    };
    monitor.socket.get_ref().set_read_timeout(Some(PRESS))?;
    loop {
        // The answer may come late: QEMU is not asked for anything else.
        match monitor
            .ask("system_powerdown")
            .and_then(|()| monitor.hear(|_| false))
        {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if gone(&error) => return Ok(()),
            other => {
                return other
                    .map(drop)
                    .with_context(|| format!("QEMU does not shut the guest down at {path}"));
            }
        }
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn not_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_end_is_given_up_after_a_mebibyte() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sends = thread::spawn(move || {
            let mut sent = 0;
            while let Ok(count) = theirs.write(&[b' '; 4096]) {
                sent += count;
            }
            sent
        });
        let mut monitor = Monitor::new(ours);
        let error = monitor.hear(|_| true).unwrap_err();
        assert!(error.to_string().contains("1048576 bytes"), "{error}");
        drop(monitor);
        // What is sent and not read is in the socket's buffers.
        assert!(sends.join().unwrap() < 4 << 20);
    }

    #[test]
    fn a_message_may_come_in_pieces_and_the_end_of_qemu_is_none() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut monitor = Monitor::new(ours);
        theirs.write_all(b"{\"event\": 1}\n{\"return\"").unwrap();
        let sends = thread::spawn(move || theirs.write_all(b": {}}\n{\"ret"));
        monitor
            .hear(|message| message.get("return").is_some())
            .unwrap();
        sends.join().unwrap().unwrap();
        let error = monitor.hear(|_| true).unwrap_err();
        assert!(gone(&error), "{error}");
    }
}
