//! The program as it behaves on any host: what needs no SELinux. On a host that
//! has SELinux on, the tests of its absence are skipped, loudly.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

mod plan;
#[path = "../common/program.rs"]
mod program;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use program::{selinux_is_off, svirt_exec, text};

/// A program that prints its argument 0 and arguments, and ends with status 3.
fn fake_qemu(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("qemu-system-x86_64");
    fs::write(&path, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 3\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn without_selinux_nothing_is_launched() {
    if !selinux_is_off("without_selinux_nothing_is_launched") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let qemu = fake_qemu(directory.path());
    let output = svirt_exec().arg(&qemu).arg("-S").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("SELinux is off") && said.contains("--allow-unconfined"),
        "{said}"
    );
}

#[test]
fn without_selinux_and_by_request_qemu_runs_and_the_warning_is_loud() {
    if !selinux_is_off("without_selinux_and_by_request") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let qemu = fake_qemu(directory.path());
    let by_option = svirt_exec()
        .arg("--allow-unconfined")
        .arg(&qemu)
        .args(["-S", "-name", "x y"])
        .output()
        .unwrap();
    let by_variable = svirt_exec()
        .arg(&qemu)
        .args(["-S", "-name", "x y"])
        .env("SVIRT_EXEC_UNCONFINED", "allow")
        .output()
        .unwrap();
    for output in [by_option, by_variable] {
        assert_eq!(output.status.code(), Some(3), "the status is QEMU's");
        assert_eq!(text(&output.stdout), "-S\n-name\nx y\n");
        assert!(text(&output.stderr).contains("WITHOUT confinement"));
    }
}

#[test]
fn usage_errors_are_125_and_help_is_0() {
    for (words, status) in [
        (&["--nonsense", "qemu"][..], 125),
        (&["--mcs-range", "c1.c5000", "qemu"], 125),
        (&["--preflight=maybe", "qemu"], 125),
        (&[], 125),
        (&["plan"], 125),
        (&["--help"], 0),
        (&["-V"], 0),
    ] {
        let output = svirt_exec().args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{words:?}: {output:?}");
        let said = if status == 0 {
            &output.stdout
        } else {
            &output.stderr
        };
        assert!(!said.is_empty(), "{words:?}");
    }
}

#[test]
fn a_qemu_that_is_not_there_is_127_and_one_without_permission_126() {
    let directory = tempfile::tempdir().unwrap();
    let output = svirt_exec().arg("qemu-nothing").output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    let path = directory.path().join("qemu");
    fs::write(&path, "").unwrap();
    let output = svirt_exec().arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(126));
}

#[test]
fn a_link_with_the_name_of_a_qemu_runs_the_next_one_in_path() {
    if !selinux_is_off("a_link_with_the_name_of_a_qemu") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (links, real) = (
        directory.path().join("links"),
        directory.path().join("real"),
    );
    fs::create_dir_all(&links).unwrap();
    fs::create_dir_all(&real).unwrap();
    symlink(
        env!("CARGO_BIN_EXE_svirt-exec"),
        links.join("qemu-system-x86_64"),
    )
    .unwrap();
    fake_qemu(&real);
    let path = std::env::join_paths([&links, &real, &"/bin".into()]).unwrap();
    let output = Command::new(links.join("qemu-system-x86_64"))
        .args(["-S", "--name", "x"])
        .env("PATH", path)
        .env("SVIRT_EXEC_UNCONFINED", "allow")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(text(&output.stdout), "-S\n--name\nx\n");
}

#[test]
fn without_arguments_it_says_what_to_type() {
    let output = svirt_exec().output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    for words in [
        "svirt-exec qemu-system-x86_64 ",
        "svirt-exec plan ",
        "svirt-exec doctor",
        "svirt-exec --help",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn the_version_names_the_library_and_the_module() {
    for option in ["--version", "-V"] {
        let output = svirt_exec().arg(option).output().unwrap();
        assert!(output.status.success());
        let said = text(&output.stdout);
        let lines: Vec<&str> = said.lines().collect();
        let own = concat!("svirt-exec ", env!("CARGO_PKG_VERSION"));
        assert_eq!(lines.first(), Some(&own));
        assert!(lines[1].starts_with("libselinux: '/"), "{said}");
        assert!(lines[2].starts_with("policy module: "), "{said}");
    }
}

#[test]
fn colour_goes_to_terminals_only() {
    let output = svirt_exec()
        .args(["doctor"])
        .env_remove("CLICOLOR_FORCE")
        .output()
        .unwrap();
    assert!(!text(&output.stdout).contains('\u{1b}'));
    let forced = svirt_exec()
        .args(["doctor"])
        .env("CLICOLOR_FORCE", "1")
        .output()
        .unwrap();
    assert!(text(&forced.stdout).contains('\u{1b}'));
    let neither = svirt_exec()
        .args(["doctor"])
        .env("CLICOLOR_FORCE", "1")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert!(!text(&neither.stdout).contains('\u{1b}'), "NO_COLOR");
}

#[test]
fn no_name_reaches_the_terminal_unescaped() {
    let directory = tempfile::tempdir().unwrap();
    // ESC ] would set the title of a terminal, and so would U+009D; what is no UTF-8, and a line of its own;
    // DEL, and what turns the rest around.
    let unseen = "\u{7f}\u{9d}\u{202e}\u{2066}\u{2069}\u{61c}\u{2028}\u{200b}".as_bytes();
    let name = b"\x1b]0;x\x07\xff\nsvirt-exec: all is well, 'really'";
    let name = OsString::from_vec([name.as_slice(), unseen].concat());
    let path = directory.path().join(&name);
    let word = [b"file=".as_slice(), path.as_os_str().as_bytes()].concat();
    let word = OsString::from_vec([word.as_slice(), b",format=raw"].concat());
    let option = OsString::from_vec(b"-\x1b[2J".to_vec());
    for words in [
        // Absent, so that it is named in a message as well.
        vec![OsStr::new("-drive"), &word],
        vec![OsStr::new("-chardev"), &word],
        vec![OsStr::new("-blockdev"), &name],
        vec![OsStr::new("-kernel"), path.as_os_str(), &option],
        vec![&option],
    ] {
        for options in [&["plan"][..], &["plan", "--json"]] {
            let output = svirt_exec()
                .args(options)
                .arg("qemu-system-x86_64")
                .args(&words)
                .current_dir(directory.path())
                .output()
                .unwrap();
            let unseen = text(unseen);
            let strange = |bytes: &[u8]| {
                text(bytes)
                    .chars()
                    .any(|c| (c.is_control() && c != '\n') || unseen.contains(c))
            };
            assert!(!strange(&output.stdout), "{words:?}: {output:?}");
            assert!(!strange(&output.stderr), "{words:?}: {output:?}");
            let forged = text(&output.stderr);
            assert!(!forged.contains("\nsvirt-exec: all is well"), "{forged}");
            assert!(output.stdout.len() + output.stderr.len() > 0);
        }
    }
    // Nor that of a word that is no option, and a parser reads what was there.
    let output = svirt_exec().arg("--\u{202e}\u{9b}x").output().unwrap();
    let said = text(&output.stderr);
    assert!(!said.contains(['\u{202e}', '\u{9b}']), "{said}");
    let path = directory.path().join("a\u{9b}\u{202e}\u{7f}.img");
    let output = svirt_exec()
        .args(["plan", "--json", "qemu-system-x86_64", "-drive"])
        .arg(format!("file={},format=raw", path.display()))
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["resources"][0]["path"], path.to_str().unwrap());
}
