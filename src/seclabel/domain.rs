//! Which domain a guest runs in and which types its images get.
//!
//! Both come from the policy's own files, as libvirt reads them, and from
//! questions to the policy; no distribution is known by name.

use std::fmt;
use std::io;

use serde::Serialize;
use thiserror::Error;

use crate::host::policy::{Policy, VirtualContexts};
use crate::model::label::{Context, Level, Range};
use crate::selinux::names::LOAD;
use crate::text::message::Message;

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The kernel's virtualisation.
    Kvm,
    /// QEMU's translator, which writes code and runs it: needs `execmem`.
    Tcg,
    /// Neither (qtest, or no guest at all).
    None,
}

/// Why no domain or image type could be found.
#[derive(Debug, Error)]
pub enum DomainError {
    /// The policy's files are missing or unreadable.
    Files(#[source] io::Error),
    /// A file lacks the line that says this.
    Empty(&'static str),
    /// The first line's domain is not in the policy.
    Unknown(String),
    /// TCG has no domain.
    NoExecmem,
    /// No image type suits the domain.
    NoImageType {
        /// The domain.
        domain: String,
        /// The types tried.
        tried: String,
    },
    /// The policy could not be asked.
    Ask(#[source] io::Error),
}

impl DomainError {
    /// Returns what is wrong, and what to do.
    pub fn message(&self) -> Message {
        match self {
            Self::Files(error) => Message::new(
                format!("cannot read which domain the policy has for guests: {error}"),
                "install a policy with virtual machine support (selinux-policy-default, \
                 selinux-policy-targeted)",
            ),
            Self::Empty(what) => Message::new(
                format!("cannot tell which {what}: the policy's file for it is empty"),
                "install the policy's package anew (selinux-policy-default, selinux-policy-targeted)",
            ),
            Self::Unknown(context) => Message::new(
                format!(
                    "cannot run the guest as '{context}': the policy does not know this context"
                ),
                format!(
                    "load the svirt_launcher module: {LOAD}; and check that the SELinux user may have \
                     this role and categories: semanage user -l"
                ),
            ),
            Self::NoExecmem => Message::new(
                "cannot run the guest with TCG: no guest domain of the policy may run code that it wrote \
                 (execmem)",
                "run with -accel kvm, or setsebool virt_use_execmem on",
            ),
            Self::NoImageType { domain, tried } => Message::new(
                format!(
                    "cannot label images for {domain}: the policy lets it write none of {tried}"
                ),
                "name another domain with --label, or none, and svirt-exec finds one",
            ),
            Self::Ask(error) => Message::new(
                format!("cannot ask the policy: {error}"),
                format!(
                    "/sys/fs/selinux has to be mounted, and the svirt_launcher module be of this version: \
                     {LOAD}"
                ),
            ),
        }
    }
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

/// Contexts of a guest before it has a pair: all without categories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestTypes {
    /// Of the process.
    pub domain: Context,
    /// Of what only this guest uses.
    pub image: Context,
    /// Of what every guest may read.
    pub content: Context,
}

/// The domains of Fedora's and Debian's policy whose guests may run code that they wrote, if
/// `virtual_domain_context` has no second line.
const TCG_DOMAINS: [&str; 2] = ["svirt_tcg_t", "svirt_prot_exec_t"];

/// The domain of guests in every policy that has one. The policy's files cannot be read in that domain
/// itself.
const GUEST_DOMAIN: &str = "svirt_t";

/// Tells whether a context is that of a confined guest: libvirt's driver has put this process there. One
/// category alone confines nothing, since every guest whose pair has it may do the same (CVE-2021-3631), nor
/// does a range: the policy compares the higher level (`h1`, policy/mcs in refpolicy).
pub fn is_confined_guest(policy: &dyn Policy, context: &Context) -> bool {
    let is_single = context
        .range
        .as_ref()
        .is_some_and(|range| range.high.as_ref().is_none_or(|high| *high == range.low));
    is_single && context.categories().len() >= 2 && is_in_guest_domain(policy, context)
}

/// Tells whether a context has the domain of guests, whatever its level.
fn is_in_guest_domain(policy: &dyn Policy, context: &Context) -> bool {
    is_named_for_guests(context) || is_guest(policy, context)
}

/// Tells the same by the names of domains that policies have for guests.
pub fn is_named_for_guests(context: &Context) -> bool {
    context.type_ == GUEST_DOMAIN || TCG_DOMAINS.contains(&context.type_.as_str())
}

/// Tells whether guests run in the domain of a context.
pub fn is_guest(policy: &dyn Policy, context: &Context) -> bool {
    TCG_DOMAINS.contains(&context.type_.as_str())
        || is_among(&policy.virtual_contexts().unwrap_or_default(), context)
}

/// Tells the same by what the policy's files say, which were read already.
pub fn is_among(stated: &VirtualContexts, context: &Context) -> bool {
    TCG_DOMAINS.contains(&context.type_.as_str())
        || stated
            .domains
            .iter()
            .any(|domain| domain.type_ == context.type_)
}

/// Tells whether guests of any domain may read files with this label.
pub fn may_any_read(policy: &dyn Policy, guest: &Context, label: &Context) -> bool {
    let stated = policy.virtual_contexts().unwrap_or_default();
    let kinds = stated.domains.iter().map(|domain| domain.type_.as_str());
    kinds.chain(TCG_DOMAINS).any(|kind| {
        let domain = guest.with_type(kind);
        ask(policy, &domain, label, "file", &["open", "read"]).unwrap_or(false)
    })
}

/// What a writable image needs of its type.
const IMAGE_PERMISSIONS: [&str; 5] = ["getattr", "lock", "open", "read", "write"];

/// Tells whether the policy knows both contexts, and gives all of these permissions.
fn ask(
    policy: &dyn Policy,
    source: &Context,
    target: &Context,
    class: &str,
    permissions: &[&'static str],
) -> Result<bool, DomainError> {
    match policy.denied(source, target, class, permissions) {
        // security_compute_av(3) of a context that the policy does not know.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        answer => answer
            .map(|denied| denied.is_empty())
            .map_err(DomainError::Ask),
    }
}

/// Finds the domain and image types for a guest that `own` starts. If a context is `stated`, the domain is
/// that one, and only the types of what it uses are looked for.
///
/// # Errors
/// That the policy has none that fit, and those of asking it.
pub fn guest_types(
    policy: &dyn Policy,
    own: &Context,
    accelerator: Accelerator,
    stated: Option<&Context>,
) -> Result<GuestTypes, DomainError> {
    let files = policy.virtual_contexts().map_err(DomainError::Files)?;
    let first = files
        .domains
        .first()
        .ok_or(DomainError::Empty("domain guests run in"))?;
    let domain_of = |kind: &str| {
        // User and role are the caller's, as in libvirt: a change of either needs exemptions that few
        // domains have.
        let mut domain = own.with_type(kind);
        domain.range = own
            .range
            .as_ref()
            .map(|_| Range::single(Level::bare(own.sensitivity())));
        domain
    };

    let domain = if let Some(stated) = stated {
        let domain = stated.bare();
        if !policy.is_valid(&domain) {
            return Err(DomainError::Unknown(domain.to_string()));
        }
        domain
    } else if accelerator == Accelerator::Tcg {
        let second = files.domains.get(1).map(|context| context.type_.as_str());
        let [fedora, debian] = TCG_DOMAINS;
        let candidates = second
            .into_iter()
            .chain([fedora, first.type_.as_str(), debian]);
        let mut found = None;
        for kind in candidates {
            let domain = domain_of(kind);
            if ask(policy, &domain, &domain, "process", &["execmem"])? {
                found = Some(domain);
                break;
            }
        }
        match found {
            Some(domain) => domain,
            None if !policy.is_valid(&domain_of(&first.type_)) => {
                return Err(DomainError::Unknown(domain_of(&first.type_).to_string()));
            }
            None => return Err(DomainError::NoExecmem),
        }
    } else {
        let domain = domain_of(&first.type_);
        if !policy.is_valid(&domain) {
            return Err(DomainError::Unknown(domain.to_string()));
        }
        domain
    };

    types_with(policy, &files, &domain)
}

/// Finds the types for a guest that runs already in this context.
///
/// # Errors
/// That the policy has no image type that fits, and those of asking it.
pub fn types_of(policy: &dyn Policy, guest: &Context) -> Result<GuestTypes, DomainError> {
    let files = policy.virtual_contexts().map_err(DomainError::Files)?;
    types_with(policy, &files, &guest.bare())
}

/// Finds the image types that suit a domain.
fn types_with(
    policy: &dyn Policy,
    files: &VirtualContexts,
    domain: &Context,
) -> Result<GuestTypes, DomainError> {
    let stated = files
        .images
        .first()
        .ok_or(DomainError::Empty("label images get"))?;
    // A domain that may not write the stated type has one named after itself
    // (Debian: svirt_prot_exec_t, svirt_prot_exec_image_t).
    let named = format!(
        "{}_image_t",
        domain.type_.strip_suffix("_t").unwrap_or(&domain.type_)
    );
    let mut image = None;
    for kind in [stated.type_.as_str(), named.as_str()] {
        let mut candidate = stated.with_type(kind);
        candidate.user.clone_from(&domain.user);
        candidate.range.clone_from(&domain.range);
        if ask(policy, domain, &candidate, "file", &IMAGE_PERMISSIONS)? {
            image = Some(candidate);
            break;
        }
    }
    let image = image.ok_or_else(|| DomainError::NoImageType {
        domain: domain.type_.clone(),
        tried: format!("{}, {named}", stated.type_),
    })?;
    let content = files
        .images
        .get(1)
        .ok_or(DomainError::Empty("label read-only content gets"))?
        .clone();
    Ok(GuestTypes {
        domain: domain.clone(),
        image,
        content,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::host::pinned::Kind;
    use crate::selinux::Mode;

    /// A policy whose files name no other domain.
    struct Silent;

    impl Policy for Silent {
        fn mode(&self) -> Mode {
            Mode::Enforcing
        }

        fn own_context(&self) -> io::Result<Context> {
            unreachable!()
        }

        fn denied<'p>(
            &self,
            _: &Context,
            _: &Context,
            _: &str,
            _: &[&'p str],
        ) -> io::Result<Vec<&'p str>> {
            unreachable!()
        }

        fn label_of_new(
            &self,
            _: &Context,
            _: &Context,
            _: Kind,
            _: &OsStr,
        ) -> io::Result<Context> {
            unreachable!()
        }

        fn is_valid(&self, _: &Context) -> bool {
            unreachable!()
        }

        fn virtual_contexts(&self) -> io::Result<VirtualContexts> {
            Ok(VirtualContexts::default())
        }
    }

    #[test]
    fn one_category_a_bare_level_or_a_range_is_no_confinement() {
        for (context, confined) in [
            ("u:r:svirt_t:s0:c1,c2", true),
            ("u:r:svirt_tcg_t:s0:c1,c2", true),
            ("u:r:svirt_t:s0:c1,c2,c3", true),
            ("u:r:svirt_t:s0:c1", false),
            ("u:r:svirt_t:s0", false),
            ("u:r:svirt_t", false),
            ("u:r:svirt_t:s0:c1,c2-s0:c0.c1023", false),
            ("u:r:svirt_t:s0-s0:c0.c1023", false),
            ("u:r:unconfined_t:s0:c1,c2", false),
        ] {
            let context: Context = context.parse().unwrap();
            assert_eq!(is_confined_guest(&Silent, &context), confined, "{context}");
        }
    }

    #[test]
    fn every_message_says_what_to_do() {
        let error = || io::Error::from(io::ErrorKind::PermissionDenied);
        for message in [
            DomainError::Files(error()),
            DomainError::Empty("label images get"),
            DomainError::Unknown("u:r:svirt_t:s0".to_owned()),
            DomainError::NoExecmem,
            DomainError::NoImageType {
                domain: "svirt_t".to_owned(),
                tried: "svirt_image_t".to_owned(),
            },
            DomainError::Ask(error()),
        ] {
            let message = message.to_string();
            assert!(message.contains("; "), "{message}");
        }
    }
}
