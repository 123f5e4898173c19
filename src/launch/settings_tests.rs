use std::fs;

use super::*;
use crate::cli::{Cli, Preflight};
use crate::host::RealHost;
use crate::text::message::joined;

fn line(words: &[&str]) -> Launch {
    let words = std::iter::once(&"svirt-exec").chain(words);
    Cli::try_parse_from(words).unwrap().launch
}

fn complete_line(words: &[&str], environment: &[&str]) -> Result<Launch, String> {
    let environment: Vec<CString> = environment
        .iter()
        .map(|entry| CString::new(*entry).unwrap())
        .collect();
    let host = RealHost::new().unwrap();
    complete(&line(words), &host, &environment).map_err(|refusal| joined(&refusal.messages))
}

/// The line with this file for `--config`.
fn complete_file(words: &[&str], file: &str, environment: &[&str]) -> Result<Launch, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guest.conf");
    fs::write(&path, file).unwrap();
    let config = format!("--config={}", path.display());
    complete_line(&[&[config.as_str()], words].concat(), environment)
}

fn level(launch: &Launch) -> (Option<String>, Option<String>) {
    (
        launch.level.as_ref().map(ToString::to_string),
        launch.mcs_range.as_ref().map(ToString::to_string),
    )
}

#[test]
fn every_option_of_a_launch_may_stand_in_the_environment() {
    let launch = complete_line(
        &["qemu"],
        &[
            "SVIRT_EXEC_NAME=web",
            "SVIRT_EXEC_LEVEL=s0:c1,c2",
            "SVIRT_EXEC_SHARE_LEVEL=yes",
            "SVIRT_EXEC_NO_RELABEL=1",
            "SVIRT_EXEC_LABEL_TREE=/srv/a:/srv/b",
            "SVIRT_EXEC_PRIVATE_CONTENT=true",
            "SVIRT_EXEC_RUNTIME_DIR=on",
            "SVIRT_EXEC_PREFLIGHT=warn",
            "SVIRT_EXEC_STRICT=1",
            "SVIRT_EXEC_ALLOW_UNCONFINED=1",
            "SVIRT_EXEC_VERBOSE=1",
            "SVIRT_EXEC_QEMU=/usr/bin/qemu",
            "SVIRT_EXEC_UNCONFINED=allow",
            "PATH=/bin",
        ],
    )
    .unwrap();
    assert_eq!(launch.name.as_deref(), Some("web"));
    assert_eq!(level(&launch), (Some("s0:c1,c2".to_owned()), None));
    assert_eq!(
        launch.label_tree,
        [Path::new("/srv/a"), Path::new("/srv/b")]
    );
    assert_eq!(launch.preflight, Some(Preflight::Warn));
    assert_eq!(launch.qemu, ["qemu"]);
    for on in [
        launch.share_level,
        launch.no_relabel,
        launch.private_content,
        launch.runtime_dir,
        launch.strict,
        launch.allow_unconfined,
        launch.verbose,
    ] {
        assert!(on, "{launch:?}");
    }
}

#[test]
fn a_switch_in_the_environment_that_is_off_or_empty_is_off() {
    for value in ["0", "no", "false", "off", ""] {
        let variable = format!("SVIRT_EXEC_STRICT={value}");
        assert!(!complete_line(&["qemu"], &[&variable]).unwrap().strict);
    }
    for (variable, part) in [
        ("SVIRT_EXEC_STRICT=maybe", "SVIRT_EXEC_STRICT is 'maybe'"),
        ("SVIRT_EXEC_MCS_RANGE=five", "the environment"),
    ] {
        let said = complete_line(&["qemu"], &[variable]).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let file = "--level s0:c1,c2 --name file --preflight off qemu -S";
    let launch = complete_file(&[], file, &[]).unwrap();
    assert_eq!(level(&launch), (Some("s0:c1,c2".to_owned()), None));
    assert_eq!(launch.preflight, Some(Preflight::Off));
    // Which level is said in one place as a whole.
    let range = "SVIRT_EXEC_MCS_RANGE=c100.c199";
    let launch = complete_file(&["--preflight=warn"], file, &[range]).unwrap();
    assert_eq!(level(&launch), (None, Some("c100.c199".to_owned())));
    assert_eq!(launch.preflight, Some(Preflight::Warn));
    let launch = complete_file(&["--level", "s0:c3,c4", "--name=line"], file, &[range]).unwrap();
    assert_eq!(level(&launch), (Some("s0:c3,c4".to_owned()), None));
    assert_eq!(launch.name.as_deref(), Some("line"));
    let said = complete_line(&["--no-restore", "qemu"], &["SVIRT_EXEC_RUNTIME_DIR=1"]).unwrap_err();
    assert!(
        said.contains("--runtime-dir cannot be used with --no-restore"),
        "{said}"
    );
}

#[test]
fn a_file_is_quoted_as_in_a_shell_and_added_to_by_the_command_line() {
    let file = "# a guest\n--strict\nqemu-system-x86_64 \\\n\t-S # paused\n\
                -drive 'file=/srv/a b.img,format=raw' -name \"it's \\\"web\\\"\"\n-append ''\n";
    let launch = complete_file(&["--", "-qmp", "stdio"], file, &[]).unwrap();
    let words = [
        "qemu-system-x86_64",
        "-S",
        "-drive",
        "file=/srv/a b.img,format=raw",
        "-name",
        "it's \"web\"",
        "-append",
        "",
        "-qmp",
        "stdio",
    ];
    assert_eq!(launch.qemu, words);
    assert!(launch.strict);
}

#[test]
fn a_file_that_cannot_be_meant_is_refused() {
    for (file, part) in [
        ("qemu 'never closed", "a quotation mark is not closed"),
        ("--config other qemu", "names another file"),
        ("--no-such-option qemu", "guest.conf"),
        (
            "--level s0:c1,c2 --mcs-range c1.c9 qemu",
            "cannot be used with",
        ),
    ] {
        let said = complete_file(&[], file, &[]).unwrap_err();
        assert!(said.contains(part), "{file}: {said}");
    }
    let said = complete_line(&["--config=/nonexistent"], &[]).unwrap_err();
    assert!(
        said.contains("cannot read '/nonexistent' (--config)"),
        "{said}"
    );
}
