//! `-device` and `-global`: properties that name host resources.
//!
//! Pure. The table was made by scanning every string property of every device class of QEMU
//! 10.0.

use super::found::{Found, Site, Use};
use super::leaf::pci_address;
use super::line::Entry;
use super::opts::Opts;
use super::text;
use super::tree::{Leaf, Tree};
use crate::resource::Target;

/// Device (`*` at the end: all that start so), property, what it is.
const PATHS: &[(&str, &str, Use)] = &[
    ("usb-*", "pcap", Use::create("USB capture")),
    ("u2f-*", "pcap", Use::create("USB capture")),
    ("canokey", "pcap", Use::create("USB capture")),
    ("usb-mtp", "rootdir", Use::tree("directory shared by MTP")),
    ("usb-host", "hostdevice", Use::write("USB device").fdset()),
    ("u2f-passthru", "hidraw", Use::write("security key").fdset()),
    (
        "u2f-emulated",
        "dir",
        Use::tree("keys of an emulated U2F token"),
    ),
    ("u2f-emulated", "cert", Use::secret("U2F certificate")),
    ("u2f-emulated", "privkey", Use::secret("U2F key")),
    ("u2f-emulated", "entropy", Use::secret("U2F entropy")),
    ("u2f-emulated", "counter", Use::write("U2F counter")),
    (
        "canokey",
        "file",
        Use::write("state of a security key").optional(),
    ),
    (
        "vhost-vdpa-device*",
        "vhostdev",
        Use::write("vDPA device").fdset(),
    ),
    ("virtio-input-host*", "evdev", Use::write("input device")),
    (
        "virtio-gpu-rutabaga*",
        "wayland-socket-path",
        Use::connect("Wayland"),
    ),
    (
        "virtio-vga-rutabaga*",
        "wayland-socket-path",
        Use::connect("Wayland"),
    ),
    ("loader", "file", Use::content("file loaded into memory")),
    (
        "guest-loader",
        "kernel",
        Use::content("kernel of an inner guest"),
    ),
    (
        "guest-loader",
        "initrd",
        Use::content("initial ramdisk of an inner guest"),
    ),
    ("ipmi-bmc-sim", "sdrfile", Use::content("IPMI sensor data")),
    (
        "ipmi-bmc-sim",
        "frudatafile",
        Use::content("IPMI inventory data"),
    ),
    ("cxl-*", "cdat", Use::content("CXL attributes")),
    (
        "uefi-vars*",
        "jsonfile",
        Use::write("UEFI variables").optional().fdset(),
    ),
    ("spapr-tpm-proxy", "host-path", Use::write("TPM")),
    ("ds1225y", "filename", Use::write("NVRAM").optional()),
];

/// Names searched for in the data directories.
const DATA_FILES: &[(&str, &str, Use)] = &[
    ("*", "romfile", Use::content("option ROM")),
    ("raven", "bios-name", Use::content("firmware")),
];

/// Devices that open a host-wide node unless a property gives a descriptor for it.
const NODES: &[(&str, &str, &str, Use)] = &[
    (
        "vhost-vsock*",
        "vhostfd",
        "/dev/vhost-vsock",
        Use::host("vsock"),
    ),
    (
        "vhost-scsi*",
        "vhostfd",
        "/dev/vhost-scsi",
        Use::host("SCSI target"),
    ),
];

/// Other properties that hold the number of a descriptor.
const FDS: &[(&str, &str)] = &[("vfio-*", "fd"), ("vhost-vdpa-device*", "vhostfd")];

/// All devices and defaults.
pub fn list(entries: &[Entry], found: &mut Found<'_>) {
    for entry in entries {
        match entry.name {
            "device" => device(entry, found),
            "global" => global(entry, found),
            _ => {}
        }
    }
}

fn matches(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

fn device(entry: &Entry, found: &mut Found<'_>) {
    let (site, tree) = (&entry.site, &entry.tree);
    let Some(name) = tree.text("driver") else {
        return;
    };
    for (_, key, how) in PATHS.iter().filter(|row| matches(row.0, name)) {
        found.prop(site, tree, key, *how);
    }
    for (_, key, how) in DATA_FILES.iter().filter(|row| matches(row.0, name)) {
        if let Some(leaf) = tree.leaf(key) {
            found.data_file(site.origin(key, leaf.set_by), leaf.text, *how);
        }
    }
    for (_, key, node, how) in NODES.iter().filter(|row| matches(row.0, name)) {
        if !found.fds(site, tree, key, "vhost descriptor") {
            found.path(site.origin("driver", None), node.as_bytes(), *how);
        }
    }
    let mut inherited = false;
    for (_, key) in FDS.iter().filter(|row| matches(row.0, name)) {
        inherited |= found.fds(site, tree, key, "descriptor of a device");
    }
    if name.starts_with(b"vfio-") && !inherited {
        vfio(site, name, tree, found);
    }
    match name {
        b"usb-host" => usb_host(site, tree, found),
        b"u2f-passthru" if tree.text("hidraw").is_none() => {
            found.warn(site, "takes the first security key it finds; add hidraw=");
        }
        b"ccid-card-emulated" if tree.text("backend") == Some(b"certificates") => {
            nss_database(site, tree, found);
        }
        _ if draws_with_blobs(name, tree) => {
            let how = Use::host("shared graphics buffers");
            found.path(site.origin("blob", None), b"/dev/udmabuf", how);
        }
        _ if matches("xen-*", name) => {
            found.warn(
                site,
                "opens the Xen nodes below /dev/xen, which are not listed",
            );
        }
        _ => {}
    }
}

fn draws_with_blobs(name: &[u8], tree: &Tree) -> bool {
    (name.starts_with(b"virtio-gpu") || name.starts_with(b"virtio-vga"))
        && tree.boolean("blob") == Some(true)
}

/// hw/usb/ccid-card-emulated.c.
fn nss_database(site: &Site, tree: &Tree, found: &mut Found<'_>) {
    let how = Use::tree("NSS database");
    match tree.leaf("db") {
        Some(leaf) => {
            let path = leaf.text.strip_prefix(b"sql:").unwrap_or(leaf.text);
            found.path(site.origin("db", leaf.set_by), path, how);
        }
        None => found.path(site.origin("driver", None), b"/etc/pki/nssdb", how),
    }
}

/// hw/vfio: by group, or by character device with iommufd.
fn vfio(site: &Site, name: &[u8], tree: &Tree, found: &mut Found<'_>) {
    let how = Use::write("passed-through device");
    let modern = tree.leaf("iommufd").is_some();
    let (leaf, kind, key, id) = if let Some(leaf) = tree.leaf("sysfsdev") {
        (leaf, "sysfs", "sysfsdev", text::show(leaf.text))
    } else if let Some(leaf) = tree.leaf("host") {
        if name == b"vfio-platform" {
            let id = format!("/sys/bus/platform/devices/{}", text::show(leaf.text));
            (leaf, "sysfs", "host", id)
        } else {
            (leaf, "pci", "host", pci_address(leaf.text))
        }
    } else {
        return;
    };
    let origin = site.origin(key, leaf.set_by);
    if !modern {
        found.path(
            origin.clone(),
            b"/dev/vfio/vfio",
            Use::host("VFIO container"),
        );
    }
    let kind = if modern {
        format!("{kind}-iommufd")
    } else {
        kind.to_owned()
    };
    found.add(
        origin,
        Target::HostDevice(format!("{kind}:{id}")),
        how,
        None,
    );
}

/// hw/usb/host-libusb.c: by bus and address, by node, or by a search that may succeed later.
fn usb_host(site: &Site, tree: &Tree, found: &mut Found<'_>) {
    if tree.text("hostdevice").is_some_and(|path| !path.is_empty()) {
        return;
    }
    let number = |key: &str| {
        tree.leaf(key)
            .and_then(|leaf| Some((text::number::<u16>(leaf.text).filter(|n| *n > 0)?, leaf)))
    };
    let (Some((bus, leaf)), Some((address, _))) = (number("hostbus"), number("hostaddr")) else {
        found.warn(
            site,
            "is matched by what is plugged in, possibly later; hostbus= with hostaddr=, \
             or hostdevice=, would name one device",
        );
        return;
    };
    let path = format!("/dev/bus/usb/{bus:03}/{address:03}");
    let origin = site.origin("hostaddr", leaf.set_by);
    found.path(origin, path.as_bytes(), Use::write("USB device"));
}

/// `DRIVER.PROP=VALUE` or `driver=,property=,value=`: a default for a class of devices, which
/// may be a parent class, so the driver is not compared.
fn global(entry: &Entry, found: &mut Found<'_>) {
    let word = text::split_once(&entry.word, b'=').and_then(|(name, value)| {
        let (driver, property) = text::split_once(name, b'.')?;
        Some((driver, property, value))
    });
    let parsed = Opts::parse(&entry.word, None);
    // A section of a config file comes as pairs already.
    let opts = if entry.word.is_empty() {
        &entry.opts
    } else {
        &parsed
    };
    let keys = || {
        let get = |key| opts.get(key);
        Some((get("driver")?, get("property")?, get("value")?))
    };
    let (driver, property, value) = match word {
        // QEMU tries this form first (qemu_global_option).
        Some(word) => word,
        None => match keys() {
            Some(keys) => keys,
            None => {
                found.error(&entry.site, "must be DRIVER.PROPERTY=VALUE");
                return;
            }
        },
    };
    let leaf = Leaf {
        text: value,
        set_by: None,
    };
    let origin = entry.site.origin(&text::show(property), leaf.set_by);
    let fits = |row: &&(&str, &str, Use)| row.1.as_bytes() == property;
    let best = |rows: &'static [(&str, &str, Use)]| {
        rows.iter()
            .filter(fits)
            .find(|row| matches(row.0, driver))
            .or_else(|| rows.iter().find(fits))
    };
    if let Some((_, _, how)) = best(DATA_FILES) {
        found.data_file(origin, value, how.optional());
    } else if driver.starts_with(b"vfio-") && matches!(property, b"host" | b"sysfsdev") {
        let mut tree = Tree::default();
        let value = super::tree::Scalar::Text(value.to_vec());
        // One fragment is never too deep.
        let _ = tree.insert(property, value, None);
        vfio(&entry.site, driver, &tree, found);
    } else if let Some((_, _, how)) = best(PATHS).filter(|_| is_path_property(property)) {
        found.path(origin, value, how.optional());
    }
}

/// Property names that no other device class uses for something else.
fn is_path_property(property: &[u8]) -> bool {
    !matches!(
        property,
        b"file" | b"dir" | b"cert" | b"kernel" | b"initrd" | b"counter"
    )
}
