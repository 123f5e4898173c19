//! Denials as text and as JSON (`denials`). The JSON document is a contract: fields are only ever added.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::Serialize;

use crate::observe::audit_record::utc;
use crate::observe::denial_facts::ExplainedDenial;
use crate::text::escape::escaped;
use crate::text::hex::path_hex;
use crate::text::json;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    denials: Vec<DenialEntry<'a>>,
}

#[derive(Serialize)]
struct DenialEntry<'a> {
    time: String,
    count: usize,
    guest: &'a str,
    pid: Option<i32>,
    program: String,
    permissions: &'a [String],
    class: &'a str,
    path: Option<String>,
    /// The bytes of `path` in hexadecimal, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    name: Option<String>,
    device: Option<&'a str>,
    inode: Option<u64>,
    source: String,
    target: String,
    permissive: bool,
    why: &'static str,
    tried: &'a str,
    reason: &'a str,
    fix: &'a str,
}

/// Returns the denials as JSON.
///
/// # Errors
/// None for denials that were explained.
pub(crate) fn json(all: &[ExplainedDenial]) -> serde_json::Result<String> {
    let entries = all.iter().map(|one| {
        let denial = &one.denial;
        let path = one
            .path
            .clone()
            .map(|path| PathBuf::from(OsString::from_vec(path)));
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        DenialEntry {
            time: utc(one.last.seconds),
            count: one.count,
            guest: &one.who,
            pid: denial.pid,
            program: text(&denial.comm),
            permissions: &denial.permissions,
            class: &denial.class,
            path_hex: path.as_deref().and_then(path_hex),
            path: path.map(|path| path.to_string_lossy().into_owned()),
            name: denial.name.as_ref().map(text),
            device: denial.device.as_deref(),
            inode: denial.inode,
            source: denial.source.to_string(),
            target: denial.target.to_string(),
            permissive: denial.permissive,
            why: one.why.name(),
            tried: &one.tried,
            reason: &one.reason,
            fix: &one.fix,
        }
    });
    json::pretty(&Document {
        version: 1,
        denials: entries.collect(),
    })
}

/// Returns the denials as text, a paragraph each, the newest last.
pub(crate) fn text(all: &[ExplainedDenial]) -> String {
    let mut out = String::new();
    for one in all {
        let denial = &one.denial;
        let times = match one.count {
            1 => String::new(),
            count => format!(", {count} times"),
        };
        let pid = denial.pid.map_or_else(String::new, |pid| format!(" {pid}"));
        let _ = writeln!(
            out,
            "{}  {} (process{pid}, {}; {}){times}",
            utc(one.last.seconds),
            one.who,
            escaped(&denial.comm),
            denial.source.short()
        );
        let verdict = if denial.permissive {
            "was noted for trying to"
        } else {
            "may not"
        };
        let _ = writeln!(out, "  {verdict} {}", one.tried);
        let _ = writeln!(out, "  because {}", one.reason);
        let _ = writeln!(out, "  what to do: {}\n", one.fix);
    }
    out
}
