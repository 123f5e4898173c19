//! The labels of one guest: of its process, and of what it uses.

use crate::host::policy::Policy;
use crate::model::label::{Context, Level};
use crate::seclabel::domain::{self, GuestTypes};

/// Labels of one guest.
#[derive(Clone, Debug)]
pub struct GuestLabels {
    /// Of the process.
    pub process: Context,
    /// Of what only this guest uses.
    pub image: Context,
    /// Of what every guest may write.
    pub shared: Context,
    /// Of what every guest may read.
    pub content: Context,
    /// With `--private-content`, the user whose files may be made private.
    pub private_to: Option<u32>,
}

impl GuestLabels {
    /// Has content of this user's made private (`--private-content`).
    #[must_use]
    pub fn private_to(mut self, user: Option<u32>) -> Self {
        self.private_to = user;
        self
    }

    /// Combines the guest's types with its level.
    pub fn new(types: &GuestTypes, level: Level) -> Self {
        Self {
            process: types.domain.at(level.clone()),
            image: types.image.at(level),
            shared: types.image.clone(),
            content: types.content.clone(),
            private_to: None,
        }
    }

    /// Returns the label of content that only this guest reads (`--private-content`).
    pub fn private_content(&self) -> Context {
        self.content.at(self.process.level())
    }

    /// Tells whether content with this label may be made private: the caller's own file, which no guest
    /// can read now.
    pub fn may_be_private(&self, policy: &dyn Policy, current: &Context, own: bool) -> bool {
        own && current.categories().is_empty()
            && current != &self.content
            && !domain::may_any_read(policy, &self.process, current)
    }
}
