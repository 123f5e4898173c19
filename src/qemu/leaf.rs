//! The ends of the block graph: what protocol drivers open on the host.
//!
//! Pure. Facts: block/*.c (QEMU 10); the keys are in the table of `drivers`.

use super::drivers::Path;
use super::found::{Found, Site, Use};
use super::graph::{Disk, Node};
use super::open::Context;
use super::text;
use super::tree::{Leaf, Tree};
use crate::resource::{Origin, Target};

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
                found.vfio_pci(&origin(key, leaf), leaf.text, "NVMe controller");
            }
        }
        Path::Sysfs(key) => {
            if let Some(leaf) = tree.leaf(key) {
                found.vfio_sysfs(&origin(key, leaf), leaf.text, "virtio device");
            }
        }
        Path::Socket(key) => socket(key, tree, context, node.site, found),
        Path::Sockets(key) => {
            for (index, _) in tree.child(key).into_iter().flat_map(Tree::children) {
                let key = format!("{key}.{}", text::show(index));
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
    text::join(dir, b"vl.")
}

impl Found<'_> {
    /// A PCI function driven through VFIO, by its address.
    pub fn vfio_pci(&mut self, origin: &Origin, address: &[u8], reason: &'static str) {
        let container = Use::host("VFIO container");
        self.path(origin.clone(), b"/dev/vfio/vfio", container);
        let target = Target::HostDevice(format!("pci:{}", pci_address(address)));
        self.add(origin.clone(), target, Use::write(reason), None);
    }

    /// A device driven through VFIO, by its sysfs directory.
    pub fn vfio_sysfs(&mut self, origin: &Origin, path: &[u8], reason: &'static str) {
        let container = Use::host("VFIO container");
        self.path(origin.clone(), b"/dev/vfio/vfio", container);
        let target = Target::HostDevice(format!("sysfs:{}", text::show(path)));
        self.add(origin.clone(), target, Use::write(reason), None);
    }
}

/// `DDDD:BB:SS.F` with the domain that may be left out.
pub fn pci_address(address: &[u8]) -> String {
    let colons = address.iter().filter(|b| **b == b':').count();
    let domain = if colons < 2 { "0000:" } else { "" };
    format!("{domain}{}", text::show(address))
}
