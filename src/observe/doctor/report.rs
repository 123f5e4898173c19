//! The checklist for people and for programs.

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::observe::doctor::check::Check;
use crate::text::json;
use crate::text::table;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    ok: bool,
    checks: &'a [Check],
}

/// Tells whether every check passed.
pub(crate) fn all_passed(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.ok)
}

/// Returns the checklist as JSON. A contract: fields and names of checks are only ever added.
///
/// # Errors
/// Never.
pub(crate) fn json(checks: &[Check]) -> serde_json::Result<String> {
    json::pretty(&Document {
        version: 1,
        ok: all_passed(checks),
        checks,
    })
}

const WELL: &str = "ok";
const BAD: &str = "FAIL";

/// Returns the checklist as text, in colour.
pub(crate) fn text(checks: &[Check]) -> String {
    let rows: Vec<[String; 3]> = checks
        .iter()
        .map(|check| {
            let verdict = if check.ok { WELL } else { BAD };
            [
                verdict.to_owned(),
                check.name.to_owned(),
                match &check.fix {
                    Some(fix) => format!("{}; {fix}", check.detail),
                    None => check.detail.clone(),
                },
            ]
        })
        .collect();
    let lines = table::columns(&rows);
    let painted = lines.lines().map(|line| {
        for (verdict, colour) in [(WELL, AnsiColor::Green), (BAD, AnsiColor::Red)] {
            if let Some(rest) = line.strip_prefix(verdict) {
                let style = Style::new().fg_color(Some(colour.into()));
                return format!("{style}{verdict}{style:#}{rest}\n");
            }
        }
        format!("{line}\n")
    });
    painted.collect()
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
