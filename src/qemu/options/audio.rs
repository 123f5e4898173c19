//! `-audiodev` and `-audio`.
//!
//! Pure. Facts: audio/*.c, qapi/audio.json (QEMU 10).

use std::os::unix::ffi::OsStrExt;

use crate::qemu::parsed_option::ParsedOption;
use crate::qemu::requests::Requests;
use crate::qemu::syntax::bytes;
use crate::qemu::usage::Usage;

/// Sound servers: driver, socket in `$XDG_RUNTIME_DIR`.
const SERVERS: &[(&str, &str)] = &[("pa", "pulse/native"), ("pipewire", "pipewire-0")];

/// Returns whether a key of a driver names a host resource.
pub fn names_resource(kind: &[u8], key: &str) -> bool {
    match key {
        "path" => kind == b"wav",
        "in.dev" | "out.dev" => kind == b"oss",
        "server" => SERVERS.iter().any(|(name, _)| name.as_bytes() == kind),
        _ => false,
    }
}

/// Requests everything that this family names.
pub fn add_requests(options: &[ParsedOption], requests: &mut Requests<'_>) {
    for option in options {
        if matches!(option.name, "audiodev" | "audio") {
            add_backend(option, requests);
        }
    }
}

fn add_backend(option: &ParsedOption, requests: &mut Requests<'_>) {
    let (site, tree) = (&option.site, &option.tree);
    let driver = tree.text("driver").unwrap_or_default();
    match driver {
        b"wav" => {
            let how = Usage::create("sound recording");
            if !requests.add_key(site, tree, "path", how) {
                requests.add_path(site.origin("driver", None), b"qemu.wav", how);
            }
        }
        b"oss" => {
            let how = Usage::host("sound device");
            for key in ["in.dev", "out.dev"] {
                if !requests.add_key(site, tree, key, how) {
                    requests.add_path(site.origin("driver", None), b"/dev/dsp", how);
                }
            }
        }
        b"alsa" => {
            let how = Usage::tree("sound devices").optional();
            requests.add_path(site.origin("driver", None), b"/dev/snd", how);
        }
        _ => {}
    }
    let server = SERVERS.iter().find(|(name, _)| name.as_bytes() == driver);
    let Some((_, socket)) = server else { return };
    let how = Usage::connect("sound server").optional();
    if let Some(leaf) = tree.leaf("server") {
        let path = leaf.text.strip_prefix(b"unix:").unwrap_or(leaf.text);
        if path.starts_with(b"/") {
            requests.add_path(site.origin("server", leaf.set_by), path, how);
        }
    } else if let Some(dir) = &requests.env.xdg_runtime_dir {
        let path = bytes::join(dir.as_bytes(), socket.as_bytes());
        requests.add_path(site.origin("driver", None), &path, how);
    }
}
