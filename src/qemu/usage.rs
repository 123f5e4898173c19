//! How QEMU uses what a key names; the last column of every table of paths.
//!
//! Pure.

use crate::model::resource::{Access, Class};

/// How QEMU uses a resource that a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Which label it needs.
    pub class: Class,
    /// What QEMU does with it.
    pub access: Access,
    /// In words, for the plan: "kernel".
    pub reason: &'static str,
    /// True if QEMU maps the file.
    pub mapped: bool,
    /// True if the path may be a file or a directory, which only the host can tell.
    pub may_be_directory: bool,
    /// True if QEMU stops without it.
    pub required: bool,
    /// True if `/dev/fdset/N` names an fd set there (`qemu_open`); else it is a path like any
    /// other.
    pub fdset: bool,
}

impl Usage {
    /// Returns a usage of that class and access, of a path that must exist.
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

    /// Returns the usage of a file that QEMU reads and that guests may share.
    pub const fn content(reason: &'static str) -> Self {
        Usage::new(Class::Content, Access::Read, reason)
    }

    /// Returns the usage of a file that QEMU reads and that no other guest may read: keys, secrets.
    pub const fn secret(reason: &'static str) -> Self {
        Usage::new(Class::Exclusive, Access::Read, reason)
    }

    /// Returns the usage of a file that this guest alone writes.
    pub const fn write(reason: &'static str) -> Self {
        Usage::new(Class::Exclusive, Access::Write, reason)
    }

    /// Returns the usage of a file that QEMU creates.
    pub const fn create(reason: &'static str) -> Self {
        Usage::new(Class::Exclusive, Access::Create, reason)
    }

    /// Returns the usage of a device node that all guests of the host share.
    pub const fn host(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Write, reason)
    }

    /// Returns the usage of a file that QEMU reads and that keeps its label.
    pub const fn read_only(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Read, reason)
    }

    /// Returns the usage of a socket that QEMU creates.
    pub const fn bind(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Bind, reason)
    }

    /// Returns the usage of a socket that another process serves.
    pub const fn connect(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Connect, reason)
    }

    /// Returns the usage of a program that QEMU runs.
    pub const fn exec(reason: &'static str) -> Self {
        Usage::new(Class::Keep, Access::Exec, reason)
    }

    /// Returns the usage of a directory and everything below it.
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

    /// Marks a path without which QEMU goes on.
    pub const fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// Marks a path that may be `/dev/fdset/N`.
    pub const fn fdset(mut self) -> Self {
        self.fdset = true;
        self
    }
}
