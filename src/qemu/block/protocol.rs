//! What protocol drivers open on the host.
//!
//! Pure. Facts: block/*.c (QEMU 10). The keys are in the table of `drivers`.

use crate::model::resource::Vfio;
use crate::qemu::block::context::{NodeContext, overlay_start};
use crate::qemu::block::drivers::Path;
use crate::qemu::block::graph::{Disk, Node};

use crate::qemu::options::hostdev;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::Tree;
use crate::qemu::usage::Usage;

/// Requests what one path key of a protocol driver names; a disk is left to the graph.
pub fn open(
    path: Path,
    tree: &Tree,
    context: &NodeContext<'_>,
    node: &mut Node<'_>,
    requests: &mut Requests<'_>,
) {
    let key = match path {
        Path::Socket(key) => return add_socket(key, tree, context, node.site, requests),
        Path::Sockets(key) => {
            for (index, _) in tree.child(key).into_iter().flat_map(Tree::children) {
                let key = format!("{key}.{}", bytes::show(index));
                add_socket(&key, tree, context, node.site, requests);
            }
            return;
        }
        Path::Disk(key)
        | Path::Other(key, _)
        | Path::Pci(key)
        | Path::Sysfs(key)
        | Path::Fat(key) => key,
    };
    let Some(leaf) = tree.leaf(key) else {
        if path == Path::Disk(key) {
            requests.error(node.site, format!("a block device needs '{key}'"));
        }
        return;
    };
    let set_by = context.keys.set_by(leaf);
    let site = node.site;
    let origin = |key: &str| site.origin(&context.keys.key(key), set_by);
    match path {
        Path::Disk(_) => {
            node.disk = Some(Disk {
                path: leaf.text.to_vec(),
                key: context.keys.key(key),
                set_by,
            });
        }
        Path::Other(_, how) => requests.add_path(origin(key), leaf.text, how),
        Path::Pci(_) => match hostdev::nvme(leaf.text) {
            Ok(device) => hostdev::add_vfio(requests, &origin(key), device, "NVMe controller"),
            Err(error) => requests.error_at(&origin(key), error.to_string()),
        },
        Path::Sysfs(_) => {
            let device = hostdev::sysfs_device(leaf.text, Vfio::Group);
            hostdev::add_vfio(requests, &origin(key), device, "virtio device");
        }
        Path::Fat(_) => {
            let how = Usage::tree("directory shown as a disk");
            requests.add_path(origin(key), leaf.text, how);
            if tree.boolean("rw") == Some(true) {
                let start = overlay_start(requests);
                let how = Usage::create("changes to a directory shown as a disk");
                requests.add_template(origin("rw"), &start, how);
            }
        }
        Path::Socket(_) | Path::Sockets(_) => {}
    }
}

/// Requests what a `SocketAddress` names to which QEMU connects.
fn add_socket(
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
