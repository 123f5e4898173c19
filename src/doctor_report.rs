//! The checklist for people and for programs.

use serde::Serialize;

use crate::doctor::Check;
use crate::table;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    ok: bool,
    checks: &'a [Check],
}

/// Whether everything is well.
pub fn is_well(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.ok)
}

/// The checklist as JSON (a contract: fields and names of checks are only ever added).
///
/// # Errors
/// Never.
pub fn json(checks: &[Check]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Document {
        version: 1,
        ok: is_well(checks),
        checks,
    })
}

/// The checklist for people.
pub fn text(checks: &[Check]) -> String {
    let rows: Vec<[String; 3]> = checks
        .iter()
        .map(|check| {
            let verdict = if check.ok { "ok" } else { "FAIL" };
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
    table::columns(&rows)
}
