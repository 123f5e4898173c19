//! What preflight predicts is what the kernel then does: the real QEMU, launched all the same with
//! `--preflight=warn`, is refused just that.

use std::fs;
use std::os::unix::net::UnixListener;

use crate::lib::*;

/// What QEMU and its libraries try at their start and do without.
const DISPENSABLE: [&str; 3] = ["dev=\"sysfs\"", "sysctl_vm_t", "anon_inode"];

/// A line that preflight predicts one failure for.
struct Case {
    words: Vec<String>,
    /// In the prediction.
    said: Vec<String>,
    /// In each denial.
    denied: Vec<String>,
}

/// Runs the real QEMU with a level that no other test has, until it ends. Returns what was said and
/// the denials of it.
fn try_line(
    preflight: &str,
    number: usize,
    words: &[String],
) -> (Option<i32>, String, Vec<String>) {
    let level = format!("s0:c{},c1001", 900 + number);
    let output = svirt_exec([&format!("--preflight={preflight}"), "--level", &level, QEMU])
        .args([
            "-machine",
            "pc",
            "-accel",
            "tcg",
            "-display",
            "none",
            "-nodefaults",
        ])
        .args(["-qmp", "stdio"])
        .args(words)
        .output()
        .unwrap();
    (output.status.code(), stderr(&output), denials_at(&level))
}

/// Returns what a guest of this level was denied, beyond what it does without.
fn denials_at(level: &str) -> Vec<String> {
    denials(&["comm=\"qemu-system", &format!("{level} tcontext=")])
        .into_iter()
        .filter(|line| !DISPENSABLE.iter().any(|part| line.contains(part)))
        .collect()
}

/// The permissions of a denial.
fn permissions(denial: &str) -> Vec<&str> {
    let (_, rest) = denial.split_once('{').unwrap();
    rest.split('}').next().unwrap().split_whitespace().collect()
}

#[test]
#[ignore = "needs the bed: make test"]
fn qemu_is_refused_just_what_was_predicted() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let text = |name: &str| at(name).to_str().unwrap().to_owned();
    for name in ["theirs", "ro"] {
        fs::create_dir(at(name)).unwrap();
    }
    image(&at("theirs"), "disk.img");
    image(&at("ro"), "cd.iso");
    // A directory of another guest's.
    chcon(&["-l", "s0:c1,c2"], &at("theirs"));
    run(&["mount", "--bind", &text("ro"), &text("ro")]);
    run(&["mount", "-o", "remount,bind,ro", &text("ro")]);
    let _listener = UnixListener::bind(at("served.sock")).unwrap();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let drive = |path: String, more: &str| format!("if=none,id=d,format=raw,{more}file={path}");
    let cases = [
        Case {
            words: words(&["-drive", &drive(text("theirs/disk.img"), "")]),
            said: words(&["pass through", &text("theirs"), "may not search"]),
            denied: words(&["name=\"theirs\"", "tclass=dir"]),
        },
        Case {
            words: words(&["-drive", &drive(text("ro/cd.iso"), "readonly=on,")]),
            said: words(&["to use", &text("ro/cd.iso"), "may not open user_home_t"]),
            denied: words(&["cd.iso", "tclass=file"]),
        },
        Case {
            words: words(&[
                "-chardev",
                &format!("socket,id=c,server=on,wait=off,path={}", text("made.sock")),
            ]),
            said: words(&["to make", &text("made.sock"), "may not"]),
            denied: words(&["tclass=dir"]),
        },
        Case {
            words: words(&[
                "-chardev",
                &format!("socket,id=c,path={}", text("served.sock")),
            ]),
            said: words(&["to use", &text("served.sock"), "may not"]),
            denied: words(&["name=\"served.sock\"", "tclass=sock_file"]),
        },
    ];
    for (number, case) in cases.iter().enumerate() {
        // Asked to stop, it does, and nothing is tried.
        let (status, said, denials) = try_line("refuse", 10 + number, &case.words);
        assert_eq!(status, Some(125), "{said}");
        assert_eq!(denials, Vec::<String>::new());
        let (status, said, denials) = try_line("warn", number, &case.words);
        let predicted: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("QEMU will not be allowed"))
            .collect();
        assert_eq!(predicted.len(), 1, "{said}");
        for part in &case.said {
            assert!(predicted[0].contains(part), "'{part}' is not in: {said}");
        }
        assert_eq!(status, Some(1), "QEMU has failed: {said}");
        assert!(said.contains("Permission denied"), "{said}");
        assert!(!denials.is_empty(), "{said}");
        for denial in &denials {
            for part in &case.denied {
                assert!(denial.contains(part), "'{part}' is not in: {denial}");
            }
            for permission in permissions(denial) {
                assert!(predicted[0].contains(permission), "{denial}: {said}");
            }
        }
        println!("{}\n    {}", predicted[0], denials.join("\n    "));
    }
    run(&["umount", &text("ro")]);
    chcon(&["-l", "s0"], &at("theirs"));
    // And if nothing is predicted, nothing is refused.
    let disk = drive(text("ro/cd.iso"), "");
    let level = "s0:c930,c1001";
    let guest = Guest::qemu(
        &["--preflight=warn", "--level", level],
        ["-S", "-drive", &disk],
    );
    assert_eq!(guest.end(), 0);
    assert_eq!(denials_at(level), Vec::<String>::new());
}
