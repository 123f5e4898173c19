//! The ends of the block graph: what protocol drivers open on the host.
//!
//! Pure. Facts: block/*.c (QEMU 10); the keys are in the table of `drivers`.

use crate::model::resource::{HostDevice, Origin, PciAddress, Target, Vfio};
use crate::qemu::block::drivers::Path;
use crate::qemu::block::graph::{Disk, Node};
use crate::qemu::block::open::Context;
use crate::qemu::requests::{Found, Site, Use};
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::{Leaf, Tree};

/// One host path of a protocol driver.
pub fn open(
    path: Path,
    tree: &Tree,
    context: &Context<'_>,
    node: &mut Node<'_>,
    found: &mut Found<'_>,
) {
    let origin = |key: &str, leaf: Leaf<'_>| {
        node.site
            .origin(&context.keys.key(key), context.keys.set_by(leaf))
    };
    match path {
        Path::Disk(key) => {
            let Some(leaf) = tree.leaf(key) else {
                found.error(node.site, format!("a block device needs '{key}'"));
                return;
            };
            node.disk = Some(Disk {
                path: leaf.text.to_vec(),
                key: context.keys.key(key),
                set_by: context.keys.set_by(leaf),
            });
        }
        Path::Other(key, how) => {
            if let Some(leaf) = tree.leaf(key) {
                found.path(origin(key, leaf), leaf.text, how);
            }
        }
        Path::Pci(key) => {
            if let Some(leaf) = tree.leaf(key) {
                nvme(&origin(key, leaf), leaf.text, found);
            }
        }
        Path::Sysfs(key) => {
            if let Some(leaf) = tree.leaf(key) {
                let device = sysfs(leaf.text, Vfio::Group);
                found.vfio(&origin(key, leaf), device, "virtio device");
            }
        }
        Path::Socket(key) => socket(key, tree, context, node.site, found),
        Path::Sockets(key) => {
            for (index, _) in tree.child(key).into_iter().flat_map(Tree::children) {
                let key = format!("{key}.{}", bytes::show(index));
                socket(&key, tree, context, node.site, found);
            }
        }
        Path::Fat(key) => {
            let Some(leaf) = tree.leaf(key) else { return };
            found.path(
                origin(key, leaf),
                leaf.text,
                Use::tree("directory shown as a disk"),
            );
            if tree.boolean("rw") == Some(true) {
                let start = overlay_start(found);
                let how = Use::create("changes to a directory shown as a disk");
                found.template(origin("rw", leaf), &start, how);
            }
        }
    }
}

/// A `SocketAddress` that QEMU connects to.
fn socket(key: &str, tree: &Tree, context: &Context<'_>, site: &Site, found: &mut Found<'_>) {
    let kind = tree.text(&format!("{key}.type"));
    let path = format!("{key}.path");
    let number = format!("{key}.str");
    if let Some(leaf) = tree.leaf(&path).filter(|_| kind != Some(b"inet")) {
        let origin = site.origin(&context.keys.key(&path), context.keys.set_by(leaf));
        found.path(origin, leaf.text, Use::connect("block device server"));
    }
    if let Some(leaf) = tree.leaf(&number).filter(|_| kind == Some(b"fd")) {
        let origin = site.origin(&context.keys.key(&number), context.keys.set_by(leaf));
        found.fd(origin, leaf.text, "block device server");
    }
}

/// Where `create_tmp_file` (block.c) puts overlays: /tmp is replaced by /var/tmp.
pub fn overlay_start(found: &Found<'_>) -> Vec<u8> {
    let dir = found.tmp_dir();
    let dir = if dir == b"/tmp" {
        b"/var/tmp"
    } else {
        dir.as_slice()
    };
    bytes::join(dir, b"vl.")
}

/// `nvme://ADDRESS/NAMESPACE`, `device=ADDRESS`. QEMU takes the address for a name in sysfs as it
/// stands (`sysfs_find_group_file`, util/vfio-helpers.c), so there is one spelling only.
fn nvme(origin: &Origin, text: &[u8], found: &mut Found<'_>) {
    let address = match PciAddress::parse(text) {
        Some(address) if address.to_string().as_bytes() == text => address,
        Some(address) => {
            let text = bytes::show(text);
            let message = format!("the nvme driver needs '{text}' spelt as in sysfs: {address}");
            found.error_at(origin, message);
            return;
        }
        None => {
            found.error_at(origin, no_pci_address(text));
            return;
        }
    };
    let how = Vfio::Group;
    let device = HostDevice::VfioPci { address, how };
    found.vfio(origin, device, "NVMe controller");
}

/// A PCI function by its address; the error says the form.
pub fn pci(text: &[u8], how: Vfio) -> Result<HostDevice, String> {
    PciAddress::parse(text)
        .map(|address| HostDevice::VfioPci { address, how })
        .ok_or_else(|| no_pci_address(text))
}

fn no_pci_address(text: &[u8]) -> String {
    format!(
        "'{}' is no PCI address: {}",
        bytes::show(text),
        PciAddress::FORM
    )
}

/// A device by its sysfs directory.
pub fn sysfs(dir: &[u8], how: Vfio) -> HostDevice {
    HostDevice::VfioSysfs {
        dir: bytes::os(bytes::c_string(dir)),
        how,
    }
}

impl Found<'_> {
    /// A device driven through VFIO. With groups there is a node for all of them beside.
    pub fn vfio(&mut self, origin: &Origin, device: HostDevice, reason: &'static str) {
        if let HostDevice::VfioPci {
            how: Vfio::Group, ..
        }
        | HostDevice::VfioSysfs {
            how: Vfio::Group, ..
        } = device
        {
            let container = Use::host("VFIO container");
            self.path(origin.clone(), b"/dev/vfio/vfio", container);
        }
        let target = Target::Device(device);
        self.add(origin.clone(), target, Use::write(reason), None);
    }
}
