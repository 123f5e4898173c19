//! Names of backing files in the headers of images.
//!
//! Pure. Facts: `path_combine`, `bdrv_make_absolute_filename` and `bdrv_open_backing_file` in
//! block.c (QEMU 10). The names are untrusted: whoever wrote the image chose them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::model::resource::{Access, Format, Origin, Request};
use crate::qemu::block::context::{KeyNames, NodeContext};
use crate::qemu::block::graph::Graph;
use crate::qemu::invocation::Environment;
use crate::qemu::requests::Requests;
use crate::qemu::site::Site;
use crate::qemu::syntax::tree::{Scalar, Tree};
use crate::qemu::syntax::{bytes, filename};

/// Why a backing file name cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackingError {
    /// The name is relative, and the image above it was not opened by a path.
    #[error("the backing file '{0}' is relative, but the image above it has no directory")]
    NoDirectory(String),
    /// QEMU cannot open such a name.
    #[error("the backing file '{name}' cannot be opened: {why}")]
    Refused {
        /// The name in the header.
        name: String,
        /// Why QEMU cannot.
        why: String,
    },
}

/// Returns what a backing file name in an image's header makes QEMU open; nothing for an empty
/// name. `overlay` is the name by which QEMU opened the image, `format` the format that the header
/// states. Every request gets `origin`.
///
/// # Errors
/// [`BackingError::NoDirectory`] for a relative name if the overlay was not opened by a path, and
/// [`BackingError::Refused`] for a name or format that QEMU would refuse.
pub fn backing_requests(
    overlay: &OsStr,
    name: &[u8],
    format: Option<&[u8]>,
    access: Access,
    origin: Origin,
) -> Result<Vec<Request>, BackingError> {
    let name = bytes::c_string(name);
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let full = combine(overlay.as_bytes(), name)?;
    let refused = |why: String| BackingError::Refused {
        name: bytes::show(name),
        why,
    };
    let mut tree = Tree::default();
    if let Some(format) = format
        .map(bytes::c_string)
        .filter(|format| !format.is_empty())
    {
        tree.insert(b"driver", Scalar::Text(format.to_vec()), None)
            .map_err(|error| refused(error.to_string()))?;
    }
    let env = Environment::default();
    let site = Site::new(0, "");
    let mut requests = Requests::new(&env);
    let mut graph = Graph::default();
    let context = backing_context(&full, access);
    graph.open(&tree, &context, &site, &mut requests);
    graph.finish(&mut requests);
    // A driver that is newer than this program is refused in a header.
    if let Some(error) = requests.errors.into_iter().chain(requests.unknown).next() {
        return Err(refused(error.message));
    }
    let mut requests = requests.list;
    for request in &mut requests {
        request.origin = origin.clone();
        let is_read_only_disk = request.image.is_some() && request.access == Access::Read;
        if is_read_only_disk {
            request.reason = "backing file";
        }
    }
    Ok(requests)
}

/// Returns what a backing file has from the image above it.
fn backing_context(name: &[u8], access: Access) -> NodeContext<'_> {
    NodeContext {
        filename: Some((name, None)),
        keys: KeyNames::Fixed(String::new(), None),
        read_only: match access {
            Access::Read => true,
            Access::Write
            | Access::Create
            | Access::Bind
            | Access::Connect
            | Access::Exec
            | Access::Tree => false,
        },
        auto_read_only: false,
        protocol: false,
        unstated: Format::Unstated {
            add: "backing.driver=",
        },
        depth: 0,
    }
}

/// Returns a name relative to the directory of the overlay's name (`path_combine`). The names are
/// only joined; the kernel resolves `..` and links.
fn combine(overlay: &[u8], name: &[u8]) -> Result<Vec<u8>, BackingError> {
    if name.starts_with(b"/") || filename::protocol_prefix(name).is_some() {
        return Ok(name.to_vec());
    }
    let no_directory = || BackingError::NoDirectory(bytes::show(name));
    if overlay.starts_with(b"json:") || overlay.starts_with(b"/dev/fdset/") {
        return Err(no_directory());
    }
    let prefix =
        filename::protocol_prefix(overlay).map_or(0, |prefix| prefix.len().saturating_add(1));
    let slash = overlay
        .iter()
        .rposition(|b| *b == b'/')
        .map_or(0, |at| at.saturating_add(1));
    let (dir, _) = overlay
        .split_at_checked(prefix.max(slash))
        .ok_or_else(no_directory)?;
    Ok([dir, name].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::{Class, Target};

    fn paths(overlay: &str, name: &str, format: Option<&str>) -> Result<Vec<String>, BackingError> {
        let origin = Origin::BackingOf {
            backing_of: overlay.into(),
        };
        let requests = backing_requests(
            OsStr::new(overlay),
            name.as_bytes(),
            format.map(str::as_bytes),
            Access::Read,
            origin,
        )?;
        Ok(requests
            .iter()
            .map(|request| match &request.target {
                Target::Path(path) => path.to_string_lossy().into_owned(),
                other => format!("{other:?}"),
            })
            .collect())
    }

    #[test]
    fn names_are_combined_textually() {
        let table = [
            ("/srv/vm/a.qcow2", "base.raw", "/srv/vm/base.raw"),
            ("/srv/vm/a.qcow2", "../base.raw", "/srv/vm/../base.raw"),
            ("/srv/vm/a.qcow2", "/x/base.raw", "/x/base.raw"),
            ("a.qcow2", "base.raw", "base.raw"),
            ("vm/a.qcow2", "base.raw", "vm/base.raw"),
            ("file:/srv/a.qcow2", "base.raw", "/srv/base.raw"),
            ("/srv/a:b.qcow2", "./c:d", "/srv/./c:d"),
            ("/srv/a", "file:base.raw", "base.raw"),
            ("/srv/a", "nbd:unix:/run/n.sock", "/run/n.sock"),
            (
                "/srv/a",
                "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"/b\"}}",
                "/b",
            ),
        ];
        for (overlay, name, want) in table {
            assert_eq!(
                paths(overlay, name, Some("raw")),
                Ok(vec![want.to_owned()]),
                "{name}"
            );
        }
        assert_eq!(paths("/a", "", None), Ok(Vec::new()));
        assert_eq!(paths("/a", "b\0c", None), Ok(vec!["/b".to_owned()]));
    }

    #[test]
    fn refusals() {
        assert!(paths("/dev/fdset/2", "base.raw", None).is_err());
        assert!(paths("json:{}", "base.raw", None).is_err());
        assert!(paths("/a", "weird:b", None).is_err());
        assert!(paths("/a", "json:{", None).is_err());
        assert!(paths("/a", "b", Some("nonsense")).is_err());
    }

    #[test]
    fn the_format_comes_from_the_header_or_is_unknown() {
        let origin = Origin::BackingOf {
            backing_of: "/a".into(),
        };
        let requests = |format| {
            backing_requests(OsStr::new("/a"), b"b", format, Access::Read, origin.clone()).unwrap()
        };
        let stated = requests(Some(&b"qcow2"[..]));
        assert_eq!(stated[0].class, Class::Content);
        let image = stated[0].image.as_ref().unwrap();
        assert_eq!(image.format, Format::Stated("qcow2".to_owned()));
        let unstated = requests(None);
        let image = unstated[0].image.as_ref().unwrap();
        assert!(matches!(image.format, Format::Unstated { .. }));
    }
}
