//! Files and device nodes of the host itself, which no guest is ever given.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::host::pinned::Kind;
use crate::plan::resource::Resource;

/// System files and directories: what lies below them is the host's and is never relabelled, whatever the
/// policy allows.
const PROTECTED: [&str; 14] = [
    "/bin",
    "/boot",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/root/.ssh",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/selinux",
];

/// Device nodes that everybody uses: labelling one for a guest would take it from the host.
const HOST_WIDE: [&str; 11] = [
    "/dev/console",
    "/dev/full",
    "/dev/net/tun",
    "/dev/null",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/vfio/vfio",
    "/dev/zero",
];

/// Tells whether one path is the other, or below it; both without links and dots.
fn is_within(path: &Path, root: &Path) -> bool {
    let (path, root) = (path.as_os_str().as_bytes(), root.as_os_str().as_bytes());
    path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Returns a system directory that a tree is, lies in or holds.
pub fn protected_within(tree: &Path) -> Option<&'static str> {
    PROTECTED.into_iter().find(|root| {
        let root = Path::new(root);
        is_within(tree, root) || is_within(root, tree)
    })
}

pub(in crate::plan) fn is_host_wide(resource: &Resource) -> bool {
    resource.pinned.as_ref().is_some_and(|pinned| {
        let real = pinned.real_path();
        pinned.kind == Kind::Char && HOST_WIDE.iter().any(|node| real.starts_with(node))
    })
}

/// Returns the system directory that a resource is below.
pub(in crate::plan) fn protected(resource: &Resource) -> Option<&'static str> {
    let real = resource.pinned.as_ref()?.real_path();
    // A pinned file's name from the kernel has no dots and no doubled slashes.
    PROTECTED
        .into_iter()
        .find(|root| is_within(&real, Path::new(root)))
}
