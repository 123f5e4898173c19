//! `--private-content`: content that one guest reads is that guest's, until another one names it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lib::*;

const CONTENT: &str = "system_u:object_r:virt_content_t:s0";

/// A guest with a CD-ROM of its own or a shared one.
fn reader(options: &[&str], iso: &Path) -> Command {
    let mut command = svirt_exec(options);
    command.args([STUB, "-cdrom"]).arg(iso).env("STUB", "wait");
    command
}

/// Returns what the kernel says to a guest that opens content which it has not named.
fn opened_by_another(iso: &Path) -> String {
    outsider(&format!("open r {}", iso.display()))
}

#[test]
#[ignore = "needs the bed: make test"]
fn content_is_one_guests_until_another_names_it_and_goes_back_after_the_last() {
    for first_ends_first in [true, false] {
        for second_is_private in [true, false] {
            let directory = directory();
            let iso = image(directory.path(), "cd.iso");
            let before = label(&iso);
            let one = Guest::start_stub(reader(&["--private-content"], &iso));
            let own = label(&iso);
            assert_eq!(
                own,
                format!(
                    "{}:{}",
                    CONTENT.trim_end_matches(":s0"),
                    level(&one.label())
                )
            );
            assert_eq!(opened_by_another(&iso), "Permission denied (os error 13)");
            assert_eq!(label(&iso), own);
            let options: &[&str] = if second_is_private {
                &["--private-content"]
            } else {
                &[]
            };
            let two = Guest::start_stub(reader(options, &iso));
            assert_eq!(label(&iso), CONTENT);
            assert_eq!(opened_by_another(&iso), "ok");
            let (first, last) = if first_ends_first {
                (one, two)
            } else {
                (two, one)
            };
            first.leaves();
            // Whoever looks after what ended guests left does so at the end of any guest.
            another_guest_ends(directory.path());
            assert_eq!(label(&iso), CONTENT, "another guest still reads it");
            last.leaves();
            wait_until("the label is back", || label(&iso) == before);
        }
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn nothing_is_taken_from_guests_that_can_read_it_and_nothing_of_other_users() {
    let directory = directory();
    let readable = image(directory.path(), "readable.iso");
    chcon(&[CONTENT], &readable);
    let bobs = Path::new("/home/bob/bobs.iso");
    file_of(1001, bobs);
    let before = label(bobs);
    for iso in [&readable, bobs] {
        let guest = Guest::start_stub(reader(&["--private-content"], iso));
        assert_eq!(label(iso), CONTENT);
        guest.end();
    }
    assert_eq!(label(&readable), CONTENT);
    assert_eq!(label(bobs), before);
    fs::remove_file(bobs).unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn without_its_keeper_private_content_is_refused_and_the_guest_undisturbed() {
    let directory = directory();
    let iso = image(directory.path(), "cd.iso");
    let before = label(&iso);
    let one = Guest::start_stub(reader(&["--private-content"], &iso));
    let own = label(&iso);
    kill_keepers_of(&one);
    let output = reader(&[], &iso).output().unwrap();
    let process = format!("process {}", one.child.id());
    refused(&output, &["cannot reach the keeper", &process]);
    assert_eq!(label(&iso), own);
    // When it has ended too, the next command puts the label back and the launch can be repeated.
    one.leaves();
    let two = Guest::start_stub(reader(&[], &iso));
    assert_eq!(label(&iso), CONTENT);
    two.end();
    assert_eq!(label(&iso), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn killed_after_sharing_the_original_label_comes_back() {
    let directory = directory();
    let iso = image(directory.path(), "cd.iso");
    let before = label(&iso);
    let one = Guest::start_stub(reader(&["--private-content"], &iso));
    let two = Guest::start_stub(reader(&[], &iso));
    assert_eq!(label(&iso), CONTENT);
    abandon(one);
    two.end();
    run(&[SVIRT_EXEC, "restore"]);
    assert_eq!(label(&iso), before);
}

/// bob's guest reads what is bob's; another user's launch does not make that everybody's.
#[test]
#[ignore = "needs the bed: make test"]
fn other_users_do_not_get_it_shared() {
    let iso = Path::new("/tmp/bobs-private.iso");
    file_of(1001, iso);
    let before = label(iso);
    let launch_of = |user: &str, options: &[&str]| {
        let mut command = as_user(user);
        command
            .args(options)
            .args([STUB, "-cdrom", iso.to_str().unwrap()])
            .env("STUB", "wait");
        command
    };
    let bob = Guest::start_stub(launch_of("bob", &["--private-content"]));
    let own = label(iso);
    assert!(level(&own).contains(','), "{own}");
    let output = launch_of("alice", &[]).output().unwrap();
    refused(&output, &["another user"]);
    assert_eq!(label(iso), own);
    // root may.
    let guest = Guest::start_stub(reader(&[], iso));
    assert_eq!(label(iso), CONTENT);
    guest.end();
    assert_eq!(label(iso), CONTENT, "bob's guest still reads it");
    bob.leaves();
    wait_until("the label is back", || label(iso) == before);
    fs::remove_file(iso).unwrap();
}
