//! JSON as QEMU's own parser reads it: strings in double or single quotes, at most 1024 levels,
//! valid UTF-8, no key twice.
//!
//! Pure. It does not recurse, so that a deep value cannot exhaust the stack. Facts:
//! qobject/json-lexer.c, json-parser.c (QEMU 10).

use std::collections::BTreeSet;

use crate::qemu::syntax::bytes;

/// `MAX_NESTING` in qobject/json-streamer.c.
const MAX_NESTING: usize = 1024;

/// Why QEMU refuses a value as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// An unexpected character, or the end of the value.
    #[error("invalid JSON at byte {0}")]
    Syntax(usize),
    /// Nested too deeply.
    #[error("JSON nested more than 1024 levels deep")]
    Depth,
    /// A string is not valid UTF-8.
    #[error("JSON string at byte {0} is not valid UTF-8")]
    Utf8(usize),
    /// The same key twice in an object.
    #[error("JSON key before byte {0} occurs twice")]
    Duplicate(usize),
}

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` and `false`
    Bool(bool),
    /// A number as written.
    Number(String),
    /// A string, unescaped.
    Text(Vec<u8>),
    /// `[…]`
    List(Vec<Value>),
    /// `{…}`, in the order of the text.
    Map(Vec<(Vec<u8>, Value)>),
}

/// A container that is not closed yet.
enum Frame {
    List(Vec<Value>),
    Map {
        members: Vec<(Vec<u8>, Value)>,
        seen: BTreeSet<Vec<u8>>,
        /// The key of the member that is being read.
        key: Vec<u8>,
    },
}

/// Parses one value; nothing but white space may follow it.
///
/// # Errors
/// Any [`JsonError`].
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let mut reader = Reader {
        rest: text,
        length: text.len(),
    };
    let mut stack: Vec<Frame> = Vec::new();
    loop {
        let Some(value) = reader.begin(&mut stack)? else {
            continue;
        };
        if let Some(value) = reader.complete(value, &mut stack)? {
            reader.space();
            return if reader.rest.is_empty() {
                Ok(value)
            } else {
                Err(reader.syntax())
            };
        }
    }
}

/// The start of a value.
enum Start {
    Value(Value),
    List,
    Map,
}

struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl Reader<'_> {
    fn at(&self) -> usize {
        self.length.saturating_sub(self.rest.len())
    }

    fn syntax(&self) -> JsonError {
        JsonError::Syntax(self.at())
    }

    fn space(&mut self) {
        while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte) {
            Ok(())
        } else {
            Err(self.syntax())
        }
    }

    fn key(&mut self) -> Result<Vec<u8>, JsonError> {
        self.space();
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// Reads the start of a value. Returns a scalar or an empty container; any other container goes
    /// on the stack.
    fn begin(&mut self, stack: &mut Vec<Frame>) -> Result<Option<Value>, JsonError> {
        let start = self.start()?;
        if matches!(start, Start::List | Start::Map) && stack.len() >= MAX_NESTING {
            return Err(JsonError::Depth);
        }
        match start {
            Start::Value(value) => return Ok(Some(value)),
            Start::List if self.eat(b']') => return Ok(Some(Value::List(Vec::new()))),
            Start::List => stack.push(Frame::List(Vec::new())),
            Start::Map if self.eat(b'}') => return Ok(Some(Value::Map(Vec::new()))),
            Start::Map => {
                let key = self.key()?;
                stack.push(Frame::Map {
                    members: Vec::new(),
                    seen: BTreeSet::from([key.clone()]),
                    key,
                });
            }
        }
        Ok(None)
    }

    /// Puts a complete value into its container, which may be complete then too. Returns the value
    /// that has no container.
    fn complete(
        &mut self,
        mut value: Value,
        stack: &mut Vec<Frame>,
    ) -> Result<Option<Value>, JsonError> {
        loop {
            match stack.pop() {
                None => return Ok(Some(value)),
                Some(Frame::List(mut list)) => {
                    list.push(value);
                    if self.eat(b',') {
                        stack.push(Frame::List(list));
                        return Ok(None);
                    }
                    self.expect(b']')?;
                    value = Value::List(list);
                }
                Some(Frame::Map {
                    mut members,
                    mut seen,
                    key,
                }) => {
                    members.push((key, value));
                    if self.eat(b',') {
                        let key = self.key()?;
                        if !seen.insert(key.clone()) {
                            return Err(JsonError::Duplicate(self.at()));
                        }
                        stack.push(Frame::Map { members, seen, key });
                        return Ok(None);
                    }
                    self.expect(b'}')?;
                    value = Value::Map(members);
                }
            }
        }
    }

    fn start(&mut self) -> Result<Start, JsonError> {
        self.space();
        let Some(first) = self.rest.first() else {
            return Err(self.syntax());
        };
        let value = match first {
            b'{' => {
                self.expect(b'{')?;
                return Ok(Start::Map);
            }
            b'[' => {
                self.expect(b'[')?;
                return Ok(Start::List);
            }
            b'"' | b'\'' => Value::Text(self.string()?),
            b'-' | b'0'..=b'9' => Value::Number(self.number()?),
            b'a'..=b'z' => self.literal()?,
            _ => return Err(self.syntax()),
        };
        Ok(Start::Value(value))
    }

    /// Reads `true`, `false` or `null`.
    fn literal(&mut self) -> Result<Value, JsonError> {
        let end = self
            .rest
            .iter()
            .position(|b| !b.is_ascii_lowercase())
            .unwrap_or(self.rest.len());
        let (literal, rest) = self.rest.split_at_checked(end).ok_or(self.syntax())?;
        let value = match literal {
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            b"null" => Value::Null,
            _ => return Err(self.syntax()),
        };
        self.rest = rest;
        Ok(value)
    }

    fn digits(&mut self, into: &mut String) -> Result<(), JsonError> {
        let before = into.len();
        while let Some((digit @ b'0'..=b'9', rest)) = self.rest.split_first() {
            into.push(char::from(*digit));
            self.rest = rest;
        }
        if into.len() == before {
            Err(self.syntax())
        } else {
            Ok(())
        }
    }

    fn take(&mut self, wanted: &[u8], into: &mut String) -> bool {
        match self.rest.split_first() {
            Some((byte, rest)) if wanted.contains(byte) => {
                into.push(char::from(*byte));
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn number(&mut self) -> Result<String, JsonError> {
        let mut number = String::new();
        self.take(b"-", &mut number);
        // No leading zeros.
        if !self.take(b"0", &mut number) {
            self.digits(&mut number)?;
        }
        if self.take(b".", &mut number) {
            self.digits(&mut number)?;
        }
        if self.take(b"eE", &mut number) {
            self.take(b"+-", &mut number);
            self.digits(&mut number)?;
        }
        match self.rest.first() {
            Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.') => Err(self.syntax()),
            _ => Ok(number),
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, JsonError> {
        let start = self.at();
        let Some((quote @ (b'"' | b'\''), rest)) = self.rest.split_first() else {
            return Err(self.syntax());
        };
        let quote = *quote;
        self.rest = rest;
        let mut value = Vec::new();
        loop {
            let (plain, rest) = bytes::until(self.rest, &[quote, b'\\']);
            if !std::str::from_utf8(plain).is_ok_and(|plain| plain.chars().all(is_character)) {
                return Err(JsonError::Utf8(start));
            }
            // Control characters must be escaped (IN_DQ_STRING, qobject/json-lexer.c).
            if plain.iter().any(|byte| *byte < b' ') {
                return Err(self.syntax());
            }
            value.extend_from_slice(plain);
            self.rest = rest;
            match rest.split_first() {
                None => return Err(self.syntax()),
                Some((b'\\', rest)) => {
                    self.rest = rest;
                    self.escape(&mut value)?;
                }
                Some((_, rest)) => {
                    self.rest = rest;
                    return Ok(value);
                }
            }
        }
    }

    fn escape(&mut self, value: &mut Vec<u8>) -> Result<(), JsonError> {
        let Some((kind, rest)) = self.rest.split_first() else {
            return Err(self.syntax());
        };
        let plain = match kind {
            b'"' | b'\'' | b'\\' | b'/' => *kind,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.rest = rest;
                return self.unicode(value);
            }
            _ => return Err(self.syntax()),
        };
        self.rest = rest;
        value.push(plain);
        Ok(())
    }

    fn unicode(&mut self, value: &mut Vec<u8>) -> Result<(), JsonError> {
        let first = self.hex()?;
        let code = match first {
            0xd800..=0xdbff => {
                let Some(rest) = self.rest.strip_prefix(b"\\u") else {
                    return Err(self.syntax());
                };
                self.rest = rest;
                let second = self.hex()?;
                let units = [first, second].map(|unit| u16::try_from(unit).unwrap_or(0));
                match char::decode_utf16(units).next() {
                    Some(Ok(character)) => character,
                    _ => return Err(self.syntax()),
                }
            }
            _ => char::from_u32(first).ok_or(self.syntax())?,
        };
        if !is_character(code) {
            return Err(self.syntax());
        }
        if code == '\0' {
            // Modified UTF-8 (util/unicode.c): no C string ends in the middle.
            value.extend_from_slice(&[0xc0, 0x80]);
        } else {
            value.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let error = self.syntax();
        let (digits, rest) = self.rest.split_at_checked(4).ok_or(error)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(error);
        }
        let digits = std::str::from_utf8(digits).map_err(|_| error)?;
        self.rest = rest;
        u32::from_str_radix(digits, 16).map_err(|_| error)
    }
}

/// Returns whether a code point is a character; QEMU refuses noncharacters (`mod_utf8_codepoint`,
/// util/unicode.c).
fn is_character(character: char) -> bool {
    let code = u32::from(character);
    !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn print(value: &Value, quote: char, out: &mut Vec<u8>) {
        fn string(text: &[u8], quote: char, out: &mut Vec<u8>) {
            out.extend_from_slice(quote.to_string().as_bytes());
            for byte in text {
                if *byte == b'\n' {
                    out.extend_from_slice(b"\\n");
                    continue;
                }
                if *byte == b'\\' || *byte == quote as u8 {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.extend_from_slice(quote.to_string().as_bytes());
        }
        match value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(on) => out.extend_from_slice(on.to_string().as_bytes()),
            Value::Number(number) => out.extend_from_slice(number.as_bytes()),
            Value::Text(text) => string(text, quote, out),
            Value::List(list) => {
                out.push(b'[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.extend_from_slice(b" , ");
                    }
                    print(value, quote, out);
                }
                out.push(b']');
            }
            Value::Map(map) => {
                out.push(b'{');
                for (at, (key, value)) in map.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    string(key, quote, out);
                    out.extend_from_slice(b": ");
                    print(value, quote, out);
                }
                out.push(b'}');
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|n| Value::Number(n.to_string())),
            "[ -~\n\u{e4}\u{4e00}]{0,8}".prop_map(|s| Value::Text(s.into_bytes())),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::btree_map("[a-z.\"']{0,4}", inner, 0..4).prop_map(|map| {
                    Value::Map(map.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn printing_then_parsing_agrees(value in values(), single in any::<bool>()) {
            let mut word = Vec::new();
            print(&value, if single { '\'' } else { '"' }, &mut word);
            prop_assert_eq!(parse(&word), Ok(value));
        }

        #[test]
        fn no_word_is_too_strange(word in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&word);
        }

        #[test]
        fn no_json_like_word_is_too_strange(word in "[\\[\\]{}\"':,a0\\\\u-]{0,32}") {
            let _ = parse(word.as_bytes());
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(
            parse(br#""\u00e4\ud83d\ude00\/\n\'""#),
            Ok(Value::Text("ä😀/\n'".into()))
        );
        assert_eq!(parse(br#""\u0000""#), Ok(Value::Text(vec![0xc0, 0x80])));
        for bad in [
            r#""\ud83d""#,
            r#""\udc00""#,
            r#""\x""#,
            r#""\uffff""#,
            r#""\u12"#,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals() {
        for bad in [
            "", "{", "{}x", "[1,]", "{'a':1,}", "01", "1.", "-", "tru", "{a:1}", "{'a' 1}", "\"",
            "1a", "'a\"",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse(b"\"\xff\""), Err(JsonError::Utf8(0)));
        assert!(matches!(
            parse(b"{'a':1,'a':2}"),
            Err(JsonError::Duplicate(_))
        ));
    }

    #[test]
    fn control_characters_in_strings_are_refused_like_qemu_does() {
        for byte in 0..b' ' {
            for word in [[b'"', byte, b'"'], [b'\'', byte, b'\'']] {
                assert_eq!(parse(&word), Err(JsonError::Syntax(1)), "{byte}");
            }
        }
        assert!(parse(b"\"\x7f\"").is_ok());
    }

    #[test]
    fn depth_is_limited_without_recursion() {
        let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(parse(&deep(1024)).is_ok());
        assert_eq!(parse(&deep(1025)), Err(JsonError::Depth));
        assert_eq!(parse(&vec![b'['; 1_000_000]), Err(JsonError::Depth));
    }
}
