//! Reads records from the audit daemon's log, from the kernel's ring buffer if there is no such log,
//! or from the file or standard input that the caller names.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::observe::audit_record::{self, AuditRecord, Stamp};
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse, say};

/// The audit daemon's logs (auditd.conf(5), log_file): the one before the last rotation, and the
/// current one.
const LOGS: [&str; 2] = ["/var/log/audit/audit.log.1", "/var/log/audit/audit.log"];

/// Most bytes of a line that are read. MAX_AUDIT_MESSAGE_LENGTH of libaudit.h is 8970.
const MAX_LINE: u64 = 64 << 10;

/// Most records that are kept, the newest: a record takes a KiB or two, and a guest can have as many logged as it
/// likes.
const MOST: usize = 8192;

/// Records of a log.
#[derive(Default)]
struct Records {
    /// The newest, oldest first.
    kept: Vec<(Stamp, AuditRecord)>,
    /// Whether there were older ones.
    is_cut: bool,
}

impl Records {
    /// Adds the records of a log from `since` on, in seconds since 1970.
    fn add(&mut self, log: impl Read, since: u64) -> io::Result<()> {
        let mut log = BufReader::new(log);
        let mut line = Vec::new();
        loop {
            line.clear();
            if log.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            self.kept.extend(
                audit_record::parse_line(&line).filter(|(stamp, _)| stamp.seconds >= since),
            );
            if self.kept.len() >= MOST.saturating_mul(2) {
                self.drop_old();
            }
        }
    }

    fn drop_old(&mut self) {
        let old = self.kept.len().saturating_sub(MOST);
        self.kept.drain(..old);
        self.is_cut |= old > 0;
    }

    /// Returns them, and says if they are not all.
    fn newest(mut self) -> Vec<(Stamp, AuditRecord)> {
        self.drop_old();
        if self.is_cut {
            say(format_args!(
                "warning: the log has more than {MOST} records of denials; older ones are left out"
            ));
        }
        self.kept
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
        let mut records = Records::default();
        let read = if path == Path::new("-") {
            records.add(io::stdin().lock(), since)
        } else {
            File::open(path).and_then(|file| records.add(file, since))
        };
        return match read {
            Ok(()) => Ok(records.newest()),
            Err(error) => Err(unreadable(path, &error)),
        };
    }
    let [before, current] = LOGS.map(Path::new);
    match File::open(current) {
        Ok(file) => {
            let read = || -> io::Result<Vec<(Stamp, AuditRecord)>> {
                let mut records = Records::default();
                if let Ok(file) = File::open(before) {
                    records.add(file, since)?;
                }
                records.add(file, since)?;
                Ok(records.newest())
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
            let mut records = Records::default();
            records.add(ring.as_slice(), since)?;
            Ok(records.newest())
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
        let mut records = Records::default();
        records.add(log.as_bytes(), 10).unwrap();
        let seconds: Vec<u64> = records
            .newest()
            .iter()
            .map(|(stamp, _)| stamp.seconds)
            .collect();
        assert_eq!(seconds, [10, 20]);
    }

    #[test]
    fn of_a_log_without_end_the_newest_records_are_kept() {
        let mut records = Records::default();
        for seconds in 0..3 * MOST {
            let line = format!(
                "type=AVC msg=audit({seconds}.0:1): avc:  denied  {{ read }} for  pid=1 \
                 scontext=u:r:svirt_t:s0 tcontext=u:object_r:t:s0 tclass=file\n"
            );
            records.add(line.as_bytes(), 0).unwrap();
            assert!(records.kept.len() < 2 * MOST);
        }
        let kept = records.newest();
        assert_eq!(kept.len(), MOST);
        assert_eq!(kept[0].0.seconds, 2 * MOST as u64);
    }
}
