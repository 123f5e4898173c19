//! JSON for programs that is harmless where a person reads it: what a terminal would obey, or would not show,
//! stands as `\uXXXX`, which means the same to a parser (RFC 8259, section 7).

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::text::escape::is_obeyed;

/// Returns a value as JSON for programs and people, indented by two spaces.
///
/// # Errors
/// Those of serialising the value.
pub fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, Harmless::default());
    value.serialize(&mut serializer)?;
    // The serializer writes UTF-8.
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// serde_json's own formatter but for strings.
#[derive(Default)]
struct Harmless(PrettyFormatter<'static>);

impl Formatter for Harmless {
    /// Writes what serde_json has nothing to escape in: it knows quotes, backslashes and C0 controls.
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_obeyed(*c)) {
            let (before, from) = rest.split_at(at);
            out.write_all(before.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = from.split_at(c.len_utf8()).1;
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_terminal_obeys_or_hides_is_escaped() {
        for (text, written) in [
            ("/srv/ü ✓ 漢", "\"/srv/ü ✓ 漢\""),
            ("\u{7f}", "\"\\u007f\""),
            ("a\u{9b}31m", "\"a\\u009b31m\""),
            ("\u{202e}gmi", "\"\\u202egmi\""),
            ("\u{2066}a\u{2069}", "\"\\u2066a\\u2069\""),
            ("\u{e0041}", "\"\\udb40\\udc41\""),
            ("\u{1b}\n\"\\", "\"\\u001b\\n\\\"\\\\\""),
        ] {
            assert_eq!(pretty(&text).unwrap(), written);
        }
        let document = json!({"a\u{9b}": ["\u{202e}", {}, [], null, 1]});
        let written = pretty(&document).unwrap();
        assert_eq!(
            written,
            "{\n  \"a\\u009b\": [\n    \"\\u202e\",\n    {},\n    [],\n    null,\n    1\n  ]\n}"
        );
    }

    proptest! {
        #[test]
        fn a_parser_reads_what_it_read_before(
            entries in prop::collection::btree_map(any::<String>(), prop::collection::vec(any::<String>(), 0..4), 0..4),
        ) {
            let document = json!(entries);
            let written = pretty(&document).unwrap();
            prop_assert!(!written.chars().any(|c| c != '\n' && is_obeyed(c)));
            prop_assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), document);
        }
    }
}
