//! Opens block nodes: adds what options and file names describe to the graph.
//!
//! Pure. Facts: `bdrv_open_inherit`, `bdrv_fill_options`, `bdrv_inherited_options` and
//! `bdrv_open_backing_file` in block.c (QEMU 10).

use crate::model::resource::{Backing, Format, Image};
use crate::qemu::block::context::{KeyNames, NodeContext};
use crate::qemu::block::drivers::{self, Child, Driver, Kind, Role};
use crate::qemu::block::graph::{Graph, Node};
use crate::qemu::block::protocol;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::tree::{Scalar, Tree};
use crate::qemu::syntax::{bytes, filename};
use crate::qemu::tables::unknown;

/// The deepest graph that is accepted; libvirt's limit for backing chains.
const MAX_DEPTH: usize = 200;

impl<'s> Graph<'s> {
    /// Opens a node with all its children and returns its index; None after an error.
    pub fn open(
        &mut self,
        tree: &Tree,
        context: &NodeContext<'_>,
        site: &'s Site,
        requests: &mut Requests<'_>,
    ) -> Option<usize> {
        if context.depth > MAX_DEPTH {
            requests.error(site, "block devices are nested too deeply");
            return None;
        }
        if let Some((name, set_by)) = context.filename
            && let Some(resolved) = self.resolve(tree, name, context, site, requests)?
        {
            // Options that are given directly override those in the name.
            let keys = match &context.keys {
                KeyNames::Fixed(name, set_by) => KeyNames::Fixed(name.clone(), *set_by),
                KeyNames::Below(prefix) if prefix.is_empty() => {
                    KeyNames::Fixed("file".to_owned(), set_by)
                }
                KeyNames::Below(prefix) => {
                    KeyNames::Fixed(prefix.trim_end_matches('.').to_owned(), set_by)
                }
            };
            let context = NodeContext {
                filename: None,
                keys,
                depth: context.depth.saturating_add(1),
                ..context.clone()
            };
            return self.open(&resolved, &context, site, requests);
        }
        match tree.text("driver") {
            Some(name) => match drivers::lookup(name) {
                Some(driver) => self.open_driver(driver, tree, context, site, requests),
                None => {
                    let kind = context.keys.key("driver");
                    unknown::report_type(site, &kind, name, requests);
                    if let Some((file, _)) = context.filename {
                        unknown::report_key(site, &context.keys.key("file"), file, requests);
                    }
                    unknown::report_keys(
                        site,
                        "blockdev",
                        name,
                        tree,
                        &context.keys.key(""),
                        requests,
                    );
                    Some(self.open_unknown(tree, context, site))
                }
            },
            None => self.open_undriven(tree, context, site, requests),
        }
    }

    /// Opens a node whose driver no table has: other nodes can name it, and nothing else is known.
    fn open_unknown(&mut self, tree: &Tree, context: &NodeContext<'_>, site: &'s Site) -> usize {
        let read_only = tree.boolean("read-only").unwrap_or(context.read_only);
        let node = Node::new(site, Kind::Protocol, read_only, context.auto_read_only);
        let at = self.add(node);
        if let Some(name) = tree.text("node-name") {
            self.name(name, at);
        }
        at
    }

    /// Returns the options that a file name stands for; Some(None) if the name belongs to the
    /// `file` child, None after an error.
    fn resolve(
        &self,
        tree: &Tree,
        name: &[u8],
        context: &NodeContext<'_>,
        site: &Site,
        requests: &mut Requests<'_>,
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
            Some(driver) if !name.starts_with(b"json:") => {
                filename::driver_options(driver.name, name)
            }
            Some(_) | None => filename::options_of(name),
        };
        match options {
            Ok(mut options) => {
                options.overlay(tree);
                Some(Some(options))
            }
            Err(error) => {
                requests.error(site, error.to_string());
                None
            }
        }
    }

    /// Opens a node without driver. A protocol is a plain path, in which no prefix counts; of any other
    /// node QEMU probes the format of the `file` child.
    fn open_undriven(
        &mut self,
        tree: &Tree,
        context: &NodeContext<'_>,
        site: &'s Site,
        requests: &mut Requests<'_>,
    ) -> Option<usize> {
        let has_file = if context.protocol {
            tree.text("filename").is_some()
        } else {
            context.filename.is_some() || tree.child("file").is_some()
        };
        if !has_file {
            requests.error(site, "a block device needs a driver or a file name");
            return None;
        }
        // qcow2 has all the children that a probed format can have.
        let driver = drivers::lookup(if context.protocol { b"file" } else { b"qcow2" })?;
        let node = self.open_driver(driver, tree, context, site, requests)?;
        if !context.protocol {
            self.leave_to_probing(node, &context.unstated);
        }
        Some(node)
    }

    fn open_driver(
        &mut self,
        driver: &'static Driver,
        tree: &Tree,
        context: &NodeContext<'_>,
        site: &'s Site,
        requests: &mut Requests<'_>,
    ) -> Option<usize> {
        let read_only = tree.boolean("read-only").unwrap_or(context.read_only);
        let auto_read_only = tree
            .boolean("auto-read-only")
            .unwrap_or(context.auto_read_only);
        unknown::report_node_keys(driver, tree, &context.keys, site, requests);
        let mut node = Node::new(site, driver.kind, read_only, auto_read_only);
        // block/raw-format.c
        node.shifted = driver.kind == Kind::Raw
            && tree
                .text("offset")
                .is_some_and(|offset| bytes::c_number::<u64>(offset) != Some(0));
        let mut image = Image {
            format: Format::Stated(driver.name.to_owned()),
            backing: Backing::NotFromHeader,
            data_file_given: false,
        };
        for child in driver.children {
            self.open_children(*child, tree, context, &mut node, &mut image, requests)?;
        }
        for path in driver.paths {
            protocol::open(*path, tree, context, &mut node, requests);
        }
        match driver.kind {
            Kind::Raw | Kind::Format | Kind::ReadOnlyFormat => node.image = Some(image),
            Kind::Filter | Kind::Protocol => {}
        }
        let at = self.add(node);
        if let Some(name) = tree.text("node-name") {
            self.name(name, at);
        }
        Some(at)
    }

    /// Opens what a child key holds: nothing, a reference, an inline node, or a list of these. None
    /// after an error.
    fn open_children(
        &mut self,
        child: Child,
        tree: &Tree,
        context: &NodeContext<'_>,
        node: &mut Node<'s>,
        image: &mut Image,
        requests: &mut Requests<'_>,
    ) -> Option<()> {
        if let Some(list) = child.key.strip_suffix('.') {
            let members = tree.child(list).into_iter().flat_map(Tree::children);
            for (key, member) in members {
                let name = format!("{list}.{}", bytes::show(key));
                let edge = self.open_child(child, &name, member, None, context, node, requests)?;
                node.edges.push((edge, child.role));
            }
            return Some(());
        }
        let empty = Tree::default();
        let given = tree.child(child.key);
        // The file name of the node itself, or the one after a prefix such as blkdebug:.
        let legacy = child.legacy.and_then(|key| tree.leaf(key));
        let name = match legacy {
            Some(leaf) => Some((leaf.text, leaf.set_by)),
            None => context.filename.filter(|_| child.key == "file"),
        };
        if child.role == Role::Cow {
            image.backing = backing(given);
            if image.backing != Backing::NotFromHeader {
                return self.open_further_down(child, given, context, node, requests);
            }
        }
        let member = match (given, name) {
            (None, None) => {
                if matches!(child.role, Role::Image | Role::Filtered) {
                    let message = format!("a block device must be given for '{}'", child.key);
                    requests.error(node.site, message);
                    return None;
                }
                return Some(());
            }
            (Some(given), None) if is_nothing(given) => return Some(()),
            (given, _) => given.unwrap_or(&empty),
        };
        let edge = self.open_child(child, child.key, member, name, context, node, requests)?;
        node.edges.push((edge, child.role));
        if child.key == "data-file" {
            image.data_file_given = true;
        }
        Some(())
    }

    /// Opens `backing.backing…`, which may name a file although the header names the one above it.
    fn open_further_down(
        &mut self,
        child: Child,
        given: Option<&Tree>,
        context: &NodeContext<'_>,
        node: &mut Node<'s>,
        requests: &mut Requests<'_>,
    ) -> Option<()> {
        let mut key = child.key.to_owned();
        let mut above = given;
        if given.is_some_and(|tree| states_data_file(tree, child.key)) {
            let message = format!(
                "takes data-file= of a backing file only where {key}.file.filename= names that file"
            );
            requests.error(node.site, message);
            return None;
        }
        while let Some(member) = above.and_then(|tree| tree.child(child.key)) {
            key = format!("{key}.{}", child.key);
            if backing(Some(member)) == Backing::NotFromHeader {
                if !is_nothing(member) {
                    let edge =
                        self.open_child(child, &key, member, None, context, node, requests)?;
                    node.edges.push((edge, child.role));
                }
                break;
            }
            above = Some(member);
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
        context: &NodeContext<'_>,
        node: &Node<'s>,
        requests: &mut Requests<'_>,
    ) -> Option<usize> {
        // A string is the name of a node, unless it is the file name of a -drive.
        if let (None, Some(Scalar::Text(reference))) = (name, &member.value) {
            let target = self.lookup(reference);
            if target.is_none() {
                let message = format!(
                    "there is no block node '{}' before this word",
                    bytes::show(reference)
                );
                requests.error(node.site, message);
            }
            return target;
        }
        let context = child_context(child, key, name, context, node);
        self.open(member, &context, node.site, requests)
    }
}

/// Returns what a child has from its parent (`bdrv_inherited_options`).
fn child_context<'c>(
    child: Child,
    key: &str,
    name: Option<(&'c [u8], Option<usize>)>,
    context: &NodeContext<'_>,
    node: &Node<'_>,
) -> NodeContext<'c> {
    let is_format = matches!(node.kind, Kind::Raw | Kind::Format | Kind::ReadOnlyFormat);
    // Which children are probed if they state no driver.
    let protocol = match child.role {
        Role::Image => true,
        Role::Cow => false,
        // blkdebug and blkverify are protocols themselves, and take names as those do.
        Role::Filtered => context.protocol || child.key == "file" || child.legacy.is_some(),
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
        (KeyNames::Below(prefix), Some((_, set_by))) if child.legacy.is_some() => {
            KeyNames::Fixed(prefix.trim_end_matches('.').to_owned(), set_by)
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
    NodeContext {
        filename: name,
        keys,
        read_only,
        auto_read_only,
        protocol,
        unstated,
        depth: context.depth.saturating_add(1),
    }
}

/// Returns whether the line states a data file for a backing file that a header names; the one in
/// the backing file's own header would be followed instead.
fn states_data_file(tree: &Tree, backing_key: &str) -> bool {
    let mut next = Some(tree);
    while let Some(tree) = next.filter(|tree| backing(Some(tree)) != Backing::NotFromHeader) {
        if tree.child("data-file").is_some() {
            return true;
        }
        next = tree.child(backing_key);
    }
    false
}

/// Returns whether a value explicitly names nothing: JSON's null or the empty string.
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

/// Returns what decides the backing file (`bdrv_open_backing_file`): the header, unless the line
/// names a node or a file, or says that there is none.
fn backing(given: Option<&Tree>) -> Backing {
    let Some(given) = given else {
        return Backing::FromHeader {
            format: None,
            writable: false,
            below: None,
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
        format: given.text("driver").map(bytes::show),
        writable: given.boolean("read-only") == Some(false),
        below: given
            .child("backing")
            .map(|below| Box::new(backing(Some(below)))),
    }
}
