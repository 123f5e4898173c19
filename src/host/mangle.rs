//! Names in the kernel's tables: some bytes stand there as three octal digits (`mangle_path`,
//! fs/seq_file.c in Linux).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Bytes that the tables of mounts and of swap space escape.
pub const BLANKS: &[u8] = b" \t\n\\#";

/// The byte that /proc/PID/maps escapes; a backslash stands for itself there.
pub const NEWLINE: &[u8] = b"\n";

/// Returns a name as it is. `escaped` are the bytes that this table escapes.
pub fn unmangled(field: &[u8], escaped: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            // from_str_radix takes a sign.
            .filter(|digits| *first == b'\\' && digits.iter().all(u8::is_ascii_digit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
            .filter(|byte| escaped.contains(byte));
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_table_escapes_is_read_as_digits() {
        for (field, blanks, newline) in [
            (r"/a\040b", "/a b", r"/a\040b"),
            (r"/a\012b", "/a\nb", "/a\nb"),
            (r"/a\134040", r"/a\040", r"/a\134040"),
            (r"/a\101", r"/a\101", r"/a\101"),
            (r"/a\04", r"/a\04", r"/a\04"),
            (r"/a\", r"/a\", r"/a\"),
            (r"/a\+12b", r"/a\+12b", r"/a\+12b"),
        ] {
            assert_eq!(unmangled(field.as_bytes(), BLANKS), blanks, "{field}");
            assert_eq!(unmangled(field.as_bytes(), NEWLINE), newline, "{field}");
        }
    }

    #[test]
    fn octal_escapes() {
        for (field, want) in [
            ("/a\\040b\\134c", "/a b\\c"),
            ("\\", "\\"),
            ("\\04", "\\04"),
            ("\\999", "\\999"),
            ("\\777", "\\777"),
        ] {
            assert_eq!(
                unmangled(field.as_bytes(), BLANKS),
                OsString::from(want),
                "{field}"
            );
        }
    }
}
