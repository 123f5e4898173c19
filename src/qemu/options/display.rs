//! `-vnc`, `-spice`, `-display`.
//!
//! Pure. Facts: ui/vnc.c, ui/spice-core.c, ui/spice-app.c, ui/egl-headless.c, ui/dbus.c
//! (QEMU 10).

use std::os::unix::ffi::OsStrExt;

use crate::qemu::entry::{Entry, merged};
use crate::qemu::options::object::bus_path;
use crate::qemu::requests::{Found, Site, Use};
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::keyval;
use crate::qemu::syntax::opts::Opts;
use crate::qemu::syntax::tree::Tree;

const ANY_RENDER_NODE: &str = "takes the first render node it can open; add rendernode= to name it";

const RENDER: Use = Use::host("graphics render node");

/// `-spice` files of TLS: the key that names one, its name below `x509-dir`, what it is.
const SPICE_FILES: &[(&str, &str, Use)] = &[
    ("x509-key-file", "server-key.pem", Use::secret("TLS key")),
    (
        "x509-cert-file",
        "server-cert.pem",
        Use::content("TLS certificate"),
    ),
    (
        "x509-cacert-file",
        "ca-cert.pem",
        Use::content("TLS authority"),
    ),
];

/// Whether a key of one of the family's options names a host resource.
pub fn names_resource(option: &str, kind: &[u8], key: &str) -> bool {
    match option {
        "vnc" => matches!(key, "vnc" | "websocket"),
        "spice" => {
            matches!(key, "addr" | "rendernode" | "x509-dh-key-file" | "x509-dir")
                || SPICE_FILES.iter().any(|row| row.0 == key)
        }
        "display" => match key {
            "addr" => kind == b"dbus",
            "rendernode" => matches!(kind, b"dbus" | b"egl-headless"),
            _ => false,
        },
        _ => false,
    }
}

/// All displays.
pub fn list(name: Option<&[u8]>, entries: &[Entry], found: &mut Found<'_>) {
    for entry in entries {
        match entry.name {
            "vnc" => vnc(&entry.site, &entry.opts, found),
            "display" => display(name, entry, found),
            _ => {}
        }
    }
    spice(entries, found);
}

/// All addresses are bound, however often they are given.
fn vnc(site: &Site, opts: &Opts, found: &mut Found<'_>) {
    let reverse = opts.get("reverse").and_then(bytes::boolean) == Some(true);
    for pair in &opts.pairs {
        let key = match pair.key.as_slice() {
            b"vnc" => "vnc",
            b"websocket" => "websocket",
            _ => continue,
        };
        let Some(path) = pair.value.strip_prefix(b"unix:") else {
            continue;
        };
        let how = if reverse && key == "vnc" {
            Use::connect("VNC viewer")
        } else {
            Use::bind("VNC server")
        };
        found.path(site.origin(key, pair.set_by), path, how);
    }
}

/// All words of `-spice` add up.
fn spice(entries: &[Entry], found: &mut Found<'_>) {
    let get = |key: &str| merged(entries, "spice", key);
    let on = |key: &str| get(key).filter(|(_, leaf)| bytes::boolean(leaf.text) == Some(true));
    let put = |key: &str, how: Use, found: &mut Found<'_>| match get(key) {
        Some((entry, leaf)) if !leaf.text.is_empty() => {
            found.path(entry.site.origin(key, leaf.set_by), leaf.text, how);
            true
        }
        Some(_) | None => false,
    };
    if on("unix").is_some() {
        put("addr", Use::bind("SPICE server"), found);
    }
    if let Some((entry, _)) = get("tls-port").filter(|(_, port)| port.text != b"0") {
        let dir = get("x509-dir").map_or(&b"."[..], |(_, leaf)| leaf.text);
        for (key, file, how) in SPICE_FILES {
            if !put(key, *how, found) {
                let path = bytes::join(dir, file.as_bytes());
                found.path(entry.site.origin("x509-dir", None), &path, *how);
            }
        }
        put("x509-dh-key-file", Use::content("TLS parameters"), found);
    }
    if let Some((entry, _)) = on("gl")
        && !put("rendernode", RENDER, found)
    {
        found.warn(&entry.site, ANY_RENDER_NODE);
    }
}

fn render_node(site: &Site, tree: &Tree, found: &mut Found<'_>) {
    if !found.prop(site, tree, "rendernode", RENDER) {
        found.warn(site, ANY_RENDER_NODE);
    }
}

fn display(name: Option<&[u8]>, entry: &Entry, found: &mut Found<'_>) {
    let (site, word) = (&entry.site, entry.word.as_slice());
    if let Some(rest) = word.strip_prefix(b"vnc=") {
        vnc(site, &Opts::parse(rest, Some("vnc")), found);
        return;
    }
    // parse_display (system/vl.c) has its own syntax for these.
    let kind = bytes::until(word, b",").0;
    if matches!(kind, b"none" | b"vnc") || bytes::is_help(word) {
        return;
    }
    let tree = match keyval::parse_or_json(word, "type") {
        Ok(tree) => tree,
        Err(error) => {
            found.error(site, error);
            return;
        }
    };
    match tree.text("type").unwrap_or_default() {
        b"egl-headless" => render_node(site, &tree, found),
        b"dbus" => {
            if tree
                .text("gl")
                .is_some_and(|gl| bytes::boolean(gl) != Some(false))
            {
                render_node(site, &tree, found);
            }
            if let Some(leaf) = tree.leaf("addr")
                && let Some(path) = bus_path(leaf.text)
            {
                let how = Use::connect("D-Bus");
                found.path(site.origin("addr", None), path, how);
            }
        }
        b"spice-app" => spice_app(name, site, found),
        b"gtk" | b"sdl" | b"cocoa" => {
            found.warn(
                site,
                "connects to the desktop's sockets, which are not listed",
            );
        }
        _ => {}
    }
}

/// The socket is below the user's runtime directory when the guest has a name, else in a fresh
/// directory (ui/spice-app.c).
fn spice_app(name: Option<&[u8]>, site: &Site, found: &mut Found<'_>) {
    let how = Use::bind("SPICE server");
    let origin = site.origin("type", None);
    match (name, &found.env.xdg_runtime_dir) {
        (Some(name), Some(dir)) => {
            let path = [dir.as_bytes(), b"/qemu/", name, b"/spice.sock"].concat();
            found.path(origin, &path, how);
        }
        _ => {
            let start = bytes::join(&found.tmp_dir(), b".");
            found.template(origin, &start, how);
        }
    }
    found.warn(
        site,
        "starts a viewer program: what it opens cannot be known",
    );
}
