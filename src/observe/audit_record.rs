//! Lines of the audit log, and of the kernel's ring buffer: pure. The names in them are written by
//! whoever was denied something.
//!
//! The format: "Linux Audit Documentation" of the audit project, `audit_log_untrustedstring`
//! of kernel/audit.c (names in quotes, or in hexadecimal where they hold quotes, blanks or
//! control characters), `avc_audit_pre_callback` of security/selinux/avc.c.

use std::collections::HashMap;

use crate::model::label::Context;

/// Which moment of which boot a record is of: seconds, milliseconds, serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Milliseconds of it.
    pub millis: u16,
    /// Serial number.
    pub serial: u64,
}

/// A record that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A denial by the kernel or by a program that asks the policy.
    Avc(Box<Denial>),
    /// A path that the system call of the same event was given.
    Path {
        /// The path.
        name: Vec<u8>,
        /// The inode.
        inode: Option<u64>,
    },
}

/// A denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Permissions.
    pub permissions: Vec<String>,
    /// Who.
    pub pid: Option<i32>,
    /// Its name.
    pub comm: Vec<u8>,
    /// Name of the object: the last part of a path, or a path; none for processes.
    pub name: Option<Vec<u8>>,
    /// Whether `name` is a path.
    pub is_path: bool,
    /// Device of its file system, as the kernel names it.
    pub device: Option<String>,
    /// The object's inode.
    pub inode: Option<u64>,
    /// Context of who was denied.
    pub source: Context,
    /// Label of the object.
    pub target: Context,
    /// Class of the object.
    pub class: String,
    /// Whether it was only noted: the domain, or the host, is permissive.
    pub permissive: bool,
}

/// Record types; linux/audit.h.
const AVC: &str = "1400";
const USER_AVC: &str = "1107";
const PATH: &str = "1302";

/// A field's value: in quotes as it is, else hexadecimal where it is that.
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

/// Fields `key=value`, blanks between them; a value in quotes may hold blanks. The first of a key
/// counts: what follows may be a value that looks like fields.
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

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Splits at the first `what`.
fn split<'a>(text: &'a [u8], what: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(text, what)?;
    Some((text.get(..at)?, text.get(at.checked_add(what.len())?..)?))
}

fn stamp(stamp: &[u8]) -> Option<Stamp> {
    let (time, serial) = text(stamp)?.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    Some(Stamp {
        seconds: seconds.parse().ok()?,
        millis: millis.parse().ok()?,
        serial: serial.parse().ok()?,
    })
}

/// Reads one line; none where it is a record of another kind, or no record.
///
/// Lines begin `type=AVC msg=audit(…):` in the log, `audit: type=1400 audit(…):` in the ring buffer,
/// each with something before it (`node=…`, a time).
pub fn record(line: &[u8]) -> Option<(Stamp, Record)> {
    // What auditd adds in its "enriched" format stands behind a separator.
    let line = line.split(|byte| *byte == 0x1d).next()?;
    let (head, rest) = split(line, b"audit(")?;
    let (when, body) = split(rest, b"):")?;
    let when = stamp(when)?;
    let (_, kind) = split(head, b"type=")?;
    let kind = text(kind.split(|byte| *byte == b' ').next()?)?;
    let record = match kind {
        "AVC" | AVC => Record::Avc(Box::new(denial(body)?)),
        "USER_AVC" | USER_AVC => {
            let (_, message) = split(body, b"msg='")?;
            let end = message.iter().rposition(|byte| *byte == b'\'');
            let inside = end.map_or(message, |end| message.get(..end).unwrap_or_default());
            let mut found = denial(inside)?;
            // Who was denied is named outside, and is another than who asked.
            if found.pid.is_none() {
                found.pid = fields(inside)
                    .get(b"spid".as_slice())
                    .and_then(|pid| text(pid)?.parse().ok());
            }
            Record::Avc(Box::new(found))
        }
        "PATH" | PATH => {
            let fields = fields(body);
            let name = fields.get(b"name".as_slice())?;
            Record::Path {
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

/// A device's name is in quotes, or bare; never in hexadecimal.
fn untrusted_device(value: &[u8]) -> Vec<u8> {
    value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(value)
        .to_vec()
}

/// A time as RFC 3339 has it, in UTC. The calendar: "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`.
pub fn utc(seconds: u64) -> String {
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
