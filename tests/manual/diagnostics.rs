//! Messages: those of the sources, and those that the manual quotes.

use std::fs;
use std::path::Path;

use super::page;

/// A message as its fixed parts, between which something is put in.
#[derive(Debug)]
pub struct Message {
    fixed: Vec<String>,
}

impl Message {
    /// Whether another message begins as this one says.
    pub fn begins(&self, other: &Message) -> bool {
        let Some((last, before)) = self.fixed.split_last() else {
            return false;
        };
        let others = other.fixed.get(..before.len());
        others.is_some_and(|others| others == before)
            && other
                .fixed
                .get(before.len())
                .is_some_and(|part| part.starts_with(last.as_str()))
    }

    /// Whether this is a message by its first words.
    pub fn is_sentence(&self) -> bool {
        let first = self.fixed.first().map_or("", String::as_str);
        let warns = first.len() > "warning: ".len() && first.starts_with("warning: ");
        first.starts_with("cannot ")
            || first.starts_with("QEMU will not be allowed")
            || warns
            || first.starts_with("WARNING: ")
    }
}

/// The sources, without their tests.
pub fn sources() -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                directories.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("_tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let tests = text.find("#[cfg(test)]\nmod tests {");
                out.push((name, text[..tests.unwrap_or(text.len())].to_owned()));
            }
        }
    }
    out
}

/// Every string of the sources, as a message.
pub fn messages() -> Vec<Message> {
    let sources = sources();
    let strings = sources.iter().flat_map(|(_, text)| strings(text));
    strings.map(|text| message(&text)).collect()
}

/// What stands in quotation marks in Rust; what is in comments does not.
fn strings(source: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = if rest.starts_with("//") {
            rest.split_once('\n').map_or("", |(_, after)| after)
        } else if c == '\'' {
            // A character, or a lifetime.
            let mut chars = after.char_indices();
            match (chars.next(), chars.next()) {
                (Some((_, '\\')), Some(_)) => {
                    let end = after[2..].find('\'').map_or(after.len(), |end| end + 3);
                    &after[end..]
                }
                (Some(_), Some((end, '\''))) => &after[end + 1..],
                _ => after,
            }
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.split_once("\"#").map_or("", |(_, after)| after)
        } else if let Some(raw) = rest.strip_prefix("r\"") {
            raw.split_once('"').map_or("", |(_, after)| after)
        } else if c == '"' {
            let (text, after) = string(after);
            out.push(text);
            after
        } else {
            after
        };
    }
    out
}

/// A string from behind its first quotation mark, and what follows the last.
fn string(source: &str) -> (String, &str) {
    let mut out = String::new();
    let mut chars = source.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (out, &source[at + 1..]),
            '\\' => match chars.next() {
                // The line goes on where the next word is.
                Some((_, '\n')) => {
                    let blanks = chars.as_str().len() - chars.as_str().trim_start().len();
                    for _ in chars.as_str()[..blanks].chars() {
                        chars.next();
                    }
                }
                Some((_, 'n')) => out.push('\n'),
                Some((_, other)) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    (out, "")
}

/// The parts of a format string. A name that is put in has its quotation marks from elsewhere.
fn message(format: &str) -> Message {
    let format = format.replace("'{", "{").replace("}'", "}");
    let mut fixed = Vec::new();
    let mut rest = format.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        fixed.push(before.to_owned());
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    fixed.push(rest.to_owned());
    Message { fixed }
}

/// What the manual quotes: in each tag, what is printed and what stands for something take turns.
pub fn tags(section: &str) -> Vec<Message> {
    let mut out = Vec::new();
    let mut lines = section.lines();
    while let Some(line) = lines.next() {
        if line != ".TP" && line != ".TQ" {
            continue;
        }
        let tag = lines.next().unwrap();
        let parts = tag.strip_prefix(".BI ").unwrap_or_else(|| panic!("{tag}"));
        let parts = page::arguments(parts).into_iter().step_by(2);
        out.push(Message {
            fixed: parts.map(|part| page::plain(&part)).collect(),
        });
    }
    out
}
