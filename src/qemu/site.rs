//! The place in the command line that names something.
//!
//! Pure.

use std::borrow::Cow;

use crate::model::resource::Origin;

/// The place in the line that names a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The number of the word that holds the value.
    pub word: usize,
    /// The option with its dash, or `image`.
    pub option: Cow<'static, str>,
    /// What is written before each key: `drive.` for a section of a config file.
    pub prefix: String,
    /// `GROUP.ID.`, for keys that a later `-set` changes; empty if none does.
    pub set_path: String,
}

impl Site {
    /// Returns a place in a word of the line.
    pub fn new(word: usize, option: impl Into<Cow<'static, str>>) -> Self {
        Site {
            word,
            option: option.into(),
            prefix: String::new(),
            set_path: String::new(),
        }
    }

    /// Returns the origin of a key's value; `set_by` is the word of the `-set` that changed it.
    pub fn origin(&self, key: &str, set_by: Option<usize>) -> Origin {
        match set_by {
            Some(word) => Origin::Word {
                word,
                option: "-set".into(),
                key: format!("{}{key}", self.set_path),
            },
            None => Origin::Word {
                word: self.word,
                option: self.option.clone(),
                key: format!("{}{key}", self.prefix),
            },
        }
    }
}
