//! The order of the wings, as `src/lib.rs` has it: data flows one way, and no two files import each other.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may stop where it stands"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the ground up: a wing imports only from those before it. `program` and `version` put them together.
const WINGS: [&str; 15] = [
    "sys", "text", "model", "selinux", "image", "qemu", "host", "seclabel", "plan", "restore",
    "cli", "launch", "observe", "version", "program",
];

/// Lines of a file without its tests.
const MAX_FILE: usize = 500;

/// Lines of a function.
const MAX_FUNCTION: usize = 60;

/// Every file of `src/` but tests and the roots, by its module path: its text without comments and tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            if path.is_dir() && name != "bin" {
                directories.push(path);
            } else if name.ends_with(".rs")
                && !name.ends_with("_tests.rs")
                && !["lib.rs", "main.rs"].contains(&name.as_str())
            {
                let module = name.trim_end_matches(".rs").trim_end_matches("/mod");
                let text = fs::read_to_string(&path).unwrap();
                let end = text.find("#[cfg(test)]\nmod tests {");
                let code = text[..end.unwrap_or(text.len())]
                    .lines()
                    .map(|line| line.split("//").next().unwrap())
                    .collect::<Vec<_>>()
                    .join("\n")
                    .replace("pub(in crate", "pub(in CRATE");
                found.insert(module.replace('/', "::"), code);
            }
        }
    }
    assert!(found.len() > 100, "{}", found.len());
    found
}

/// Every path of this crate that a file names, braces written out: `plan::step::Step`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        flatten(&code[at + "crate::".len()..], "", &mut found);
    }
    found
}

/// Reads one path, or a list of them in braces. Returns what follows.
fn flatten<'a>(text: &'a str, before: &str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        loop {
            list = flatten(list, before, found).trim_start();
            match list.strip_prefix(',') {
                Some(next) if !next.trim_start().starts_with('}') => list = next,
                _ => {
                    return list
                        .trim_start_matches([',', ' ', '\n'])
                        .trim_start_matches('}');
                }
            }
        }
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    match text[end..].strip_prefix("::") {
        Some(rest) if end > 0 => flatten(rest, &format!("{path}::"), found),
        _ => {
            found.insert(path.trim_end_matches("::self").to_owned());
            &text[end..]
        }
    }
}

/// How near the ground a module is.
fn rank(module: &str) -> usize {
    let wing = module.split("::").next().unwrap();
    let rank = WINGS.iter().position(|known| *known == wing);
    rank.unwrap_or_else(|| panic!("{module} is in no wing: name it in tests/wings.rs"))
}

#[test]
fn the_wings_import_downwards() {
    let mut wrong = Vec::new();
    for (module, code) in sources() {
        // Such a path would be seen by none of these tests.
        if code.contains("super::") {
            wrong.push(format!("{module} has a path that begins with super"));
        }
        for import in imports(&code) {
            let only_model = module == "cli" && !import.starts_with("model");
            if rank(&import) > rank(&module) || only_model {
                wrong.push(format!("{module} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_imports_in_a_circle() {
    let sources = sources();
    let file_of = |import: &str| {
        let mut path = import;
        while !sources.contains_key(path) {
            path = path.rsplit_once("::")?.0;
        }
        Some(path.to_owned())
    };
    let mut left: BTreeMap<&String, BTreeSet<String>> = sources
        .iter()
        .map(|(module, code)| {
            let imports = imports(code).into_iter().filter_map(|path| file_of(&path));
            // The face of a wing hands out what its files have.
            let children = code
                .split("pub use ")
                .skip(1)
                .filter(|rest| !rest.starts_with("crate"))
                .filter_map(|rest| file_of(&format!("{module}::{}", rest.split("::").next()?)));
            let all = imports.chain(children).filter(|other| other != module);
            (module, all.collect())
        })
        .collect();
    // What imports nothing that is left cannot be part of a circle.
    loop {
        let free = left
            .iter()
            .find(|(_, imports)| !imports.iter().any(|other| left.contains_key(other)));
        let Some(free) = free.map(|(module, _)| *module) else {
            break;
        };
        left.remove(free);
    }
    assert!(left.is_empty(), "in a circle, or above one: {left:#?}");
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for (module, code) in sources() {
        let lines: Vec<&str> = code.lines().collect();
        if lines.len() > MAX_FILE {
            long.push(format!("{module}: {} lines", lines.len()));
        }
        for (start, line) in lines.iter().enumerate() {
            let name = line.trim_start();
            let indent = &line[..line.len() - name.len()];
            let is_function = name.starts_with("fn ")
                || name.starts_with("pub") && name.split_whitespace().any(|word| word == "fn");
            // A method of a trait may end with its types.
            let end = lines[start..]
                .iter()
                .position(|end| {
                    *end == format!("{indent}}}")
                        || end.ends_with(';') && end.starts_with(&format!("{indent})"))
                })
                .unwrap_or(0);
            if is_function && !name.ends_with(';') && end >= MAX_FUNCTION {
                long.push(format!("{module}: {} lines: {name}", end + 1));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}
