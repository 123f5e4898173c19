//! The text descriptor of VMDK images.
//!
//! QEMU reads it with C string functions (`vmdk_parse_description`, `vmdk_parse_extents`,
//! `vmdk_parent_open` and `vmdk_read_cid` in block/vmdk.c): strstr(3) finds a key anywhere, even in
//! a comment, and sscanf(3) takes line ends for blanks. This parser does the same, because a
//! stricter one would find other files than QEMU.

use std::collections::BTreeSet;

use crate::image::error::ImageError;
use crate::image::window::{self, MAX_NAME, c_string};

/// The values of createType that QEMU opens (`vmdk_open_desc_file`).
const CREATE_TYPES: &[&str] = &[
    "monolithicFlat",
    "vmfs",
    "vmfsSparse",
    "seSparse",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
];
/// In bytes: `char ct[128]` without the NUL.
const MAX_CREATE_TYPE: usize = 127;
/// In bytes: `%10s`.
const MAX_TOKEN: usize = 10;
/// In bytes: `%511[^\n\r"]`.
const MAX_EXTENT_NAME: usize = 511;
/// In bytes: the part of an invalid line that a message shows.
const MAX_SHOWN_LINE: usize = 60;
/// In bytes: `="` between a key and its value.
const QUOTED: usize = 2;
/// In bytes: `=` between a key and its value.
const PLAIN: usize = 1;

/// Returns what follows the first occurrence of `key` and `skip` bytes after it. The search ends at
/// the first NUL, but the skipped bytes may contain one.
fn after<'a>(text: &'a [u8], key: &str, skip: usize) -> Option<&'a [u8]> {
    let found = c_string(text)
        .windows(key.len())
        .position(|part| part == key.as_bytes())?;
    let value = found.checked_add(key.len())?.checked_add(skip)?;
    text.get(value..)
}

/// Returns the bytes up to the closing quote.
fn quoted(value: &[u8]) -> Option<&[u8]> {
    let value = c_string(value);
    let end = value.iter().position(|byte| *byte == b'"')?;
    value.get(..end)
}

/// Checks that QEMU opens descriptors of this createType.
pub(super) fn check_create_type(text: &[u8]) -> Result<(), ImageError> {
    let kind = after(c_string(text), "createType", QUOTED)
        .and_then(quoted)
        .filter(|kind| kind.len() <= MAX_CREATE_TYPE)
        .ok_or(ImageError::CreateTypeMissing)?;
    if CREATE_TYPES.iter().any(|known| known.as_bytes() == kind) {
        Ok(())
    } else {
        Err(ImageError::UnsupportedCreateType(kind.to_vec()))
    }
}

/// Returns the parent's name; None if there is no key or the name is empty.
pub(super) fn parent(text: &[u8]) -> Result<Option<Vec<u8>>, ImageError> {
    const KEY: &str = "parentFileNameHint";
    if after(c_string(text), KEY, 0).is_none() {
        return Ok(None);
    }
    let name = after(text, KEY, QUOTED)
        .and_then(quoted)
        .ok_or(ImageError::ParentNameUnterminated)?;
    if name.len() > MAX_NAME {
        return Err(ImageError::BackingNameTooLong {
            length: window::length(name.len()),
            limit: window::length(MAX_NAME),
        });
    }
    Ok((!name.is_empty()).then(|| name.to_vec()))
}

/// Checks that both content identifiers are hexadecimal numbers, as `%x` reads them.
pub(super) fn check_content_ids(text: &[u8]) -> Result<(), ImageError> {
    for key in ["CID", "parentCID"] {
        let value = after(text, key, PLAIN).unwrap_or_default();
        let digits = sign_stripped(blanks_stripped(c_string(value)));
        if !digits.first().is_some_and(u8::is_ascii_hexdigit) {
            return Err(ImageError::ContentIdMissing { key });
        }
    }
    Ok(())
}

/// Returns the names of the extents that QEMU opens, in order, each once.
pub(super) fn extents(text: &[u8]) -> Result<Vec<Vec<u8>>, ImageError> {
    let mut names = Vec::new();
    let mut seen = BTreeSet::new();
    // For sscanf a line of blanks is the extent after it again. All blanks are skipped at once,
    // because reading an extent again changes nothing and would take quadratic time.
    let mut rest = blanks_stripped(c_string(text));
    while !rest.is_empty() {
        if let Some(name) = extent(rest)?
            && seen.insert(name)
        {
            names.push(name.to_vec());
        }
        let line = rest.iter().take_while(|byte| **byte != b'\n').count();
        rest = blanks_stripped(rest.get(line..).unwrap_or_default());
    }
    Ok(names)
}

/// Returns the file that an extent line makes QEMU open: `RW SECTORS TYPE "NAME" [OFFSET]`.
fn extent(line: &[u8]) -> Result<Option<&[u8]>, ImageError> {
    let Some(Fields {
        access,
        sectors,
        kind,
        name,
        offset,
    }) = Fields::scan(line)
    else {
        return Ok(None);
    };
    if access != b"RW" {
        return Ok(None);
    }
    // Flat extents need an offset, all others must not have one; QEMU checks this before the type.
    let valid = match kind {
        b"FLAT" => matches!(offset, Some(Sign::Zero | Sign::Positive)),
        _ => offset.is_none(),
    };
    if !valid {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let shown = line.get(..MAX_SHOWN_LINE).unwrap_or(line);
        return Err(ImageError::InvalidExtentLine(shown.to_vec()));
    }
    let opened = matches!(
        kind,
        b"FLAT" | b"SPARSE" | b"VMFS" | b"VMFSSPARSE" | b"SESPARSE"
    );
    Ok((opened && sectors == Sign::Positive).then_some(name))
}

/// What sscanf finds with `%10s %lld %10s "%511[^\n\r"]" %lld`, up to a name at least.
struct Fields<'a> {
    access: &'a [u8],
    sectors: Sign,
    kind: &'a [u8],
    name: &'a [u8],
    offset: Option<Sign>,
}

impl<'a> Fields<'a> {
    fn scan(text: &'a [u8]) -> Option<Self> {
        let (access, rest) = token(text)?;
        let (sectors, rest) = number(rest)?;
        let (kind, rest) = token(rest)?;
        let rest = blanks_stripped(rest).strip_prefix(b"\"")?;
        let length = rest
            .iter()
            .take(MAX_EXTENT_NAME)
            .take_while(|byte| !matches!(**byte, b'\n' | b'\r' | b'"'))
            .count();
        let (name, rest) = rest.split_at_checked(length)?;
        if name.is_empty() {
            return None;
        }
        // Without its closing quote the name counts, and the offset does not.
        let offset = rest
            .strip_prefix(b"\"")
            .and_then(number)
            .map(|(offset, _)| offset);
        Some(Self {
            access,
            sectors,
            kind,
            name,
            offset,
        })
    }
}

/// The sign of a number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Negative,
    Zero,
    Positive,
}

/// Reads `%10s`.
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = blanks_stripped(text);
    let length = text
        .iter()
        .take(MAX_TOKEN)
        .take_while(|byte| !is_blank(**byte))
        .count();
    text.split_at_checked(length)
        .filter(|(token, _)| !token.is_empty())
}

/// Reads `%lld`. glibc returns the limits of the type for numbers beyond them, so that the sign is
/// always right.
fn number(text: &[u8]) -> Option<(Sign, &[u8])> {
    let text = blanks_stripped(text);
    let digits = sign_stripped(text);
    let length = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (digits, rest) = digits.split_at_checked(length)?;
    if digits.is_empty() {
        return None;
    }
    let sign = if digits.iter().all(|digit| *digit == b'0') {
        Sign::Zero
    } else if text.first() == Some(&b'-') {
        Sign::Negative
    } else {
        Sign::Positive
    };
    Some((sign, rest))
}

/// Returns whether a byte is a blank (isspace(3) in the C locale).
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn blanks_stripped(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    text.get(blanks..).unwrap_or_default()
}

fn sign_stripped(text: &[u8]) -> &[u8] {
    match text.split_first() {
        Some((b'+' | b'-', rest)) => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        let found = extents(text.as_bytes()).ok()?;
        Some(
            found
                .into_iter()
                .map(|name| String::from_utf8(name).unwrap())
                .collect(),
        )
    }

    /// Each line tried with strace and qemu-io 10.0.2.
    #[test]
    fn extent_lines_are_read_as_sscanf_does() {
        let long = format!("RW 10 VMFS \"{}\"\n", "x".repeat(600));
        let cut = "x".repeat(511);
        for (text, expected) in [
            ("RW 10 FLAT \"a\" 0\n", Some(vec!["a"])),
            (
                "RW 10 FLAT \"a\" 0\nRW 10 SPARSE \"b\"\n",
                Some(vec!["a", "b"]),
            ),
            ("\n \n\tRW 10 FLAT \"a\" 0\n", Some(vec!["a"])),
            ("RW\n10\nFLAT\n\"a\"\n0\n", Some(vec!["a"])),
            ("RW 10 VMFS \"a\n", Some(vec!["a"])),
            ("RW 10VMFS \"a\"\n", Some(vec!["a"])),
            ("RW 10 VMFSSPARSE\"a\"\n", Some(vec!["a"])),
            ("RW +10 FLAT \"a\" +0\n", Some(vec!["a"])),
            ("RW 99999999999999999999999 FLAT \"a\" 0\n", Some(vec!["a"])),
            ("RW 10 VMFS \"file:a\"\n", Some(vec!["file:a"])),
            (&long, Some(vec![&cut])),
            ("RW -1 FLAT \"a\" 0\n", Some(vec![])),
            ("RW 0 FLAT \"a\" 0\n", Some(vec![])),
            ("RW10 VMFS \"a\"\n", Some(vec![])),
            ("RDONLY 10 FLAT \"a\" 0\n", Some(vec![])),
            ("NOACCESS 10 FLAT \"a\"\n", Some(vec![])),
            ("#RW 10 FLAT \"a\" 0\n", Some(vec![])),
            ("RW 10 ZERO\n", Some(vec![])),
            ("RW 10 ZERO \"a\"\n", Some(vec![])),
            ("RW 10 VMFS \"\"\n", Some(vec![])),
            ("\0RW 10 FLAT \"a\" 0\n", Some(vec![])),
            ("RW 10 ZERO \"a\" 0\n", None),
            ("RW 10 FLAT \"a\"\n", None),
            ("RW 10 FLAT \"a\" -1\n", None),
            ("RW 10 VMFS \"a\"\n5\n", None),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(names(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_megabyte_of_blank_lines_takes_no_time() {
        let text = format!("{0}RW{0}1{0}FLAT{0}\"a\"{0}0", "\n".repeat(200_000));
        assert_eq!(names(&text), Some(vec!["a".to_owned()]));
    }

    #[test]
    fn parent_names() {
        for (text, expected) in [
            (&b"x=1\n"[..], Some(None)),
            (
                b"parentFileNameHint=\"b\"\nparentFileNameHint=\"c\"",
                Some(Some(&b"b"[..])),
            ),
            (b"#parentFileNameHint=\"b\"", Some(Some(b"b"))),
            (b"parentFileNameHintXXb\"", Some(Some(b"b"))),
            (b"parentFileNameHint=\0b\"", Some(Some(b"b"))),
            (b"parentFileNameHint=\"\"", Some(None)),
            (b"parentFileNameHint=\"b\n", None),
            (b"parentFileNameHint=\"b\0\"", None),
            (b"parentFileNameHint", None),
            (b"\0parentFileNameHint=\"b\"", Some(None)),
        ] {
            let found = parent(text).ok();
            let expected = expected.map(|name| name.map(<[u8]>::to_vec));
            assert_eq!(found, expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn content_ids() {
        for text in [
            "CID=1\nparentCID=f",
            "parentCID=1",
            "CID=\n -12\nparentCID=0xg",
            "CID\0 1",
        ] {
            let good = text != "CID\0 1";
            assert_eq!(check_content_ids(text.as_bytes()).is_ok(), good, "{text:?}");
        }
        for text in ["", "CID=1", "CID=zz\nparentCID=1", "parentCID"] {
            assert!(check_content_ids(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn create_types() {
        assert!(check_create_type(b"createType=\"vmfs\"").is_ok());
        for text in [
            "",
            "createType",
            "createType=\"vmfs",
            "createType=\"custom\"",
            "createType\0=\"vmfs\"",
        ] {
            assert!(check_create_type(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
