//! A level with many categories takes nobody's pairs away: processes and claims that stop no launch, and such that
//! have to.

use std::process::{Command, Output, Stdio};

use crate::lib::*;

/// Every category there is.
const ALL: &str = "s0:c0.c1023";

fn launch_as(user: &str) -> Output {
    let mut launch = as_user(user);
    launch
        .args([STUB, "-S"])
        .env("STUB", "exit 0")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn everybody_can_launch(why: &str) {
    for user in ["root", "alice"] {
        let output = launch_as(user);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{why}: {user}: {}",
            stderr(&output)
        );
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn one_process_of_a_user_at_every_category_stops_no_launch() {
    for domain in ["unconfined_t", "svirt_t", "svirt_prot_exec_t"] {
        let stranger = Stranger::start_as("bob", domain, ALL);
        everybody_can_launch(domain);
        drop(stranger);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn single_categories_of_a_user_stop_no_launch() {
    let strangers: Vec<Stranger> = (0..8)
        .map(|number| Stranger::start_as("bob", "svirt_t", &format!("s0:c{number}")))
        .collect();
    let disk = directory();
    let image = image(disk.path(), "narrow.img");
    let launch = stub_with(&["--mcs-range", "c0.c7"], "exit 0", &image)
        .output()
        .unwrap();
    assert_eq!(launch.status.code(), Some(0), "{}", stderr(&launch));
    drop(strangers);
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_claim_of_a_user_at_every_category_stops_no_launch() {
    for domain in ["unconfined_t", "svirt_t"] {
        let script = format!(
            "printf unconfined_u:unconfined_r:{domain}:{ALL} >/proc/self/attr/exec && echo claimed && read x"
        );
        let mut claimant = Command::new("setpriv")
            .args(["--reuid", "bob", "--clear-groups", "bash", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 8];
        std::io::Read::read_exact(claimant.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert_eq!(&line, b"claimed\n");
        everybody_can_launch(domain);
        drop(claimant.stdin.take());
        claimant.wait().unwrap();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_pair_of_a_user_is_taken_and_so_is_what_root_has() {
    let directory = directory();
    let disk = image(directory.path(), "taken.img");
    let before = label(&disk);
    for (user, level) in [("bob", "s0:c1,c2"), ("root", "s0:c1"), ("root", "s0:c1.c9")] {
        let stranger = Stranger::start_as(user, "svirt_t", level);
        let launch = stub_with(&["--level", "s0:c1,c2"], "exit 0", &disk)
            .output()
            .unwrap();
        refused(&launch, &["has overlapping MCS categories"]);
        nothing_happened(&disk, &before);
        drop(stranger);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_user_asks_twice_for_more_than_a_pair() {
    let launch = |options: &[&str]| {
        let mut launch = as_user("bob");
        launch
            .args(options)
            .args([STUB, "-S"])
            .env("STUB", "exit 0");
        launch.stdin(Stdio::null()).output().unwrap()
    };
    refused(
        &launch(&["--level", ALL]),
        &["more than two categories", "--share-level"],
    );
    ended_with(&launch(&["--level", ALL, "--share-level"]), 0, &[]);
    ended_with(&launch(&["--level", "s0:c900,c901"]), 0, &[]);
}
