//! The man pages and the completions of shells say what the program does: what the declarations of
//! `src/cli.rs` and `src/launch/settings.rs` can say is made from them, and what is written by hand is held
//! against the sources. `make manual` (`MANUAL=write`) writes what is made.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may stop where it stands"
)]

mod manual {
    pub mod completions;
    pub mod diagnostics;
    pub mod page;
}

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use manual::{completions, diagnostics, page};
use svirt_exec::cli::Launch;
use svirt_exec::launch::settings;

/// Every page, by its name in `man/`.
const PAGES: [&str; 3] = [
    "svirt-exec.1",
    "svirt-exec_selinux.8",
    "svirt-exec@.service.8",
];

/// A file of the source tree.
fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), name].iter().collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Whether a program is installed; says so where a test cannot run.
fn have(program: &str, test: &str) -> bool {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&directories).any(|at| at.join(program).is_file());
    if !found {
        // Not eprintln, which the harness keeps to itself where a test passes.
        let line = format!("SKIPPED {test}: {program} is not installed\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    found
}

/// What a program says, standard error too; it must end well. `path` comes before PATH.
fn said(program: &str, args: &[&str], path: &Path) -> String {
    let mut search = path.as_os_str().to_owned();
    search.push(":");
    search.push(std::env::var_os("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(args)
        .env("PATH", search)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

#[test]
fn what_is_made_is_what_is_kept() {
    let mut made = completions::all();
    made.push((
        "man/svirt-exec.1",
        page::whole(&read("man/svirt-exec.1.in")),
    ));
    for (name, text) in made {
        if std::env::var_os("MANUAL").is_some_and(|value| value == "write") {
            fs::write(path(name), &text).unwrap();
        }
        let kept = fs::read_to_string(path(name)).unwrap_or_default();
        let differs = kept.lines().zip(text.lines()).find(|(a, b)| a != b);
        assert!(kept == text, "{name}: {differs:?}; make manual");
    }
}

#[test]
fn every_option_command_status_and_variable_is_in_the_page() {
    let text = page::plain(&read("man/svirt-exec.1"));
    let mut command = page::command();
    command.build();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        let name = command.get_name();
        assert!(text.contains(name), "{name}");
        for long in command.get_arguments().filter_map(|arg| arg.get_long()) {
            assert!(text.contains(&format!("--{long}")), "{name} --{long}");
        }
    }

    let stated = |page: &str| -> BTreeSet<u8> {
        let statuses = page::section(page, "EXIT STATUS");
        let lines = statuses.lines();
        lines
            .filter_map(|line| line.strip_prefix(".B ")?.parse().ok())
            .collect()
    };
    // 0 and 1 are whether everything is well; the others have names.
    let mut given = BTreeSet::from([0, 1]);
    given.extend(read("src/text/message.rs").lines().filter_map(|line| {
        let (_, number) = line.strip_prefix("pub const ")?.split_once(": u8 = ")?;
        number.trim_end_matches(';').parse::<u8>().ok()
    }));
    assert_eq!(stated(&text), given);
    let mut given = BTreeSet::from([0, 1]);
    let qmp = read("src/bin/svirt-exec-qmp.rs");
    given.extend(qmp.split("ExitCode::from(").skip(1).filter_map(|rest| {
        let (number, _) = rest.split_once(')')?;
        number.parse::<u8>().ok()
    }));
    assert_eq!(stated(&read("man/svirt-exec@.service.8")), given);

    let variables = page::section(&text, "ENVIRONMENT");
    let options = Launch::augment_args(clap::Command::new("launch"));
    let variable = options.get_arguments().filter_map(settings::variable_of);
    for variable in variable.chain(settings::FURTHER.map(str::to_owned)) {
        assert!(
            variables.contains(&format!(".B {variable}\n")),
            "{variable}"
        );
    }
}

#[test]
fn diagnostics_are_what_the_program_says() {
    let tags = diagnostics::tags(&page::section(&read("man/svirt-exec.1"), "DIAGNOSTICS"));
    assert!(tags.len() > 50, "{}", tags.len());
    let messages = diagnostics::messages();
    let mut wrong: Vec<String> = tags
        .iter()
        .filter(|tag| !messages.iter().any(|message| tag.begins(message)))
        .map(|tag| format!("no message begins so: {tag:?}"))
        .collect();
    // The other way, for all that says by its beginning that it is a message.
    wrong.extend(
        messages
            .iter()
            .filter(|message| message.is_sentence())
            // Some are put together: what they begin with stands alone in the sources.
            .filter(|message| {
                !tags
                    .iter()
                    .any(|tag| tag.begins(message) || message.begins(tag))
            })
            .map(|message| format!("not in DIAGNOSTICS: {message:?}")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The definitions of a policy module in CIL, one a line: the words behind `(KEYWORD `.
fn defined<'a>(policy: &'a str, keyword: &str) -> Vec<Vec<&'a str>> {
    let start = format!("({keyword} ");
    policy
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(&start))
        .map(|rest| rest.split_whitespace().collect())
        .collect()
}

/// The entries of a section: the tag and the line below it.
fn entries(section: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = section.lines().collect();
    lines
        .windows(3)
        .filter(|lines| lines[0] == ".TP")
        .map(|lines| (page::words(lines[1]), page::words(lines[2])))
        .collect()
}

#[test]
fn the_page_of_the_policy_is_the_policys() {
    let page = page::plain(&read("man/svirt-exec_selinux.8"));
    let policy = read("policy/svirt_launcher.cil");
    let set = |entries: Vec<(String, String)>| entries.into_iter().collect::<BTreeSet<_>>();

    let booleans = defined(&policy, "boolean").into_iter().map(|words| {
        let on = words[1].trim_end_matches(')') == "true";
        let state = if on { "On" } else { "Off" };
        (words[0].to_owned(), format!("{state} by default."))
    });
    let stated = entries(&page::section(&page, "BOOLEANS"));
    assert_eq!(set(stated), set(booleans.collect()));

    let types: BTreeSet<String> = defined(&policy, "type")
        .into_iter()
        .map(|words| words[0].trim_end_matches(')').to_owned())
        .collect();
    let sections = ["PROCESS TYPES", "FILE TYPES"].map(|name| page::section(&page, name));
    let stated = sections.iter().flat_map(|section| entries(section));
    let stated: Vec<String> = stated.map(|(name, _)| name).collect();
    assert_eq!(stated.iter().cloned().collect::<BTreeSet<_>>(), types);
    assert_eq!(stated.len(), types.len());

    let contexts = defined(&policy, "filecon").into_iter().map(|words| {
        let kind = match words[1] {
            "file" => "files",
            "dir" => "directories",
            "any" => "everything",
            other => panic!("{other}"),
        };
        let label = words.get(4).copied().unwrap_or("<<none>>");
        (
            words[0].trim_matches('"').to_owned(),
            format!("{label} ({kind})"),
        )
    });
    let stated = entries(&page::section(&page, "FILE CONTEXTS"));
    assert_eq!(set(stated), set(contexts.collect()));

    // Whatever else the page names of the module.
    let mut known = types;
    known.insert("svirt_launcher".to_owned());
    for keyword in ["boolean", "typeattribute", "macro"] {
        let names = defined(&policy, keyword).into_iter();
        known.extend(names.map(|words| words[0].trim_end_matches(')').to_owned()));
    }
    let named = page.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    for name in named.filter(|name| name.starts_with("svirt_launcher")) {
        assert!(known.contains(name), "{name} is not in the policy");
    }
}

#[test]
fn mandoc_finds_nothing_wrong() {
    if !have("mandoc", "mandoc_finds_nothing_wrong") {
        return;
    }
    for name in PAGES {
        let name = format!("man/{name}");
        let found = said(
            "mandoc",
            &["-T", "lint", "-W", "warning", &name],
            Path::new(""),
        );
        assert_eq!(found, "");
    }
}

/// What shells offer in the place of the last word.
mod offered {
    use super::{Path, said};

    pub fn bash(words: &[&str], path: &Path) -> String {
        let script = format!(
            "cd man/completions && source ./svirt-exec.bash || exit
             COMP_WORDS=({}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _svirt_exec_words svirt-exec \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" ")
        );
        said("bash", &["--norc", "-c", &script], path)
    }

    pub fn zsh(words: &[&str], path: &Path) -> String {
        let script = "tests/manual/complete.zsh";
        let line = words.join(" ");
        let args = ["60", "zsh", "-f", script, "man/completions", &line];
        said("timeout", &args, path)
    }

    pub fn fish(words: &[&str], path: &Path) -> String {
        let line = words.join(" ");
        let script =
            format!("source man/completions/svirt-exec.fish; complete --do-complete '{line}'");
        said("fish", &["--no-config", "-c", &script], path)
    }
}

#[test]
fn shells_complete() {
    let directory = tempfile::tempdir().unwrap();
    let qemu = directory.path().join("qemu-system-moxie");
    fs::write(&qemu, "").unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();

    type Shell = (&'static str, fn(&[&str], &Path) -> String);
    let shells: [Shell; 3] = [
        ("bash", offered::bash),
        ("zsh", offered::zsh),
        ("fish", offered::fish),
    ];
    // The words behind svirt-exec, what is offered, what is not.
    let table: [(&[&str], &str, &str); 10] = [
        (&["ver"], "verify", "restore"),
        (&["--mc"], "--mcs-range", "--json"),
        (&["--preflight", "w"], "warn", "--mcs-range"),
        (&["plan", "--js"], "--json", "--mcs-range"),
        (&["plan", "--preflight", "w"], "warn", "--mcs-range"),
        (&["restore", "--"], "--trust-user", "--mcs-range"),
        (&["--name", "list", "ver"], "verify", "--json"),
        (&["qemu-sys"], "qemu-system-moxie", "verify"),
        (
            &["plan", "--strict", "qemu-sys"],
            "qemu-system-moxie",
            "verify",
        ),
        // QEMU's words are not ours, whatever they look like.
        (&["/bin/true", "-name", "list", "--"], "", "--"),
    ];
    for (shell, complete) in shells {
        if !have(shell, "shells_complete") {
            continue;
        }
        for (words, offered, absent) in table {
            let words = [&["svirt-exec"], words].concat();
            let found = complete(&words, directory.path());
            assert!(found.contains(offered), "{shell} {words:?}: {found}");
            assert!(!found.contains(absent), "{shell} {words:?}: {found}");
        }
    }
}

/// Ratios as `make bench` and the README write them, `MEDIAN (LOW to HIGH…)`.
fn ratios(text: &str) -> Vec<[f64; 3]> {
    let number = |word: &str| word.trim().parse::<f64>().ok();
    let ratio = |line: &str, at: usize| {
        let median = number(line[..at].split_whitespace().last()?)?;
        let (low, rest) = line[at..].strip_prefix('(')?.split_once(" to ")?;
        let high = rest.split([',', ')']).next()?;
        Some([median, number(low)?, number(high)?])
    };
    text.lines()
        .flat_map(|line| {
            let found = line.match_indices('(');
            found.filter_map(move |(at, _)| ratio(line, at))
        })
        .collect()
}

#[test]
fn the_readmes_ratios_are_what_make_bench_printed() {
    let readme = read("README.md");
    let (_, speed) = readme.split_once("\n## Speed\n").unwrap();
    let (speed, _) = speed.split_once("\n## ").unwrap();
    let measured = read("tests/bench/measured.txt");
    let (date, table) = measured.split_once('\n').unwrap();
    let date = date.strip_prefix("Printed by make bench on ").unwrap();
    let date = date.trim_end_matches('.');
    assert!(
        speed.contains(&format!("These are of {date}")),
        "not of {date}"
    );
    let (said, printed) = (ratios(speed), ratios(table));
    assert!(said.len() >= 10, "{said:?}");
    // The README has two digits behind the point.
    let same = |a: f64, b: f64| (a - b).abs() < 0.0051;
    for ratio in said {
        let found = printed
            .iter()
            .any(|other| ratio.iter().zip(other).all(|(a, b)| same(*a, *b)));
        assert!(found, "make bench did not print {ratio:?}");
    }
}
