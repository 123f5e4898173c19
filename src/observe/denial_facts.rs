//! Denials and what explaining them needs to know of the host.

use crate::model::label::Context;
use crate::observe::audit_record::{Denial, Stamp};
use crate::observe::guests::ConfinedGuest;

/// Why a permission was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// No rule allows it to this domain on this type.
    Type,
    /// A rule allows it, and the categories forbid it.
    Categories,
    /// It is allowed now: the policy, a boolean or a label has changed.
    Past,
}

impl Why {
    /// Returns the name in the JSON document.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Categories => "categories",
            Self::Past => "past",
        }
    }
}

/// One denial, or several equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExplainedDenial {
    /// When it happened last.
    pub(crate) last: Stamp,
    /// How often it happened.
    pub(crate) count: usize,
    /// The denial, as the log has it.
    pub(crate) denial: Denial,
    /// The guest's name, or another process in words.
    pub(crate) who: String,
    /// The object's path; None if neither the log nor a journal has it.
    pub(crate) path: Option<Vec<u8>>,
    /// Whether the type or the categories forbade it.
    pub(crate) why: Why,
    /// What was tried.
    pub(crate) tried: String,
    /// Why it was denied.
    pub(crate) reason: String,
    /// What to do.
    pub(crate) fix: String,
}

/// Tells whether a source has these permissions on a target of a class now. None if the policy cannot
/// be asked.
pub(crate) type Allowed<'a> = &'a dyn Fn(&Context, &Context, &str, &[String]) -> Option<bool>;

/// What explaining a denial needs of this host.
pub(crate) struct HostFacts<'a> {
    /// The guests that run.
    pub(crate) guests: &'a [ConfinedGuest],
    /// Whether permissions are allowed now.
    pub(crate) allowed: Allowed<'a>,
    /// The state of a boolean; None if the policy has no boolean of this name.
    pub(crate) boolean: &'a dyn Fn(&str) -> Option<bool>,
}

/// Returns the guest that runs in a context.
pub(crate) fn guest_in<'a>(
    context: &Context,
    host: &'a HostFacts<'_>,
) -> Option<&'a ConfinedGuest> {
    host.guests.iter().find(|guest| guest.context == *context)
}

/// Returns the guest whose categories an object has.
pub(crate) fn guest_of<'a>(label: &Context, host: &'a HostFacts<'_>) -> Option<&'a ConfinedGuest> {
    let categories = label.categories();
    host.guests
        .iter()
        .find(|guest| !categories.is_empty() && guest.context.categories() == categories)
}
