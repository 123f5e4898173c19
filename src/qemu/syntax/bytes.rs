//! Small operations on bytes that the standard library has only for `str`.
//!
//! Pure. Words of a command line are bytes, which need not be UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::text::escape;

/// Returns the parts before and after the first `byte`.
pub fn split_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == byte)?;
    let (head, rest) = text.split_at_checked(at)?;
    Some((head, rest.split_first()?.1))
}

/// Returns the parts before and after the last `byte`.
pub fn rsplit_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|b| *b == byte)?;
    let (head, rest) = text.split_at_checked(at)?;
    Some((head, rest.split_first()?.1))
}

/// Returns the text up to the first byte of `stops`, and the rest with that byte.
pub fn until<'a>(text: &'a [u8], stops: &[u8]) -> (&'a [u8], &'a [u8]) {
    let at = text
        .iter()
        .position(|b| stops.contains(b))
        .unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, b""))
}

/// Returns the text up to the first single comma, with `,,` read as one comma, and the rest with
/// that comma (`get_opt_value`, util/qemu-option.c).
pub fn until_comma(mut rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut value = Vec::new();
    loop {
        let (head, tail) = until(rest, b",");
        value.extend_from_slice(head);
        match tail.strip_prefix(b",,") {
            Some(after) => {
                value.push(b',');
                rest = after;
            }
            None => return (value, tail),
        }
    }
}

/// Returns the text before the first `needle`; all of it if there is none.
pub fn before<'a>(text: &'a [u8], needle: &[u8]) -> &'a [u8] {
    let end = text
        .windows(needle.len().max(1))
        .position(|part| part == needle)
        .unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// Returns whether `needle` occurs in `text`.
pub fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len().max(1)).any(|part| part == needle)
}

/// Returns whether a name matches a pattern: `start*` for all names that start so, else the name
/// itself.
pub fn matches(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

/// Returns the text before the first NUL, which is all that C code sees.
pub fn c_string(text: &[u8]) -> &[u8] {
    until(text, b"\0").0
}

/// Returns the bytes as an operating system string.
pub fn os_string(text: &[u8]) -> OsString {
    OsStr::from_bytes(text).to_os_string()
}

/// Returns the bytes escaped, for messages, and for comparing with plain names.
pub fn show(text: &[u8]) -> String {
    escape::escaped(text)
}

/// Returns `dir/name`; a slash is added only if `dir` does not end with one.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    if !path.is_empty() && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Returns the value of a decimal number; None for any other text.
pub fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Returns the value of a number as strtoull(3) with base 0 reads it: hexadecimal after `0x`, octal
/// after `0`. QEMU reads integer properties so (`qemu_strtou64`, util/cutils.c). Blanks and signs,
/// which strtoull takes, are not accepted.
pub fn c_number<N: TryFrom<u64>>(text: &[u8]) -> Option<N> {
    let text = std::str::from_utf8(text).ok()?;
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()?.try_into().ok()
}

/// Returns the value of a QEMU boolean, lower case only (`qapi_bool_parse`, qapi/qapi-util.c).
pub fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"on" | b"yes" | b"true" | b"y" => Some(true),
        b"off" | b"no" | b"false" | b"n" => Some(false),
        _ => None,
    }
}

/// Returns whether the text asks for help (`is_help_option`, include/qemu/help_option.h).
pub fn is_help(text: &[u8]) -> bool {
    text == b"help" || text == b"?"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        assert_eq!(split_once(b"a:b:c", b':'), Some((&b"a"[..], &b"b:c"[..])));
        assert_eq!(rsplit_once(b"a:b:c", b':'), Some((&b"a:b"[..], &b"c"[..])));
        assert_eq!(split_once(b"abc", b':'), None);
        assert_eq!(until(b"a=b,c", b",="), (&b"a"[..], &b"=b,c"[..]));
        assert_eq!(until(b"abc", b","), (&b"abc"[..], &b""[..]));
    }

    #[test]
    fn numbers_and_booleans() {
        assert_eq!(number::<i32>(b"12"), Some(12));
        assert_eq!(number::<i32>(b"+12"), None);
        assert_eq!(number::<i32>(b"99999999999"), None);
        for (text, want) in [
            ("4660", Some(4660)),
            ("0x1234", Some(4660)),
            ("0X00ff", Some(255)),
            ("010", Some(8)),
            ("0", Some(0)),
            ("65535", Some(65535)),
            ("65536", None),
            ("08", None),
            ("12ab", None),
            ("0x", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(c_number::<u16>(text.as_bytes()), want, "{text}");
        }
        assert_eq!(boolean(b"on"), Some(true));
        assert_eq!(boolean(b"On"), None);
        assert!(contains(b"fat:rw:/x", b":rw:"));
        assert!(!contains(b"", b":rw:"));
        assert_eq!(join(b"/a", b"b"), b"/a/b");
        assert_eq!(c_string(b"a\0b"), b"a");
    }
}
