//! Names in messages: a path may hold any byte but NUL, and an image's header is written by a
//! guest. What reaches a terminal or a log is one line of text, without sequences that a terminal
//! would obey.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// Characters that are not controls and are nothing to see: they order what stands around them otherwise
/// (Trojan Source, CVE-2021-42574), separate lines, or join words. Unicode's categories Cf, Zl and Zp
/// (DerivedGeneralCategory.txt, version 16).
const UNSEEN: [(char, char); 22] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Tells whether a terminal obeys a character, C1 controls among them, or shows nothing for it.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || (c >= '\u{ad}'
            && UNSEEN
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&c)))
}

/// Returns the bytes as text: quotes, backslashes, what a terminal obeys and bytes that are no UTF-8 escaped.
pub fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_obeyed(c) || c == '\'' || c == '\\' {
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
        Ok(text) if !text.chars().any(is_obeyed) => {
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

/// Returns a message as one line: what a terminal obeys in it was not escaped when the message was made.
pub fn one_line(message: &str) -> String {
    without(message, is_obeyed)
}

/// Returns lines as they are but for what a terminal obeys in them.
pub fn lines(text: &str) -> String {
    without(text, |c| c != '\n' && is_obeyed(c))
}

fn without(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
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
            ("\u{7f}".as_bytes(), r"\u{7f}"),
            // Shown as `exe.img` by what follows the control.
            ("\u{202e}gmi.exe".as_bytes(), r"\u{202e}gmi.exe"),
            (
                "\u{200b}\u{feff}\u{2028}".as_bytes(),
                r"\u{200b}\u{feff}\u{2028}",
            ),
            ("漢字 ✓ é".as_bytes(), "漢字 ✓ é"),
        ];
        for (bytes, text) in table {
            assert_eq!(escaped(bytes), *text);
        }
        assert_eq!(quoted("a\n"), r"'a\n'");
        assert_eq!(one_line("a 'b'\n\x1bc\u{2066}"), r"a 'b'\n\u{1b}c\u{2066}");
        assert_eq!(lines("a\n\x1bc\u{2069}"), "a\n\\u{1b}c\\u{2069}");
    }

    #[test]
    fn every_control_of_direction_and_none_that_is_seen() {
        let controls = ['\u{61c}', '\u{200e}', '\u{200f}']
            .into_iter()
            .chain('\u{202a}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain('\u{80}'..='\u{9f}')
            .chain(['\u{2028}', '\u{2029}', '\u{7f}', '\0']);
        for c in controls {
            assert!(is_obeyed(c), "{c:?}");
            assert_eq!(
                escaped(c.to_string().as_bytes()),
                c.escape_default().to_string()
            );
        }
        for c in [' ', '~', '\u{a0}', 'ß', 'א', 'ع', '✓', '\u{fffd}', '🖥'] {
            assert!(!is_obeyed(c), "{c:?}");
        }
        assert!(UNSEEN.is_sorted());
    }
}
