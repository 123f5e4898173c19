//! Where denials are read from: the audit daemon's log, or the kernel's ring buffer where no daemon
//! keeps one, or a file or standard input that the caller names.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::observe::audit_record::{self, Record, Stamp};
use crate::observe::denials;
use crate::sys;
use crate::text::message::{Refusal, refuse};

/// auditd.conf(5), log_file; and the one before it, so that a log that was just changed is no loss.
const LOGS: [&str; 2] = ["/var/log/audit/audit.log.1", "/var/log/audit/audit.log"];

/// Longest line that is read, in bytes: MAX_AUDIT_MESSAGE_LENGTH of libaudit.h is 8970.
const LONGEST: u64 = 64 << 10;

/// Records of a log, those that are younger than `since` (seconds since 1970).
fn records(log: impl Read, since: u64) -> io::Result<Vec<(Stamp, Record)>> {
    let mut log = BufReader::new(log);
    let mut found = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if log.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        found.extend(audit_record::record(&line).filter(|(stamp, _)| stamp.seconds >= since));
    }
}

/// Reads what there is.
///
/// # Errors
/// Where nothing may be read, saying who may.
pub fn read(log: Option<&Path>, since: u64) -> Result<Vec<(Stamp, Record)>, Refusal> {
    if let Some(path) = log {
        let read = if path == Path::new("-") {
            records(io::stdin().lock(), since)
        } else {
            File::open(path).and_then(|file| records(file, since))
        };
        return read.map_err(|error| refuse(denials::unreadable(path, &error)));
    }
    let [before, current] = LOGS.map(Path::new);
    match File::open(current) {
        Ok(file) => {
            let read = || -> io::Result<Vec<(Stamp, Record)>> {
                let mut all = match File::open(before) {
                    Ok(file) => records(file, since)?,
                    Err(_) => Vec::new(),
                };
                all.extend(records(file, since)?);
                Ok(all)
            };
            read().map_err(|error| refuse(denials::unreadable(current, &error)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let ring = sys::kernel_log().map_err(|error| {
                refuse(format!(
                    "cannot read the kernel's messages, where denials are without auditd: {error}; \
                     root may, while svirt_launcher_read_audit is on (getsebool); or install auditd"
                ))
            })?;
            Ok(records(ring.as_slice(), since)?)
        }
        Err(error) => Err(refuse(denials::unreadable(current, &error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_line_by_line_from_a_time_on() {
        let line = |seconds: u64| {
            format!(
                "type=AVC msg=audit({seconds}.0:1): avc:  denied  {{ read }} for  pid=1 \
                 scontext=u:r:svirt_t:s0 tcontext=u:object_r:t:s0 tclass=file\n"
            )
        };
        let endless = "x".repeat(200_000);
        let log = format!(
            "{}{endless}\n\n{}{}",
            line(5),
            line(10),
            line(20).trim_end()
        );
        let seconds: Vec<u64> = records(log.as_bytes(), 10)
            .unwrap()
            .iter()
            .map(|(stamp, _)| stamp.seconds)
            .collect();
        assert_eq!(seconds, [10, 20]);
    }
}
