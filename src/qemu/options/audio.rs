//! `-audiodev` and `-audio`.
//!
//! Pure. Facts: audio/*.c, qapi/audio.json (QEMU 10).

use std::os::unix::ffi::OsStrExt;

use crate::qemu::entry::Entry;
use crate::qemu::requests::{Found, Use};
use crate::qemu::syntax::bytes;

/// Sound servers: driver, the socket below `$XDG_RUNTIME_DIR`.
const SERVERS: &[(&str, &str)] = &[("pa", "pulse/native"), ("pipewire", "pipewire-0")];

/// Whether a key of a driver names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    match key {
        "path" => kind == b"wav",
        "in.dev" | "out.dev" => kind == b"oss",
        "server" => SERVERS.iter().any(|(name, _)| name.as_bytes() == kind),
        _ => false,
    }
}

/// All audio backends.
pub fn list(entries: &[Entry], found: &mut Found<'_>) {
    for entry in entries {
        if matches!(entry.name, "audiodev" | "audio") {
            one(entry, found);
        }
    }
}

fn one(entry: &Entry, found: &mut Found<'_>) {
    let (site, tree) = (&entry.site, &entry.tree);
    let driver = tree.text("driver").unwrap_or_default();
    match driver {
        b"wav" => {
            let how = Use::create("sound recording");
            if !found.prop(site, tree, "path", how) {
                found.path(site.origin("driver", None), b"qemu.wav", how);
            }
        }
        b"oss" => {
            let how = Use::host("sound device");
            for key in ["in.dev", "out.dev"] {
                if !found.prop(site, tree, key, how) {
                    found.path(site.origin("driver", None), b"/dev/dsp", how);
                }
            }
        }
        b"alsa" => {
            let how = Use::tree("sound devices").optional();
            found.path(site.origin("driver", None), b"/dev/snd", how);
        }
        _ => {}
    }
    let server = SERVERS.iter().find(|(name, _)| name.as_bytes() == driver);
    let Some((_, socket)) = server else { return };
    let how = Use::connect("sound server").optional();
    if let Some(leaf) = tree.leaf("server") {
        let path = leaf.text.strip_prefix(b"unix:").unwrap_or(leaf.text);
        if path.starts_with(b"/") {
            found.path(site.origin("server", leaf.set_by), path, how);
        }
    } else if let Some(dir) = &found.env.xdg_runtime_dir {
        let path = bytes::join(dir.as_bytes(), socket.as_bytes());
        found.path(site.origin("driver", None), &path, how);
    }
}
