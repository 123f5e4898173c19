//! `-object`, `-tpmdev` and `-mem-path`.
//!
//! Pure. Facts: qapi/qom.json, backends/*.c, crypto/*.c (QEMU 10).

use std::collections::BTreeSet;

use crate::qemu::entry::{Entry, is_last};
use crate::qemu::options::chardev;
use crate::qemu::requests::{Found, Use};
use crate::qemu::syntax::bytes;

/// Type, key, what it is.
const PATHS: &[(&str, &str, Use)] = &[
    ("secret", "file", Use::secret("secret")),
    ("authz-list-file", "filename", Use::content("access list")),
    ("authz-listfile", "filename", Use::content("access list")),
    (
        "rng-random",
        "filename",
        Use::read_only("source of randomness").fdset(),
    ),
    ("qtest", "log", Use::create("test log")),
    ("filter-dump", "file", Use::create("packet capture")),
    // Since 10.1 (backends/igvm-cfg.c).
    (
        "igvm-cfg",
        "file",
        Use::content("initial state of the guest"),
    ),
    ("input-linux", "evdev", Use::write("input device")),
    (
        "pr-manager-helper",
        "path",
        Use::connect("persistent reservation helper"),
    ),
    (
        "sev-guest",
        "dh-cert-file",
        Use::secret("key of the SEV guest's owner"),
    ),
    (
        "sev-guest",
        "session-file",
        Use::secret("session of the SEV guest's owner"),
    ),
];

/// Type, key that replaces the default, the default, what it is.
const DEFAULTS: &[(&str, &str, &str, Use)] = &[
    (
        "sev-guest",
        "sev-device",
        "/dev/sev",
        Use::host("SEV firmware"),
    ),
    (
        "sev-snp-guest",
        "sev-device",
        "/dev/sev",
        Use::host("SEV firmware"),
    ),
    (
        "memory-backend-epc",
        "",
        "/dev/sgx_vepc",
        Use::host("SGX memory"),
    ),
];

/// Keys that hold numbers of inherited descriptors.
const FDS: &[(&str, &str)] = &[("iommufd", "fd"), ("x-remote-object", "fd")];

/// Keys that functions of this file read without a row of their own.
const READ: &[(&str, &str)] = &[
    ("authz-pam", "service"),
    ("dbus-vmstate", "addr"),
    ("memory-backend-file", "mem-path"),
];

/// Whether a key names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    let credentials = CREDENTIALS.iter().map(|row| (row.0, "dir"));
    let rows = PATHS.iter().map(|row| (row.0, row.1));
    let defaults = DEFAULTS.iter().map(|row| (row.0, row.1));
    rows.chain(defaults)
        .chain(credentials)
        .chain(FDS.iter().chain(READ).copied())
        .any(|row| row.0.as_bytes() == kind && row.1 == key)
}

/// The same for `-tpmdev`.
pub fn tpm_names_resource(kind: &[u8], key: &str) -> bool {
    kind == b"passthrough" && matches!(key, "path" | "cancel-path")
}

/// Files of a credentials directory: type, endpoint (empty for both), name, what it is.
/// crypto/tlscredsx509.c, tlscredspsk.c, tlscredsanon.c.
const CREDENTIALS: &[(&str, &str, &str, Use)] = &[
    (
        "tls-creds-x509",
        "",
        "ca-cert.pem",
        Use::content("TLS authority"),
    ),
    (
        "tls-creds-x509",
        "",
        "ca-crl.pem",
        Use::content("TLS revocations").optional(),
    ),
    (
        "tls-creds-x509",
        "server",
        "server-cert.pem",
        Use::content("TLS certificate"),
    ),
    (
        "tls-creds-x509",
        "server",
        "server-key.pem",
        Use::secret("TLS key"),
    ),
    (
        "tls-creds-x509",
        "server",
        "dh-params.pem",
        Use::content("TLS parameters").optional(),
    ),
    (
        "tls-creds-x509",
        "client",
        "client-cert.pem",
        Use::content("TLS certificate").optional(),
    ),
    (
        "tls-creds-x509",
        "client",
        "client-key.pem",
        Use::secret("TLS key").optional(),
    ),
    (
        "tls-creds-psk",
        "",
        "keys.psk",
        Use::secret("TLS pre-shared keys"),
    ),
    (
        "tls-creds-psk",
        "server",
        "dh-params.pem",
        Use::content("TLS parameters").optional(),
    ),
    (
        "tls-creds-anon",
        "server",
        "dh-params.pem",
        Use::content("TLS parameters").optional(),
    ),
];

/// What `mem-path` is for.
const GUEST_MEMORY: &str = "guest memory";

/// Guest memory is mapped, and a directory of it cannot be told from a file without looking: a
/// caller that can look treats a directory as a tree and a file as this guest's own.
const fn of_memory(how: Use) -> Use {
    how.mapped().file_or_directory()
}

/// Directories that are usual for guest memory.
const MEMORY_DIRECTORIES: &[&[u8]] = &[
    b"/dev/shm",
    b"/dev/hugepages",
    b"/run/hugepages",
    b"/mnt/huge",
];

/// All of this family.
pub fn list(entries: &[Entry], found: &mut Found<'_>) {
    // Memory that an ivshmem device shows is there to be shared between guests.
    let shown: BTreeSet<&[u8]> = entries
        .iter()
        .filter(|entry| entry.name == "device" && entry.text("driver") == Some(b"ivshmem-plain"))
        .filter_map(|entry| entry.text("memdev"))
        .collect();
    for entry in entries {
        match entry.name {
            "object" => object(entry, &shown, found),
            "tpmdev" => tpm(entry, found),
            "mem-path" if is_last(entries, entry) => {
                // Nearly always a hugetlbfs directory.
                let how = of_memory(Use::tree(GUEST_MEMORY));
                found.path(entry.site.origin("", None), &entry.word, how);
            }
            _ => {}
        }
    }
}

fn object(entry: &Entry, shown: &BTreeSet<&[u8]>, found: &mut Found<'_>) {
    let (site, tree) = (&entry.site, &entry.tree);
    let kind = tree.text("qom-type").unwrap_or_default();
    let is = |name: &str| name.as_bytes() == kind;
    for (_, key, how) in PATHS.iter().filter(|(name, ..)| is(name)) {
        found.prop(site, tree, key, *how);
    }
    for (_, key, default, how) in DEFAULTS.iter().filter(|(name, ..)| is(name)) {
        if !found.prop(site, tree, key, *how) {
            found.path(site.origin("qom-type", None), default.as_bytes(), *how);
        }
    }
    let mut inherited = false;
    for (_, key) in FDS.iter().filter(|(name, _)| is(name)) {
        inherited |= found.fds(site, tree, key, "descriptor of an object");
    }
    if let Some(dir) = tree.leaf("dir") {
        let endpoint = tree.text("endpoint").unwrap_or(b"client");
        let files = CREDENTIALS
            .iter()
            .filter(|(name, end, ..)| is(name) && (end.is_empty() || end.as_bytes() == endpoint));
        for (_, _, file, how) in files {
            let path = bytes::join(dir.text, file.as_bytes());
            found.path(site.origin("dir", dir.set_by), &path, *how);
        }
    }
    match kind {
        b"memory-backend-file" => memory(entry, shown, found),
        b"memory-backend-shm" => {
            let how = of_memory(Use::create(GUEST_MEMORY));
            found.template(site.origin("qom-type", None), b"/dev/shm/qemu-", how);
        }
        b"iommufd" if !inherited => {
            let how = Use::host("IOMMU");
            found.path(site.origin("qom-type", None), b"/dev/iommu", how);
        }
        b"authz-pam" => {
            if let Some(leaf) = tree.leaf("service") {
                let path = [b"/etc/pam.d/", leaf.text].concat();
                let how = Use::read_only("PAM service");
                found.path(site.origin("service", leaf.set_by), &path, how);
            }
        }
        b"dbus-vmstate" => dbus(entry, found),
        // The quote generation service, asked when the guest wants a quote (since 10.1).
        b"tdx-guest" => chardev::address(site, "quote-generation-socket", tree, false, found),
        b"x-vfio-user-server" => chardev::address(site, "socket", tree, true, found),
        _ => {}
    }
}

fn dbus(entry: &Entry, found: &mut Found<'_>) {
    if let Some(leaf) = entry.tree.leaf("addr") {
        let origin = entry.site.origin("addr", leaf.set_by);
        if let Some(path) = bus_path(leaf.text) {
            found.path(origin, path, Use::connect("D-Bus"));
        }
    }
}

/// The path inside a D-Bus address such as `unix:path=/run/bus,guid=…`.
pub fn bus_path(address: &[u8]) -> Option<&[u8]> {
    address
        .strip_prefix(b"unix:")?
        .split(|b| matches!(b, b',' | b';'))
        .find_map(|item| item.strip_prefix(b"path="))
}

fn memory(entry: &Entry, shown: &BTreeSet<&[u8]>, found: &mut Found<'_>) {
    let Some(leaf) = entry
        .tree
        .leaf("mem-path")
        .filter(|leaf| !leaf.text.is_empty())
    else {
        return;
    };
    let origin = entry.site.origin("mem-path", leaf.set_by);
    let directory = leaf.text.ends_with(b"/") || MEMORY_DIRECTORIES.contains(&leaf.text);
    let shared = entry.tree.boolean("share") == Some(true)
        && entry.text("id").is_some_and(|id| shown.contains(id));
    let how = if directory {
        Use::tree(GUEST_MEMORY)
    } else if entry.tree.boolean("readonly") == Some(true) {
        Use::content(GUEST_MEMORY)
    } else {
        let mut how = Use::write(GUEST_MEMORY);
        if shared {
            how.class = crate::model::resource::Class::Shared;
        }
        // A missing file is made, and stays.
        how.optional()
    };
    found.path(origin, leaf.text, of_memory(how));
}

/// `-tpmdev passthrough` (backends/tpm/tpm_passthrough.c).
fn tpm(entry: &Entry, found: &mut Found<'_>) {
    let (site, tree) = (&entry.site, &entry.tree);
    if tree.text("type") != Some(b"passthrough") {
        return;
    }
    let how = Use::write("TPM").fdset();
    let path = tree.text("path").unwrap_or(b"/dev/tpm0");
    if !found.prop(site, tree, "path", how) {
        found.path(site.origin("type", None), path, how);
    }
    let how = Use::write("TPM cancel switch");
    if !found.prop(site, tree, "cancel-path", how) {
        let name = bytes::rsplit_once(path, b'/').map_or(path, |(_, name)| name);
        let cancel = [b"/sys/class/tpm/", name, b"/device/cancel"].concat();
        found.path(site.origin("type", None), &cancel, how.optional());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_addresses() {
        assert_eq!(bus_path(b"unix:path=/run/b,guid=1"), Some(&b"/run/b"[..]));
        assert_eq!(bus_path(b"unix:abstract=x"), None);
        assert_eq!(bus_path(b"tcp:host=x"), None);
    }
}
