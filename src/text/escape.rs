//! Names in messages: a path may hold any byte but NUL, and an image's header is written by a
//! guest. What reaches a terminal or a log is one line of text, without sequences that a terminal
//! would obey.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// Returns the bytes as text: control characters, quotes, backslashes and bytes that are no UTF-8 escaped.
pub fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\'' || c == '\\' {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Returns a name in quotes.
pub fn quoted(name: impl AsRef<OsStr>) -> String {
    format!("'{}'", escaped(name.as_ref().as_bytes()))
}

/// Returns a word to type into a shell (bash(1), QUOTING).
pub fn shell_word(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/.,=:+-%@_".contains(byte);
    if !word.is_empty() && word.iter().all(plain) {
        return String::from_utf8_lossy(word).into_owned();
    }
    match std::str::from_utf8(word) {
        Ok(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
        _ => {
            let bytes = word.iter().map(|byte| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
                b' '..=b'~' => char::from(*byte).to_string(),
                byte => format!("\\x{byte:02x}"),
            });
            format!("$'{}'", bytes.collect::<String>())
        }
    }
}

/// Returns a message as one line: a control character in it was not escaped when the message was made.
pub fn one_line(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        let table: &[(&[u8], &str)] = &[
            (b"file=/a,,b.img,format=raw", "file=/a,,b.img,format=raw"),
            (b"", "''"),
            (b"/a b", "'/a b'"),
            (b"/it's", r"'/it'\''s'"),
            (b"/a\n'\xff", r"$'/a\x0a\'\xff'"),
        ];
        for (word, text) in table {
            assert_eq!(shell_word(OsStr::from_bytes(word)), *text);
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys() {
        let table: &[(&[u8], &str)] = &[
            (b"/srv/a b,c.img", "/srv/a b,c.img"),
            ("/srv/ü".as_bytes(), "/srv/ü"),
            (b"a\nb\tc", r"a\nb\tc"),
            (b"\x1b[31m", r"\u{1b}[31m"),
            (b"\xff\xfe", r"\xff\xfe"),
            (b"it's \\", r"it\'s \\"),
            // C1 controls are two bytes in UTF-8.
            ("\u{9b}".as_bytes(), r"\u{9b}"),
        ];
        for (bytes, text) in table {
            assert_eq!(escaped(bytes), *text);
        }
        assert_eq!(quoted("a\n"), r"'a\n'");
        assert_eq!(one_line("a 'b'\n\x1bc"), r"a 'b'\n\u{1b}c");
    }
}
