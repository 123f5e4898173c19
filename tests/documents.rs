//! Tests and files that documents cite are there.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test may stop where it stands"
)]

use std::fs;
use std::path::Path;

/// Returns what each document has between backticks, with the document's name.
fn cited() -> Vec<(&'static str, String)> {
    let mut cited = Vec::new();
    for document in ["README.md", "SECURITY.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(document).unwrap();
        let pieces = text.split('`').skip(1).step_by(2);
        cited.extend(pieces.map(|piece| (document, piece.to_owned())));
    }
    cited
}

/// Adds the path of each test in a directory that is `module`, as `cargo test -- --list` prints it; for
/// an integration test other than `enforcing`, with its name in front.
fn tests_in(directory: &Path, module: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let name = match name.strip_suffix("_tests") {
            Some(owner) => format!("{module}{owner}::tests::"),
            None if ["mod", "main", "enforcing"].contains(&name) => module.to_owned(),
            None => format!("{module}{name}::"),
        };
        if path.is_dir() {
            tests_in(&path, &name, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let inner = text.contains("mod tests {").then_some("tests::");
            for after in text.split("#[test]").skip(1) {
                let (_, function) = after.split_once("fn ").unwrap();
                let (function, _) = function.split_once('(').unwrap();
                found.push(format!("{name}{}{function}", inner.unwrap_or_default()));
            }
        }
    }
}

#[test]
fn every_test_that_is_cited_is_there() {
    let mut tests = Vec::new();
    for root in ["src", "tests"] {
        tests_in(Path::new(root), "", &mut tests);
    }
    let is_of_a_path = |c: char| c.is_ascii_alphanumeric() || "_:*".contains(c);
    let (mut cited, mut number) = (cited(), 0);
    cited.retain(|(_, piece)| piece.contains("::") && piece.chars().all(is_of_a_path));
    for (document, path) in cited {
        let module = format!("{}::", path.trim_end_matches('*').trim_end_matches("::"));
        let is_it = |test: &String| *test == path || test.starts_with(&module);
        assert!(tests.iter().any(is_it), "{document}: no test {path}");
        number += 1;
    }
    assert!(number > 40, "{number}");
}

#[test]
fn every_file_that_is_cited_is_there() {
    let places = ["src/", "tests/", "man/", "policy/", "packaging/"];
    for (document, piece) in cited() {
        let path = piece.split_whitespace().next().unwrap_or_default();
        let is_file = places.iter().any(|place| path.starts_with(place));
        let there = Path::new(path).exists();
        assert!(there || !is_file, "{document}: no file {path}");
    }
}
