//! One line of the checklist.

use serde::Serialize;

use crate::text::message::Message;

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Name of the check; it never changes.
    pub(crate) name: &'static str,
    /// Whether the check passed. A line that only informs, such as the booleans, passes.
    pub(crate) ok: bool,
    /// What was found.
    pub(crate) detail: String,
    /// What to do; None if the check passed.
    pub(crate) fix: Option<String>,
}

impl Check {
    /// Returns a check that passed.
    pub(crate) fn well(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            ok: true,
            detail: detail.into(),
            fix: None,
        }
    }

    /// Returns a check that failed, with what to do.
    pub(crate) fn bad(
        name: &'static str,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            name,
            ok: false,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }

    /// Returns a failed check with a message of this program.
    pub(crate) fn said(name: &'static str, message: impl Into<Message>) -> Self {
        let Message { problem, remedy } = message.into();
        Self::bad(
            name,
            problem,
            remedy.unwrap_or_else(|| "see the message".to_owned()),
        )
    }
}
