//! The ends of the block graph: what protocol drivers open on the host.
//!
//! Pure. Facts: block/*.c (QEMU 10); the keys are in the table of `drivers`.

use crate::model::resource::{Origin, Vfio};
use crate::qemu::block::context::{NodeContext, overlay_start};
use crate::qemu::block::drivers::Path;
use crate::qemu::block::graph::{Disk, Node};

use crate::qemu::options::hostdev;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::{Leaf, Tree};
use crate::qemu::usage::Usage;

/// One host path of a protocol driver.
pub fn open(
    path: Path,
    tree: &Tree,
    context: &NodeContext<'_>,
    node: &mut Node<'_>,
    requests: &mut Requests<'_>,
) {
    let origin = |key: &str, leaf: Leaf<'_>| {
        node.site
            .origin(&context.keys.key(key), context.keys.set_by(leaf))
    };
    match path {
        Path::Disk(key) => {
            let Some(leaf) = tree.leaf(key) else {
                requests.error(node.site, format!("a block device needs '{key}'"));
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
                requests.add_path(origin(key, leaf), leaf.text, how);
            }
        }
        Path::Pci(key) => {
            if let Some(leaf) = tree.leaf(key) {
                let origin = origin(key, leaf);
                match hostdev::nvme(leaf.text) {
                    Ok(device) => hostdev::add_vfio(requests, &origin, device, "NVMe controller"),
                    Err(error) => requests.error_at(&origin, error.to_string()),
                }
            }
        }
        Path::Sysfs(key) => {
            if let Some(leaf) = tree.leaf(key) {
                let device = hostdev::sysfs_device(leaf.text, Vfio::Group);
                hostdev::add_vfio(requests, &origin(key, leaf), device, "virtio device");
            }
        }
        Path::Socket(key) => socket(key, tree, context, node.site, requests),
        Path::Sockets(key) => {
            for (index, _) in tree.child(key).into_iter().flat_map(Tree::children) {
                let key = format!("{key}.{}", bytes::show(index));
                socket(&key, tree, context, node.site, requests);
            }
        }
        Path::Fat(key) => {
            if let Some(leaf) = tree.leaf(key) {
                let writable = tree.boolean("rw") == Some(true);
                add_directory(
                    origin(key, leaf),
                    origin("rw", leaf),
                    writable,
                    leaf.text,
                    requests,
                );
            }
        }
    }
}

/// Requests the directory of vvfat, and the overlay of changes to it.
fn add_directory(
    origin: Origin,
    overlay_origin: Origin,
    writable: bool,
    dir: &[u8],
    requests: &mut Requests<'_>,
) {
    requests.add_path(origin, dir, Usage::tree("directory shown as a disk"));
    if writable {
        let start = overlay_start(requests);
        let how = Usage::create("changes to a directory shown as a disk");
        requests.add_template(overlay_origin, &start, how);
    }
}

/// A `SocketAddress` that QEMU connects to.
fn socket(
    key: &str,
    tree: &Tree,
    context: &NodeContext<'_>,
    site: &Site,
    requests: &mut Requests<'_>,
) {
    let kind = tree.text(&format!("{key}.type"));
    let path = format!("{key}.path");
    let number = format!("{key}.str");
    if let Some(leaf) = tree.leaf(&path).filter(|_| kind != Some(b"inet")) {
        let origin = site.origin(&context.keys.key(&path), context.keys.set_by(leaf));
        requests.add_path(origin, leaf.text, Usage::connect("block device server"));
    }
    if let Some(leaf) = tree.leaf(&number).filter(|_| kind == Some(b"fd")) {
        let origin = site.origin(&context.keys.key(&number), context.keys.set_by(leaf));
        requests.add_fd(origin, leaf.text, "block device server");
    }
}
