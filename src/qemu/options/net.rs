//! Network backends: `-netdev`, `-nic`, `-net`.
//!
//! Pure. Facts: net/*.c, qapi/net.json (QEMU 10).

use std::os::unix::ffi::OsStrExt;

use crate::model::resource::{HostDevice, Target};
use crate::qemu::entry::Entry;
use crate::qemu::options::chardev;
use crate::qemu::requests::{Found, Site, Use};
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::Tree;

/// Backends with nothing but a path or a descriptor: type, key, what it is.
const PATHS: &[(&str, &str, Use)] = &[
    ("user", "tftp", Use::tree("directory served by TFTP")),
    ("user", "smb", Use::tree("directory shared by SMB")),
    ("vhost-vdpa", "vhostdev", Use::write("vDPA device").fdset()),
    ("vde", "sock", Use::tree("directory of a VDE switch")),
];

/// Keys that hold numbers of inherited descriptors.
const FDS: &[(&str, &str)] = &[
    ("tap", "fd"),
    ("tap", "fds"),
    ("tap", "vhostfd"),
    ("tap", "vhostfds"),
    ("socket", "fd"),
    ("vhost-vdpa", "vhostfd"),
    ("af-xdp", "sock-fds"),
];

/// Keys that functions of this file read without a row above.
const READ: &[(&str, &str)] = &[
    ("bridge", "helper"),
    ("netmap", "devname"),
    ("passt", "path"),
    ("tap", "downscript"),
    ("tap", "helper"),
    ("tap", "script"),
    ("user", "guestfwd"),
    ("user", "guestfwd.str"),
];

/// Whether a key names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    let rows = PATHS.iter().map(|row| (row.0, row.1));
    rows.chain(FDS.iter().chain(READ).copied())
        .any(|row| row.0.as_bytes() == kind && row.1 == key)
}

/// All network options.
pub fn list(entries: &[Entry], found: &mut Found<'_>) {
    for entry in entries {
        if matches!(entry.name, "netdev" | "nic" | "net") {
            one(entry, found);
        }
    }
}

fn one(entry: &Entry, found: &mut Found<'_>) {
    let (site, tree) = (&entry.site, &entry.tree);
    let kind = tree.text("type").unwrap_or_default();
    for (name, key, how) in PATHS {
        if name.as_bytes() == kind {
            found.prop(site, tree, key, *how);
        }
    }
    for (name, key) in FDS {
        if name.as_bytes() == kind {
            found.fds(site, tree, key, "network descriptor");
        }
    }
    match kind {
        b"tap" => tap(site, tree, found),
        b"bridge" => bridge(site, tree, found),
        b"user" => user(entry, found),
        b"stream" => {
            let server = tree.boolean("server").unwrap_or(false);
            chardev::address(site, "addr", tree, server, found);
        }
        b"dgram" => {
            chardev::address(site, "local", tree, true, found);
            chardev::address(site, "remote", tree, false, found);
        }
        b"vde" => {
            if let Some(leaf) = tree.leaf("sock").filter(|leaf| !leaf.text.is_empty()) {
                let origin = site.origin("sock", leaf.set_by);
                let switch = bytes::join(leaf.text, b"ctl");
                found.path(origin.clone(), &switch, Use::connect("VDE switch"));
                // Its own end is SOCK/.PID-NNNNN.
                let own = bytes::join(leaf.text, b".");
                found.template(origin, &own, Use::bind("own end of a VDE link"));
            } else {
                found.warn(
                    site,
                    "looks for a VDE switch where libvdeplug does; add sock=",
                );
            }
        }
        b"netmap" => netmap(site, tree, found),
        b"passt" => passt(site, tree, found),
        _ => {}
    }
}

/// A helper may be a command line; then a shell runs it (`net_bridge_run_helper`).
fn helper(site: &Site, tree: &Tree, found: &mut Found<'_>) -> bool {
    let Some(leaf) = tree.leaf("helper") else {
        return false;
    };
    let origin = site.origin("helper", leaf.set_by);
    if leaf.text.iter().any(|b| matches!(b, b' ' | b'\t')) {
        found.path(
            origin,
            b"/bin/sh",
            Use::exec("shell for the network helper"),
        );
        found.warn(
            site,
            "helper= is a shell command: what it opens cannot be known",
        );
    } else {
        found.path(origin, leaf.text, Use::exec("network helper"));
    }
    true
}

fn bridge(site: &Site, tree: &Tree, found: &mut Found<'_>) {
    if !helper(site, tree, found) {
        let path = bytes::join(found.env.helper_dir.as_bytes(), b"qemu-bridge-helper");
        found.path(
            site.origin("type", None),
            &path,
            Use::exec("network helper"),
        );
    }
}

fn netmap(site: &Site, tree: &Tree, found: &mut Found<'_>) {
    let how = Use::host("netmap");
    if !found.prop(site, tree, "devname", how) {
        found.path(site.origin("type", None), b"/dev/netmap", how);
    }
}

/// net/passt.c (since 10.1): a program of its own, that writes a file made by `g_file_open_tmp`.
/// A name without a slash is looked up in PATH, `passt` by default.
fn passt(site: &Site, tree: &Tree, found: &mut Found<'_>) {
    if let Some(leaf) = tree.leaf("path").filter(|leaf| leaf.text.contains(&b'/')) {
        let origin = site.origin("path", leaf.set_by);
        found.path(origin, leaf.text, Use::exec("passt"));
    }
    let start = bytes::join(&found.tmp_dir(), b"passt-");
    let how = Use::create("pid file of passt");
    found.template(site.origin("type", None), &start, how);
    found.warn(site, "runs passt: what it opens cannot be known");
}

fn tap(site: &Site, tree: &Tree, found: &mut Found<'_>) {
    let given = tree.text("fd").is_some() || tree.text("fds").is_some();
    if !given && !helper(site, tree, found) {
        tap_node(site, tree, found);
        script(site, tree, "script", b"qemu-ifup", found);
        script(site, tree, "downscript", b"qemu-ifdown", found);
    }
    let on = |key| tree.boolean(key) == Some(true);
    let inherited = tree.text("vhostfd").is_some() || tree.text("vhostfds").is_some();
    if (on("vhost") || on("vhostforce")) && !inherited {
        let how = Use::host("vhost acceleration");
        found.path(site.origin("vhost", None), b"/dev/vhost-net", how);
    }
}

/// Longest name of an interface (IFNAMSIZ in linux/if.h less the NUL).
const LONGEST_INTERFACE: usize = 15;

/// An interface that exists may have a node of its own (`tap_open`, net/tap-linux.c); longer names
/// are cut off, and then no interface has them.
fn tap_node(site: &Site, tree: &Tree, found: &mut Found<'_>) {
    let tun = Use::host("TUN/TAP");
    match tree.leaf("ifname").filter(|leaf| !leaf.text.is_empty()) {
        Some(leaf) if !is_interface(leaf.text) => {
            let message = format!(
                "'{}' is no name of an interface: no slashes, colons and blanks",
                bytes::show(leaf.text)
            );
            found.error_at(&site.origin("ifname", leaf.set_by), message);
        }
        Some(leaf) if leaf.text.len() <= LONGEST_INTERFACE => {
            let ifname = bytes::os(leaf.text);
            let target = Target::Device(HostDevice::Tap { ifname });
            found.add(site.origin("ifname", leaf.set_by), target, tun, None);
        }
        _ => found.path(site.origin("type", None), b"/dev/net/tun", tun),
    }
}

/// `dev_valid_name`, net/core/dev.c in Linux, but for the length.
fn is_interface(name: &[u8]) -> bool {
    let strange = |b: &u8| matches!(b, b'/' | b':' | b'\0' | b'\x0b') || b.is_ascii_whitespace();
    !matches!(name, b"." | b"..") && !name.iter().any(strange)
}

/// Scripts run even when nobody mentions them; `no` and the empty word switch them off.
fn script(site: &Site, tree: &Tree, key: &str, default: &[u8], found: &mut Found<'_>) {
    let how = Use::exec("network script");
    match tree.leaf(key) {
        Some(leaf) if leaf.text == b"no" => {}
        Some(leaf) => found.path(site.origin(key, leaf.set_by), leaf.text, how),
        None => {
            let path = bytes::join(found.env.sysconfdir.as_bytes(), default);
            // A missing script for the end of the guest stops nothing.
            let how = if key == "script" { how } else { how.optional() };
            found.path(site.origin(key, None), &path, how);
        }
    }
}

fn user(entry: &Entry, found: &mut Found<'_>) {
    let (site, tree) = (&entry.site, &entry.tree);
    if let Some(leaf) = tree.leaf("smb").filter(|leaf| !leaf.text.is_empty()) {
        let start = bytes::join(&found.tmp_dir(), b"qemu-smb.");
        let how = Use::create("configuration of smbd");
        found.template(site.origin("smb", leaf.set_by), &start, how);
        found.warn(site, "smb= runs smbd: what it opens cannot be known");
    }
    if entry.is_opts {
        for pair in entry.opts.all("guestfwd") {
            guestfwd(&site_of(site, pair.set_by), &pair.value, found);
        }
    } else {
        for (_, item) in tree.child("guestfwd").into_iter().flat_map(Tree::children) {
            if let Some(word) = item.text("str") {
                guestfwd(site, word, found);
            }
        }
    }
}

fn site_of(site: &Site, set_by: Option<usize>) -> Site {
    match set_by {
        Some(word) => Site::new(word, "-set"),
        None => site.clone(),
    }
}

/// `tcp:ADDRESS:PORT-DEVICE` (`slirp_guestfwd`, net/slirp.c).
fn guestfwd(site: &Site, word: &[u8], found: &mut Found<'_>) {
    let device = bytes::split_once(word, b':')
        .and_then(|(_, rest)| bytes::split_once(rest, b':'))
        .and_then(|(_, rest)| bytes::split_once(rest, b'-'));
    let Some((_, device)) = device else {
        found.error(site, format!("invalid guestfwd '{}'", bytes::show(word)));
        return;
    };
    let Some(command) = device.strip_prefix(b"cmd:") else {
        chardev::mini(site, "guestfwd", device, found);
        return;
    };
    found.warn(
        site,
        "guestfwd runs a command: what it opens cannot be known",
    );
    let program = bytes::until(command.trim_ascii_start(), b" \t").0;
    // Without a slash it is looked up in PATH; with quotes a shell-like splitter takes it apart.
    if program.contains(&b'/') && !program.iter().any(|b| matches!(b, b'"' | b'\'' | b'\\')) {
        let origin = site.origin("guestfwd", None);
        found.path(
            origin,
            program,
            Use::exec("command for a guest's connection"),
        );
    }
}
