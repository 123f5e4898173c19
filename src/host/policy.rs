//! Questions to the policy that is loaded, and its answers as clauses of a message.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use crate::host::pinned::{Kind, Pinned};
use crate::model::label::Context;
use crate::selinux::Mode;
use crate::selinux::advice::not_an_image;
use crate::selinux::names::{OWN_DOMAIN, READER_DOMAIN};
use crate::text::escape::quoted;
use crate::text::message::Message;

/// What the policy's two files for virtual machines say, as libvirt reads them.
#[derive(Clone, Debug, Default)]
pub struct VirtualContexts {
    /// Domains of guests: with KVM, and with TCG if there is a second line.
    pub domains: Vec<Context>,
    /// Labels: of a guest's own images, and of what guests only read.
    pub images: Vec<Context>,
}

/// What is asked of the policy.
pub trait Policy {
    /// Tells whether SELinux is on, and enforcing.
    fn mode(&self) -> Mode;

    /// Returns the launcher's own context.
    ///
    /// # Errors
    /// Those of getcon(3).
    fn own_context(&self) -> io::Result<Context>;

    /// Returns which of these permissions the policy does not give.
    ///
    /// # Errors
    /// Those of security_compute_av(3); EINVAL for a context that the policy does not know.
    fn denied<'p>(
        &self,
        source: &Context,
        target: &Context,
        class: &str,
        permissions: &[&'p str],
    ) -> io::Result<Vec<&'p str>>;

    /// Returns the label that `source` gives an object that it makes in a directory.
    ///
    /// # Errors
    /// Those of security_compute_create(3).
    fn label_of_new(
        &self,
        source: &Context,
        directory: &Context,
        kind: Kind,
        name: &OsStr,
    ) -> io::Result<Context>;

    /// Tells whether the policy knows this context.
    fn is_valid(&self, context: &Context) -> bool;

    /// Returns the lines of `virtual_domain_context` and `virtual_image_context`.
    ///
    /// # Errors
    /// Those of reading the files, and lines that are no contexts.
    fn virtual_contexts(&self) -> io::Result<VirtualContexts>;
}

/// Says what `source` may not do to `target`, as a clause. None if it may do all of it.
///
/// # Errors
/// Those of [`Policy::denied`].
pub fn refused(
    policy: &dyn Policy,
    source: &Context,
    target: &Context,
    class: &str,
    wanted: &[&str],
) -> io::Result<Option<String>> {
    let denied = policy.denied(source, target, class, wanted)?;
    Ok((!denied.is_empty()).then(|| {
        format!(
            "{} may not {} {} {class}",
            source.short(),
            denied.join(", "),
            target.short()
        )
    }))
}

/// Says what the domain that opens images may not do to a file with this label. None if it may open it,
/// or if this process has no such domain.
///
/// # Errors
/// Those of [`Policy::denied`] and [`Policy::own_context`].
pub fn reader_refused(
    policy: &dyn Policy,
    current: Option<&Context>,
    pinned: &Pinned,
) -> io::Result<Option<Message>> {
    let Some(current) = current.filter(|_| policy.mode() != Mode::Disabled) else {
        return Ok(None);
    };
    let own = policy.own_context()?;
    if own.type_ != OWN_DOMAIN {
        return Ok(None);
    }
    let reader = own.with_type(READER_DOMAIN);
    let class = pinned.kind.class();
    let clause = refused(policy, &reader, current, class, &["open", "read"])?;
    Ok(clause.map(|clause| Message::new(clause, not_an_image(&pinned.real_path()))))
}

/// Reads one of the policy's files for virtual machines: a context a line.
pub(in crate::host) fn contexts_in(path: &Path) -> io::Result<Vec<Context>> {
    let name =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", quoted(path)));
    std::fs::read_to_string(path)
        .map_err(name)?
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.parse().map_err(|error| name(io::Error::other(error))))
        .collect()
}
