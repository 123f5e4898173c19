//! Which accelerators QEMU tries, in which order (`configure_accelerators`, system/vl.c,
//! QEMU 10), and what they open.
//!
//! Pure.

use crate::qemu::entry::Entry;
use crate::qemu::invocation::{Accelerator, Invocation};
use crate::qemu::requests::{Found, Site, Use};
use crate::qemu::syntax::bytes;

/// `vmsr_open_socket` in target/i386/kvm/vmsr_energy.c.
const RAPL_SOCKET: &[u8] = b"/var/run/qemu-vmsr-helper.sock";

impl Accelerator {
    fn from_name(name: &[u8]) -> Self {
        match name {
            b"kvm" => Accelerator::Kvm,
            b"tcg" => Accelerator::Tcg,
            _ => Accelerator::Other(bytes::show(name)),
        }
    }
}

/// Whether a key of `-accel` names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    kind == b"kvm" && matches!(key, "device" | "rapl-helper-socket")
}

/// Fills `accelerators` and `kvm_device`, and lists what is opened for them.
pub fn list(program: &[u8], entries: &[Entry], line: &mut Invocation, found: &mut Found<'_>) {
    let mut tried: Vec<(Accelerator, Site)> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.name == "accel") {
        if let Some(name) = entry.text("accel") {
            if name.contains(&b':') {
                // Lists are for -machine accel= only (do_configure_accelerator's caller).
                found.error(&entry.site, "takes one accelerator; repeat it for more");
            }
            tried.push((Accelerator::from_name(name), entry.site.clone()));
        }
    }
    // -machine accel= and -enable-kvm write the same key; the last one counts.
    let from_machine = entries
        .iter()
        .filter_map(|entry| match entry.name {
            "enable-kvm" => Some((&b"kvm"[..], &entry.site)),
            "machine" | "M" => entry.text("accel").map(|list| (list, &entry.site)),
            _ => None,
        })
        .next_back();
    match from_machine {
        Some((_, site)) if !tried.is_empty() => {
            found.error(site, "-accel and -machine accel= cannot both be given");
        }
        Some((list, site)) => {
            for name in list.split(|b| *b == b':').filter(|name| !name.is_empty()) {
                tried.push((Accelerator::from_name(name), site.clone()));
            }
        }
        None if tried.is_empty() => {
            let site = Site::new(1, "-accel");
            let names = if program.ends_with(b"kvm") {
                [Accelerator::Kvm, Accelerator::Tcg]
            } else {
                [Accelerator::Tcg, Accelerator::Kvm]
            };
            tried.extend(names.map(|name| (name, site.clone())));
        }
        None => {}
    }
    let properties = entries
        .iter()
        .filter(|entry| entry.name == "accel" && entry.text("accel") == Some(b"kvm"));
    for entry in properties {
        if let Some(device) = entry.text("device") {
            line.kvm_device = Some(bytes::os(device));
        }
        rapl(entry, found);
    }
    open_kvm(&tried, line, entries, found);
    line.accelerators = tried.into_iter().map(|(name, _)| name).collect();
}

/// KVM is opened unless TCG comes first, which never fails.
fn open_kvm(
    tried: &[(Accelerator, Site)],
    line: &Invocation,
    entries: &[Entry],
    found: &mut Found<'_>,
) {
    let Some(at) = tried.iter().position(|(name, _)| *name == Accelerator::Kvm) else {
        return;
    };
    let Some((before, rest)) = tried.split_at_checked(at) else {
        return;
    };
    if before.iter().any(|(name, _)| *name == Accelerator::Tcg) {
        return;
    }
    let Some((_, site)) = rest.first() else {
        return;
    };
    let mut how = Use::host("KVM");
    // A later accelerator takes over when KVM cannot be opened.
    how.required = rest.len() == 1 && before.is_empty();
    let device = entries
        .iter()
        .filter(|entry| entry.name == "accel" && line.kvm_device.is_some())
        .find_map(|entry| entry.tree.leaf("device").map(|leaf| (entry, leaf)));
    match device {
        Some((entry, leaf)) => {
            found.path(entry.site.origin("device", leaf.set_by), leaf.text, how);
        }
        None => found.path(site.origin("", None), b"/dev/kvm", how),
    }
}

fn rapl(entry: &Entry, found: &mut Found<'_>) {
    if entry.tree.boolean("rapl") != Some(true) {
        return;
    }
    let how = Use::connect("helper for energy counters").optional();
    if !found.prop(&entry.site, &entry.tree, "rapl-helper-socket", how) {
        found.path(entry.site.origin("rapl", None), RAPL_SOCKET, how);
    }
}
