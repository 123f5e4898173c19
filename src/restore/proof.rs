//! Whose word an entry is, and what that proves.
//!
//! An entry of this user's own is what a launcher of his wrote, in a domain that no guest enters. One of
//! another user's may say anything, so root believes nothing in it that the file itself does not bear out:
//! the file belongs to that user, and carries now the very label that the entry says it was given, of a
//! type that this policy has for guests' files and with no categories but the entry's. A launcher of that
//! user could give that label to no file but his.

use crate::host::{Policy, RealHost};
use crate::model::label::{Categories, Context};
use crate::model::resource::Class;
use crate::restore::entry::Record;
use crate::restore::record_labels::RecordLabels;
use crate::seclabel::domain;

/// Whose word an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// This user's own.
    Own,
    /// That of a user who is believed about files of others (libvirt's, `--trust-user`).
    Trusted,
    /// That of any other user, about files of his.
    Of(u32),
}

impl Word {
    /// Returns the user whose files alone may be touched. None: everybody's.
    pub fn owner(self) -> Option<u32> {
        match self {
            Self::Of(owner) => Some(owner),
            Self::Own | Self::Trusted => None,
        }
    }
}

/// The types that guests of an entry's domain have files of.
#[derive(Clone, Debug)]
pub struct GuestFiles {
    image: String,
    content: String,
}

impl GuestFiles {
    /// Asks the policy. None if the context is none of a guest with categories.
    pub fn of(host: &RealHost, guest: &Context) -> Option<Self> {
        if !domain::is_confined_guest(host, guest) {
            return None;
        }
        let types = domain::types_of(host as &dyn Policy, guest).ok()?;
        Some(Self {
            image: types.image.type_,
            content: types.content.type_,
        })
    }

    fn has(&self, label: &Context) -> bool {
        [&self.image, &self.content].contains(&&label.type_)
    }
}

/// Tells whether a label is one that the launch of an entry gave, as far as that has to be proven.
/// `categories` are those of the entry's guest; `files` is None for a word that needs no proof.
pub fn is_given(
    word: Word,
    files: Option<&GuestFiles>,
    categories: &Categories,
    record: &Record,
    (now, labels): (&Context, RecordLabels<'_>),
) -> bool {
    let RecordLabels { given, original } = labels;
    let is_guests = files.is_some_and(|files| files.has(given));
    // Private content that libvirt has given to a guest of its own, too.
    let shared = record.class == Class::Content && *now == given.bare();
    // restorecon on Debian resets the type and keeps the categories: still ours.
    let kept = now.categories() == *categories && !categories.is_empty();
    let by_launch = now == given || shared || kept;
    now != original
        && match word {
            Word::Own => by_launch,
            Word::Trusted => is_guests && by_launch,
            Word::Of(_) => {
                let is_everybodys = matches!(record.class, Class::Content | Class::Shared);
                let has_level = match given.categories().is_empty() {
                    true => is_everybodys,
                    false => given.categories() == *categories,
                };
                is_guests && now == given && has_level
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::pinned::Identity;

    fn proven(word: Word, class: Class, now: &str, given: &str) -> bool {
        let original: Context = "u:object_r:user_home_t:s0".parse().unwrap();
        let (now, given): (Context, Context) = (now.parse().unwrap(), given.parse().unwrap());
        let record = Record {
            path: "/x".into(),
            identity: Identity {
                dev: 1,
                ino: 1,
                born: None,
            },
            file_system: None,
            tree: false,
            set_id: None,
            class,
            original: original.to_string(),
            label: given.to_string(),
        };
        let files = GuestFiles {
            image: "svirt_image_t".to_owned(),
            content: "virt_content_t".to_owned(),
        };
        let guest: Context = "u:r:svirt_t:s0:c1,c2".parse().unwrap();
        let labels = RecordLabels {
            given: &given,
            original: &original,
        };
        is_given(
            word,
            Some(&files),
            &guest.categories(),
            &record,
            (&now, labels),
        )
    }

    #[test]
    fn another_users_entry_changes_only_what_carries_the_label_it_says() {
        let disk = "u:object_r:svirt_image_t:s0:c1,c2";
        let content = "u:object_r:virt_content_t:s0";
        let others = "u:object_r:svirt_image_t:s0:c3,c4";
        let home = "u:object_r:user_home_t:s0:c1,c2";
        let of = Word::Of(1000);
        for (word, class, now, given, expected) in [
            (of, Class::Exclusive, disk, disk, true),
            (of, Class::Content, content, content, true),
            // Another guest's level, in the file's label or in both.
            (of, Class::Exclusive, others, disk, false),
            (of, Class::Exclusive, others, others, false),
            // No type that guests have files of.
            (of, Class::Exclusive, home, home, false),
            (of, Class::Exclusive, home, disk, false),
            (Word::Trusted, Class::Exclusive, home, home, false),
            // A label without categories is of what many guests use.
            (of, Class::Exclusive, content, content, false),
            // Not what the entry says, but of its level: own entries and libvirt's are believed.
            (Word::Own, Class::Exclusive, home, disk, true),
            (Word::Trusted, Class::Exclusive, home, disk, true),
            (Word::Own, Class::Exclusive, others, disk, false),
        ] {
            let is = proven(word, class, now, given);
            assert_eq!(is, expected, "{word:?} {class:?} {now} {given}");
        }
    }
}
