//! The judgement as text and as JSON (`verify`). The JSON document is a contract: fields are only ever
//! added.

use std::fmt::Write;

use serde::Serialize;

use crate::observe::verify_facts::{Finding, GuestFacts, Judgement};
use crate::text::json;
use crate::text::table;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    ok: bool,
    guests: Vec<GuestEntry<'a>>,
    matrix: Vec<CellEntry>,
    findings: Vec<FindingEntry<'a>>,
}

#[derive(Serialize)]
struct GuestEntry<'a> {
    name: Option<&'a str>,
    pid: i32,
    context: String,
    pair: String,
    processes: usize,
    files: usize,
    resources: usize,
}

#[derive(Serialize)]
struct CellEntry {
    guest: i32,
    resources_of: i32,
    may: &'static str,
}

#[derive(Serialize)]
struct FindingEntry<'a> {
    guest: Option<&'a str>,
    pid: Option<i32>,
    problem: &'a str,
    fix: &'a str,
}

/// Returns the judgement as JSON.
///
/// # Errors
/// None for the values of a judgement.
pub(crate) fn json(all: &[GuestFacts], judgement: &Judgement) -> serde_json::Result<String> {
    let pid = |facts: &GuestFacts| facts.guest.pid.as_raw();
    let matrix = all.iter().zip(&judgement.matrix).flat_map(|(row, cells)| {
        all.iter().zip(cells).map(move |(column, cell)| CellEntry {
            guest: pid(row),
            resources_of: pid(column),
            may: cell.mark(),
        })
    });
    json::pretty(&Document {
        version: 1,
        ok: judgement.findings.is_empty(),
        guests: all
            .iter()
            .map(|facts| GuestEntry {
                name: facts.guest.name.as_deref(),
                pid: pid(facts),
                context: facts.guest.context.to_string(),
                pair: facts.guest.context.categories().to_string(),
                processes: facts.guest.processes.len(),
                files: facts.open.len(),
                resources: facts.guest.resources.len(),
            })
            .collect(),
        matrix: matrix.collect(),
        findings: judgement
            .findings
            .iter()
            .map(|finding| FindingEntry {
                guest: finding.guest.as_deref(),
                pid: finding.pid,
                problem: &finding.problem,
                fix: &finding.fix,
            })
            .collect(),
    })
}

/// Returns the guests as a table, and the matrix.
pub(crate) fn text(all: &[GuestFacts], judgement: &Judgement) -> String {
    let mut rows =
        vec![["PID", "NAME", "PAIR", "PROCESSES", "FILES", "RESOURCES"].map(str::to_owned)];
    rows.extend(all.iter().map(|facts| {
        let guest = &facts.guest;
        [
            guest.pid.to_string(),
            guest.title(),
            guest.context.categories().to_string(),
            guest.processes.len().to_string(),
            facts.open.len().to_string(),
            guest.resources.len().to_string(),
        ]
    }));
    let mut out = table::columns(&rows);
    if all.len() > 1 {
        let _ = writeln!(
            out,
            "\nwhat each guest (row) may do to the resources of each (column):"
        );
        let width = all
            .iter()
            .map(|facts| facts.guest.pid.to_string().len())
            .max()
            .unwrap_or(0);
        let mut line = " ".repeat(width);
        for facts in all {
            let _ = write!(line, "  {:width$}", facts.guest.pid);
        }
        let _ = writeln!(out, "{}", line.trim_end());
        for (facts, cells) in all.iter().zip(&judgement.matrix) {
            let mut line = format!("{:width$}", facts.guest.pid);
            for cell in cells {
                let _ = write!(line, "  {:width$}", cell.mark());
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out.push_str("= its own   - nothing   s what is shared on purpose   r reads   rw writes\n");
    }
    out
}

/// Returns a finding as a line.
pub(crate) fn line(finding: &Finding) -> String {
    let whose = match (&finding.guest, finding.pid) {
        (Some(guest), Some(pid)) if *guest != pid.to_string() => format!("guest {guest} ({pid}): "),
        (Some(guest), _) => format!("guest {guest}: "),
        (None, _) => String::new(),
    };
    format!("{whose}{}; {}", finding.problem, finding.fix)
}
