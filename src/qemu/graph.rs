//! The graph of block nodes: what each one opens, and who uses it how.
//!
//! Pure. Nodes are opened as `bdrv_open_inherit` does (block.c, QEMU 10): children before their
//! parents, so that parents have the higher number and one pass downwards settles who writes.

use std::collections::HashMap;

use super::drivers::{self, Child, Driver, Kind, Path, Role};
use super::filename;
use super::found::{Found, Site, Use};
use super::text;
use super::tree::{Leaf, Scalar, Tree};
use crate::resource::{Access, Backing, Class, Format, Image, Target};

/// Deeper graphs are refused; libvirt's limit for backing chains.
const MAX_DEPTH: usize = 200;

/// How a user of a node uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Only reads: a CD drive, an image above it.
    Reader,
    /// Writes, and nobody else may.
    Writer,
    /// Writes, and lets others write too (`share-rw=on`).
    SharedWriter,
}

/// All users of a node so far.
#[derive(Clone, Debug, Default)]
struct Users {
    known: bool,
    writer: bool,
    shared: bool,
    /// It backs another image.
    backs: bool,
    /// The headers that formats above it expect in it.
    images: Vec<Image>,
}

impl Users {
    fn add(&mut self, user: User) {
        self.known = true;
        match user {
            User::Reader => {}
            User::Writer => self.writer = true,
            User::SharedWriter => self.shared = true,
        }
    }

    /// A node that nobody on the line uses may get a writer from the monitor.
    fn strongest(&self) -> User {
        if self.writer || !self.known {
            User::Writer
        } else if self.shared {
            User::SharedWriter
        } else {
            User::Reader
        }
    }
}

/// The file or device that a protocol node reads and writes.
#[derive(Clone, Debug)]
struct Disk {
    path: Vec<u8>,
    key: String,
    set_by: Option<usize>,
}

#[derive(Debug)]
struct Node<'s> {
    site: &'s Site,
    kind: Kind,
    read_only: bool,
    auto_read_only: bool,
    edges: Vec<(usize, Role)>,
    disk: Option<Disk>,
    /// What its header says, for formats.
    image: Option<Image>,
    users: Users,
}

/// How the keys of a node are called in the line.
#[derive(Clone, Debug)]
pub enum Keys {
    /// All stem from one value: a file name.
    Fixed(String, Option<usize>),
    /// They have this before them.
    Below(String),
}

impl Keys {
    fn key(&self, key: &str) -> String {
        match self {
            Keys::Fixed(name, _) => name.clone(),
            Keys::Below(prefix) => format!("{prefix}{key}"),
        }
    }

    fn set_by(&self, leaf: Leaf<'_>) -> Option<usize> {
        match self {
            Keys::Fixed(_, set_by) => *set_by,
            Keys::Below(_) => leaf.set_by,
        }
    }

    fn below(&self, key: &str) -> Keys {
        match self {
            Keys::Fixed(name, set_by) => Keys::Fixed(name.clone(), *set_by),
            Keys::Below(prefix) => Keys::Below(format!("{prefix}{key}.")),
        }
    }
}

/// What a node has from its surroundings.
#[derive(Clone, Debug)]
pub struct Context<'c> {
    /// A legacy file name, in which prefixes count.
    pub filename: Option<(&'c [u8], Option<usize>)>,
    /// The names of its keys.
    pub keys: Keys,
    /// Inherited.
    pub read_only: bool,
    /// Inherited.
    pub auto_read_only: bool,
    /// A name without driver means a file, not a format to probe (`BDRV_O_PROTOCOL`).
    pub protocol: bool,
    /// What to say of a format that is not stated.
    pub unstated: Format,
    /// Levels above.
    pub depth: usize,
}

/// All block nodes of the line.
#[derive(Default)]
pub struct Graph<'s> {
    nodes: Vec<Node<'s>>,
    names: HashMap<Vec<u8>, usize>,
}

impl<'s> Graph<'s> {
    /// Gives a node a name beside its node-name: the id of a drive.
    pub fn name(&mut self, name: &[u8], node: usize) {
        self.names.entry(name.to_vec()).or_insert(node);
    }

    /// The node of that name.
    pub fn lookup(&self, name: &[u8]) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Notes a user of a node.
    pub fn attach(&mut self, node: usize, user: User) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.users.add(user);
        }
    }

    /// Opens a node with all its children; errors go to `found`.
    pub fn open(
        &mut self,
        tree: &Tree,
        context: &Context<'_>,
        site: &'s Site,
        found: &mut Found<'_>,
    ) -> Option<usize> {
        if context.depth > MAX_DEPTH {
            found.error(site, "block devices are nested too deeply");
            return None;
        }
        if let Some((name, set_by)) = context.filename
            && let Some(resolved) = self.resolve(tree, name, context, site, found)?
        {
            // Options given directly beat the ones in the name.
            let keys = match &context.keys {
                Keys::Fixed(name, set_by) => Keys::Fixed(name.clone(), *set_by),
                Keys::Below(prefix) if prefix.is_empty() => Keys::Fixed("file".to_owned(), set_by),
                Keys::Below(prefix) => {
                    Keys::Fixed(prefix.trim_end_matches('.').to_owned(), set_by)
                }
            };
            let context = Context {
                filename: None,
                keys,
                depth: context.depth.saturating_add(1),
                ..context.clone()
            };
            return self.open(&resolved, &context, site, found);
        }
        match tree.text("driver") {
            Some(name) => match drivers::lookup(name) {
                Some(driver) => self.open_driver(driver, tree, context, site, found),
                None => {
                    let message = format!("unknown block driver '{}'", text::show(name));
                    found.error(site, message);
                    None
                }
            },
            None if context.protocol => self.open_by_name(tree, context, site, found),
            None => self.open_probed(tree, context, site, found),
        }
    }

    /// What a legacy name stands for, if it is to be replaced by options here.
    /// None: an error; Some(None): the name goes on to the file child.
    fn resolve(
        &self,
        tree: &Tree,
        name: &[u8],
        context: &Context<'_>,
        site: &Site,
        found: &mut Found<'_>,
    ) -> Option<Option<Tree>> {
        let driver = tree.text("driver").and_then(drivers::lookup);
        let takes_name = match driver {
            _ if name.starts_with(b"json:") => true,
            Some(driver) => driver.kind == Kind::Protocol || has_legacy_name(driver),
            None => context.protocol && tree.text("driver").is_none(),
        };
        if !takes_name {
            return Some(None);
        }
        let options = match driver {
            Some(driver) if !name.starts_with(b"json:") => filename::parse(driver.name, name),
            Some(_) | None => filename::options(name),
        };
        match options {
            Ok(mut options) => {
                options.overlay(tree);
                Some(Some(options))
            }
            Err(error) => {
                found.error(site, error.to_string());
                None
            }
        }
    }

    /// `file.filename=` without driver: a plain path, no prefixes.
    fn open_by_name(
        &mut self,
        tree: &Tree,
        context: &Context<'_>,
        site: &'s Site,
        found: &mut Found<'_>,
    ) -> Option<usize> {
        if tree.text("filename").is_none() {
            found.error(site, "a block device needs a driver or a file name");
            return None;
        }
        let driver = drivers::lookup(b"file")?;
        self.open_driver(driver, tree, context, site, found)
    }

    /// No driver: QEMU probes what the `file` child holds.
    fn open_probed(
        &mut self,
        tree: &Tree,
        context: &Context<'_>,
        site: &'s Site,
        found: &mut Found<'_>,
    ) -> Option<usize> {
        let has_file = context.filename.is_some() || tree.child("file").is_some();
        if !has_file {
            found.error(site, "a block device needs a driver or a file name");
            return None;
        }
        // qcow2 has all the children that a probed format can have.
        let driver = drivers::lookup(b"qcow2")?;
        let node = self.open_driver(driver, tree, context, site, found)?;
        if let Some(node) = self.nodes.get_mut(node) {
            // A header that says anything but raw must not be followed (CVE-2008-2004), so the
            // only guest that will start is one whose image is raw.
            node.kind = Kind::Raw;
            if let Some(image) = &mut node.image {
                image.format = context.unstated.clone();
            }
        }
        Some(node)
    }

    fn open_driver(
        &mut self,
        driver: &'static Driver,
        tree: &Tree,
        context: &Context<'_>,
        site: &'s Site,
        found: &mut Found<'_>,
    ) -> Option<usize> {
        let mut node = Node {
            site,
            kind: driver.kind,
            read_only: tree.boolean("read-only").unwrap_or(context.read_only),
            auto_read_only: tree
                .boolean("auto-read-only")
                .unwrap_or(context.auto_read_only),
            edges: Vec::new(),
            disk: None,
            image: None,
            users: Users::default(),
        };
        let mut image = Image {
            format: Format::Stated(driver.name.to_owned()),
            backing: Backing::NotFromHeader,
            data_file_given: false,
        };
        for child in driver.children {
            self.open_children(*child, tree, context, &mut node, &mut image, found)?;
        }
        for path in driver.paths {
            open_path(*path, tree, context, &mut node, found);
        }
        match driver.kind {
            Kind::Raw | Kind::Format | Kind::ReadOnlyFormat => node.image = Some(image),
            Kind::Filter | Kind::Protocol => {}
        }
        let at = self.nodes.len();
        self.nodes.push(node);
        if let Some(name) = tree.text("node-name") {
            self.name(name, at);
        }
        Some(at)
    }

    /// One child key of a driver: nothing, a reference, an inline node, or a list of those.
    fn open_children(
        &mut self,
        child: Child,
        tree: &Tree,
        context: &Context<'_>,
        node: &mut Node<'s>,
        image: &mut Image,
        found: &mut Found<'_>,
    ) -> Option<()> {
        if let Some(list) = child.key.strip_suffix('.') {
            let members = tree.child(list).into_iter().flat_map(Tree::children);
            for (key, member) in members {
                let name = format!("{list}.{}", text::show(key));
                let edge = self.open_child(child, &name, member, None, context, node, found)?;
                node.edges.push((edge, child.role));
            }
            return Some(());
        }
        let empty = Tree::default();
        let given = tree.child(child.key);
        // The top level's legacy file name, or the one inside a prefix such as blkdebug:.
        let legacy = child.legacy.and_then(|key| tree.leaf(key));
        let name = match legacy {
            Some(leaf) => Some((leaf.text, leaf.set_by)),
            None => context.filename.filter(|_| child.key == "file"),
        };
        if child.role == Role::Cow {
            image.backing = backing(given);
            if image.backing != Backing::NotFromHeader {
                return Some(());
            }
        }
        let member = match (given, name) {
            (None, None) => {
                if matches!(child.role, Role::Image | Role::Filtered) {
                    let message = format!("a block device must be given for '{}'", child.key);
                    found.error(node.site, message);
                    return None;
                }
                return Some(());
            }
            (Some(given), None) if is_nothing(given) => return Some(()),
            (given, _) => given.unwrap_or(&empty),
        };
        let edge = self.open_child(child, child.key, member, name, context, node, found)?;
        node.edges.push((edge, child.role));
        if child.key == "data-file" {
            image.data_file_given = true;
        }
        Some(())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one place where a child meets its parent"
    )]
    fn open_child(
        &mut self,
        child: Child,
        key: &str,
        member: &Tree,
        name: Option<(&[u8], Option<usize>)>,
        context: &Context<'_>,
        node: &Node<'s>,
        found: &mut Found<'_>,
    ) -> Option<usize> {
        // A string is the name of a node, unless it is the file name of -drive.
        if let (None, Some(Scalar::Text(reference))) = (name, &member.value) {
            let target = self.lookup(reference);
            if target.is_none() {
                let message = format!(
                    "there is no block node '{}' before this word",
                    text::show(reference)
                );
                found.error(node.site, message);
            }
            return target;
        }
        let is_format = matches!(node.kind, Kind::Raw | Kind::Format | Kind::ReadOnlyFormat);
        // bdrv_inherited_options: which children are probed when they state no driver.
        let protocol = match child.role {
            Role::Image => true,
            Role::Cow => false,
            Role::Filtered => context.protocol || child.key == "file",
            Role::Data => is_format,
            Role::Target => child.key == "log",
        };
        let (read_only, auto_read_only) = match child.role {
            Role::Cow => (true, false),
            Role::Image | Role::Filtered | Role::Data | Role::Target => {
                (node.read_only, node.auto_read_only)
            }
        };
        let keys = match (&context.keys, name) {
            (Keys::Below(prefix), Some((_, set_by))) if child.legacy.is_some() => {
                Keys::Fixed(prefix.trim_end_matches('.').to_owned(), set_by)
            }
            (keys, _) => keys.below(key),
        };
        let unstated = match child.role {
            Role::Cow => Format::Unstated {
                add: "backing.driver=",
            },
            Role::Image | Role::Filtered if context.filename.is_some() => context.unstated.clone(),
            Role::Image | Role::Filtered | Role::Data | Role::Target => {
                Format::Unstated { add: "driver=" }
            }
        };
        let context = Context {
            filename: name,
            keys,
            read_only,
            auto_read_only,
            protocol,
            unstated,
            depth: context.depth.saturating_add(1),
        };
        self.open(member, &context, node.site, found)
    }

    /// Settles who writes what, from the top down, and lists the files.
    pub fn finish(mut self, found: &mut Found<'_>) {
        for at in (0..self.nodes.len()).rev() {
            let Some(node) = self.nodes.get_mut(at) else {
                continue;
            };
            let users = std::mem::take(&mut node.users);
            let strongest = users.strongest();
            let below = if node.read_only {
                User::Reader
            } else {
                match node.kind {
                    Kind::Raw | Kind::Filter | Kind::Protocol => strongest,
                    Kind::ReadOnlyFormat => User::Reader,
                    // A writable format writes its metadata, whoever uses it.
                    Kind::Format if strongest == User::SharedWriter => User::SharedWriter,
                    Kind::Format => User::Writer,
                }
            };
            let read_only = node.read_only;
            let image = node.image.take();
            if let Some(disk) = node.disk.take() {
                let writes =
                    !read_only && (!node.auto_read_only || strongest != User::Reader);
                list_disk(disk, node.site, writes, &users, found);
            }
            let is_filter = node.kind == Kind::Filter;
            for (child, role) in std::mem::take(&mut node.edges) {
                let Some(child) = self.nodes.get_mut(child) else {
                    continue;
                };
                match role {
                    Role::Image | Role::Filtered | Role::Data => child.users.add(below),
                    Role::Cow => {
                        child.users.add(User::Reader);
                        child.users.backs = true;
                    }
                    Role::Target if read_only => child.users.add(User::Reader),
                    Role::Target => child.users.add(User::Writer),
                }
                let handed = match role {
                    Role::Image => image.as_slice(),
                    Role::Filtered | Role::Data if is_filter => users.images.as_slice(),
                    Role::Filtered | Role::Data | Role::Cow | Role::Target => &[],
                };
                child.users.backs |= is_filter && users.backs;
                for image in handed {
                    if !child.users.images.contains(image) {
                        child.users.images.push(image.clone());
                    }
                }
            }
        }
    }
}

fn list_disk(disk: Disk, site: &Site, writes: bool, users: &Users, found: &mut Found<'_>) {
    let shared = users.shared && !users.writer;
    let (class, access, reason) = match (writes, shared) {
        (true, true) => (Class::Shared, Access::Write, "disk shared between guests"),
        (true, false) => (Class::Exclusive, Access::Write, "writable disk"),
        (false, _) if users.backs => (Class::Content, Access::Read, "backing file"),
        (false, _) => (Class::Content, Access::Read, "read-only disk"),
    };
    let how = Use {
        class,
        access,
        reason,
        required: true,
        fdset: true,
    };
    let origin = site.origin(&disk.key, disk.set_by);
    if users.images.is_empty() {
        found.image(origin, &disk.path, how, Some(raw_image()));
        return;
    }
    for image in &users.images {
        found.image(origin.clone(), &disk.path, how, Some(image.clone()));
    }
}

/// Bytes that nobody interprets.
fn raw_image() -> Image {
    Image {
        format: Format::Stated("raw".to_owned()),
        backing: Backing::NotFromHeader,
        data_file_given: false,
    }
}

/// JSON's null or the empty string: explicitly nothing.
fn is_nothing(tree: &Tree) -> bool {
    !tree.has_children()
        && match &tree.value {
            None | Some(Scalar::Null) => true,
            Some(Scalar::Text(text)) => text.is_empty(),
            Some(Scalar::Bool(_)) => false,
        }
}

fn has_legacy_name(driver: &Driver) -> bool {
    driver.children.iter().any(|child| child.legacy.is_some())
}

/// Who decides on the backing file (`bdrv_open_backing_file`): the header, unless the line
/// names a node or a file, or says there is none.
fn backing(given: Option<&Tree>) -> Backing {
    let Some(given) = given else {
        return Backing::FromHeader {
            format: None,
            writable: false,
        };
    };
    let names_one = given.value.is_some()
        || given.text("filename").is_some()
        || given.text("file.filename").is_some()
        || given.at("file").is_some_and(|file| file.value.is_some())
        || given
            .text("driver")
            .and_then(drivers::lookup)
            .is_some_and(|driver| driver.kind == Kind::Protocol && driver.name != "file")
        || given.text("file.driver").is_some();
    if names_one || !given.has_children() {
        return Backing::NotFromHeader;
    }
    Backing::FromHeader {
        format: given.text("driver").map(text::show),
        writable: given.boolean("read-only") == Some(false),
    }
}

/// One host path of a protocol driver.
fn open_path(path: Path, tree: &Tree, context: &Context<'_>, node: &mut Node<'_>, found: &mut Found<'_>) {
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
            found.path(origin(key, leaf), leaf.text, Use::tree("directory shown as a disk"));
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
    let dir = if dir == b"/tmp" { b"/var/tmp" } else { dir.as_slice() };
    text::join(dir, b"vl.")
}

impl Found<'_> {
    /// A PCI function driven through VFIO, by its address.
    pub fn vfio_pci(
        &mut self,
        origin: &crate::resource::Origin,
        address: &[u8],
        reason: &'static str,
    ) {
        let container = Use::host("VFIO container");
        self.path(origin.clone(), b"/dev/vfio/vfio", container);
        let target = Target::HostDevice(format!("pci:{}", pci_address(address)));
        self.add(origin.clone(), target, Use::write(reason), None);
    }

    /// A device driven through VFIO, by its sysfs directory.
    pub fn vfio_sysfs(
        &mut self,
        origin: &crate::resource::Origin,
        path: &[u8],
        reason: &'static str,
    ) {
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
