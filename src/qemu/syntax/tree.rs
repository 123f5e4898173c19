//! One tree for what JSON, keyval and dotted QemuOpts say, so that the meaning of an option is
//! written once.
//!
//! Pure. QEMU flattens everything to dotted keys instead (`qdict_flatten`). A node can have both a
//! value and members, because `-drive file=a,file.locking=off` gives both.

use std::collections::BTreeMap;

use crate::qemu::syntax::bytes;
use crate::qemu::syntax::json::Value;
use crate::qemu::syntax::opts::Opts;

/// The largest number of fragments of a key: more than any schema of QEMU has. It bounds recursion
/// over trees.
const MAX_DEPTH: usize = 256;

/// A key has more than 256 fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is nested too deeply")]
pub struct TooDeep;

/// A value without members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `null` of JSON.
    Null,
    /// `true` and `false` of JSON.
    Bool(bool),
    /// Everything else, including numbers.
    Text(Vec<u8>),
}

/// The text of a scalar, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'a> {
    /// The text; `on` and `off` for JSON booleans.
    pub text: &'a [u8],
    /// The word of the `-set` that gave it.
    pub set_by: Option<usize>,
}

/// A node of the tree: its value and its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Its value.
    pub value: Option<Scalar>,
    /// The word of the `-set` that gave the value.
    pub set_by: Option<usize>,
    /// Members by key.
    children: BTreeMap<Vec<u8>, Tree>,
}

/// Returns the number of fragments of a dotted key.
fn fragments(path: &[u8]) -> usize {
    path.split(|b| *b == b'.').count()
}

impl Tree {
    /// Returns the member of that name.
    pub fn child(&self, key: &str) -> Option<&Tree> {
        self.children.get(key.as_bytes())
    }

    /// Returns all members, sorted by key.
    pub fn children(&self) -> impl Iterator<Item = (&[u8], &Tree)> {
        self.children
            .iter()
            .map(|(key, tree)| (key.as_slice(), tree))
    }

    /// Returns whether the node has members.
    pub fn has_children(&self) -> bool {
        !self.children.is_empty()
    }

    /// Returns the node at a dotted path.
    pub fn at(&self, path: &str) -> Option<&Tree> {
        let mut tree = self;
        let mut rest = path.as_bytes();
        loop {
            let (key, after) = bytes::until(rest, b".");
            tree = tree.children.get(key)?;
            match after.split_first() {
                None => return Some(tree),
                Some((_, after)) => rest = after,
            }
        }
    }

    /// Returns the scalar at a dotted path; None for `null`.
    pub fn leaf(&self, path: &str) -> Option<Leaf<'_>> {
        let tree = self.at(path)?;
        let text = match tree.value.as_ref()? {
            Scalar::Null => return None,
            Scalar::Bool(true) => b"on",
            Scalar::Bool(false) => b"off".as_slice(),
            Scalar::Text(text) => text,
        };
        Some(Leaf {
            text,
            set_by: tree.set_by,
        })
    }

    /// Returns the text at a dotted path.
    pub fn text(&self, path: &str) -> Option<&[u8]> {
        self.leaf(path).map(|leaf| leaf.text)
    }

    /// Returns the boolean at a dotted path.
    pub fn boolean(&self, path: &str) -> Option<bool> {
        bytes::boolean(self.text(path)?)
    }

    /// Sets the value at a dotted path.
    ///
    /// # Errors
    /// [`TooDeep`].
    pub fn insert(
        &mut self,
        path: &[u8],
        value: Scalar,
        set_by: Option<usize>,
    ) -> Result<(), TooDeep> {
        let node = self.node_mut(path)?;
        node.value = Some(value);
        node.set_by = set_by;
        Ok(())
    }

    /// Removes the value of a member, and the member itself if it has no members.
    pub fn clear_value(&mut self, key: &str) {
        let Some(child) = self.children.get_mut(key.as_bytes()) else {
            return;
        };
        child.value = None;
        if !child.has_children() {
            self.children.remove(key.as_bytes());
        }
    }

    /// Merges another tree into this one; the other's values replace this one's.
    pub fn overlay(&mut self, other: &Tree) {
        if let Some(value) = &other.value {
            self.value = Some(value.clone());
            self.set_by = other.set_by;
        }
        for (key, tree) in &other.children {
            self.child_mut(key).overlay(tree);
        }
    }

    /// Returns the tree of a QemuOpts value. `_` in keys stays; only `-machine` changes it.
    ///
    /// # Errors
    /// [`TooDeep`].
    pub fn from_opts(opts: &Opts) -> Result<Tree, TooDeep> {
        let mut tree = Tree::default();
        for pair in &opts.pairs {
            // The first id counts, and the last value of any other key.
            if pair.key == b"id" && tree.child("id").is_some() {
                continue;
            }
            tree.insert(&pair.key, Scalar::Text(pair.value.clone()), pair.set_by)?;
        }
        Ok(tree)
    }

    /// Returns the tree of a JSON value. Lists become members 0, 1, 2, …, and dots in keys nest as
    /// they do after `qdict_flatten`.
    ///
    /// # Errors
    /// [`TooDeep`].
    pub fn from_json(value: &Value) -> Result<Tree, TooDeep> {
        let mut tree = Tree::default();
        tree.absorb(value, 0)?;
        Ok(tree)
    }

    fn absorb(&mut self, value: &Value, depth: usize) -> Result<(), TooDeep> {
        if depth > MAX_DEPTH {
            return Err(TooDeep);
        }
        match value {
            Value::Null => self.value = Some(Scalar::Null),
            Value::Bool(on) => self.value = Some(Scalar::Bool(*on)),
            Value::Number(number) => {
                self.value = Some(Scalar::Text(number.clone().into_bytes()));
            }
            Value::Text(text) => self.value = Some(Scalar::Text(text.clone())),
            Value::List(list) => {
                for (index, value) in list.iter().enumerate() {
                    self.child_mut(index.to_string().as_bytes())
                        .absorb(value, depth.saturating_add(1))?;
                }
            }
            Value::Map(map) => {
                for (key, value) in map {
                    let deeper = depth.saturating_add(fragments(key));
                    self.node_mut(key)?.absorb(value, deeper)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the node at a dotted path, which is added if it is missing.
    ///
    /// # Errors
    /// [`TooDeep`].
    pub fn node_mut(&mut self, path: &[u8]) -> Result<&mut Tree, TooDeep> {
        if fragments(path) > MAX_DEPTH {
            return Err(TooDeep);
        }
        let keys = path.split(|b| *b == b'.');
        Ok(keys.fold(self, |node, key| node.child_mut(key)))
    }

    fn child_mut(&mut self, key: &[u8]) -> &mut Tree {
        self.children.entry(key.to_vec()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_can_have_a_value_and_members() {
        let opts = Opts::parse(b"file=a,file.locking=off,file=b,id=x,id=y", None);
        let tree = Tree::from_opts(&opts).unwrap();
        assert_eq!(tree.text("file"), Some(&b"b"[..]));
        assert_eq!(tree.text("file.locking"), Some(&b"off"[..]));
        assert_eq!(tree.text("id"), Some(&b"x"[..]));
        assert_eq!(tree.boolean("file.locking"), Some(false));
    }

    #[test]
    fn json_and_dotted_keys_agree() {
        let json =
            crate::qemu::syntax::json::parse(br#"{"a":{"b":[1,true,null]},"c.d":"e"}"#).unwrap();
        let tree = Tree::from_json(&json).unwrap();
        assert_eq!(tree.text("a.b.0"), Some(&b"1"[..]));
        assert_eq!(tree.text("a.b.1"), Some(&b"on"[..]));
        assert_eq!(tree.text("a.b.2"), None);
        assert_eq!(tree.at("a.b.2").unwrap().value, Some(Scalar::Null));
        assert_eq!(tree.text("c.d"), Some(&b"e"[..]));
    }

    #[test]
    fn depth_is_bounded_however_it_is_written() {
        let mut tree = Tree::default();
        let key = vec![b'.'; 100_000];
        assert_eq!(tree.insert(&key, Scalar::Null, None), Err(TooDeep));
        let dots = "a.".repeat(200);
        let word = format!(r#"{{"{dots}x":{{"{dots}x":1}}}}"#);
        let json = crate::qemu::syntax::json::parse(word.as_bytes()).unwrap();
        assert_eq!(Tree::from_json(&json), Err(TooDeep));
    }
}
