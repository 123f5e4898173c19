//! The files of `-readconfig` and the default `qemu.conf` (util/qemu-config.c, QEMU 10).
//!
//! Pure: the caller passes the text.

use crate::qemu::syntax::bytes;

/// The longest line that QEMU's fgets(3) reads at once, in bytes without the NUL.
const MAX_LINE: usize = 1023;
/// The longest group, id or key, in bytes (`%63s`).
const MAX_NAME: usize = 63;

/// `[group "id"]` and the lines after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name of a QemuOpts list.
    pub group: Vec<u8>,
    /// The id, if there is one.
    pub id: Option<Vec<u8>>,
    /// `key = "value"`, verbatim: without escapes, and `,,` stays.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The number of the first line that QEMU does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is neither a [group] nor a key = \"value\"")]
pub struct ConfigError(pub usize);

/// Parses a whole file.
///
/// # Errors
/// [`ConfigError`] at the first line that QEMU does not understand.
pub fn parse(file: &[u8]) -> Result<Vec<Section>, ConfigError> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, whole) in (1_usize..).zip(file.split_inclusive(|b| *b == b'\n')) {
        let whole = bytes::c_string(whole);
        let line = whole.strip_suffix(b"\n").unwrap_or(whole);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if line.len() > MAX_LINE {
            return Err(ConfigError(number));
        }
        if let Some(section) = header(line) {
            sections.push(section);
        } else if let (Some(pair), Some(section)) = (pair(whole), sections.last_mut()) {
            section.pairs.push(pair);
        } else {
            return Err(ConfigError(number));
        }
    }
    Ok(sections)
}

/// Reads `[%63s "%63[^"]"]` or `[%63[^]]]`; the rest of the line is ignored.
fn header(line: &[u8]) -> Option<Section> {
    let rest = line.strip_prefix(b"[")?;
    let (name, tail) = bytes::until(rest.trim_ascii_start(), b" \t\r\x0b\x0c");
    if let Some(tail) = tail.trim_ascii_start().strip_prefix(b"\"") {
        let (id, _) = bytes::until(tail, b"\"");
        if !name.is_empty() && !id.is_empty() && name.len() <= MAX_NAME && id.len() <= MAX_NAME {
            return Some(Section {
                group: name.to_vec(),
                id: Some(id.to_vec()),
                pairs: Vec::new(),
            });
        }
    }
    let (group, tail) = bytes::until(rest, b"]");
    if group.is_empty() || group.len() > MAX_NAME || tail.is_empty() {
        return None;
    }
    Some(Section {
        group: group.to_vec(),
        id: None,
        pairs: Vec::new(),
    })
}

/// Reads ` %63s = "%1023[^"]"` or ` %63s = ""`. Without the second quote the line end is part of
/// the value.
fn pair(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (key, tail) = bytes::until(line.trim_ascii_start(), b" \t\r\n\x0b\x0c");
    let value = tail
        .trim_ascii_start()
        .strip_prefix(b"=")?
        .trim_ascii_start()
        .strip_prefix(b"\"")?;
    if key.is_empty() || key.len() > MAX_NAME {
        return None;
    }
    let (value, _) = bytes::until(value, b"\"");
    Some((key.to_vec(), value.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file() {
        let file = b"# comment\n[drive \"d0\"]\n  file = \"/srv/a,,b.img\"\n\tformat = \"raw\"\n\n[machine]\n  kernel = \"\"\n";
        let sections = parse(file).unwrap();
        assert_eq!(sections.len(), 2);
        let drive = &sections[0];
        assert_eq!(drive.group, b"drive");
        assert_eq!(drive.id.as_deref(), Some(&b"d0"[..]));
        assert_eq!(
            drive.pairs[0],
            (b"file".to_vec(), b"/srv/a,,b.img".to_vec())
        );
        assert_eq!(sections[1].pairs[0], (b"kernel".to_vec(), Vec::new()));
    }

    #[test]
    fn a_value_without_its_second_quote_goes_on_to_the_end_of_the_line() {
        let sections = parse(b"[a]\nkey = \"x\nnext = \"y\"\n[b]\nlast = \"z").unwrap();
        let value = |at: usize, pair: usize| sections[at].pairs[pair].1.as_slice();
        assert_eq!(value(0, 0), b"x\n");
        assert_eq!(value(0, 1), b"y");
        assert_eq!(value(1, 0), b"z");
    }

    #[test]
    fn refusals_name_the_line() {
        for (bad, line) in [
            ("key = \"x\"\n", 1),
            ("[a]\nkey = x\n", 2),
            ("[a]\n # not in column 0\n", 2),
            ("[]\n", 1),
            ("[a]\nkey \"x\"\n", 2),
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(ConfigError(line)), "{bad}");
        }
        let long = format!("[a]\nkey = \"{}\"\n", "x".repeat(1100));
        assert_eq!(parse(long.as_bytes()), Err(ConfigError(2)));
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange(file in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&file);
        }
    }
}
