//! Tests of `remembered`: a table of what a header names, what it named, and what the line says.

use std::path::Path;

use super::*;
use crate::host::pinned::Identity;
use crate::model::resource::Origin;

/// A file as a chain has it; its key is made of its name, and a file that will be written begins with `!`.
fn file(name: &str) -> ChainFile {
    let path = name.trim_start_matches('!');
    ChainFile {
        path: Path::new("/srv").join(path),
        key: Some(key(path)),
        written: name.starts_with('!'),
    }
}

fn key(name: &str) -> DiskKey {
    DiskKey::device("t", name.as_bytes(), None).unwrap()
}

fn files(names: &[&str]) -> Vec<ChainFile> {
    names.iter().map(|name| file(name)).collect()
}

/// The header of `disk`, a disk that the guest writes, with what it names and what that names.
fn header(direct: &[&str], below: &[&str], replaced: &[&str]) -> FollowedHeader {
    FollowedHeader {
        key: key("disk"),
        identity: Identity {
            dev: 1,
            ino: 1,
            born: None,
        },
        name: "'/srv/disk'".to_owned(),
        path: "/srv/disk".into(),
        origin: Origin::Word {
            word: 3,
            option: "-drive".into(),
            key: "file".to_owned(),
        },
        is_written: true,
        direct: direct
            .iter()
            .map(|name| {
                let role = if name.starts_with('!') {
                    Role::DataFile
                } else {
                    Role::Backing
                };
                (file(name), role)
            })
            .collect(),
        below: files(below),
        replaced: replaced.iter().map(|name| file(name).path).collect(),
    }
}

fn judged(
    header: FollowedHeader,
    stated: &[&str],
    recalled: Option<&[&str]>,
    accepts: bool,
) -> Judgement {
    let recalled = recalled.map(|names| Chain {
        files: files(names),
    });
    judge(
        &[header],
        &files(stated),
        &Memory {
            recall: &|asked| {
                assert_eq!(*asked, key("disk"));
                Ok(recalled.clone())
            },
            accepts: &|_| accepts,
        },
    )
}

/// What the header names, what the line names, what is remembered, whether the caller accepts; how many names
/// are refused and noted.
type Case = (
    &'static str,
    &'static str,
    Option<&'static str>,
    bool,
    usize,
    usize,
);

#[test]
fn a_header_gives_what_it_gave_before_and_what_the_line_names_and_nothing_new() {
    let table: &[Case] = &[
        // The first launch of an overlay says its base, the second does not.
        ("base", "", None, false, 0, 1),
        ("base", "", Some("base"), false, 0, 0),
        // A guest has written another one's disk there: into a header that named nothing, or something.
        ("theirs", "", Some(""), false, 1, 0),
        ("theirs", "", Some("base"), false, 1, 0),
        ("!theirs", "", Some(""), false, 1, 0),
        ("!theirs base", "", Some("base"), false, 1, 0),
        // And what it may read, to be written.
        ("!base", "", Some("base"), false, 1, 0),
        ("!base", "base", Some("base"), false, 1, 0),
        // A data file by a header alone, at the first launch, too.
        ("!data", "", None, false, 1, 0),
        ("!data base", "", None, false, 1, 1),
        ("!data", "!data", None, false, 0, 0),
        ("!data", "", Some("!data"), false, 0, 0),
        ("data", "", Some("!data"), false, 0, 0),
        // The caller's word.
        ("other", "other", Some("base"), false, 0, 0),
        ("other", "other", None, false, 0, 0),
        ("theirs", "", Some("base"), true, 0, 0),
        ("!data", "", None, true, 0, 0),
        // A commit leads to the base below, another to none.
        ("base", "", Some("mid base"), false, 0, 0),
        ("", "", Some("base"), false, 0, 0),
        ("", "", None, false, 0, 0),
    ];
    let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
    for (direct, stated, recalled, accepts, refused, noted) in table {
        let (direct, stated) = (words(direct), words(stated));
        let known = recalled.map(words);
        let found = judged(
            header(&direct, &[], &[]),
            &stated,
            known.as_deref(),
            *accepts,
        );
        let case = format!("{direct:?} {stated:?} {recalled:?} {accepts}: {found:#?}");
        assert_eq!(found.errors.len(), *refused, "{case}");
        assert_eq!(found.notes.len(), *noted, "{case}");
        // What such a launch remembers is what it gives.
        let chain = Chain {
            files: files(&direct),
        };
        assert_eq!(found.chains, [(key("disk"), chain)], "{case}");
    }
}

#[test]
fn what_is_below_is_remembered_with_it_for_a_commit() {
    let found = judged(header(&["mid"], &["base"], &[]), &[], None, false);
    assert_eq!(found.chains[0].1.files, files(&["mid", "base"]));
}

#[test]
fn what_the_line_has_in_the_place_of_a_name_is_not_believed_and_not_forgotten() {
    // The header names what the line states: known from now on.
    let found = judged(header(&[], &[], &["base"]), &["base"], None, false);
    assert_eq!(found.errors, []);
    assert_eq!(found.chains[0].1.files, files(&["base"]));
    // The line has something else there: the name in the header is known if it was.
    let found = judged(
        header(&[], &[], &["base"]),
        &["other"],
        Some(&["base"]),
        false,
    );
    assert_eq!(found.chains[0].1.files, files(&["base"]));
    let found = judged(
        header(&[], &[], &["theirs"]),
        &["base"],
        Some(&["base"]),
        false,
    );
    assert_eq!(found.errors, []);
    assert_eq!(found.chains[0].1.files, []);
}

#[test]
fn a_disk_that_is_only_read_and_names_nothing_is_not_remembered_unless_it_was() {
    let read = || FollowedHeader {
        is_written: false,
        ..header(&[], &[], &[])
    };
    assert_eq!(judged(read(), &[], None, false), Judgement::default());
    let found = judged(read(), &[], Some(&["base"]), false);
    assert_eq!(found.chains, [(key("disk"), Chain::default())]);
    let overlay = FollowedHeader {
        is_written: false,
        ..header(&["base"], &[], &[])
    };
    assert_eq!(judged(overlay, &[], None, false).chains.len(), 1);
}

#[test]
fn an_image_named_twice_is_remembered_once_with_both() {
    let twice = [header(&["a"], &[], &[]), header(&["b"], &["c"], &[])];
    let memory = Memory {
        recall: &|_| Ok(None),
        accepts: &|_| false,
    };
    let found = judge(&twice, &[], &memory);
    let chain = Chain {
        files: files(&["a", "b", "c"]),
    };
    assert_eq!(found.chains, [(key("disk"), chain)]);
}

#[test]
fn a_record_that_cannot_be_read_refuses_a_header_that_names_something_unless_accepted() {
    for (names, accepts, refused) in [
        (&["base"][..], false, 1),
        (&["base"], true, 0),
        (&[], false, 0),
    ] {
        let memory = Memory {
            recall: &|_| Err("'/x': Permission denied".to_owned()),
            accepts: &|_| accepts,
        };
        let found = judge(&[header(names, &[], &[])], &[], &memory);
        assert_eq!(found.errors.len(), refused, "{names:?}");
        // And it is mended by a launch that is made.
        assert_eq!(found.chains.is_empty(), refused == 1);
    }
}

#[test]
fn messages_name_the_disk_the_file_and_the_way_out() {
    let said = |header, recalled| {
        let found = judged(header, &[], recalled, false);
        let mut lines = found.errors.iter().chain(&found.notes);
        lines.next().unwrap().to_string()
    };
    assert_eq!(
        said(header(&["theirs"], &[], &[]), Some(&[])),
        "cannot follow the header of '/srv/disk' (word 3, -drive file=): it names '/srv/theirs' as its \
         backing file, and did not when a guest had it last, who may have written that there; if it is \
         right, say so: backing.file.filename= on the line, or --accept-chain /srv/disk"
    );
    assert_eq!(
        said(header(&["!data"], &[], &[]), None),
        "cannot give '/srv/data' to the guest to be written: only the header of '/srv/disk' (word 3, \
         -drive file=) names it, as its data file; if it is right, say so: data-file.filename= on the \
         line, or --accept-chain /srv/disk"
    );
    assert_eq!(
        said(header(&["base"], &[], &[]), None),
        "the header of '/srv/disk' (word 3, -drive file=) names '/srv/base' as its backing file, and the \
         command line does not"
    );
}
