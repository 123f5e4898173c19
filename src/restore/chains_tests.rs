use std::os::unix::ffi::OsStringExt;

use super::*;
use proptest::prelude::*;

fn file(path: &str, written: bool) -> ChainFile {
    ChainFile {
        path: path.into(),
        key: Some(DiskKey::file(1, 2, Some(3))),
        written,
    }
}

fn chain(paths: &[&str]) -> Chain {
    Chain {
        files: paths.iter().map(|path| file(path, false)).collect(),
    }
}

fn key(inode: u64) -> DiskKey {
    DiskKey::file(1, inode, Some(7))
}

fn store() -> (tempfile::TempDir, ChainStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ChainStore::in_journal(directory.path());
    (directory, store)
}

fn names(store: &ChainStore) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&store.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_remembered_is_recalled_and_nothing_else_is_known() {
    let (_directory, store) = store();
    assert_eq!(store.recall(&key(1)), Ok(None));
    let odd = std::ffi::OsString::from_vec(b"/srv/\xff\n".to_vec()).into();
    let mut long = chain(&["/srv/a", "/srv/b"]);
    long.files.push(ChainFile {
        path: odd,
        key: None,
        written: true,
    });
    let empty = Chain::default();
    store
        .remember(&[(key(1), long.clone()), (key(2), empty.clone())])
        .unwrap();
    assert_eq!(store.recall(&key(1)), Ok(Some(long)));
    // A disk that named nothing is another than one of which nothing is known.
    assert_eq!(store.recall(&key(2)), Ok(Some(empty)));
    assert_eq!(store.recall(&key(3)), Ok(None));
    // Anew, also with less.
    store.remember(&[(key(1), chain(&["/srv/b"]))]).unwrap();
    assert_eq!(store.recall(&key(1)), Ok(Some(chain(&["/srv/b"]))));
    let private = fs::metadata(&store.directory).unwrap().mode() & 0o777;
    assert_eq!(private, 0o700);
    let record = fs::metadata(store.path_of(&key(1))).unwrap();
    assert_eq!(record.mode() & 0o777, 0o600);
    assert_eq!(names(&store).len(), 2);
}

#[test]
fn what_is_known_is_not_written_again_until_it_is_old() {
    let (_directory, store) = store();
    let said = [(key(1), chain(&["/a"]))];
    store.remember(&said).unwrap();
    let inode = || fs::metadata(store.path_of(&key(1))).unwrap().ino();
    let first = fs::File::open(store.path_of(&key(1))).unwrap();
    let written = inode();
    store.remember(&said).unwrap();
    assert_eq!(inode(), written);
    let mut old = Document::of(&said[0].1);
    for used in [0, now() - FRESH.as_secs(), u64::MAX] {
        old.used = used;
        fs::write(store.path_of(&key(1)), serde_json::to_vec(&old).unwrap()).unwrap();
        store.remember(&said).unwrap();
        let now = store.read(&store.path_of(&key(1))).unwrap();
        assert!(now.still_says(&said[0].1), "{used}");
    }
    drop(first);
}

#[test]
fn a_record_that_is_none_or_somebody_elses_is_an_error_and_never_ignorance() {
    let (_directory, store) = store();
    store.remember(&[(key(1), chain(&["/a"]))]).unwrap();
    let path = store.path_of(&key(1));
    let good = fs::read_to_string(&path).unwrap();
    for text in [
        "",
        "{}",
        "[]",
        &good[..good.len() / 2],
        &good.replace("\"version\":1", "\"version\":2"),
    ] {
        fs::write(&path, text).unwrap();
        assert!(store.recall(&key(1)).is_err(), "{text}");
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(store.recall(&key(1)).is_err());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(store.recall(&key(1)).is_err());
    // And it is mended by the next launch that is made.
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "{").unwrap();
    store.remember(&[(key(1), chain(&["/b"]))]).unwrap();
    assert_eq!(store.recall(&key(1)), Ok(Some(chain(&["/b"]))));
}

#[test]
fn a_directory_that_is_not_ones_own_is_not_believed() {
    let (directory, store) = store();
    std::os::unix::fs::symlink("/tmp", directory.path().join(DIRECTORY)).unwrap();
    let error = store.remember(&[(key(1), chain(&["/a"]))]).unwrap_err();
    assert!(error.to_string().contains("belongs to user"), "{error}");
    assert!(store.recall(&key(1)).is_err());
}

#[test]
fn the_oldest_go_first_and_what_was_killed_half_way_with_them() {
    let (_directory, store) = store();
    for inode in 1..=6 {
        store.remember(&[(key(inode), chain(&["/a"]))]).unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(inode);
        let file = fs::File::options()
            .write(true)
            .open(store.path_of(&key(inode)))
            .unwrap();
        file.set_modified(at).unwrap();
    }
    let abandoned = store.directory.join("file-9-9.1.new");
    fs::write(&abandoned, "x").unwrap();
    fs::File::options()
        .write(true)
        .open(&abandoned)
        .unwrap()
        .set_modified(UNIX_EPOCH)
        .unwrap();
    fs::write(store.directory.join("file-8-8.2.new"), "x").unwrap();
    store.prune(6, 1);
    assert_eq!(names(&store).len(), 7);
    store.prune(5, 1);
    assert_eq!(store.recall(&key(1)), Ok(None));
    assert_eq!(store.recall(&key(2)), Ok(None));
    assert!(store.recall(&key(3)).unwrap().is_some());
    assert_eq!(names(&store).len(), 5);
    assert!(!abandoned.exists());
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text: Vec<u8>) {
        let _ = parse(&text);
    }

    #[test]
    fn what_is_written_is_read(
        files in prop::collection::vec(("/[^\0]{0,30}", any::<Option<u64>>(), any::<bool>()), 0..9),
    ) {
        let files: Vec<ChainFile> = files
            .into_iter()
            .map(|(path, inode, written)| ChainFile {
                path: path.into(),
                key: inode.map(key),
                written,
            })
            .collect();
        let document = Document::of(&Chain { files: files.clone() });
        let text = serde_json::to_vec(&document).unwrap();
        prop_assert_eq!(parse(&text).unwrap().files, files);
        for end in 0..text.len() {
            prop_assert!(parse(&text[..end]).is_err());
        }
    }
}
