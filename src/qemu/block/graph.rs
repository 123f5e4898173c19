//! The graph of block nodes: what each node opens, and how it is used.
//!
//! Pure. Children are opened before their parents, as `bdrv_open_inherit` does (block.c, QEMU 10),
//! so that a parent has the higher index, and one pass from the last node to the first decides
//! which files are written.

use std::collections::BTreeMap;

use crate::model::resource::{Access, Backing, Class, Format, Image};
use crate::qemu::block::drivers::{Kind, Role};
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::usage::Usage;

/// How a user of a node uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Only reads: a CD drive, or an image whose backing file it is.
    Reader,
    /// Writes; no other guest may.
    Writer,
    /// Writes, as other guests may (`share-rw=on`).
    SharedWriter,
}

/// How all users of a node use it.
#[derive(Clone, Debug, Default)]
struct Users {
    known: bool,
    writer: bool,
    shared: bool,
    /// True for the backing file of another image.
    backs: bool,
    /// The headers that formats above the node expect in it.
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

    /// Returns the strongest use. A node without a user on the line may get a writer from the
    /// monitor.
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

/// The file or device whose bytes a protocol node has.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its path.
    pub path: Vec<u8>,
    /// The key that names it.
    pub key: String,
    /// The word of the `-set` that gave it.
    pub set_by: Option<usize>,
}

/// An open node.
#[derive(Debug)]
pub struct Node<'s> {
    /// The option that opened it.
    pub site: &'s Site,
    /// What it does with its children.
    pub kind: Kind,
    /// `read-only=on`, its own or inherited.
    pub read_only: bool,
    /// `auto-read-only=on`, its own or inherited.
    pub auto_read_only: bool,
    /// The indexes of its children.
    pub edges: Vec<(usize, Role)>,
    /// What it reads and writes; None unless it is a protocol node.
    pub disk: Option<Disk>,
    /// True if it does not begin where its file begins (`offset=` of raw).
    pub shifted: bool,
    /// The header that it expects; None unless it is a format node.
    pub image: Option<Image>,
    users: Users,
}

impl<'s> Node<'s> {
    /// Returns a node without children and users.
    pub fn new(site: &'s Site, kind: Kind, read_only: bool, auto_read_only: bool) -> Self {
        Node {
            site,
            kind,
            read_only,
            auto_read_only,
            edges: Vec::new(),
            disk: None,
            shifted: false,
            image: None,
            users: Users::default(),
        }
    }

    /// Returns how the node uses the children that hold its data; `strongest` is its own strongest
    /// user.
    fn user_of_children(&self, strongest: User) -> User {
        if self.read_only {
            return User::Reader;
        }
        match self.kind {
            Kind::Raw | Kind::Filter | Kind::Protocol => strongest,
            Kind::ReadOnlyFormat => User::Reader,
            // A writable format writes its metadata, whoever uses it.
            Kind::Format if strongest == User::SharedWriter => User::SharedWriter,
            Kind::Format => User::Writer,
        }
    }
}

/// All block nodes of the line.
#[derive(Default)]
pub struct Graph<'s> {
    nodes: Vec<Node<'s>>,
    names: BTreeMap<Vec<u8>, usize>,
}

impl<'s> Graph<'s> {
    /// Names a node, unless another has the name: its node-name, or the id of a drive.
    pub fn name(&mut self, name: &[u8], node: usize) {
        self.names.entry(name.to_vec()).or_insert(node);
    }

    /// Adds a node whose children are added already; returns its index.
    pub fn add(&mut self, node: Node<'s>) -> usize {
        let at = self.nodes.len();
        self.nodes.push(node);
        at
    }

    /// Marks a node whose format QEMU probes.
    pub fn leave_to_probing(&mut self, node: usize, unstated: &Format) {
        if let Some(node) = self.nodes.get_mut(node) {
            // A header that says anything but raw must not be followed (CVE-2008-2004), so the
            // only guest that will start is one whose image is raw.
            node.kind = Kind::Raw;
            if let Some(image) = &mut node.image {
                image.format = unstated.clone();
            }
        }
    }

    /// Returns the index of the node of that name.
    pub fn lookup(&self, name: &[u8]) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Records a user of a node.
    pub fn attach(&mut self, node: usize, user: User) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.users.add(user);
        }
    }

    /// Decides, from parents to children, which files are written, and requests all files.
    pub fn finish(mut self, requests: &mut Requests<'_>) {
        for at in (0..self.nodes.len()).rev() {
            let Some(node) = self.nodes.get_mut(at) else {
                continue;
            };
            let users = std::mem::take(&mut node.users);
            // A header that is read through a raw node is read in the node's file.
            let is_read_through = node.kind == Kind::Raw && !users.images.is_empty();
            if is_read_through && node.shifted {
                requests.warn(
                    node.site,
                    "begins inside a file (offset=), where headers are not read: what they name \
                     is not labelled",
                );
            }
            if let Some(disk) = node.disk.take() {
                let strongest = users.strongest();
                let writes = !node.read_only && (!node.auto_read_only || strongest != User::Reader);
                add_disk(disk, node.site, writes, &users, requests);
            }
            let image = node.image.take();
            let passed = Passed {
                user: node.user_of_children(users.strongest()),
                target: if node.read_only {
                    User::Reader
                } else {
                    User::Writer
                },
                is_filter: node.kind == Kind::Filter,
                is_read_through: is_read_through
                    && !node.shifted
                    && image.as_ref().is_some_and(is_raw),
                image,
                users,
            };
            for (child, role) in std::mem::take(&mut node.edges) {
                if let Some(child) = self.nodes.get_mut(child) {
                    passed.pass_to(&mut child.users, role);
                }
            }
        }
    }
}

/// What a node passes on to its children.
struct Passed {
    /// How it uses the children that hold its data.
    user: User,
    /// How it uses a backup target or a log.
    target: User,
    is_filter: bool,
    /// True for a raw node if its users expect their headers in its file.
    is_read_through: bool,
    /// The header that it expects itself.
    image: Option<Image>,
    /// Its own users.
    users: Users,
}

impl Passed {
    fn pass_to(&self, child: &mut Users, role: Role) {
        match role {
            Role::Image | Role::Filtered | Role::Data => child.add(self.user),
            Role::Cow => {
                child.add(User::Reader);
                child.backs = true;
            }
            Role::Target => child.add(self.target),
        }
        child.backs |= matches!(role, Role::Image | Role::Filtered) && self.users.backs;
        let images = match role {
            Role::Image if self.is_read_through => self.users.images.as_slice(),
            Role::Image => self.image.as_slice(),
            Role::Filtered | Role::Data if self.is_filter => self.users.images.as_slice(),
            Role::Filtered | Role::Data | Role::Cow | Role::Target => &[],
        };
        for image in images {
            if !child.images.contains(image) {
                child.images.push(image.clone());
            }
        }
    }
}

fn add_disk(disk: Disk, site: &Site, writes: bool, users: &Users, requests: &mut Requests<'_>) {
    let shared = users.shared && !users.writer;
    let (class, access, reason) = match (writes, shared) {
        (true, true) => (Class::Shared, Access::Write, "disk shared between guests"),
        (true, false) => (Class::Exclusive, Access::Write, "writable disk"),
        (false, _) if users.backs => (Class::Content, Access::Read, "backing file"),
        (false, _) => (Class::Content, Access::Read, "read-only disk"),
    };
    let how = Usage::new(class, access, reason).fdset();
    let origin = site.origin(&disk.key, disk.set_by);
    if users.images.is_empty() {
        requests.add_image(origin, &disk.path, how, Some(raw_image()));
        return;
    }
    for image in &users.images {
        requests.add_image(origin.clone(), &disk.path, how, Some(image.clone()));
    }
}

fn is_raw(image: &Image) -> bool {
    matches!(&image.format, Format::Stated(format) if format == "raw")
}

/// Returns the image of bytes that QEMU does not interpret.
fn raw_image() -> Image {
    Image {
        format: Format::Stated("raw".to_owned()),
        backing: Backing::NotFromHeader,
        data_file_given: false,
    }
}
