//! The place in the command line that names something.
//!
//! Pure.

use std::borrow::Cow;

use crate::model::resource::Origin;

/// The place in the line that names things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The word that holds the value.
    pub word: usize,
    /// The option with its dash, or `image`.
    pub option: Cow<'static, str>,
    /// Put before each key: `drive.` for a section of a config file.
    pub prefix: String,
    /// `group.id.`, for keys that a later `-set` changed; empty unless one did.
    pub set_path: String,
}

impl Site {
    /// A place without config file or `-set`.
    pub fn new(word: usize, option: impl Into<Cow<'static, str>>) -> Self {
        Site {
            word,
            option: option.into(),
            prefix: String::new(),
            set_path: String::new(),
        }
    }

    /// The origin of a key's value; `set_by` is the word of the `-set` that changed it.
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
