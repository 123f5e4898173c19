//! `-fsdev` and `-virtfs`: directories handed to the guest over 9p.
//!
//! Pure. Facts: fsdev/qemu-fsdev.c, hw/9pfs/9p-local.c (QEMU 10).

use crate::qemu::entry::Entry;
use crate::qemu::requests::{Found, Use};

/// Drivers, their keys, what they are. `proxy` is gone since 9.2.
const PATHS: &[(&str, &str, Use)] = &[
    ("local", "path", Use::tree("directory shared by 9p")),
    ("proxy", "socket", Use::connect("9p proxy")),
];

/// Whether a key of a driver names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    PATHS
        .iter()
        .any(|row| row.0.as_bytes() == kind && row.1 == key)
        || (kind == b"proxy" && key == "sock_fd")
}

/// All exports, referenced by a device or not: a device may come later.
pub fn list(entries: &[Entry], found: &mut Found<'_>) {
    for entry in entries {
        if !matches!(entry.name, "fsdev" | "virtfs") {
            continue;
        }
        let driver = entry.text("fsdriver").unwrap_or_default();
        for (name, key, how) in PATHS {
            if name.as_bytes() == driver {
                found.prop(&entry.site, &entry.tree, key, *how);
            }
        }
        if driver == b"proxy" {
            found.fds(&entry.site, &entry.tree, "sock_fd", "9p proxy");
        }
    }
}
