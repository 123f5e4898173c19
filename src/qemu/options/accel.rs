//! `-accel`, `-enable-kvm` and `-machine accel=`: which accelerators QEMU tries, and what they
//! open.
//!
//! Pure. Facts: `configure_accelerators` in system/vl.c (QEMU 10).

use std::ffi::OsString;

use crate::qemu::invocation::Accelerator;
use crate::qemu::parsed_option::ParsedOption;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes;
use crate::qemu::usage::Usage;

/// The default socket of the helper for energy counters (`vmsr_open_socket`,
/// target/i386/kvm/vmsr_energy.c).
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

/// Returns whether a key of `-accel` names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    kind == b"kvm" && matches!(key, "device" | "rapl-helper-socket")
}

/// The accelerators of a line.
pub struct Accelerators {
    /// The accelerators, in the order in which QEMU tries them.
    pub tried: Vec<Accelerator>,
    /// `-accel kvm,device=`.
    pub kvm_device: Option<OsString>,
}

/// Returns the accelerators, and requests what QEMU opens for them.
pub fn add_requests(
    program: &[u8],
    options: &[ParsedOption],
    requests: &mut Requests<'_>,
) -> Accelerators {
    let tried = tried(program, options, requests);
    let mut kvm_device = None;
    for option in options.iter().filter(|option| is_kvm(option)) {
        if let Some(device) = option.text("device") {
            kvm_device = Some(bytes::os_string(device));
        }
        add_rapl_helper(option, requests);
    }
    add_kvm(&tried, kvm_device.is_some(), options, requests);
    Accelerators {
        tried: tried.into_iter().map(|(name, _)| name).collect(),
        kvm_device,
    }
}

fn is_kvm(option: &ParsedOption) -> bool {
    option.name == "accel" && option.text("accel") == Some(b"kvm")
}

/// Returns the accelerators that QEMU tries, each with the place that names it.
fn tried(
    program: &[u8],
    options: &[ParsedOption],
    requests: &mut Requests<'_>,
) -> Vec<(Accelerator, Site)> {
    let mut tried: Vec<(Accelerator, Site)> = Vec::new();
    for option in options.iter().filter(|option| option.name == "accel") {
        if let Some(name) = option.text("accel") {
            if name.contains(&b':') {
                // Only -machine accel= takes a list (the caller of do_configure_accelerator).
                requests.error(&option.site, "takes one accelerator; repeat it for more");
            }
            tried.push((Accelerator::from_name(name), option.site.clone()));
        }
    }
    // -machine accel= and -enable-kvm write the same key; the last one counts.
    let from_machine = options
        .iter()
        .filter_map(|option| match option.name {
            "enable-kvm" => Some((&b"kvm"[..], &option.site)),
            "machine" | "M" => option.text("accel").map(|list| (list, &option.site)),
            _ => None,
        })
        .next_back();
    match from_machine {
        Some((_, site)) if !tried.is_empty() => {
            requests.error(site, "-accel and -machine accel= cannot both be given");
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
    tried
}

/// Requests the KVM node, unless QEMU tries TCG first, which never fails.
fn add_kvm(
    tried: &[(Accelerator, Site)],
    names_device: bool,
    options: &[ParsedOption],
    requests: &mut Requests<'_>,
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
    let mut how = Usage::host("KVM");
    // If KVM cannot be opened, QEMU tries a later accelerator.
    how.required = rest.len() == 1 && before.is_empty();
    let device = options
        .iter()
        .filter(|option| option.name == "accel" && names_device)
        .find_map(|option| option.tree.leaf("device").map(|leaf| (option, leaf)));
    match device {
        Some((option, leaf)) => {
            requests.add_path(option.site.origin("device", leaf.set_by), leaf.text, how);
        }
        None => requests.add_path(site.origin("", None), b"/dev/kvm", how),
    }
}

fn add_rapl_helper(option: &ParsedOption, requests: &mut Requests<'_>) {
    if option.tree.boolean("rapl") != Some(true) {
        return;
    }
    let how = Usage::connect("helper for energy counters").optional();
    if !requests.add_key(&option.site, &option.tree, "rapl-helper-socket", how) {
        requests.add_path(option.site.origin("rapl", None), RAPL_SOCKET, how);
    }
}
