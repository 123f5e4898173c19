//! Replays the corpus of tests/fuzz without libFuzzer: what was found once stays mended.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test may stop where it stands"
)]

mod checks;

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (target, check) in checks::TARGETS {
        let mut files = 0_u32;
        for entry in fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| check(&bytes)).is_err() {
                panic!("{target}: {}", path.display());
            }
            files += 1;
        }
        assert!(files > 0, "{target} has no corpus");
    }
}
