//! Network backends: `-netdev`, `-nic`, `-net`.
//!
//! Pure. Facts: net/*.c, qapi/net.json (QEMU 10).

use std::os::unix::ffi::OsStrExt;

use crate::model::resource::{HostDevice, Target};
use crate::qemu::options::chardev;
use crate::qemu::parsed_option::ParsedOption;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::Tree;
use crate::qemu::usage::Usage;

/// Keys that hold paths: type, key, usage.
const PATHS: &[(&str, &str, Usage)] = &[
    ("user", "tftp", Usage::tree("directory served by TFTP")),
    ("user", "smb", Usage::tree("directory shared by SMB")),
    (
        "vhost-vdpa",
        "vhostdev",
        Usage::write("vDPA device").fdset(),
    ),
    ("vde", "sock", Usage::tree("directory of a VDE switch")),
];

/// Keys that hold numbers of inherited descriptors: type, key.
const FDS: &[(&str, &str)] = &[
    ("tap", "fd"),
    ("tap", "fds"),
    ("tap", "vhostfd"),
    ("tap", "vhostfds"),
    ("socket", "fd"),
    ("vhost-vdpa", "vhostfd"),
    ("af-xdp", "sock-fds"),
];

/// Keys that name resources and are read in code: type, key.
const KEYS_READ_IN_CODE: &[(&str, &str)] = &[
    ("bridge", "helper"),
    ("netmap", "devname"),
    ("passt", "path"),
    ("tap", "downscript"),
    ("tap", "helper"),
    ("tap", "script"),
    ("user", "guestfwd"),
    ("user", "guestfwd.str"),
];

/// Returns whether a key of a type names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    let rows = PATHS.iter().map(|row| (row.0, row.1));
    rows.chain(FDS.iter().chain(KEYS_READ_IN_CODE).copied())
        .any(|row| row.0.as_bytes() == kind && row.1 == key)
}

/// Requests everything that this family names.
pub fn add_requests(options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options {
        if matches!(option.name, "netdev" | "nic" | "net") {
            add_netdev(option, requests);
        }
    }
}

fn add_netdev(option: &ParsedOption, requests: &mut Requests<'_>) {
    let (site, tree) = (&option.site, &option.tree);
    let kind = tree.text("type").unwrap_or_default();
    for (name, key, how) in PATHS {
        if name.as_bytes() == kind {
            requests.add_key(site, tree, key, *how);
        }
    }
    for (name, key) in FDS {
        if name.as_bytes() == kind {
            requests.add_fds(site, tree, key, "network descriptor");
        }
    }
    match kind {
        b"tap" => add_tap(site, tree, requests),
        b"bridge" => add_bridge_helper(site, tree, requests),
        b"user" => add_user_network(option, requests),
        b"stream" => {
            let server = tree.boolean("server").unwrap_or(false);
            chardev::add_socket_address(site, "addr", tree, server, requests);
        }
        b"dgram" => {
            chardev::add_socket_address(site, "local", tree, true, requests);
            chardev::add_socket_address(site, "remote", tree, false, requests);
        }
        b"vde" => {
            if let Some(leaf) = tree.leaf("sock").filter(|leaf| !leaf.text.is_empty()) {
                let origin = site.origin("sock", leaf.set_by);
                let switch = bytes::join(leaf.text, b"ctl");
                requests.add_path(origin.clone(), &switch, Usage::connect("VDE switch"));
                // QEMU's own socket is SOCK/.PID-NNNNN.
                let own = bytes::join(leaf.text, b".");
                requests.add_template(origin, &own, Usage::bind("own end of a VDE link"));
            } else {
                requests.warn(
                    site,
                    "looks for a VDE switch where libvdeplug does; add sock=",
                );
            }
        }
        b"netmap" => add_netmap(site, tree, requests),
        b"passt" => add_passt(site, tree, requests),
        _ => {}
    }
}

/// Requests the program of `helper=`. A value with blanks is a command line, which a shell runs
/// (`net_bridge_run_helper`). Returns whether there is a helper.
fn add_helper(site: &Site, tree: &Tree, requests: &mut Requests<'_>) -> bool {
    let Some(leaf) = tree.leaf("helper") else {
        return false;
    };
    let origin = site.origin("helper", leaf.set_by);
    if leaf.text.iter().any(|b| matches!(b, b' ' | b'\t')) {
        requests.add_path(
            origin,
            b"/bin/sh",
            Usage::exec("shell for the network helper"),
        );
        requests.warn(
            site,
            "helper= is a shell command: what it opens cannot be known",
        );
    } else {
        requests.add_path(origin, leaf.text, Usage::exec("network helper"));
    }
    true
}

fn add_bridge_helper(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    if !add_helper(site, tree, requests) {
        let path = bytes::join(requests.env.helper_dir.as_bytes(), b"qemu-bridge-helper");
        requests.add_path(
            site.origin("type", None),
            &path,
            Usage::exec("network helper"),
        );
    }
}

fn add_netmap(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    let how = Usage::host("netmap");
    if !requests.add_key(site, tree, "devname", how) {
        requests.add_path(site.origin("type", None), b"/dev/netmap", how);
    }
}

/// Requests the program passt and its pid file, which `g_file_open_tmp` creates (net/passt.c, since
/// 10.1). A name without a slash is found in `$PATH`; the default is `passt`.
fn add_passt(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    if let Some(leaf) = tree.leaf("path").filter(|leaf| leaf.text.contains(&b'/')) {
        let origin = site.origin("path", leaf.set_by);
        requests.add_path(origin, leaf.text, Usage::exec("passt"));
    }
    let start = bytes::join(&requests.tmp_dir(), b"passt-");
    let how = Usage::create("pid file of passt");
    requests.add_template(site.origin("type", None), &start, how);
    requests.warn(site, "runs passt: what it opens cannot be known");
}

fn add_tap(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    let given = tree.text("fd").is_some() || tree.text("fds").is_some();
    if !given && !add_helper(site, tree, requests) {
        add_tap_node(site, tree, requests);
        add_script(site, tree, "script", b"qemu-ifup", requests);
        add_script(site, tree, "downscript", b"qemu-ifdown", requests);
    }
    let on = |key| tree.boolean(key) == Some(true);
    let inherited = tree.text("vhostfd").is_some() || tree.text("vhostfds").is_some();
    if (on("vhost") || on("vhostforce")) && !inherited {
        let how = Usage::host("vhost acceleration");
        requests.add_path(site.origin("vhost", None), b"/dev/vhost-net", how);
    }
}

/// The longest name of an interface, in bytes (IFNAMSIZ in linux/if.h without the NUL).
const MAX_INTERFACE_NAME: usize = 15;

/// Requests the node of a tap interface. An interface that exists may have its own node
/// (`tap_open`, net/tap-linux.c). QEMU truncates longer names, so that the interface is a new one.
fn add_tap_node(site: &Site, tree: &Tree, requests: &mut Requests<'_>) {
    let tun = Usage::host("TUN/TAP");
    match tree.leaf("ifname").filter(|leaf| !leaf.text.is_empty()) {
        Some(leaf) if !is_interface(leaf.text) => {
            let message = format!(
                "'{}' is no name of an interface: no slashes, colons and blanks",
                bytes::show(leaf.text)
            );
            requests.error_at(&site.origin("ifname", leaf.set_by), message);
        }
        Some(leaf) if leaf.text.len() <= MAX_INTERFACE_NAME => {
            let ifname = bytes::os_string(leaf.text);
            let target = Target::Device(HostDevice::Tap { ifname });
            requests.add(site.origin("ifname", leaf.set_by), target, tun, None);
        }
        _ => requests.add_path(site.origin("type", None), b"/dev/net/tun", tun),
    }
}

/// Returns whether an interface may have that name, except for its length (`dev_valid_name`,
/// net/core/dev.c in Linux).
fn is_interface(name: &[u8]) -> bool {
    let strange = |b: &u8| matches!(b, b'/' | b':' | b'\0' | b'\x0b') || b.is_ascii_whitespace();
    !matches!(name, b"." | b"..") && !name.iter().any(strange)
}

/// Requests the script of a key. QEMU runs the default one if the key is not given, and none if it
/// is `no` or empty.
fn add_script(site: &Site, tree: &Tree, key: &str, default: &[u8], requests: &mut Requests<'_>) {
    let how = Usage::exec("network script");
    match tree.leaf(key) {
        Some(leaf) if leaf.text == b"no" => {}
        Some(leaf) => requests.add_path(site.origin(key, leaf.set_by), leaf.text, how),
        None => {
            let path = bytes::join(requests.env.sysconfdir.as_bytes(), default);
            // QEMU goes on without the script for the end of the guest.
            let how = if key == "script" { how } else { how.optional() };
            requests.add_path(site.origin(key, None), &path, how);
        }
    }
}

fn add_user_network(option: &ParsedOption, requests: &mut Requests<'_>) {
    let (site, tree) = (&option.site, &option.tree);
    if let Some(leaf) = tree.leaf("smb").filter(|leaf| !leaf.text.is_empty()) {
        let start = bytes::join(&requests.tmp_dir(), b"qemu-smb.");
        let how = Usage::create("configuration of smbd");
        requests.add_template(site.origin("smb", leaf.set_by), &start, how);
        requests.warn(site, "smb= runs smbd: what it opens cannot be known");
    }
    if option.is_opts {
        for pair in option.opts.all("guestfwd") {
            add_guestfwd(&site_set_by(site, pair.set_by), &pair.value, requests);
        }
    } else {
        for (_, item) in tree.child("guestfwd").into_iter().flat_map(Tree::children) {
            if let Some(value) = item.text("str") {
                add_guestfwd(site, value, requests);
            }
        }
    }
}

fn site_set_by(site: &Site, set_by: Option<usize>) -> Site {
    match set_by {
        Some(word) => Site::new(word, "-set"),
        None => site.clone(),
    }
}

/// Requests what a `guestfwd=tcp:ADDRESS:PORT-DEVICE` names (`slirp_guestfwd`, net/slirp.c).
fn add_guestfwd(site: &Site, value: &[u8], requests: &mut Requests<'_>) {
    let device = bytes::split_once(value, b':')
        .and_then(|(_, rest)| bytes::split_once(rest, b':'))
        .and_then(|(_, rest)| bytes::split_once(rest, b'-'));
    let Some((_, device)) = device else {
        requests.error(site, format!("invalid guestfwd '{}'", bytes::show(value)));
        return;
    };
    let Some(command) = device.strip_prefix(b"cmd:") else {
        chardev::add_compat(site, "guestfwd", device, requests);
        return;
    };
    requests.warn(
        site,
        "guestfwd runs a command: what it opens cannot be known",
    );
    let program = bytes::until(command.trim_ascii_start(), b" \t").0;
    // A name without a slash is found in $PATH; quotes are parsed as in a shell.
    if program.contains(&b'/') && !program.iter().any(|b| matches!(b, b'"' | b'\'' | b'\\')) {
        let origin = site.origin("guestfwd", None);
        requests.add_path(
            origin,
            program,
            Usage::exec("command for a guest's connection"),
        );
    }
}
