//! Reads one line of the audit log or of the kernel's ring buffer. Pure. The process that was denied
//! something chooses the names in it.
//!
//! The format: "Linux Audit Documentation" of the audit project; `audit_log_untrustedstring` of
//! kernel/audit.c (a name is in quotes, or in hexadecimal if it has quotes, blanks or control
//! characters); `avc_audit_pre_callback` of security/selinux/avc.c.

use std::collections::HashMap;

use crate::model::label::Context;

/// Which event a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stamp {
    /// Seconds since 1970.
    pub(crate) seconds: u64,
    /// Milliseconds of that second.
    pub(crate) millis: u16,
    /// Serial number of the event since boot.
    pub(crate) serial: u64,
}

/// A record of a kind that explains denials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuditRecord {
    /// A denial by the kernel or by a program that asks the policy.
    Avc(Box<Denial>),
    /// A path argument of the system call of the same event.
    Path {
        /// The path.
        name: Vec<u8>,
        /// The inode.
        inode: Option<u64>,
    },
}

/// A denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The permissions that were denied.
    pub(crate) permissions: Vec<String>,
    /// The process that was denied them.
    pub(crate) pid: Option<i32>,
    /// Name of that process.
    pub(crate) comm: Vec<u8>,
    /// Name of the object: a path, or the last part of one. None for processes.
    pub(crate) name: Option<Vec<u8>>,
    /// Whether `name` is a path.
    pub(crate) is_path: bool,
    /// The kernel's name of the device that its file system is on.
    pub(crate) device: Option<String>,
    /// The object's inode.
    pub(crate) inode: Option<u64>,
    /// Context of the process.
    pub(crate) source: Context,
    /// Label of the object.
    pub(crate) target: Context,
    /// Class of the object.
    pub(crate) class: String,
    /// Whether it was only logged: the domain, or the host, is permissive.
    pub(crate) permissive: bool,
}

impl Denial {
    /// Tells whether this permission is among the denied ones.
    pub(crate) fn asks_for(&self, permission: &str) -> bool {
        self.permissions.iter().any(|one| one == permission)
    }
}

/// The types of linux/audit.h.
const AVC: &str = "1400";
const USER_AVC: &str = "1107";
const PATH: &str = "1302";

/// Decodes the value of a field: in quotes, in hexadecimal, or as it is.
fn untrusted(value: &[u8]) -> Vec<u8> {
    if let Some(quoted) = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    {
        return quoted.to_vec();
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let decoded: Option<Vec<u8>> = value
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => {
                let number = digit(*high)?.checked_mul(16)?.checked_add(digit(*low)?)?;
                u8::try_from(number).ok()
            }
            _ => None,
        })
        .collect();
    decoded
        .filter(|bytes| !bytes.is_empty())
        .unwrap_or_else(|| value.to_vec())
}

/// Splits fields `key=value` at blanks. A value in quotes may have blanks in it. The first field of a
/// key counts: later ones may be part of a value.
fn fields(text: &[u8]) -> HashMap<&[u8], &[u8]> {
    let mut found = HashMap::new();
    let mut rest = text;
    loop {
        let start = rest.iter().position(|byte| *byte != b' ');
        let Some(from) = start.and_then(|start| rest.get(start..)) else {
            return found;
        };
        let blank = from.iter().position(|byte| *byte == b' ');
        let equals = from.iter().position(|byte| *byte == b'=');
        let word_end = blank.unwrap_or(from.len());
        let (key, value_start) = match equals {
            Some(equals) if equals < word_end => (from.get(..equals), equals.saturating_add(1)),
            _ => {
                rest = from.get(word_end..).unwrap_or_default();
                continue;
            }
        };
        let value = from.get(value_start..).unwrap_or_default();
        let end = match value.strip_prefix(b"\"") {
            Some(inside) => inside
                .iter()
                .position(|byte| *byte == b'"')
                .map_or(value.len(), |end| end.saturating_add(2)),
            None => value
                .iter()
                .position(|byte| *byte == b' ')
                .unwrap_or(value.len()),
        };
        if let (Some(key), Some(value)) = (key, value.get(..end)) {
            found.entry(key).or_insert(value);
        }
        rest = value.get(end..).unwrap_or_default();
    }
}

/// Returns a value as text. None if it is not UTF-8.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Returns where `what` begins first.
fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Splits a text at the first `what`.
fn split<'a>(text: &'a [u8], what: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(text, what)?;
    Some((text.get(..at)?, text.get(at.checked_add(what.len())?..)?))
}

/// Reads `SECONDS.MILLISECONDS:SERIAL`.
fn stamp(stamp: &[u8]) -> Option<Stamp> {
    let (time, serial) = text(stamp)?.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    Some(Stamp {
        seconds: seconds.parse().ok()?,
        millis: millis.parse().ok()?,
        serial: serial.parse().ok()?,
    })
}

/// Reads one line. None if it is no record, or one of another kind.
///
/// A line begins `type=AVC msg=audit(…):` in the log and `audit: type=1400 audit(…):` in the ring
/// buffer. Either may follow a prefix (`node=…`, a time).
pub(crate) fn parse_line(line: &[u8]) -> Option<(Stamp, AuditRecord)> {
    // auditd's "enriched" format adds fields after this separator.
    let line = line.split(|byte| *byte == 0x1d).next()?;
    let (head, rest) = split(line, b"audit(")?;
    let (when, body) = split(rest, b"):")?;
    let when = stamp(when)?;
    let (_, kind) = split(head, b"type=")?;
    let kind = text(kind.split(|byte| *byte == b' ').next()?)?;
    let record = match kind {
        "AVC" | AVC => AuditRecord::Avc(Box::new(denial(body)?)),
        "USER_AVC" | USER_AVC => {
            let (_, message) = split(body, b"msg='")?;
            let end = message.iter().rposition(|byte| *byte == b'\'');
            let inside = end.map_or(message, |end| message.get(..end).unwrap_or_default());
            let mut found = denial(inside)?;
            // The record's own pid is the program that asked the policy. Inside the message, spid is
            // the process that was denied.
            if found.pid.is_none() {
                found.pid = fields(inside)
                    .get(b"spid".as_slice())
                    .and_then(|pid| text(pid)?.parse().ok());
            }
            AuditRecord::Avc(Box::new(found))
        }
        "PATH" | PATH => {
            let fields = fields(body);
            let name = fields.get(b"name".as_slice())?;
            AuditRecord::Path {
                name: (**name != *b"(null)").then(|| untrusted(name))?,
                inode: fields
                    .get(b"inode".as_slice())
                    .and_then(|inode| text(inode)?.parse().ok()),
            }
        }
        _ => return None,
    };
    Some((when, record))
}

/// Reads the message of a denial. None if it grants, or is not SELinux's.
fn denial(body: &[u8]) -> Option<Denial> {
    let (_, rest) = split(body, b"avc:")?;
    let (verdict, rest) = split(rest, b"{")?;
    if verdict.trim_ascii() != b"denied" {
        return None;
    }
    let (permissions, rest) = split(rest, b"}")?;
    let fields = fields(rest);
    let field = |name: &str| fields.get(name.as_bytes()).copied();
    let context = |name: &str| text(field(name)?)?.parse::<Context>().ok();
    let path = field("path").map(untrusted);
    Some(Denial {
        permissions: text(permissions)?
            .split_whitespace()
            .map(ToOwned::to_owned)
            .collect(),
        pid: field("pid").and_then(|pid| text(pid)?.parse().ok()),
        comm: field("comm").map(untrusted).unwrap_or_default(),
        is_path: path.as_deref().is_some_and(|path| path.starts_with(b"/")),
        name: path.or_else(|| field("name").map(untrusted)),
        device: field("dev")
            .map(|dev| String::from_utf8_lossy(&untrusted_device(dev)).into_owned()),
        inode: field("ino").and_then(|inode| text(inode)?.parse().ok()),
        source: context("scontext")?,
        target: context("tcontext")?,
        class: text(field("tclass")?)?.to_owned(),
        permissive: field("permissive") == Some(b"1"),
    })
}

/// Decodes the name of a device: in quotes or bare, never in hexadecimal.
fn untrusted_device(value: &[u8]) -> Vec<u8> {
    value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(value)
        .to_vec()
}

/// Formats a time, in seconds since 1970, as of RFC 3339 in UTC. The calendar: "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`.
pub(crate) fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days.saturating_add(719_468);
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = of_era
        .saturating_sub(of_era / 1_460)
        .saturating_add(of_era / 36_524)
        .saturating_sub(of_era / 146_096)
        / 365;
    let before = (365_u64.saturating_mul(year_of_era))
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100);
    let of_year = of_era.saturating_sub(before);
    let shifted_month = (of_year.saturating_mul(5).saturating_add(2)) / 153;
    let before = (shifted_month.saturating_mul(153).saturating_add(2)) / 5;
    let day = of_year.saturating_sub(before).saturating_add(1);
    let month = if shifted_month < 10 {
        shifted_month.saturating_add(3)
    } else {
        shifted_month.saturating_sub(9)
    };
    let year = year_of_era
        .saturating_add(era.saturating_mul(400))
        .saturating_add(u64::from(month <= 2));
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
#[path = "audit_record_tests.rs"]
mod tests;
