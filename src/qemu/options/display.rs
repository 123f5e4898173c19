//! `-vnc`, `-spice`, `-display`.
//!
//! Pure. Facts: ui/vnc.c, ui/spice-core.c, ui/spice-app.c, ui/egl-headless.c, ui/dbus.c
//! (QEMU 10).

use std::os::unix::ffi::OsStrExt;

use crate::qemu::options::object::bus_path;
use crate::qemu::parsed_option::{ParsedOption, merged};
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::opts::Opts;
use crate::qemu::syntax::tree::Tree;
use crate::qemu::syntax::value::parse_keyval_or_json;
use crate::qemu::usage::Usage;

const ANY_RENDER_NODE: &str = "takes the first render node it can open; add rendernode= to name it";

const RENDER: Usage = Usage::host("graphics render node");

/// TLS files of `-spice`: key, default name in `x509-dir`, usage.
const SPICE_FILES: &[(&str, &str, Usage)] = &[
    ("x509-key-file", "server-key.pem", Usage::secret("TLS key")),
    (
        "x509-cert-file",
        "server-cert.pem",
        Usage::content("TLS certificate"),
    ),
    (
        "x509-cacert-file",
        "ca-cert.pem",
        Usage::content("TLS authority"),
    ),
];

/// Returns whether a key of one of the family's options names a host resource.
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

/// Requests everything that this family names.
pub fn add_requests(name: Option<&[u8]>, options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options {
        match option.name {
            "vnc" => add_vnc(&option.site, &option.opts, requests),
            "display" => add_display(name, option, requests),
            _ => {}
        }
    }
    add_spice(options, requests);
}

/// Requests the sockets of `-vnc`; QEMU binds all addresses of a repeated key.
fn add_vnc(site: &Site, opts: &Opts, requests: &mut Requests<'_>) {
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
            Usage::connect("VNC viewer")
        } else {
            Usage::bind("VNC server")
        };
        requests.add_path(site.origin(key, pair.set_by), path, how);
    }
}

/// Requests the files of `-spice`, whose repetitions are merged.
fn add_spice(options: &[ParsedOption], requests: &mut Requests<'_>) {
    let get = |key: &str| merged(options, "spice", key);
    let on = |key: &str| get(key).filter(|(_, leaf)| bytes::boolean(leaf.text) == Some(true));
    let put = |key: &str, how: Usage, requests: &mut Requests<'_>| match get(key) {
        Some((option, leaf)) if !leaf.text.is_empty() => {
            requests.add_path(option.site.origin(key, leaf.set_by), leaf.text, how);
            true
        }
        Some(_) | None => false,
    };
    if on("unix").is_some() {
        put("addr", Usage::bind("SPICE server"), requests);
    }
    if let Some((option, _)) = get("tls-port").filter(|(_, port)| port.text != b"0") {
        let dir = get("x509-dir").map_or(&b"."[..], |(_, leaf)| leaf.text);
        for (key, file, how) in SPICE_FILES {
            if !put(key, *how, requests) {
                let path = bytes::join(dir, file.as_bytes());
                requests.add_path(option.site.origin("x509-dir", None), &path, *how);
            }
        }
        put(
            "x509-dh-key-file",
            Usage::content("TLS parameters"),
            requests,
        );
    }
    if let Some((option, _)) = on("gl")
        && !put("rendernode", RENDER, requests)
    {
        requests.warn(&option.site, ANY_RENDER_NODE);
    }
}

fn add_render_node(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    if !requests.add_key(site, tree, "rendernode", RENDER) {
        requests.warn(site, ANY_RENDER_NODE);
    }
}

fn add_display(name: Option<&[u8]>, option: &ParsedOption, requests: &mut Requests<'_>) {
    let (site, value) = (&option.site, option.value.as_slice());
    if let Some(rest) = value.strip_prefix(b"vnc=") {
        add_vnc(site, &Opts::parse(rest, Some("vnc")), requests);
        return;
    }
    // parse_display (system/vl.c) has a syntax of its own for these.
    let kind = bytes::until(value, b",").0;
    if matches!(kind, b"none" | b"vnc") || bytes::is_help(value) {
        return;
    }
    let tree = match parse_keyval_or_json(value, "type") {
        Ok(tree) => tree,
        Err(error) => {
            requests.error(site, error.to_string());
            return;
        }
    };
    match tree.text("type").unwrap_or_default() {
        b"egl-headless" => add_render_node(site, &tree, requests),
        b"dbus" => {
            if tree
                .text("gl")
                .is_some_and(|gl| bytes::boolean(gl) != Some(false))
            {
                add_render_node(site, &tree, requests);
            }
            if let Some(leaf) = tree.leaf("addr")
                && let Some(path) = bus_path(leaf.text)
            {
                let how = Usage::connect("D-Bus");
                requests.add_path(site.origin("addr", None), path, how);
            }
        }
        b"spice-app" => add_spice_app(name, site, requests),
        b"gtk" | b"sdl" | b"cocoa" => {
            requests.warn(
                site,
                "connects to the desktop's sockets, which are not listed",
            );
        }
        _ => {}
    }
}

/// Requests the socket of `-display spice-app`: in the user's runtime directory if the guest has a
/// name, else in a new directory (ui/spice-app.c).
fn add_spice_app(name: Option<&[u8]>, site: &Site, requests: &mut Requests<'_>) {
    let how = Usage::bind("SPICE server");
    let origin = site.origin("type", None);
    match (name, &requests.env.xdg_runtime_dir) {
        (Some(name), Some(dir)) => {
            let path = [dir.as_bytes(), b"/qemu/", name, b"/spice.sock"].concat();
            requests.add_path(origin, &path, how);
        }
        _ => {
            let start = bytes::join(&requests.tmp_dir(), b".");
            requests.add_template(origin, &start, how);
        }
    }
    requests.warn(
        site,
        "starts a viewer program: what it opens cannot be known",
    );
}
