//! `-fsdev` and `-virtfs`: directories that the guest gets over 9p.
//!
//! Pure. Facts: fsdev/qemu-fsdev.c, hw/9pfs/9p-local.c (QEMU 10).

use crate::qemu::parsed_option::ParsedOption;
use crate::qemu::requests::Requests;
use crate::qemu::usage::Usage;

/// Keys that hold paths: driver, key, usage. QEMU has no `proxy` since 9.2.
const PATHS: &[(&str, &str, Usage)] = &[
    ("local", "path", Usage::tree("directory shared by 9p")),
    ("proxy", "socket", Usage::connect("9p proxy")),
];

/// Returns whether a key of a driver names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    PATHS
        .iter()
        .any(|row| row.0.as_bytes() == kind && row.1 == key)
        || (kind == b"proxy" && key == "sock_fd")
}

/// Requests everything that this family names, even if no device refers to it: one may be added
/// later.
pub fn add_requests(options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options {
        if !matches!(option.name, "fsdev" | "virtfs") {
            continue;
        }
        let driver = option.text("fsdriver").unwrap_or_default();
        for (name, key, how) in PATHS {
            if name.as_bytes() == driver {
                requests.add_key(&option.site, &option.tree, key, *how);
            }
        }
        if driver == b"proxy" {
            requests.add_fds(&option.site, &option.tree, "sock_fd", "9p proxy");
        }
    }
}
