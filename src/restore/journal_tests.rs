use super::*;
use crate::host::pinned::Identity;
use crate::model::resource::Class;
use crate::restore::entry::Record;
use std::fs;
use std::os::unix::ffi::OsStrExt;

fn entry() -> JournalEntry {
    let mut entry = JournalEntry::new(
        "web".to_owned(),
        7,
        99,
        "boot".to_owned(),
        "u:r:svirt_t:s0:c1,c2".to_owned(),
    );
    for name in [&b"/srv/a.img"[..], b"/srv/not \xff utf8\n.img"] {
        entry.records.push(Record {
            path: PathBuf::from(std::ffi::OsStr::from_bytes(name)),
            identity: Identity {
                dev: 1,
                ino: 2,
                born: None,
            },
            file_system: Some(7),
            tree: false,
            class: Class::Exclusive,
            set_id: None,
            original: "u:object_r:user_home_t:s0".to_owned(),
            label: "u:object_r:svirt_image_t:s0:c1,c2".to_owned(),
        });
    }
    entry
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::at(directory.path()).unwrap();
    let path = journal.write(&entry()).unwrap();
    assert_eq!(journal.read(&path).unwrap(), entry());
    assert_eq!(journal.entries().unwrap(), std::slice::from_ref(&path));
    journal.remove(&path).unwrap();
    assert!(journal.entries().unwrap().is_empty());
}

#[test]
fn an_entry_of_another_version_or_no_entry_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for text in [
        r#"{"version":2,"name":"x","pid":1,"started":1,"boot":"","context":"","records":[]}"#,
        "{}",
        "",
        "\0\0\0",
    ] {
        let journal = Journal::at(directory.path()).unwrap();
        let path = directory.path().join("x.json");
        fs::write(&path, text).unwrap();
        assert!(journal.read(&path).is_err(), "{text}");
    }
}

#[test]
fn what_a_killed_writer_left_is_removed_once_it_is_nobodys() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::at(directory.path()).unwrap();
    let file = |name: &str| directory.path().join(name);
    let (nobodys, kept) = (
        ["1-1.new", "2-2+1-1.new"],
        [
            "2-2.new",
            "1-1+2-2.new",
            "3-3.new",
            "3-3.json",
            "x.new",
            "4-4.other",
        ],
    );
    for name in nobodys.iter().chain(&kept) {
        fs::write(file(name), "").unwrap();
    }
    journal.sweep(|pid, _| pid == 2).unwrap();
    for name in nobodys {
        assert!(!file(name).exists(), "{name}");
    }
    for name in kept {
        assert!(file(name).exists(), "{name}");
    }
}

#[test]
fn a_missing_directory_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::at(directory.path()).unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    drop(directory);
    let error = journal.write(&entry()).unwrap_err().to_string();
    assert!(error.contains(&path), "{error}");
}
