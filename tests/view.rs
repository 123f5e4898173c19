//! list, verify, denials and doctor as they behave on a host without SELinux.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::Value;

use program::{selinux_is_off, svirt_exec, text};

fn run(words: &[&str]) -> Output {
    svirt_exec().args(words).output().unwrap()
}

const LOG: &str = concat!(
    "type=AVC msg=audit(1764122584.123:89): avc:  denied  { read } for  pid=429 comm=\"qemu\" ",
    "name=2F1B5D612062 dev=\"vda\" ino=131 scontext=u:r:svirt_t:s0:c1,c2 ",
    "tcontext=u:object_r:svirt_image_t:s0:c3,c4 tclass=file permissive=0\n",
    "type=AVC msg=audit(1764122585.123:90): avc:  denied  { read } for  pid=7 comm=\"httpd\" ",
    "name=\"x\" scontext=u:r:httpd_t:s0 tcontext=u:object_r:t:s0 tclass=file permissive=0\n",
);

#[test]
fn the_first_failing_line_of_the_doctor_is_that_selinux_is_off() {
    if !selinux_is_off("the_first_failing_line_of_the_doctor") {
        return;
    }
    let output = run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let doctor: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&doctor["version"], &doctor["ok"]),
        (&1.into(), &false.into())
    );
    let checks = doctor["checks"].as_array().unwrap();
    assert!(checks.len() > 4, "{doctor}");
    let first = checks.iter().find(|check| check["ok"] == false).unwrap();
    assert_eq!(first["name"], "selinux");
    for check in checks {
        assert!(check["name"].is_string() && check["detail"].is_string());
        assert_eq!(check["ok"] == true, check["fix"].is_null(), "{check}");
    }
    let human = run(&["doctor", "/no/such/qemu"]);
    assert_eq!(human.status.code(), Some(1));
    let said = text(&human.stdout);
    assert!(said.starts_with("FAIL  selinux"), "{said}");
    assert!(
        said.contains("cannot find '/no/such/qemu': no such file"),
        "{said}"
    );
}

#[test]
fn without_selinux_there_are_no_guests_to_look_for() {
    if !selinux_is_off("without_selinux_there_are_no_guests") {
        return;
    }
    for command in [&["list"][..], &["verify", "x"], &["verify", "--json"]] {
        let output = run(command);
        assert_eq!(output.status.code(), Some(125), "{command:?}");
        assert!(output.stdout.is_empty());
        let said = text(&output.stderr);
        assert!(said.contains("SELinux is off on this host"), "{said}");
    }
}

#[test]
fn a_log_from_elsewhere_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    fs::write(&log, LOG).unwrap();
    let output = run(&["denials", "--json", "--log", log.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = value["denials"].as_array().unwrap();
    assert_eq!(all.len(), 1, "{value}");
    assert_eq!(all[0]["time"], "2025-11-26T02:03:04Z");
    assert_eq!(all[0]["name"], "/\u{1b}]a b");
    assert_eq!(all[0]["why"], "categories");

    let mut piped = svirt_exec()
        .args(["denials", "--log", "-", "429"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = piped.stdin.take().unwrap();
    stdin.write_all(LOG.as_bytes()).unwrap();
    drop(stdin);
    let output = piped.wait_with_output().unwrap();
    let human = text(&output.stdout);
    assert!(
        human.contains(r"may not read something called '/\u{1b}]a b'"),
        "{human}"
    );
    assert!(!human.chars().any(|c| c.is_control() && c != '\n'));

    for (words, status, said) in [
        (
            &["denials", "--since", "2h", "--log"][..],
            0,
            "nothing was refused",
        ),
        (
            &["denials", "--since", "soon", "--log"],
            125,
            "no length of time",
        ),
    ] {
        let output = svirt_exec().args(words).arg(&log).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
    let output = run(&["denials", "--log", "/no/such/log"]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(
        said.contains("'/no/such/log'") && said.contains("root may read it"),
        "{said}"
    );
}
