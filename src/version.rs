//! `--version`: what somebody who is told of a mistake wants to know first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::{Policy, RealHost};
use crate::observe::doctor;
use crate::selinux::{self, Mode};
use crate::text::escape::quoted;

/// What the names of libselinux's interfaces begin with; `libselinux.map`.
const INTERFACES: &[u8] = b"LIBSELINUX_";

/// Returns this program's version, libselinux's, and whether the policy module is loaded.
pub fn text() -> String {
    format!(
        "svirt-exec {}\nlibselinux: {}\npolicy module: {}",
        env!("CARGO_PKG_VERSION"),
        library(),
        module()
    )
}

/// Describes the library in use. It has no call that tells its version, but names its interfaces by the
/// version that brought them.
fn library() -> String {
    let Some(path) = loaded("libselinux.so") else {
        return "not loaded".to_owned();
    };
    match fs::read(&path).ok().and_then(|bytes| newest(&bytes)) {
        Some((major, minor)) => format!("{}, {major}.{minor} or later", quoted(&path)),
        None => format!("{}, of unknown version", quoted(&path)),
    }
}

/// Finds a library of this process; proc_pid_maps(5).
fn loaded(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .map(Path::new)
        .find(|path| {
            path.file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(name))
        })?;
    Some(path.to_owned())
}

/// Finds the newest interface that is named in a library.
fn newest(library: &[u8]) -> Option<(u32, u32)> {
    library
        .windows(INTERFACES.len())
        .enumerate()
        .filter(|(_, window)| *window == INTERFACES)
        .filter_map(|(at, _)| {
            let rest = library.get(at.checked_add(INTERFACES.len())?..)?;
            let version = rest.split(|byte| *byte == 0).next()?;
            let (major, minor) = str::from_utf8(version).ok()?.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
        .max()
}

fn module() -> String {
    if selinux::mode() == Mode::Disabled {
        return "not loaded: SELinux is off".to_owned();
    }
    let found = || -> io::Result<String> {
        let host = RealHost::new()?;
        let own = host.own_context()?;
        Ok(doctor::policy_module(&host, &own).detail)
    };
    found().unwrap_or_else(|error| format!("unknown: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_interface_counts() {
        for (library, expected) in [
            (
                b"x\0LIBSELINUX_1.0\0LIBSELINUX_3.10\0LIBSELINUX_3.9\0".as_slice(),
                Some((3, 10)),
            ),
            (b"LIBSELINUX_3.4", Some((3, 4))),
            (b"LIBSELINUX_\0LIBSELINUX_x.1\0LIBSELINUX_3\0LIBSELIN", None),
            (b"", None),
        ] {
            assert_eq!(newest(library), expected);
        }
    }

    #[test]
    fn the_library_of_this_process_is_found() {
        let text = library();
        assert!(text.contains("libselinux.so"), "{text}");
        assert!(text.ends_with("or later"), "{text}");
    }
}
