//! The plan's side of the differential test: what each resource allows QEMU to do.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lib::strace::{Deed, tidy};

/// A resource of the plan.
#[derive(Debug)]
pub struct Planned {
    pub path: PathBuf,
    /// The path without symbolic links before the run, which may remove them.
    real: Option<PathBuf>,
    pub class: String,
    pub access: String,
    pub kind: String,
    pub reason: String,
}

impl Planned {
    /// Reads a resource of `plan --json`. Returns None for one without a name, such as a descriptor.
    pub fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let path = match value["path_hex"].as_str() {
            Some(hex) => {
                let bytes = (0..hex.len() / 2)
                    .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
                    .collect();
                PathBuf::from(OsString::from_vec(bytes))
            }
            None => PathBuf::from(value["path"].as_str()?),
        };
        Some(Self {
            real: fs::canonicalize(&path).ok(),
            path,
            class: text("class"),
            access: text("access"),
            kind: text("kind"),
            reason: text("reason"),
        })
    }

    /// Whether it names a file: by its path, by its template, or as a directory above it.
    pub fn covers(&self, path: &Path) -> bool {
        let same = |own: &Path, path: &Path| {
            let (own, path) = (tidy(own), tidy(path));
            if own == path || (self.access == "tree" && path.starts_with(&own)) {
                return true;
            }
            own.as_os_str()
                .as_bytes()
                .strip_suffix(b"XXXXXX")
                .is_some_and(|start| path.as_os_str().as_bytes().starts_with(start))
        };
        if same(&self.path, path) {
            return true;
        }
        // QEMU takes some names through realpath(3) first.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        fs::canonicalize(&self.path)
            .ok()
            .iter()
            .chain(&self.real)
            .any(|own| same(own, &path))
    }

    /// Whether the plan says that QEMU will do that.
    pub fn permits(&self, deed: Deed) -> bool {
        match deed {
            Deed::Look => true,
            Deed::Read => !matches!(self.access.as_str(), "connect"),
            Deed::Write => {
                matches!(self.access.as_str(), "write" | "create" | "tree" | "bind")
                    && self.class != "content"
            }
            // A name that QEMU makes, or a file that it makes if there is none.
            Deed::Make | Deed::Remove => {
                matches!(self.access.as_str(), "create" | "bind" | "tree") || self.access == "write"
            }
            Deed::Bind => self.access == "bind",
            Deed::Connect => self.access == "connect",
            Deed::Execute => self.access == "exec",
        }
    }
}
