//! `-object`, `-tpmdev` and `-mem-path`.
//!
//! Pure. Facts: qapi/qom.json, backends/*.c, crypto/*.c (QEMU 10).

use std::collections::BTreeSet;

use crate::qemu::options::chardev;
use crate::qemu::parsed_option::{ParsedOption, is_last};
use crate::qemu::requests::Requests;
use crate::qemu::syntax::bytes;
use crate::qemu::usage::Usage;

/// Keys that hold paths: type, key, usage.
const PATHS: &[(&str, &str, Usage)] = &[
    ("secret", "file", Usage::secret("secret")),
    ("authz-list-file", "filename", Usage::content("access list")),
    ("authz-listfile", "filename", Usage::content("access list")),
    (
        "rng-random",
        "filename",
        Usage::read_only("source of randomness").fdset(),
    ),
    ("qtest", "log", Usage::create("test log")),
    ("filter-dump", "file", Usage::create("packet capture")),
    // Since 10.1 (backends/igvm-cfg.c).
    (
        "igvm-cfg",
        "file",
        Usage::content("initial state of the guest"),
    ),
    ("input-linux", "evdev", Usage::write("input device")),
    (
        "pr-manager-helper",
        "path",
        Usage::connect("persistent reservation helper"),
    ),
    (
        "sev-guest",
        "dh-cert-file",
        Usage::secret("key of the SEV guest's owner"),
    ),
    (
        "sev-guest",
        "session-file",
        Usage::secret("session of the SEV guest's owner"),
    ),
];

/// Paths that a type opens by default: type, key that replaces the default, default, usage.
const DEFAULTS: &[(&str, &str, &str, Usage)] = &[
    (
        "sev-guest",
        "sev-device",
        "/dev/sev",
        Usage::host("SEV firmware"),
    ),
    (
        "sev-snp-guest",
        "sev-device",
        "/dev/sev",
        Usage::host("SEV firmware"),
    ),
    (
        "memory-backend-epc",
        "",
        "/dev/sgx_vepc",
        Usage::host("SGX memory"),
    ),
];

/// Keys that hold numbers of inherited descriptors: type, key.
const FDS: &[(&str, &str)] = &[("iommufd", "fd"), ("x-remote-object", "fd")];

/// Keys that name resources and are read in code: type, key.
const KEYS_READ_IN_CODE: &[(&str, &str)] = &[
    ("authz-pam", "service"),
    ("dbus-vmstate", "addr"),
    ("memory-backend-file", "mem-path"),
];

/// Returns whether a key of a type names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    let credentials = CREDENTIALS.iter().map(|row| (row.0, "dir"));
    let rows = PATHS.iter().map(|row| (row.0, row.1));
    let defaults = DEFAULTS.iter().map(|row| (row.0, row.1));
    rows.chain(defaults)
        .chain(credentials)
        .chain(FDS.iter().chain(KEYS_READ_IN_CODE).copied())
        .any(|row| row.0.as_bytes() == kind && row.1 == key)
}

/// Returns whether a key of a type of `-tpmdev` names a host resource.
pub fn tpm_names_resource(kind: &[u8], key: &str) -> bool {
    kind == b"passthrough" && matches!(key, "path" | "cancel-path")
}

/// Files of a credentials directory: type, endpoint (empty for both), name, usage
/// (crypto/tlscredsx509.c, tlscredspsk.c, tlscredsanon.c).
const CREDENTIALS: &[(&str, &str, &str, Usage)] = &[
    (
        "tls-creds-x509",
        "",
        "ca-cert.pem",
        Usage::content("TLS authority"),
    ),
    (
        "tls-creds-x509",
        "",
        "ca-crl.pem",
        Usage::content("TLS revocations").optional(),
    ),
    (
        "tls-creds-x509",
        "server",
        "server-cert.pem",
        Usage::content("TLS certificate"),
    ),
    (
        "tls-creds-x509",
        "server",
        "server-key.pem",
        Usage::secret("TLS key"),
    ),
    (
        "tls-creds-x509",
        "server",
        "dh-params.pem",
        Usage::content("TLS parameters").optional(),
    ),
    (
        "tls-creds-x509",
        "client",
        "client-cert.pem",
        Usage::content("TLS certificate").optional(),
    ),
    (
        "tls-creds-x509",
        "client",
        "client-key.pem",
        Usage::secret("TLS key").optional(),
    ),
    (
        "tls-creds-psk",
        "",
        "keys.psk",
        Usage::secret("TLS pre-shared keys"),
    ),
    (
        "tls-creds-psk",
        "server",
        "dh-params.pem",
        Usage::content("TLS parameters").optional(),
    ),
    (
        "tls-creds-anon",
        "server",
        "dh-params.pem",
        Usage::content("TLS parameters").optional(),
    ),
];

/// The reason of all guest memory.
const GUEST_MEMORY: &str = "guest memory";

/// Marks a usage as guest memory. QEMU maps it, and only the host can tell whether the path is a
/// file or a directory (hugetlbfs).
const fn of_memory(how: Usage) -> Usage {
    how.mapped().file_or_directory()
}

/// The usual directories of guest memory.
const MEMORY_DIRECTORIES: &[&[u8]] = &[
    b"/dev/shm",
    b"/dev/hugepages",
    b"/run/hugepages",
    b"/mnt/huge",
];

/// Requests everything that this family names.
pub fn add_requests(options: &[ParsedOption], requests: &mut Requests<'_>) {
    // Memory of an ivshmem device is shared between guests.
    let shown: BTreeSet<&[u8]> = options
        .iter()
        .filter(|option| option.name == "device" && option.text("driver") == Some(b"ivshmem-plain"))
        .filter_map(|option| option.text("memdev"))
        .collect();
    for option in options {
        match option.name {
            "object" => add_object(option, &shown, requests),
            "tpmdev" => add_tpm(option, requests),
            "mem-path" if is_last(options, option) => {
                // Nearly always a hugetlbfs directory.
                let how = of_memory(Usage::tree(GUEST_MEMORY));
                requests.add_path(option.site.origin("", None), &option.value, how);
            }
            _ => {}
        }
    }
}

fn add_object(option: &ParsedOption, shown: &BTreeSet<&[u8]>, requests: &mut Requests<'_>) {
    let (site, tree) = (&option.site, &option.tree);
    let kind = tree.text("qom-type").unwrap_or_default();
    let is = |name: &str| name.as_bytes() == kind;
    for (_, key, how) in PATHS.iter().filter(|(name, ..)| is(name)) {
        requests.add_key(site, tree, key, *how);
    }
    for (_, key, default, how) in DEFAULTS.iter().filter(|(name, ..)| is(name)) {
        if !requests.add_key(site, tree, key, *how) {
            requests.add_path(site.origin("qom-type", None), default.as_bytes(), *how);
        }
    }
    let mut inherited = false;
    for (_, key) in FDS.iter().filter(|(name, _)| is(name)) {
        inherited |= requests.add_fds(site, tree, key, "descriptor of an object");
    }
    if let Some(dir) = tree.leaf("dir") {
        let endpoint = tree.text("endpoint").unwrap_or(b"client");
        let files = CREDENTIALS
            .iter()
            .filter(|(name, end, ..)| is(name) && (end.is_empty() || end.as_bytes() == endpoint));
        for (_, _, file, how) in files {
            let path = bytes::join(dir.text, file.as_bytes());
            requests.add_path(site.origin("dir", dir.set_by), &path, *how);
        }
    }
    match kind {
        b"memory-backend-file" => add_memory(option, shown, requests),
        b"memory-backend-shm" => {
            let how = of_memory(Usage::create(GUEST_MEMORY));
            requests.add_template(site.origin("qom-type", None), b"/dev/shm/qemu-", how);
        }
        b"iommufd" if !inherited => {
            let how = Usage::host("IOMMU");
            requests.add_path(site.origin("qom-type", None), b"/dev/iommu", how);
        }
        b"authz-pam" => {
            if let Some(leaf) = tree.leaf("service") {
                let path = [b"/etc/pam.d/", leaf.text].concat();
                let how = Usage::read_only("PAM service");
                requests.add_path(site.origin("service", leaf.set_by), &path, how);
            }
        }
        b"dbus-vmstate" => add_dbus(option, requests),
        // The quote generation service, since 10.1.
        b"tdx-guest" => {
            chardev::add_socket_address(site, "quote-generation-socket", tree, false, requests)
        }
        b"x-vfio-user-server" => chardev::add_socket_address(site, "socket", tree, true, requests),
        _ => {}
    }
}

fn add_dbus(option: &ParsedOption, requests: &mut Requests<'_>) {
    if let Some(leaf) = option.tree.leaf("addr") {
        let origin = option.site.origin("addr", leaf.set_by);
        if let Some(path) = bus_path(leaf.text) {
            requests.add_path(origin, path, Usage::connect("D-Bus"));
        }
    }
}

/// Returns the path in a D-Bus address such as `unix:path=/run/bus,guid=…`.
pub fn bus_path(address: &[u8]) -> Option<&[u8]> {
    address
        .strip_prefix(b"unix:")?
        .split(|b| matches!(b, b',' | b';'))
        .find_map(|item| item.strip_prefix(b"path="))
}

fn add_memory(option: &ParsedOption, shown: &BTreeSet<&[u8]>, requests: &mut Requests<'_>) {
    let Some(leaf) = option
        .tree
        .leaf("mem-path")
        .filter(|leaf| !leaf.text.is_empty())
    else {
        return;
    };
    let origin = option.site.origin("mem-path", leaf.set_by);
    let directory = leaf.text.ends_with(b"/") || MEMORY_DIRECTORIES.contains(&leaf.text);
    let shared = option.tree.boolean("share") == Some(true)
        && option.text("id").is_some_and(|id| shown.contains(id));
    let how = if directory {
        Usage::tree(GUEST_MEMORY)
    } else if option.tree.boolean("readonly") == Some(true) {
        Usage::content(GUEST_MEMORY)
    } else {
        let mut how = Usage::write(GUEST_MEMORY);
        if shared {
            how.class = crate::model::resource::Class::Shared;
        }
        // QEMU creates a missing file and does not remove it.
        how.optional()
    };
    requests.add_path(origin, leaf.text, of_memory(how));
}

/// Requests the files of `-tpmdev passthrough` (backends/tpm/tpm_passthrough.c).
fn add_tpm(option: &ParsedOption, requests: &mut Requests<'_>) {
    let (site, tree) = (&option.site, &option.tree);
    if tree.text("type") != Some(b"passthrough") {
        return;
    }
    let how = Usage::write("TPM").fdset();
    let path = tree.text("path").unwrap_or(b"/dev/tpm0");
    if !requests.add_key(site, tree, "path", how) {
        requests.add_path(site.origin("type", None), path, how);
    }
    let how = Usage::write("TPM cancel switch");
    if !requests.add_key(site, tree, "cancel-path", how) {
        let name = bytes::rsplit_once(path, b'/').map_or(path, |(_, name)| name);
        let cancel = [b"/sys/class/tpm/", name, b"/device/cancel"].concat();
        requests.add_path(site.origin("type", None), &cancel, how.optional());
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
