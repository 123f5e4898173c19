//! keyval: the strict `a.b.0=value` syntax of util/keyval.c (QEMU 10).
//!
//! Pure.

use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::{Scalar, Tree};

/// The longest key fragment, in bytes (`key_in_cur[128]` in `keyval_parse_one`).
const MAX_FRAGMENT: usize = 127;

/// Why QEMU refuses a value as keyval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyvalError {
    /// An empty or malformed key.
    #[error("invalid parameter '{0}'")]
    Key(String),
    /// A key without a value.
    #[error("expected '=' after parameter '{0}'")]
    NoValue(String),
    /// A key that has both a value and members, or a list with gaps.
    #[error("parameter '{0}' is used inconsistently")]
    Mixed(String),
    /// A key has too many fragments.
    #[error("parameter '{0}' is nested too deeply")]
    Depth(String),
}

/// A parsed value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyval {
    /// The values by key.
    pub tree: Tree,
    /// True if `help` or `?` is written instead of a key.
    pub help: bool,
}

/// Parses a value; `implied` is the key of a first item without `=`.
///
/// # Errors
/// Any [`KeyvalError`].
pub fn parse(text: &[u8], implied: Option<&str>) -> Result<Keyval, KeyvalError> {
    let mut keyval = Keyval::default();
    let mut implied = implied;
    let mut rest = text;
    while !rest.is_empty() {
        let (key, tail) = bytes::until(rest, b"=,");
        let bare = !key.is_empty() && !tail.starts_with(b"=");
        let (key, value, after) = if bare && bytes::is_help(key) {
            keyval.help = true;
            implied = None;
            rest = tail.strip_prefix(b",").unwrap_or(tail);
            continue;
        } else if let (true, Some(implied)) = (bare, implied) {
            // The implied value is verbatim: ",," is not one comma here.
            (implied.as_bytes(), key.to_vec(), tail)
        } else {
            check_key(key)?;
            let Some(tail) = tail.strip_prefix(b"=") else {
                return Err(KeyvalError::NoValue(bytes::show(key)));
            };
            let (value, after) = bytes::until_comma(tail);
            (key, value, after)
        };
        implied = None;
        keyval
            .tree
            .insert(key, Scalar::Text(value), None)
            .map_err(|_| KeyvalError::Depth(bytes::show(key)))?;
        rest = after.strip_prefix(b",").unwrap_or(after);
    }
    check_tree(&keyval.tree, "")?;
    Ok(keyval)
}

/// Checks that the fragments of a key are QAPI names, or numbers except for the first.
fn check_key(key: &[u8]) -> Result<(), KeyvalError> {
    for (depth, fragment) in key.split(|b| *b == b'.').enumerate() {
        let index = depth > 0 && !fragment.is_empty() && fragment.iter().all(u8::is_ascii_digit);
        let name = matches!(fragment.first(), Some(b'_' | b'a'..=b'z' | b'A'..=b'Z'))
            && fragment
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !(index || name) || fragment.len() > MAX_FRAGMENT {
            return Err(KeyvalError::Key(bytes::show(key)));
        }
    }
    Ok(())
}

/// Checks that no key has both a value and members, and that numbered members are a list without
/// gaps.
fn check_tree(tree: &Tree, path: &str) -> Result<(), KeyvalError> {
    let mixed = || KeyvalError::Mixed(path.to_owned());
    if tree.value.is_some() && tree.has_children() {
        return Err(mixed());
    }
    let mut indexes = Vec::new();
    let mut names = false;
    for (key, child) in tree.children() {
        match bytes::number::<usize>(key) {
            Some(index) => indexes.push(index),
            None => names = true,
        }
        let inner = if path.is_empty() {
            bytes::show(key)
        } else {
            format!("{path}.{}", bytes::show(key))
        };
        check_tree(child, &inner)?;
    }
    indexes.sort_unstable();
    let gap = indexes.iter().enumerate().any(|(want, at)| want != *at);
    if gap || (names && !indexes.is_empty()) {
        return Err(mixed());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_as_qemu_reads_them() {
        let keyval = parse(
            b"qcow2,file.driver=file,file.filename=/a,,b,x.0.y=1,x.1.y=2",
            Some("driver"),
        )
        .unwrap();
        assert_eq!(keyval.tree.text("driver"), Some(&b"qcow2"[..]));
        assert_eq!(keyval.tree.text("file.filename"), Some(&b"/a,b"[..]));
        assert_eq!(keyval.tree.text("x.1.y"), Some(&b"2"[..]));
        assert!(parse(b"q35,help", Some("type")).unwrap().help);
        assert!(parse(b"?", Some("type")).unwrap().help);
    }

    #[test]
    fn refusals() {
        for bad in [
            "a",
            "a,b=1",
            "=1",
            "a..b=1",
            ".a=1",
            "a.=1",
            "a=1,a.b=2",
            "a.1=x",
            "a.0=1,a.b=2",
            "0=1",
            "a=1,b",
            "a b=1",
        ] {
            assert!(parse(bad.as_bytes(), None).is_err(), "{bad}");
        }
        assert!(parse(b"a,,b=1", Some("driver")).is_err());
        let long = [&[b'a'; 128][..], b"=1"].concat();
        assert!(parse(&long, None).is_err());
        let deep = [&b"a"[..], &b".a".repeat(50_000), b"=1"].concat();
        assert!(matches!(parse(&deep, None), Err(KeyvalError::Depth(_))));
    }

    proptest! {
        #[test]
        fn printing_then_parsing_agrees(
            map in proptest::collection::btree_map(
                "[a-c]{1,3}", proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..8), 1..4), 0..5)
        ) {
            let mut word = Vec::new();
            let mut want = Tree::default();
            for (key, list) in &map {
                for (index, value) in list.iter().enumerate() {
                    if !word.is_empty() {
                        word.push(b',');
                    }
                    let key = format!("{key}.{index}");
                    word.extend_from_slice(key.as_bytes());
                    word.push(b'=');
                    word.extend(value.iter().flat_map(|b| {
                        std::iter::repeat_n(*b, if *b == b',' { 2 } else { 1 })
                    }));
                    want.insert(key.as_bytes(), Scalar::Text(value.clone()), None).unwrap();
                }
            }
            prop_assert_eq!(parse(&word, Some("driver")).unwrap().tree, want);
        }

        #[test]
        fn no_word_is_too_strange(word in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&word, Some("driver"));
        }
    }
}
