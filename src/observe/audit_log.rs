//! Reads records from the audit daemon's log, from the kernel's ring buffer if there is no such log,
//! or from the file or standard input that the caller names.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::observe::audit_record::{self, AuditRecord, Stamp};
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse};

/// The audit daemon's logs (auditd.conf(5), log_file): the one before the last rotation, and the
/// current one.
const LOGS: [&str; 2] = ["/var/log/audit/audit.log.1", "/var/log/audit/audit.log"];

/// Most bytes of a line that are read. MAX_AUDIT_MESSAGE_LENGTH of libaudit.h is 8970.
const MAX_LINE: u64 = 64 << 10;

/// Returns the records of a log from `since` on, in seconds since 1970.
fn records(log: impl Read, since: u64) -> io::Result<Vec<(Stamp, AuditRecord)>> {
    let mut log = BufReader::new(log);
    let mut found = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if log.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        found.extend(audit_record::parse_line(&line).filter(|(stamp, _)| stamp.seconds >= since));
    }
}

/// Says that a log cannot be read, and who may read it.
fn unreadable(log: &Path, error: &io::Error) -> Refusal {
    refuse(format!(
        "cannot read the audit log {}: {error}; root may read it, while svirt_launcher_read_audit is \
         on (getsebool), and so may who is in the group that log_group names in \
         /etc/audit/auditd.conf. With another right to it: ausearch -m avc --raw | svirt-exec \
         denials --log -",
        quoted(log)
    ))
}

/// Returns the records from `since` on, in seconds since 1970, of the named log or of this host's.
///
/// # Errors
/// The log cannot be read; the message says who may read it.
pub(crate) fn read(log: Option<&Path>, since: u64) -> Result<Vec<(Stamp, AuditRecord)>, Refusal> {
    if let Some(path) = log {
        let read = if path == Path::new("-") {
            records(io::stdin().lock(), since)
        } else {
            File::open(path).and_then(|file| records(file, since))
        };
        return read.map_err(|error| unreadable(path, &error));
    }
    let [before, current] = LOGS.map(Path::new);
    match File::open(current) {
        Ok(file) => {
            let read = || -> io::Result<Vec<(Stamp, AuditRecord)>> {
                let mut all = match File::open(before) {
                    Ok(file) => records(file, since)?,
                    Err(_) => Vec::new(),
                };
                all.extend(records(file, since)?);
                Ok(all)
            };
            read().map_err(|error| unreadable(current, &error))
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
        Err(error) => Err(unreadable(current, &error)),
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
