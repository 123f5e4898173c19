use std::fs;
use std::os::unix::fs::{chown, symlink};

use super::*;

fn text(name: &str) -> String {
    format!(
        "{{\"version\":1,\"name\":\"{name}\",\"pid\":1,\"started\":1,\"boot\":\"\",\"context\":\"\",\
         \"records\":[]}}"
    )
}

/// Reads a journal as another user's. Returns the names of the guests in it, why others are not, and
/// whether something was left out.
fn read_as_anothers(journal: &Journal) -> (Vec<String>, Vec<String>, bool) {
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    let mut reader = Reader::default();
    let left_out = reader
        .read_bounded(journal, &mut |_, _, entry| match entry {
            Ok(entry) => names.push(entry.name),
            Err(error) => errors.push(error.to_string()),
        })
        .unwrap();
    names.sort();
    (names, errors, left_out.is_some())
}

#[test]
fn what_others_put_in_a_journal_that_is_no_entry_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let journal = Journal::at(directory.path()).unwrap();
    fs::write(at("1-1.json"), text("entry")).unwrap();
    assert_eq!(read_as_anothers(&journal).0, ["entry"]);
    fs::write(at("second"), text("linked")).unwrap();
    fs::hard_link(at("second"), at("1-2.json")).unwrap();
    symlink(at("1-1.json"), at("1-3.json")).unwrap();
    nix::unistd::mkfifo(&at("1-4.json"), Mode::S_IRWXU).unwrap();
    fs::create_dir(at("1-5.json")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("1-6.json")).unwrap();
    let mut refused = 5;
    if Uid::effective().is_root() {
        fs::write(at("1-7.json"), text("foreign")).unwrap();
        chown(at("1-7.json"), Some(54_321), None).unwrap();
        refused += 1;
    }
    let (names, errors, left_out) = read_as_anothers(&journal);
    assert_eq!(names, ["entry"]);
    assert_eq!(errors.len(), refused, "{errors:#?}");
    assert!(!left_out);
}

#[test]
fn entries_that_are_too_large_or_too_many_are_left_out_and_that_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let journal = Journal::at(directory.path()).unwrap();
    fs::write(at("1-1.json"), text("entry")).unwrap();
    // One that is larger than any that is written; its size alone says so.
    let large = fs::File::create(at("1-2.json")).unwrap();
    large.set_len(1 << 40).unwrap();
    let (names, errors, left_out) = read_as_anothers(&journal);
    assert_eq!(
        (names, errors, left_out),
        (vec!["entry".to_owned()], vec![], true)
    );
    fs::remove_file(at("1-2.json")).unwrap();
    // A name that is kept for every entry at once.
    fs::write(at("1-3.json"), text(&"x".repeat(MAX_TEXT + 1))).unwrap();
    let (names, _, left_out) = read_as_anothers(&journal);
    assert_eq!((names.len(), left_out), (1, true));
    fs::remove_file(at("1-3.json")).unwrap();
    // All together.
    let padding = " ".repeat(4 << 20);
    for number in 3..10 {
        fs::write(at(&format!("1-{number}.json")), text("x") + &padding).unwrap();
    }
    let (names, errors, left_out) = read_as_anothers(&journal);
    assert!((3..=4).contains(&names.len()), "{names:?}");
    assert!(errors.is_empty() && left_out, "{errors:?}");
    for number in 3..10 {
        fs::remove_file(at(&format!("1-{number}.json"))).unwrap();
    }
    for number in 0..OF_ONE.entries {
        fs::write(at(&format!("2-{number}.json")), text("many")).unwrap();
    }
    let (names, errors, left_out) = read_as_anothers(&journal);
    assert!(names.len() <= OF_ONE.entries);
    assert!(errors.is_empty() && left_out, "{errors:?}");
}

#[test]
fn a_million_records_are_refused_before_they_fill_memory() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::at(directory.path()).unwrap();
    let record = "{\"path\":\"\",\"identity\":{\"dev\":1,\"ino\":1,\"born\":null},\"class\":\"keep\",\
                  \"original\":\"\",\"label\":\"\"}";
    let entry = |count: usize| {
        let records = vec![record; count].join(",");
        text("x").replace("\"records\":[]", &format!("\"records\":[{records}]"))
    };
    let path = directory.path().join("1-1.json");
    let most = crate::restore::entry::MAX_RECORDS;
    fs::write(&path, entry(most)).unwrap();
    let full = journal.read(&path).unwrap();
    assert_eq!(full.records.len(), most);
    for count in [most + 1, 1_000_000] {
        fs::write(&path, entry(count)).unwrap();
        assert!(journal.read(&path).is_err(), "{count}");
    }
    // What would not be read is not written either.
    let mut full = full;
    full.records.push(full.records[0].clone());
    let error = journal.write(&full).unwrap_err().to_string();
    assert!(error.contains("label fewer in one launch"), "{error}");
}

/// The user exchanges his directory for a link to root's journal after root has looked at it.
#[test]
fn a_journal_is_read_in_the_directory_that_was_opened_whatever_its_name_leads_to() {
    let top = tempfile::tempdir().unwrap();
    let (users, roots) = (top.path().join("7"), top.path().join("guests"));
    for directory in [&users, &roots] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(users.join("1-1.json"), text("his")).unwrap();
    fs::write(roots.join("1-1.json"), text("roots")).unwrap();
    let journal = Journal::at(&users).unwrap();
    let paths = journal.entries().unwrap();
    fs::rename(&users, top.path().join("away")).unwrap();
    symlink(&roots, &users).unwrap();
    assert_eq!(journal.read(&paths[0]).unwrap().name, "his");
    journal.remove(&paths[0]).unwrap();
    assert!(roots.join("1-1.json").exists());
    assert!(journal.read(&paths[0]).is_err());
    assert!(Journal::at(&users).is_err());
    // A path that leads out of it is none of its entries.
    assert!(journal.read(&users.join("../guests/1-1.json")).is_err());
}

#[test]
fn root_writes_nothing_below_another_users_directory() {
    if !Uid::effective().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("1-1.json");
    fs::write(&path, text("his")).unwrap();
    for file in [directory.path(), &path] {
        chown(file, Some(54_321), None).unwrap();
    }
    let journal = Journal::at(directory.path()).unwrap();
    assert!(journal.is_anothers());
    let entry = journal.read(&path).unwrap();
    assert!(journal.replace(&path, &entry).is_err());
    assert!(journal.remove(&path).is_err());
    assert!(journal.write(&entry).is_err());
    assert!(path.exists());
}

#[test]
fn whose_a_journal_is_says_its_owner_and_not_its_name() {
    let top = tempfile::tempdir().unwrap();
    let users = OwnedDirectory::open(top.path()).unwrap();
    let owners = || -> Vec<u32> {
        below(&users)
            .unwrap()
            .iter()
            .map(OwnedDirectory::owner)
            .collect()
    };
    for name in ["1000", "1001.0123456789abcdef", "x"] {
        fs::create_dir(top.path().join(name)).unwrap();
    }
    symlink("1000", top.path().join("1002")).unwrap();
    // Root's own count for nothing there, and the names that others have taken neither.
    assert!(owners().iter().all(|owner| *owner != 0));
    if !Uid::effective().is_root() {
        return;
    }
    let give = |name: &str, owner| chown(top.path().join(name), Some(owner), None).unwrap();
    give("1000", 1001);
    give("1001.0123456789abcdef", 1001);
    assert_eq!(owners(), [1001]);
    give("1000", 1000);
    assert_eq!(owners(), [1000, 1001]);
    for number in 2000..2000 + u32::try_from(MAX_USERS).unwrap() + 10 {
        fs::create_dir(top.path().join(number.to_string())).unwrap();
        give(&number.to_string(), number);
    }
    let found = owners();
    assert_eq!(found.len(), MAX_USERS);
    assert_eq!(found[..2], [1000, 1001]);
}
