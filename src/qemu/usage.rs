//! How QEMU uses what a key names: the rows of all tables.
//!
//! Pure.

use crate::model::resource::{Access, Class};

/// How QEMU uses what a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The label it needs.
    pub class: Class,
    /// What QEMU does.
    pub access: Access,
    /// In words.
    pub reason: &'static str,
    /// Whether QEMU maps the file.
    pub mapped: bool,
    /// Whether only the host can tell a file from a directory there.
    pub may_be_directory: bool,
    /// Whether QEMU stops without it.
    pub required: bool,
    /// Whether `/dev/fdset/N` works there (`qemu_open`), or is a path like any other.
    pub fdset: bool,
}

impl Usage {
    /// A use of that class and access, without which QEMU stops.
    pub const fn new(class: Class, access: Access, reason: &'static str) -> Self {
        Usage {
            class,
            access,
            reason,
            mapped: false,
            may_be_directory: false,
            required: true,
            fdset: false,
        }
    }

    /// Read, the same for every guest.
    pub const fn content(reason: &'static str) -> Self {
        Usage::new(Class::Content, Access::Read, reason)
    }

    /// Read, but nobody else's business: keys and secrets.
    pub const fn secret(reason: &'static str) -> Self {
        Usage::new(Class::Exclusive, Access::Read, reason)
    }

    /// Opened for writing by this guest.
    pub const fn write(reason: &'static str) -> Self {
        Usage::new(Class::Exclusive, Access::Write, reason)
    }

    /// A file that QEMU makes.
    pub const fn create(reason: &'static str) -> Self {
        Usage::new(Class::Exclusive, Access::Create, reason)
    }

    /// A node that all guests of the host use.
    pub const fn host(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Write, reason)
    }

    /// Looked at with the label it has.
    pub const fn read_only(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Read, reason)
    }

    /// A socket that QEMU makes.
    pub const fn bind(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Bind, reason)
    }

    /// A socket that somebody serves.
    pub const fn connect(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Connect, reason)
    }

    /// A program.
    pub const fn exec(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Exec, reason)
    }

    /// A directory and what is below it.
    pub const fn tree(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Tree, reason)
    }

    /// Marks a file that QEMU maps.
    pub const fn mapped(mut self) -> Self {
        self.mapped = true;
        self
    }

    /// Marks a path that may be a file or a directory.
    pub const fn file_or_directory(mut self) -> Self {
        self.may_be_directory = true;
        self
    }

    /// QEMU goes on without it.
    pub const fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// `/dev/fdset/N` is understood there.
    pub const fn fdset(mut self) -> Self {
        self.fdset = true;
        self
    }
}
