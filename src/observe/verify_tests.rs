//! Judgements of made-up hosts. Their policy has type enforcement that allows everything, and the MCS
//! constraints of both policies: the low level dominates.

use std::io;
use std::path::PathBuf;

use nix::unistd::Pid;

use super::*;
use crate::host::pinned::Identity;
use crate::observe::guests::{LabelledResource, Owner};
use crate::restore::entry::Record;

fn context(text: &str) -> Context {
    text.parse().unwrap()
}

fn ask<'p>(
    source: &Context,
    target: &Context,
    class: &str,
    permissions: &[&'p str],
) -> io::Result<Vec<&'p str>> {
    let dominates = target.categories().is_subset(&source.categories());
    let content = target.type_ == "virt_content_t";
    Ok(permissions
        .iter()
        .filter(|permission| {
            !dominates || content && **permission == "write" || class == "chr_file"
        })
        .copied()
        .collect())
}

fn process(pid: i32, label: &str) -> Process {
    Process {
        pid: Pid::from_raw(pid),
        parent: Pid::from_raw(1),
        session: pid,
        started: 1,
        uid: 0,
        context: context(label),
        program: "qemu\n".into(),
    }
}

fn guest(pid: i32, level: &str, resources: &[(&str, Class, &str, &str)]) -> GuestFacts {
    let main = process(pid, &format!("u:r:svirt_t:{level}"));
    let resources = resources
        .iter()
        .map(|(path, class, label, now)| LabelledResource {
            record: Record {
                path: PathBuf::from(path),
                identity: Identity {
                    dev: 1,
                    ino: 2,
                    born: None,
                },
                file_system: None,
                tree: false,
                class: *class,
                set_id: None,
                original: "u:object_r:user_home_t:s0".to_owned(),
                label: format!("u:object_r:{label}"),
            },
            class: "file",
            now: CurrentLabel::Label(Box::new(context(&format!("u:object_r:{now}")))),
        })
        .collect();
    GuestFacts {
        guest: ConfinedGuest {
            name: Some(format!("g{pid}")),
            pid: main.pid,
            uid: 0,
            context: main.context.clone(),
            owner: Owner::SvirtExec,
            resources,
            processes: vec![main],
        },
        open: Vec::new(),
        unread: Vec::new(),
    }
}

fn file(path: &str, writes: bool, label: &str) -> OpenFile {
    OpenFile {
        pid: Pid::from_raw(10),
        path: PathBuf::from(path),
        fd: Some(9),
        writes,
        class: "file",
        label: Some(context(&format!("u:object_r:{label}"))),
    }
}

const DISK: (&str, Class, &str, &str) = (
    "/a.img",
    Class::Exclusive,
    "svirt_image_t:s0:c1,c2",
    "svirt_image_t:s0:c1,c2",
);

fn two() -> [GuestFacts; 2] {
    let content = "virt_content_t:s0";
    [
        guest(
            10,
            "s0:c1,c2",
            &[DISK, ("/cd.iso", Class::Content, content, content)],
        ),
        guest(
            20,
            "s0:c3,c4",
            &[(
                "/b.img",
                Class::Exclusive,
                "svirt_image_t:s0:c3,c4",
                "svirt_image_t:s0:c3,c4",
            )],
        ),
    ]
}

fn judgement(all: &[GuestFacts], others: Vec<Process>) -> Judgement {
    let view = View {
        others,
        ..View::default()
    };
    judge(&view, all, &|_| true, &ask).unwrap()
}

fn problems(all: &[GuestFacts]) -> Vec<String> {
    judgement(all, Vec::new())
        .findings
        .into_iter()
        .map(|finding| finding.problem)
        .collect()
}

#[test]
fn two_guests_with_categories_of_their_own_are_proven() {
    let judgement = judgement(&two(), Vec::new());
    assert_eq!(judgement.findings, []);
    assert_eq!(
        judgement.matrix,
        [[Cell::Own, Cell::None], [Cell::Shared, Cell::Own]]
    );
}

#[test]
fn a_disk_that_lost_its_categories_is_everybodys() {
    let mut all = two();
    all[0] = guest(
        10,
        "s0:c1,c2",
        &[(
            "/a b.img",
            Class::Exclusive,
            "svirt_image_t:s0:c1,c2",
            "svirt_image_t:s0",
        )],
    );
    let judgement = judgement(&all, Vec::new());
    assert_eq!(judgement.matrix[1][0], Cell::Write);
    let fixes: Vec<&str> = judgement
        .findings
        .iter()
        .map(|one| one.fix.as_str())
        .collect();
    assert_eq!(
        fixes,
        [
            "give it back its label: chcon u:object_r:svirt_image_t:s0:c1,c2 '/a b.img'",
            "give it this guest's categories alone: chcon -l s0:c1,c2 '/a b.img'"
        ]
    );
}

#[test]
fn a_label_with_another_guests_categories_is_found_and_who_may_use_it() {
    let mut all = two();
    all[0] = guest(
        10,
        "s0:c1,c2",
        &[(
            "/a.img",
            Class::Exclusive,
            "svirt_image_t:s0:c1,c2",
            "svirt_image_t:s0:c3,c4",
        )],
    );
    all[0]
        .open
        .push(file("/a.img", true, "svirt_image_t:s0:c3,c4"));
    let problems = problems(&all);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("is u:object_r:svirt_image_t:s0:c3,c4 now"));
    assert!(problems[1].contains("guest 'g20' (u:r:svirt_t:s0:c3,c4) may write '/a.img'"));
}

#[test]
fn what_is_open_is_judged_by_its_label() {
    let table = [
        // Its own, a library, a log at s0 that guests may not open: nothing.
        (file("/a.img", true, "svirt_image_t:s0:c1,c2"), None),
        (file("/lib/x.so", false, "lib_t:s0"), None),
        (
            file("/other.img", false, "svirt_image_t:s0:c3,c4"),
            Some("categories that are not this guest's"),
        ),
        // Part of the pair is open to other guests.
        (
            file("/half.img", true, "svirt_image_t:s0:c1"),
            Some("categories that are not this guest's"),
        ),
        (
            file("/bare.img", true, "svirt_image_t:s0"),
            Some("which every guest may write"),
        ),
        // The file that each of libvirt's guests has open for libvirt's lock.
        (
            file("/run/libvirt/qemu/a.pid", true, "svirt_image_t:s0"),
            None,
        ),
        (
            file("/run/libvirt/qemu/a/b.pid", true, "svirt_image_t:s0"),
            Some("which every guest may write"),
        ),
    ];
    for (open, expected) in table {
        let mut all = [guest(10, "s0:c1,c2", &[DISK])];
        all[0].open.push(open.clone());
        let problems = problems(&all);
        match expected {
            Some(part) => assert!(
                problems.len() == 1 && problems[0].contains(part),
                "{open:?}: {problems:?}"
            ),
            None => assert!(problems.is_empty(), "{open:?}: {problems:?}"),
        }
    }
}

#[test]
fn a_disk_that_is_shared_on_purpose_is_no_finding() {
    let shared = "svirt_image_t:s0";
    let mut all = two();
    all[0] = guest(10, "s0:c1,c2", &[("/s.img", Class::Shared, shared, shared)]);
    all[0].open.push(file("/s.img", true, shared));
    let judgement = judgement(&all, Vec::new());
    assert_eq!(judgement.findings, []);
    assert_eq!(judgement.matrix[1][0], Cell::Shared);
}

#[test]
fn overlapping_categories_are_found_from_both_sides_and_among_strangers() {
    let all = [guest(10, "s0:c1,c2", &[DISK]), guest(20, "s0:c1,c2", &[])];
    let found = judgement(&all, Vec::new()).findings;
    let overlapping = found
        .iter()
        .filter(|one| {
            one.problem
                .contains("has overlapping MCS categories and is none of its processes")
        })
        .count();
    assert_eq!(overlapping, 2, "{found:?}");
    // The second may write to the first one's disk, and each may ptrace the other.
    assert!(
        found
            .iter()
            .any(|one| one.problem.contains("may write '/a.img'"))
    );
    assert!(found.iter().any(|one| one.problem.contains("ptrace")));

    let all = [guest(10, "s0:c1,c2", &[])];
    let stranger = process(99, "u:r:unconfined_t:s0:c1");
    let elsewhere = process(98, "u:r:unconfined_t:s0:c7");
    let found = judgement(&all, vec![stranger, elsewhere]).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]
            .problem
            .starts_with(r"process 99 (qemu\n, u:r:unconfined_t:s0:c1)")
    );
}

#[test]
fn one_category_is_no_pair_and_a_clearance_goes_beyond_it() {
    let problems_of = |level: &str| problems(&[guest(10, level, &[])]);
    assert!(problems_of("s0:c5")[0].contains("CVE-2021-3631"));
    assert!(problems_of("s0:c1,c2-s0:c0.c1023")[0].contains("clearance"));
}

#[test]
fn what_cannot_be_looked_at_is_not_proven() {
    let mut all = [guest(10, "s0:c1,c2", &[])];
    all[0].unread.push("what process 10 has open …".to_owned());
    assert!(problems(&all)[0].starts_with("not proven: "));
    let view = View {
        hidden: 1,
        without_categories: vec![process(7, "u:r:svirt_t:s0")],
        ..View::default()
    };
    assert_eq!(host_findings(&view, true).len(), 2);
    assert_eq!(host_findings(&View::default(), true), []);
}

#[test]
fn findings_are_of_the_guests_that_are_meant() {
    let mut all = two();
    all[0].guest.context = context("u:r:svirt_t:s0:c1");
    let is_meant = |guest: &ConfinedGuest| guest.is_meant("20");
    let found = judge(&View::default(), &all, &is_meant, &ask)
        .unwrap()
        .findings;
    assert_eq!(found, []);
}
