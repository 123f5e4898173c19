//! QemuOpts: `key=value,key=value` as util/qemu-option.c reads it (QEMU 10).
//!
//! Pure. The pairs stay in order: the last value of a key counts, except that some keys are lists
//! (`guestfwd`, `vnc`), and the first `id` counts.

use crate::qemu::syntax::bytes;

/// One `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key; it may be dotted.
    pub key: Vec<u8>,
    /// The value, with `,,` read as one comma.
    pub value: Vec<u8>,
    /// The word of the `-set` that gave it; None if the option itself did.
    pub set_by: Option<usize>,
}

/// A parsed value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opts {
    /// The pairs in the order of the line.
    pub pairs: Vec<Pair>,
    /// True if `help` or `?` is written as a flag.
    pub help: bool,
}

impl Opts {
    /// Parses a value (`opts_do_parse`); every text is valid. `implied` is the key of a first item
    /// without `=`.
    pub fn parse(text: &[u8], implied: Option<&str>) -> Self {
        let mut opts = Opts::default();
        let mut implied = implied;
        let mut rest = text;
        while !rest.is_empty() {
            let (head, tail) = bytes::until(rest, b"=,");
            let (key, value, after) = match (tail.split_first(), implied) {
                (Some((b'=', tail)), _) => {
                    let (value, after) = bytes::until_comma(tail);
                    (head.to_vec(), value, after)
                }
                (_, Some(key)) => {
                    let (value, after) = bytes::until_comma(rest);
                    (key.as_bytes().to_vec(), value, after)
                }
                (_, None) => {
                    // A flag. In the deprecated spelling "nowait" is wait=off.
                    let (key, value) = match head.strip_prefix(b"no") {
                        Some(key) => (key, &b"off"[..]),
                        None => (head, &b"on"[..]),
                    };
                    opts.help |= bytes::is_help(head);
                    (key.to_vec(), value.to_vec(), tail)
                }
            };
            implied = None;
            opts.push(key, value, None);
            rest = after.strip_prefix(b",").unwrap_or(after);
        }
        opts
    }

    /// Adds a pair at the end.
    pub fn push(&mut self, key: Vec<u8>, value: Vec<u8>, set_by: Option<usize>) {
        self.pairs.push(Pair { key, value, set_by });
    }

    /// Returns the value of a key that is no list: the last one.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let mut pairs = self.pairs.iter().rev();
        let pair = pairs.find(|pair| pair.key == key.as_bytes())?;
        Some(&pair.value)
    }

    /// Returns all pairs with that key, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a Pair> {
        self.pairs
            .iter()
            .filter(move |pair| pair.key == key.as_bytes())
    }

    /// Returns the id: the first one (`opts_parse_id`).
    pub fn id(&self) -> Option<&[u8]> {
        let pair = self.pairs.iter().find(|pair| pair.key == b"id")?;
        Some(&pair.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(word: &str, implied: Option<&str>) -> Vec<(String, String)> {
        Opts::parse(word.as_bytes(), implied)
            .pairs
            .iter()
            .map(|pair| (bytes::show(&pair.key), bytes::show(&pair.value)))
            .collect()
    }

    #[test]
    fn words_as_qemu_reads_them() {
        type Row<'a> = (&'a str, Option<&'a str>, &'a [(&'a str, &'a str)]);
        let table: &[Row<'_>] = &[
            ("", Some("path"), &[]),
            (
                "file=a,,b,if=none",
                None,
                &[("file", "a,b"), ("if", "none")],
            ),
            (
                "/x,,y,server",
                Some("path"),
                &[("path", "/x,y"), ("server", "on")],
            ),
            (
                "/x,nowait,nodelay",
                Some("path"),
                &[("path", "/x"), ("wait", "off"), ("delay", "off")],
            ),
            // '=' before any comma: a normal pair, not the implied key.
            ("/run/a=b.sock", Some("path"), &[("/run/a", "b.sock")]),
            ("a,,b=c", Some("path"), &[("path", "a,b=c")]),
            ("a=1,,", None, &[("a", "1,")]),
            ("a=1,", None, &[("a", "1")]),
            ("a=,b=2", None, &[("a", ""), ("b", "2")]),
            ("a=1,=2", None, &[("a", "1"), ("", "2")]),
            ("x=1,x=2", None, &[("x", "1"), ("x", "2")]),
        ];
        for (word, implied, want) in table {
            let want: Vec<(String, String)> = want
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            assert_eq!(pairs(word, *implied), want, "{word}");
        }
    }

    #[test]
    fn last_value_first_id() {
        let opts = Opts::parse(b"id=a,id=b,file=x,file=y", None);
        assert_eq!(opts.get("file"), Some(&b"y"[..]));
        assert_eq!(opts.id(), Some(&b"a"[..]));
        assert!(Opts::parse(b"virtio-blk,help", Some("driver")).help);
        assert!(!Opts::parse(b"x=help", None).help);
    }

    proptest! {
        #[test]
        fn printing_then_parsing_agrees(
            pairs in proptest::collection::vec(("[a-z.0-9-]{1,8}", proptest::collection::vec(any::<u8>(), 0..12)), 0..6)
        ) {
            let mut word = Vec::new();
            for (key, value) in &pairs {
                if !word.is_empty() {
                    word.push(b',');
                }
                word.extend_from_slice(key.as_bytes());
                word.push(b'=');
                for byte in value {
                    if *byte == b',' {
                        word.push(b',');
                    }
                    word.push(*byte);
                }
            }
            let seen: Vec<(Vec<u8>, Vec<u8>)> = Opts::parse(&word, None)
                .pairs
                .into_iter()
                .map(|pair| (pair.key, pair.value))
                .collect();
            let want: Vec<(Vec<u8>, Vec<u8>)> = pairs
                .into_iter()
                .map(|(key, value)| (key.into_bytes(), value))
                .collect();
            prop_assert_eq!(seen, want);
        }

        #[test]
        fn no_word_is_too_strange(word in proptest::collection::vec(any::<u8>(), 0..64)) {
            Opts::parse(&word, Some("path"));
        }
    }
}
