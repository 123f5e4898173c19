//! Values that are written as JSON or as keyval (`qobject_input_visitor_new_str`).
//!
//! Pure.

use crate::qemu::syntax::json::{self, JsonError};
use crate::qemu::syntax::keyval::{self, KeyvalError};
use crate::qemu::syntax::tree::{TooDeep, Tree};

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It is no JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It is no keyval.
    #[error(transparent)]
    Keyval(#[from] KeyvalError),
    /// A key has too many fragments.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

/// Returns whether QEMU reads a value as JSON.
pub fn is_json(text: &[u8]) -> bool {
    text.starts_with(b"{")
}

/// Parses a JSON value.
///
/// # Errors
/// [`ValueError::Json`] and [`ValueError::TooDeep`].
pub fn parse_json(text: &[u8]) -> Result<Tree, ValueError> {
    Ok(Tree::from_json(&json::parse(text)?)?)
}

/// Parses a value that is JSON if it starts with a brace, else keyval; `implied` is the key of a
/// first item without `=`.
///
/// # Errors
/// Any [`ValueError`].
pub fn parse_keyval_or_json(text: &[u8], implied: &str) -> Result<Tree, ValueError> {
    if is_json(text) {
        parse_json(text)
    } else {
        Ok(keyval::parse(text, Some(implied))?.tree)
    }
}
