//! File names that are more than a path: `json:` and protocol prefixes.
//!
//! Pure. The result is a tree of block options. Facts: `bdrv_find_protocol` and `path_has_protocol`
//! in block.c, and the `*_parse_filename` of each driver (QEMU 10).

use crate::qemu::syntax::bytes;
use crate::qemu::syntax::json::{self, JsonError};
use crate::qemu::syntax::tree::{Scalar, TooDeep, Tree};

/// Why a file name cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilenameError {
    /// QEMU has no driver for the prefix.
    #[error("unknown protocol '{0}'; write ./ before a file name that contains a colon")]
    Protocol(String),
    /// The text after `json:` is no JSON.
    #[error("json: {0}")]
    Json(#[from] JsonError),
    /// The text after `json:` is no object.
    #[error("json: not an object")]
    NotAnObject,
    /// A part that the driver's syntax requires is missing.
    #[error("'{0}' is not a valid name for its protocol")]
    Malformed(String),
    /// A key has too many fragments.
    #[error(transparent)]
    Depth(#[from] TooDeep),
}

/// Protocol prefixes, and the driver that each selects.
const PROTOCOLS: &[(&str, &str)] = &[
    ("blkdebug", "blkdebug"),
    ("blkverify", "blkverify"),
    ("fat", "vvfat"),
    ("file", "file"),
    ("ftp", "ftp"),
    ("ftps", "ftps"),
    ("gluster", "gluster"),
    ("gluster+rdma", "gluster"),
    ("gluster+tcp", "gluster"),
    ("gluster+unix", "gluster"),
    ("host_cdrom", "host_cdrom"),
    ("host_device", "host_device"),
    ("http", "http"),
    ("https", "https"),
    ("iscsi", "iscsi"),
    ("iser", "iser"),
    ("nbd", "nbd"),
    ("nbd+tcp", "nbd"),
    ("nbd+unix", "nbd"),
    ("nfs", "nfs"),
    ("null-aio", "null-aio"),
    ("null-co", "null-co"),
    ("nvme", "nvme"),
    ("rbd", "rbd"),
    ("ssh", "ssh"),
];

/// Returns the protocol prefix: the text before a colon that precedes any slash.
pub fn protocol_prefix(name: &[u8]) -> Option<&[u8]> {
    let (head, tail) = bytes::until(name, b":/");
    (tail.starts_with(b":")).then_some(head)
}

/// Returns the options that a file name stands for, including `driver`.
///
/// # Errors
/// Any [`FilenameError`].
pub fn options_of(name: &[u8]) -> Result<Tree, FilenameError> {
    if let Some(json) = name.strip_prefix(b"json:") {
        return from_json(json);
    }
    // QEMU looks for /dev/cdrom and existing devices first; these are absolute and have no prefix.
    let Some(prefix) = protocol_prefix(name) else {
        return Ok(plain_path(name)?);
    };
    let known = PROTOCOLS
        .iter()
        .find(|(known, _)| known.as_bytes() == prefix);
    let Some((_, driver)) = known else {
        return Err(FilenameError::Protocol(bytes::show(prefix)));
    };
    let mut tree = driver_options(driver, name)?;
    set_text(&mut tree, "driver", driver.as_bytes())?;
    Ok(tree)
}

/// Returns the options that a driver makes of a file name that still has its prefix. A driver
/// without a file name syntax takes the name verbatim.
///
/// # Errors
/// [`FilenameError::Malformed`] and [`FilenameError::Depth`].
pub fn driver_options(driver: &str, name: &[u8]) -> Result<Tree, FilenameError> {
    let mut tree = Tree::default();
    match driver {
        "file" | "host_device" | "host_cdrom" => {
            let prefix = [driver.as_bytes(), b":"].concat();
            let path = name.strip_prefix(prefix.as_slice()).unwrap_or(name);
            set_text(&mut tree, "filename", path)?;
        }
        "vvfat" => {
            // The directory follows the last colon; flags may be anywhere before it.
            let Some((flags, dir)) = bytes::rsplit_once(name, b':') else {
                return Err(FilenameError::Malformed(bytes::show(name)));
            };
            set_text(&mut tree, "dir", dir)?;
            let flags = [flags, b":"].concat();
            if bytes::contains(&flags, b":rw:") {
                set_text(&mut tree, "rw", b"on")?;
            }
        }
        "nbd" => nbd(name, &mut tree)?,
        "gluster" => gluster(name, &mut tree)?,
        "rbd" => rbd(name, &mut tree)?,
        "blkdebug" => {
            let (config, image) = two_names(b"blkdebug:", name)?;
            set_text(&mut tree, "config", config)?;
            set_text(&mut tree, "x-image", image)?;
        }
        "blkverify" => {
            let (raw, image) = two_names(b"blkverify:", name)?;
            set_text(&mut tree, "x-raw", raw)?;
            set_text(&mut tree, "x-image", image)?;
        }
        "nvme" => {
            let rest = name.strip_prefix(b"nvme://").unwrap_or(name);
            set_text(&mut tree, "device", bytes::until(rest, b"/").0)?;
        }
        "ftp" | "ftps" | "http" | "https" | "iscsi" | "iser" | "nfs" | "null-aio" | "null-co"
        | "ssh" => {}
        _ => set_text(&mut tree, "filename", name)?,
    }
    Ok(tree)
}

/// Splits `PREFIX:NAME:NAME` at the colon between the two names.
fn two_names<'a>(prefix: &[u8], name: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), FilenameError> {
    let rest = name.strip_prefix(prefix).unwrap_or(name);
    bytes::split_once(rest, b':').ok_or_else(|| FilenameError::Malformed(bytes::show(name)))
}

fn from_json(text: &[u8]) -> Result<Tree, FilenameError> {
    let value = json::parse(text)?;
    match value {
        json::Value::Map(_) => Ok(Tree::from_json(&value)?),
        json::Value::Null
        | json::Value::Bool(_)
        | json::Value::Number(_)
        | json::Value::Text(_)
        | json::Value::List(_) => Err(FilenameError::NotAnObject),
    }
}

/// Returns the options of a name without prefix. For a device node QEMU takes another driver, with
/// the same path.
pub fn plain_path(name: &[u8]) -> Result<Tree, TooDeep> {
    let mut tree = Tree::default();
    set_text(&mut tree, "driver", b"file")?;
    set_text(&mut tree, "filename", name)?;
    Ok(tree)
}

fn set_text(tree: &mut Tree, key: &str, value: &[u8]) -> Result<(), TooDeep> {
    tree.insert(key.as_bytes(), Scalar::Text(value.to_vec()), None)
}

/// Reads `nbd:unix:PATH[:exportname=N]` and `nbd+unix:///N?socket=PATH` (block/nbd.c).
fn nbd(name: &[u8], tree: &mut Tree) -> Result<(), FilenameError> {
    if let Some(rest) = name.strip_prefix(b"nbd:unix:") {
        let path = bytes::before(rest, b":exportname=");
        set_text(tree, "server.type", b"unix")?;
        set_text(tree, "server.path", path)?;
    } else if name.starts_with(b"nbd+unix:") {
        let Some(socket) = query(name, b"socket") else {
            return Err(FilenameError::Malformed(bytes::show(name)));
        };
        set_text(tree, "server.type", b"unix")?;
        set_text(tree, "server.path", &socket)?;
    } else {
        set_text(tree, "server.type", b"inet")?;
    }
    Ok(())
}

/// Reads `gluster+unix:///VOL/IMG?socket=PATH&logfile=F` (block/gluster.c).
fn gluster(name: &[u8], tree: &mut Tree) -> Result<(), FilenameError> {
    if let Some(logfile) = query(name, b"logfile") {
        set_text(tree, "logfile", &logfile)?;
    }
    if name.starts_with(b"gluster+unix:") {
        let Some(socket) = query(name, b"socket") else {
            return Err(FilenameError::Malformed(bytes::show(name)));
        };
        set_text(tree, "server.0.type", b"unix")?;
        set_text(tree, "server.0.path", &socket)?;
    }
    Ok(())
}

/// Reads `rbd:POOL/IMG:conf=F:…`, where `\` escapes the next byte (block/rbd.c).
fn rbd(name: &[u8], tree: &mut Tree) -> Result<(), FilenameError> {
    let mut parts = vec![Vec::new()];
    let mut bytes = name.iter().skip(b"rbd:".len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b':' => {
                parts.push(Vec::new());
                continue;
            }
            b'\\' => bytes.next().unwrap_or(byte),
            _ => byte,
        };
        if let Some(part) = parts.last_mut() {
            part.push(*byte);
        }
    }
    for part in &parts {
        if let Some(conf) = part.strip_prefix(b"conf=") {
            set_text(tree, "conf", conf)?;
        }
    }
    Ok(())
}

/// Returns a parameter of a URI's query, percent-decoded.
fn query(uri: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let (_, query) = bytes::split_once(uri, b'?')?;
    query
        .split(|b| matches!(b, b'&' | b';'))
        .filter_map(|item| bytes::split_once(item, b'='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| percent_decode(value))
}

fn percent_decode(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, tail)) = rest.split_first() {
        let decoded = tail
            .split_at_checked(2)
            .filter(|(hex, _)| *first == b'%' && hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|(hex, after)| {
                let hex = std::str::from_utf8(hex).ok()?;
                Some((u8::from_str_radix(hex, 16).ok()?, after))
            });
        match decoded {
            Some((byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(name: &str, key: &str) -> String {
        options_of(name.as_bytes())
            .unwrap()
            .text(key)
            .map(bytes::show)
            .unwrap_or_default()
    }

    #[test]
    fn names() {
        let table = [
            ("/a/b:c", "filename", "/a/b:c"),
            ("./a:b", "filename", "./a:b"),
            ("file:a:b", "filename", "a:b"),
            ("host_device:/dev/sdb", "filename", "/dev/sdb"),
            ("fat:floppy:16:rw:/srv/dos", "dir", "/srv/dos"),
            ("fat:rw:/srv/dos", "rw", "on"),
            ("fat:/srv/dos", "rw", ""),
            (
                "nbd:unix:/run/n.sock:exportname=e",
                "server.path",
                "/run/n.sock",
            ),
            (
                "nbd+unix:///e?socket=/run/a%20b.sock",
                "server.path",
                "/run/a b.sock",
            ),
            ("nbd://host/e", "server.path", ""),
            (
                "gluster+unix:///v/i?socket=/s&logfile=/l",
                "server.0.path",
                "/s",
            ),
            ("gluster+unix:///v/i?socket=/s&logfile=/l", "logfile", "/l"),
            (
                "rbd:pool/img@snap:id=x:conf=/etc/a\\:b.conf",
                "conf",
                "/etc/a:b.conf",
            ),
            ("blkdebug:/c.ini:nbd:unix:/x", "x-image", "nbd:unix:/x"),
            ("blkverify:/raw:/img", "x-raw", "/raw"),
            ("nvme://0000:04:00.0/1", "device", "0000:04:00.0"),
            (
                "json:{'driver':'raw','file.filename':'/x'}",
                "file.filename",
                "/x",
            ),
        ];
        for (name, key, want) in table {
            assert_eq!(get(name, key), want, "{name}");
        }
    }

    #[test]
    fn refusals() {
        for bad in [
            "foo:bar",
            ":x",
            "json:[1]",
            "json:{",
            "blkdebug:x",
            "nbd+unix:///e",
            "gluster+unix:///v/i",
        ] {
            assert!(options_of(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
