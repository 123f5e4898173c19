//! The syntaxes of QEMU's words: what is read, written out and read again says the same.

use svirt_exec::qemu::fuzzing::{self, JsonError, Opts, Scalar, Section, Tree, Value};

/// bytes; the longest line of a config file (`src/qemu/syntax/readconfig.rs`).
const MAX_CONFIG_LINE: usize = 1023;

/// JSON, also against serde_json where both take the document.
pub fn json(bytes: &[u8]) {
    let ours = fuzzing::json(bytes);
    if let Ok(value) = &ours {
        let mut printed = String::new();
        print_json(value, &mut printed);
        assert_eq!(fuzzing::json(printed.as_bytes()).as_ref(), Ok(value));
        // Too deep a tree is an error, nothing worse.
        let _ = Tree::from_json(value);
    }
    let Ok(theirs) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return;
    };
    match ours {
        Ok(value) => assert!(is_same(&value, &theirs), "{value:?} but {theirs:?}"),
        // serde_json takes the last of several, QEMU none.
        Err(JsonError::Duplicate(_)) => {}
        // QEMU takes no noncharacters, which are escapes or at least three bytes long in UTF-8.
        Err(error) => assert!(
            bytes.contains(&b'\\') || !bytes.is_ascii(),
            "{error}, but {theirs:?}"
        ),
    }
}

/// In another way than most people write it: everything but plain characters is escaped.
fn print_json(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(on) => out.push_str(&on.to_string()),
        Value::Number(number) => out.push_str(number),
        Value::Text(text) => print_string(text, out),
        Value::List(list) => {
            for (at, value) in list.iter().enumerate() {
                out.push(if at == 0 { '[' } else { ',' });
                print_json(value, out);
            }
            out.push_str(if list.is_empty() { "[]" } else { "]" });
        }
        Value::Map(map) => {
            for (at, (key, value)) in map.iter().enumerate() {
                out.push(if at == 0 { '{' } else { ',' });
                print_string(key, out);
                out.push(':');
                print_json(value, out);
            }
            out.push_str(if map.is_empty() { "{}" } else { "}" });
        }
    }
}

fn print_string(text: &[u8], out: &mut String) {
    out.push('"');
    for character in plain(text).chars() {
        if character.is_ascii_alphanumeric() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out.push('"');
}

/// The characters of a string of ours, in which NUL is two bytes (modified UTF-8).
fn plain(text: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(&[0xc0, 0x80]) {
            bytes.push(0);
            rest = tail;
        } else {
            bytes.push(*byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn is_same(ours: &Value, theirs: &serde_json::Value) -> bool {
    use serde_json::Value as Theirs;
    match (ours, theirs) {
        (Value::Null, Theirs::Null) => true,
        (Value::Bool(ours), Theirs::Bool(theirs)) => ours == theirs,
        (Value::Number(ours), Theirs::Number(_)) => {
            serde_json::from_str::<Theirs>(ours).is_ok_and(|ours| ours == *theirs)
        }
        (Value::Text(ours), Theirs::String(theirs)) => plain(ours) == *theirs,
        (Value::List(ours), Theirs::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| is_same(a, b))
        }
        (Value::Map(ours), Theirs::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().all(|(key, value)| {
                    theirs
                        .get(&plain(key))
                        .is_some_and(|theirs| is_same(value, theirs))
                })
        }
        _ => false,
    }
}

/// keyval, with and without a key that may be left out.
pub fn keyval(bytes: &[u8]) {
    for implied in [None, Some("driver")] {
        let Ok(keyval) = fuzzing::keyval(bytes, implied) else {
            continue;
        };
        let mut printed = Vec::new();
        print_tree(&keyval.tree, &mut Vec::new(), &mut printed);
        let again = fuzzing::keyval(&printed, None).map(|keyval| keyval.tree);
        assert_eq!(again, Ok(keyval.tree), "{}", printed.escape_ascii());
    }
}

fn print_tree(tree: &Tree, key: &mut Vec<u8>, out: &mut Vec<u8>) {
    if let Some(value) = &tree.value {
        let Scalar::Text(value) = value else {
            panic!("keyval has nothing but text: {value:?}");
        };
        print_pair(key, value, out);
    }
    let length = key.len();
    for (fragment, child) in tree.children() {
        if !key.is_empty() {
            key.push(b'.');
        }
        key.extend_from_slice(fragment);
        print_tree(child, key, out);
        key.truncate(length);
    }
}

/// `key=value` behind what is there already, a comma in the value doubled.
fn print_pair(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(key);
    out.push(b'=');
    for byte in value {
        if *byte == b',' {
            out.push(b',');
        }
        out.push(*byte);
    }
}

/// QemuOpts, with and without a key that may be left out.
pub fn opts(bytes: &[u8]) {
    for implied in [None, Some("path")] {
        let opts = Opts::parse(bytes, implied);
        let mut printed = Vec::new();
        for pair in &opts.pairs {
            print_pair(&pair.key, &pair.value, &mut printed);
        }
        let again = Opts::parse(&printed, None);
        assert_eq!(again.pairs, opts.pairs, "{}", printed.escape_ascii());
        // Too deep a tree is an error, nothing worse.
        let _ = Tree::from_opts(&opts);
    }
}

/// Config files.
pub fn readconfig(bytes: &[u8]) {
    let Ok(sections) = fuzzing::readconfig(bytes) else {
        return;
    };
    let Some(printed) = print_config(&sections) else {
        return;
    };
    let again = fuzzing::readconfig(&printed);
    assert_eq!(again, Ok(sections), "{}", printed.escape_ascii());
}

/// `None` where the tidy form is too long, or where the name of a group looks like one with an id.
fn print_config(sections: &[Section]) -> Option<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for section in sections {
        lines.push(match &section.id {
            Some(id) => [b"[", &section.group[..], b" \"", id, b"\"]"].concat(),
            None if section.group.contains(&b'"') => return None,
            None => [b"[", &section.group[..], b"]"].concat(),
        });
        for (key, value) in &section.pairs {
            // A value goes on past the end of its line only where no quote ends it.
            let (value, quote) = match value.strip_suffix(b"\n") {
                Some(value) => (value, &b""[..]),
                None => (value.as_slice(), &b"\""[..]),
            };
            lines.push([b" ", &key[..], b" = \"", value, quote].concat());
        }
    }
    let fits = lines.iter().all(|line| line.len() <= MAX_CONFIG_LINE);
    lines.push(Vec::new());
    fits.then(|| lines.join(&b'\n'))
}
