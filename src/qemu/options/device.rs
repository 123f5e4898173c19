//! `-device` and `-global`: properties that name host resources.
//!
//! Pure. The tables are from a scan of every string property of every device class of QEMU 10.0.

use crate::model::resource::{HostDevice, Target, UsbMatch, Vfio};
use crate::qemu::options::chardev;
use crate::qemu::options::hostdev;
use crate::qemu::parsed_option::ParsedOption;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes::{self, matches};
use crate::qemu::syntax::opts::Opts;
use crate::qemu::syntax::tree::{Scalar, Tree};
use crate::qemu::usage::Usage;

/// A row of a table: device (`*` at the end for all that start so), property, usage.
type Row = (&'static str, &'static str, Usage);

/// Properties that hold paths.
const PATHS: &[Row] = &[
    ("usb-*", "pcap", Usage::create("USB capture")),
    ("u2f-*", "pcap", Usage::create("USB capture")),
    ("canokey", "pcap", Usage::create("USB capture")),
    ("usb-mtp", "rootdir", Usage::tree("directory shared by MTP")),
    ("usb-host", "hostdevice", Usage::write("USB device").fdset()),
    (
        "u2f-passthru",
        "hidraw",
        Usage::write("security key").fdset(),
    ),
    (
        "u2f-emulated",
        "dir",
        Usage::tree("keys of an emulated U2F token"),
    ),
    ("u2f-emulated", "cert", Usage::secret("U2F certificate")),
    ("u2f-emulated", "privkey", Usage::secret("U2F key")),
    ("u2f-emulated", "entropy", Usage::secret("U2F entropy")),
    ("u2f-emulated", "counter", Usage::write("U2F counter")),
    (
        "canokey",
        "file",
        Usage::write("state of a security key").optional(),
    ),
    (
        "vhost-vdpa-device*",
        "vhostdev",
        Usage::write("vDPA device").fdset(),
    ),
    ("virtio-input-host*", "evdev", Usage::write("input device")),
    (
        "virtio-gpu-rutabaga*",
        "wayland-socket-path",
        Usage::connect("Wayland"),
    ),
    (
        "virtio-vga-rutabaga*",
        "wayland-socket-path",
        Usage::connect("Wayland"),
    ),
    ("loader", "file", Usage::content("file loaded into memory")),
    (
        "guest-loader",
        "kernel",
        Usage::content("kernel of an inner guest"),
    ),
    (
        "guest-loader",
        "initrd",
        Usage::content("initial ramdisk of an inner guest"),
    ),
    // The machine creates it for -kernel and -initrd; -global can set its properties.
    ("s390-ipl", "kernel", Usage::content("kernel")),
    (
        "s390-ipl",
        "initrd",
        Usage::content("initial ramdisk").mapped(),
    ),
    (
        "ipmi-bmc-sim",
        "sdrfile",
        Usage::content("IPMI sensor data"),
    ),
    (
        "ipmi-bmc-sim",
        "frudatafile",
        Usage::content("IPMI inventory data"),
    ),
    ("cxl-*", "cdat", Usage::content("CXL attributes")),
    (
        "uefi-vars*",
        "jsonfile",
        Usage::write("UEFI variables").optional().fdset(),
    ),
    // Since 11.1.
    (
        "uefi-vars*",
        "pcapfile",
        Usage::create("capture of UEFI variable requests"),
    ),
    ("spapr-tpm-proxy", "host-path", Usage::write("TPM")),
    ("ds1225y", "filename", Usage::write("NVRAM").optional()),
];

/// Properties that hold names of files in the data directories.
const DATA_FILES: &[Row] = &[
    ("*", "romfile", Usage::content("option ROM")),
    ("raven*", "bios-name", Usage::content("firmware")),
    ("s390-ipl", "firmware", Usage::content("firmware")),
];

/// Devices that open a node of the whole host unless a property holds a descriptor for it: device,
/// property, node, usage.
const NODES: &[(&str, &str, &str, Usage)] = &[
    (
        "vhost-vsock*",
        "vhostfd",
        "/dev/vhost-vsock",
        Usage::host("vsock"),
    ),
    (
        "vhost-scsi*",
        "vhostfd",
        "/dev/vhost-scsi",
        Usage::host("SCSI target"),
    ),
];

/// Other properties that hold the number of a descriptor: device, property.
const FDS: &[(&str, &str)] = &[
    ("vfio-*", "fd"),
    ("vhost-vdpa-device*", "vhostfd"),
    ("x-pci-proxy-dev", "fd"),
];

/// Requests everything that this family names.
pub fn add_requests(options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options {
        match option.name {
            "device" => add_device(option, requests),
            "global" => add_global(option, requests),
            _ => {}
        }
    }
}

/// Properties that name resources and are read in code: device, property.
const KEYS_READ_IN_CODE: &[(&str, &str)] = &[
    ("ccid-card-emulated", "db"),
    ("vfio-*", "host"),
    ("vfio-*", "sysfsdev"),
];

/// Returns whether a property of a device, or of the class of a `-global`, names a host resource.
pub fn names_resource(name: &[u8], property: &str) -> bool {
    let rows = PATHS.iter().chain(DATA_FILES).map(|row| (row.0, row.1));
    let nodes = NODES.iter().map(|row| (row.0, row.1));
    let others = FDS.iter().chain(KEYS_READ_IN_CODE).copied();
    rows.chain(nodes)
        .chain(others)
        .any(|(pattern, key)| key == property && matches(pattern, name))
}

fn add_device(option: &ParsedOption, requests: &mut Requests<'_>) {
    let (site, tree) = (&option.site, &option.tree);
    let Some(name) = tree.text("driver") else {
        return;
    };
    for (_, key, how) in PATHS.iter().filter(|row| matches(row.0, name)) {
        requests.add_key(site, tree, key, *how);
    }
    for (_, key, how) in DATA_FILES.iter().filter(|row| matches(row.0, name)) {
        if let Some(leaf) = tree.leaf(key) {
            requests.add_data_file(site.origin(key, leaf.set_by), leaf.text, *how);
        }
    }
    for (_, key, node, how) in NODES.iter().filter(|row| matches(row.0, name)) {
        if !requests.add_fds(site, tree, key, "vhost descriptor") {
            requests.add_path(site.origin("driver", None), node.as_bytes(), *how);
        }
    }
    let mut inherited = false;
    for (_, key) in FDS.iter().filter(|row| matches(row.0, name)) {
        inherited |= requests.add_fds(site, tree, key, "descriptor of a device");
    }
    if name.starts_with(b"vfio-") && !inherited {
        add_vfio_device(site, name, tree, requests);
    }
    match name {
        b"usb-host" => add_usb_host(site, tree, requests),
        // Another process emulates the device (hw/vfio-user/pci.c, since 10.1).
        b"vfio-user-pci" => chardev::add_socket_address(site, "socket", tree, false, requests),
        b"u2f-passthru" if tree.text("hidraw").is_none() => {
            requests.warn(site, "takes the first security key it finds; add hidraw=");
        }
        b"ccid-card-emulated" if tree.text("backend") == Some(b"certificates") => {
            add_nss_database(site, tree, requests);
        }
        _ if draws_with_blobs(name, tree) => {
            let how = Usage::host("shared graphics buffers");
            requests.add_path(site.origin("blob", None), b"/dev/udmabuf", how);
        }
        _ if matches("xen-*", name) => {
            requests.warn(
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

/// Requests the NSS database of an emulated smartcard (hw/usb/ccid-card-emulated.c).
fn add_nss_database(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    let how = Usage::tree("NSS database");
    match tree.leaf("db") {
        Some(leaf) => {
            let path = leaf.text.strip_prefix(b"sql:").unwrap_or(leaf.text);
            requests.add_path(site.origin("db", leaf.set_by), path, how);
        }
        None => requests.add_path(site.origin("driver", None), b"/etc/pki/nssdb", how),
    }
}

/// Requests the node of a VFIO device (hw/vfio): that of its group, or its own with `iommufd=`.
/// `sysfsdev=` counts before `host=`.
fn add_vfio_device(site: &Site, name: &[u8], tree: &Tree, requests: &mut Requests<'_>) {
    let how = match tree.leaf("iommufd") {
        Some(_) => Vfio::Cdev,
        None => Vfio::Group,
    };
    let (leaf, key, device) = if let Some(leaf) = tree.leaf("sysfsdev") {
        (leaf, "sysfsdev", hostdev::sysfs(leaf.text, how))
    } else if let Some(leaf) = tree.leaf("host") {
        (leaf, "host", hostdev::vfio_host(name, leaf.text, how))
    } else {
        return;
    };
    let origin = site.origin(key, leaf.set_by);
    match device {
        Ok(device) => hostdev::add_vfio(requests, &origin, device, "passed-through device"),
        Err(error) => requests.error_at(&origin, error.to_string()),
    }
}

/// Requests the node of `usb-host`, named by bus and address, or by conditions that QEMU checks for
/// as long as the guest runs (`usb_host_realize`, hw/usb/host-libusb.c).
fn add_usb_host(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    if tree.text("hostdevice").is_some_and(|path| !path.is_empty()) {
        return;
    }
    let (wanted, key) = match hostdev::usb_match(tree) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => {
            requests.warn(
                site,
                "takes the first USB device it finds, which is not labelled; add vendorid= and \
                 productid=, or hostbus= and hostport=",
            );
            return;
        }
        Err(error) => {
            requests.error(site, error.to_string());
            return;
        }
    };
    let set_by = tree.leaf(key).and_then(|leaf| leaf.set_by);
    let origin = site.origin(key, set_by);
    let how = Usage::write("USB device");
    if let UsbMatch {
        bus: Some(bus),
        address: Some(address),
        port: None,
        vendor: None,
        product: None,
    } = wanted
    {
        let path = format!("/dev/bus/usb/{bus:03}/{address:03}");
        requests.add_path(origin, path.as_bytes(), how);
    } else {
        // QEMU starts without the device and waits for it.
        let target = Target::Device(HostDevice::Usb(wanted));
        requests.add(origin, target, how.optional(), None);
    }
}

/// A `-global`: the default of a property for a class of devices.
pub struct Global {
    /// The class, which may be a parent of the devices' class.
    pub driver: Vec<u8>,
    /// The property.
    pub property: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Global {
    /// Parses `DRIVER.PROPERTY=VALUE`, which QEMU tries first (`qemu_global_option`), or
    /// `driver=,property=,value=`.
    pub fn parse(option: &ParsedOption) -> Option<Self> {
        let global = |driver: &[u8], property: &[u8], value: &[u8]| Self {
            driver: driver.to_vec(),
            property: property.to_vec(),
            value: value.to_vec(),
        };
        if let Some((name, value)) = bytes::split_once(&option.value, b'=')
            && let Some((driver, property)) = bytes::split_once(name, b'.')
        {
            return Some(global(driver, property, value));
        }
        let parsed = Opts::parse(&option.value, None);
        // A section of a config file is parsed already.
        let opts = if option.value.is_empty() {
            &option.opts
        } else {
            &parsed
        };
        Some(global(
            opts.get("driver")?,
            opts.get("property")?,
            opts.get("value")?,
        ))
    }

    /// Returns the row of the property in a table: that of this class, else that of any class,
    /// which may be a child of this one.
    fn best_row(&self, rows: &'static [Row]) -> Option<&'static Row> {
        let fits = |row: &&Row| row.1.as_bytes() == self.property;
        rows.iter()
            .filter(fits)
            .find(|row| matches(row.0, &self.driver))
            .or_else(|| rows.iter().find(fits))
    }

    /// Returns what the value names; None if it is no host resource.
    fn resource(&self) -> Option<GlobalResource> {
        if let Some((_, _, how)) = self.best_row(DATA_FILES) {
            return Some(GlobalResource::DataFile(how.optional()));
        }
        if self.driver.starts_with(b"vfio-") && matches!(&*self.property, b"host" | b"sysfsdev") {
            return Some(GlobalResource::Vfio);
        }
        let is_path = |row: &&Row| matches(row.0, &self.driver) || is_path_property(&self.property);
        if let Some((_, _, how)) = self.best_row(PATHS).filter(is_path) {
            return Some(GlobalResource::Path(how.optional()));
        }
        let nodes = NODES.iter().map(|row| (row.0, row.1));
        nodes
            .chain(FDS.iter().copied())
            .any(|(pattern, key)| key.as_bytes() == self.property && matches(pattern, &self.driver))
            .then_some(GlobalResource::Descriptors)
    }

    /// Returns whether the value names a host resource.
    pub fn names_resource(&self) -> bool {
        self.resource().is_some()
    }
}

/// What the value of a `-global` names.
enum GlobalResource {
    /// A file in the data directories.
    DataFile(Usage),
    /// A VFIO device.
    Vfio,
    /// A path.
    Path(Usage),
    /// Inherited descriptors, by their numbers.
    Descriptors,
}

/// Requests what a `-global` names.
fn add_global(option: &ParsedOption, requests: &mut Requests<'_>) {
    let Some(global) = Global::parse(option) else {
        requests.error(&option.site, "must be DRIVER.PROPERTY=VALUE");
        return;
    };
    let Global {
        driver,
        property,
        value,
    } = &global;
    let origin = option.site.origin(&bytes::show(property), None);
    match global.resource() {
        Some(GlobalResource::DataFile(how)) => requests.add_data_file(origin, value, how),
        Some(GlobalResource::Path(how)) => requests.add_path(origin, value, how),
        Some(GlobalResource::Vfio) => {
            let mut tree = Tree::default();
            // One fragment is never too deep.
            let _ = tree.insert(property, Scalar::Text(value.clone()), None);
            add_vfio_device(&option.site, driver, &tree, requests);
        }
        Some(GlobalResource::Descriptors) => {
            for part in value.split(|b| *b == b':') {
                requests.add_fd(origin.clone(), part, "descriptor of a device");
            }
        }
        None => {}
    }
}

/// Returns whether all device classes that have a property of that name use it for a path.
fn is_path_property(property: &[u8]) -> bool {
    !matches!(
        property,
        b"file" | b"dir" | b"cert" | b"kernel" | b"initrd" | b"counter"
    )
}
