//! From what the command line names to what is on the host: paths made absolute and pinned, image headers
//! followed, names for one file merged.
//!
//! A device that is named by address gets its nodes from `host::devices`: a node of its own is exclusive,
//! one of the whole host (/dev/net/tun) has the class of its option. `find_device` decides that.
//!
//! Reads headers and asks for labels; changes nothing and needs no privilege.

use crate::host::Host;
use crate::host::devices::{self, Nodes, Problem};
use crate::host::io_error::explain;
use crate::host::pinned::{Identity, Kind, Pinned};
use crate::model::resource::{Access, Class, HostDevice, Request, Target};
use crate::plan::disk_key;
use crate::plan::image_chain;
use crate::plan::label_tree;
use crate::plan::resource::{
    CollectContext, Collected, DeferredHeader, QueuedRequest, Resource, Role,
};
use crate::text::escape::{escaped, quoted};
use crate::text::message::Message;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Where Debian's and Fedora's builds of QEMU look for firmware and other data
/// (`qemu_find_file`, system/datadir.c), besides `../share/qemu` beside the program.
const DATA_DIRS: [&str; 4] = [
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/share/qemu-firmware",
    "/usr/lib/ipxe/qemu",
];

/// Looks at everything that the requests name, at what its headers name, and at the trees that are
/// handed over.
pub fn collect(
    host: &dyn Host,
    requests: Vec<Request>,
    trees: &[PathBuf],
    context: &CollectContext<'_>,
) -> Collected {
    let mut out = Collected::default();
    let queue = requests
        .into_iter()
        .map(|request| QueuedRequest {
            request,
            depth: 0,
            above: Vec::new(),
        })
        .collect();
    let mut seen = BTreeMap::new();
    walk(host, queue, context, &mut seen, &mut out);
    for tree in trees {
        match label_tree::collect(host, context.cwd, tree, &mut out) {
            Ok(found) => found.into_iter().for_each(|resource| {
                let stated = disk_key::chain_file(context.system, &resource);
                out.stated.extend(stated);
                add(resource, &mut seen, &mut out);
            }),
            Err(error) => out.errors.push(error),
        }
    }
    out
}

/// Looks at what the headers of block devices name, which have the guest's label by now. Leaves out what is
/// `known` already.
pub fn collect_device_chains(
    host: &dyn Host,
    unread: Vec<DeferredHeader>,
    known: &[&Resource],
    context: &CollectContext<'_>,
) -> Collected {
    let mut out = Collected {
        // Whatever names it, the guest has it.
        stated: known
            .iter()
            .filter_map(|resource| disk_key::chain_file(context.system, resource))
            .collect(),
        ..Collected::default()
    };
    let known: BTreeMap<Identity, &Resource> = known
        .iter()
        .filter_map(|resource| Some((resource.pinned.as_ref()?.identity, *resource)))
        .collect();
    let mut queue = VecDeque::new();
    for device in unread {
        if let Some(resource) = known.get(&device.identity)
            && let Some(pinned) = &resource.pinned
        {
            let DeferredHeader { pending, image, .. } = &device;
            queue.extend(image_chain::read(
                host, pending, image, resource, pinned, context, &mut out,
            ));
        }
    }
    walk(host, queue, context, &mut BTreeMap::new(), &mut out);
    for resource in std::mem::take(&mut out.resources) {
        let same = resource
            .pinned
            .as_ref()
            .and_then(|pinned| known.get(&pinned.identity));
        match same {
            Some(same) => out.errors.extend(conflict(same, &resource)),
            None => out.resources.push(resource),
        }
    }
    out
}

/// Looks at everything in the queue, and at what headers found there name.
fn walk(
    host: &dyn Host,
    mut queue: VecDeque<QueuedRequest>,
    context: &CollectContext<'_>,
    seen: &mut BTreeMap<Key, usize>,
    out: &mut Collected,
) {
    while let Some(mut pending) = queue.pop_front() {
        if let Target::Device(device) = &pending.request.target {
            for resource in find_device(host, device, &pending.request, context, out) {
                attribute(&resource, &pending.above, context, out);
                add(resource, seen, out);
            }
            continue;
        }
        let image = pending.request.image.take();
        let resource = look(host, &pending.request, context, out);
        attribute(&resource, &pending.above, context, out);
        let found = match (image, &resource.pinned, resource.fd) {
            (Some(image), Some(pinned), _) => {
                image_chain::follow(host, pending, image, &resource, pinned, context, out)
            }
            (Some(image), None, Some(fd)) => {
                image_chain::follow_descriptor(host, pending, image, &resource, fd, context, out)
            }
            _ => Vec::new(),
        };
        // Directly after the image that names them, in the order of the chain.
        for next in found.into_iter().rev() {
            queue.push_front(next);
        }
        add(resource, seen, out);
    }
}

/// Notes which headers name a resource: those of the images `above` it, of which the last one does itself.
/// Without any, the line names it.
fn attribute(
    resource: &Resource,
    above: &[Identity],
    context: &CollectContext<'_>,
    out: &mut Collected,
) {
    let Some(file) = disk_key::chain_file(context.system, resource) else {
        return;
    };
    let Some((direct, further)) = above.split_last() else {
        out.stated.push(file);
        return;
    };
    // The last that was read: an image may be named twice.
    let mut headers = out.headers.iter_mut().rev();
    if let Some(header) = headers.find(|header| header.identity == *direct) {
        let role = Role::of(&resource.origin);
        header.direct.push((file.clone(), role));
    }
    for identity in further {
        let mut headers = out.headers.iter_mut().rev();
        if let Some(header) = headers.find(|header| header.identity == *identity) {
            header.below.push(file.clone());
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Identity(u64, u64),
    Path(PathBuf),
    Fd(i32),
    Host(Option<HostDevice>),
}

/// Adds a resource, or merges it with one that is the same file.
fn add(resource: Resource, seen: &mut BTreeMap<Key, usize>, out: &mut Collected) {
    let key = match (&resource.pinned, &resource.path, resource.fd) {
        (Some(pinned), _, _) => Key::Identity(pinned.identity.dev, pinned.identity.ino),
        (None, Some(path), _) => Key::Path(path.clone()),
        (None, None, Some(fd)) => Key::Fd(fd),
        (None, None, None) => Key::Host(resource.host.clone()),
    };
    let next = out.resources.len();
    let index = *seen.entry(key).or_insert(next);
    let Some(first) = out.resources.get_mut(index) else {
        out.resources.push(resource);
        return;
    };
    out.errors.extend(conflict(first, &resource));
    first.class = first.class.max(resource.class);
    first.access = first.access.max(resource.access);
    first.required |= resource.required;
    first.handed_over |= resource.handed_over;
    first.host = first.host.take().or(resource.host);
}

/// Says why one file cannot be used in both ways.
fn conflict(first: &Resource, second: &Resource) -> Option<Message> {
    let classes = [first.class, second.class];
    (classes.contains(&Class::Exclusive) && classes.contains(&Class::Content)).then(|| {
        Message::new(
            format!(
                "cannot use {} both as {} ({}) and as {} ({}): what one guest writes, other guests would \
                 read",
                first.name(),
                first.reason,
                first.origin,
                second.reason,
                second.origin
            ),
            "make a copy, or an overlay of its own for each use",
        )
    })
}

/// Returns a resource as the line has it, before the host is looked at.
fn unseen(request: &Request) -> Resource {
    Resource {
        path: None,
        fd: None,
        host: None,
        class: request.class,
        access: request.access,
        origin: request.origin.clone(),
        reason: request.reason,
        mapped: request.mapped,
        required: request.required,
        template: false,
        handed_over: false,
        kind: Kind::Missing,
        pinned: None,
        current: None,
    }
}

/// Finds and pins the nodes of a device that the line names by address.
fn find_device(
    host: &dyn Host,
    device: &HostDevice,
    request: &Request,
    context: &CollectContext<'_>,
    out: &mut Collected,
) -> Vec<Resource> {
    let mut unfound = unseen(request);
    unfound.host = Some(device.clone());
    let name = escaped(device.to_string().as_bytes());
    let origin = &request.origin;
    let nodes = match devices::resolve(context.system, device, context.cwd) {
        Ok(Nodes::HostWide(node)) => {
            let resource = unseen(request);
            return vec![pin(host, node, request, resource, context, out)];
        }
        Ok(Nodes::Own(nodes)) => nodes,
        Err(problem) => {
            let message = format!("cannot find the node of {name} ({origin}): {problem}");
            match problem {
                Problem::Absent(_) => out.obstacles.push(message.into()),
                Problem::Malformed(_) => out.errors.push(message.into()),
            }
            return vec![unfound];
        }
    };
    match nodes.len() {
        0 => {
            out.warnings.push(Message::new(
                format!("no device is plugged in that fits {name} ({origin})"),
                "one that is plugged in later is not labelled, and the guest may not open it",
            ));
            return vec![unfound];
        }
        1 => {}
        count => out.warnings.push(Message::new(
            format!(
                "{count} devices fit {name} ({origin}), QEMU takes the first, and all of them are labelled"
            ),
            "hostbus= with hostport= would name one",
        )),
    }
    nodes
        .into_iter()
        .map(|node| {
            let mut resource = unseen(request);
            resource.host = unfound.host.clone();
            resource.class = Class::Exclusive;
            resource.access = Access::Write;
            pin(host, node, request, resource, context, out)
        })
        .collect()
}

/// Finds and pins one resource.
fn look(
    host: &dyn Host,
    request: &Request,
    context: &CollectContext<'_>,
    out: &mut Collected,
) -> Resource {
    let mut resource = unseen(request);
    let path = match &request.target {
        Target::Path(path) => context.cwd.join(path),
        Target::DataFile(name) => find_data_file(host, name, context),
        Target::Template(prefix) => {
            let mut name = prefix.clone();
            name.push("XXXXXX");
            resource.template = true;
            resource.path = Some(context.cwd.join(name));
            return resource;
        }
        Target::Fd(fd) => {
            resource.fd = Some(*fd);
            return resource;
        }
        Target::Device(device) => {
            resource.host = Some(device.clone());
            return resource;
        }
    };
    pin(host, path, request, resource, context, out)
}

/// Pins the file that a resource is.
fn pin(
    host: &dyn Host,
    path: PathBuf,
    request: &Request,
    mut resource: Resource,
    context: &CollectContext<'_>,
    out: &mut Collected,
) -> Resource {
    match host.pin(&path) {
        Ok(pinned) => {
            resource.kind = pinned.kind;
            // Only the host can tell a file from a directory (hugetlbfs) here.
            if request.may_be_directory {
                (resource.class, resource.access) = match pinned.kind {
                    Kind::Dir => (Class::Keep, Access::Tree),
                    _ if resource.access == Access::Tree => (Class::Exclusive, Access::Write),
                    _ => (resource.class, resource.access),
                };
            }
            warn_of_nameless_pipe(&path, &pinned, request, out);
            match host.label_of(&pinned) {
                Ok(label) => resource.current = label,
                Err(error) => out.obstacles.push(
                    format!(
                        "cannot read the label of {} ({}): {error}",
                        quoted(path.as_os_str()),
                        request.origin
                    )
                    .into(),
                ),
            }
            resource.pinned = Some(pinned);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = matches!(request.access, Access::Create | Access::Bind);
            if !made && request.required {
                out.obstacles.push(absent(&path, request, context.cwd));
            }
        }
        Err(error) => out.obstacles.push(
            format!(
                "cannot look at {} ({}): {}",
                quoted(path.as_os_str()),
                request.origin,
                explain(&error)
            )
            .into(),
        ),
    }
    resource.path = Some(path);
    resource
}

fn absent(path: &Path, request: &Request, cwd: &Path) -> Message {
    Message::new(
        format!(
            "cannot find {} ({}): no such file",
            quoted(path.as_os_str()),
            request.origin
        ),
        format!(
            "QEMU runs in {}, from where relative names count",
            quoted(cwd)
        ),
    )
}

fn warn_of_nameless_pipe(path: &Path, pinned: &Pinned, request: &Request, out: &mut Collected) {
    if pinned.kind == Kind::Fifo && !pinned.real_path().is_absolute() {
        out.warnings.push(Message::new(
            format!(
                "{} ({}) is a pipe without a name, which a guest may not open anew",
                quoted(path.as_os_str()),
                request.origin
            ),
            "QEMU uses an inherited one as it is by -chardev stdio or -add-fd",
        ));
    }
}

fn find_data_file(host: &dyn Host, name: &OsStr, context: &CollectContext<'_>) -> PathBuf {
    let given = context.cwd.join(name);
    let beside = context
        .program
        .parent()
        .and_then(Path::parent)
        .map(|prefix| prefix.join("share/qemu"));
    let dirs = context
        .data_dirs
        .iter()
        .map(|dir| context.cwd.join(dir))
        .chain(beside)
        .chain(DATA_DIRS.iter().map(PathBuf::from));
    std::iter::once(given.clone())
        .chain(dirs.map(|dir| dir.join(name)))
        .find(|path| host.pin(path).is_ok())
        .unwrap_or(given)
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
