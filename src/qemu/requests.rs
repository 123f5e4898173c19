//! Collects the requests for host resources, and warnings and errors.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use crate::model::resource::{Image, Origin, Request, Target};
use crate::qemu::invocation::{Diagnostic, Environment};
use crate::qemu::site::Site;
use crate::qemu::syntax::bytes;
use crate::qemu::syntax::tree::Tree;
use crate::qemu::usage::Usage;

/// An fd set (`-add-fd`).
#[derive(Debug, Default)]
struct FdSet {
    members: Vec<(i32, Origin)>,
    used: bool,
}

/// Everything that the option families have found so far.
pub struct Requests<'e> {
    /// The environment on which names depend.
    pub env: &'e Environment,
    /// The requested resources.
    pub list: Vec<Request>,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
    /// What no table knows, so that nothing is labelled for it.
    pub unknown: Vec<Diagnostic>,
    /// Reasons not to launch.
    pub errors: Vec<Diagnostic>,
    fdsets: BTreeMap<i64, FdSet>,
}

impl<'e> Requests<'e> {
    /// Returns an empty collection.
    pub fn new(env: &'e Environment) -> Self {
        Requests {
            env,
            list: Vec::new(),
            warnings: Vec::new(),
            unknown: Vec::new(),
            errors: Vec::new(),
            fdsets: BTreeMap::new(),
        }
    }

    /// Adds a request.
    pub fn add(&mut self, origin: Origin, target: Target, how: Usage, image: Option<Image>) {
        self.list.push(Request {
            target,
            class: how.class,
            access: how.access,
            origin,
            reason: how.reason,
            mapped: how.mapped,
            may_be_directory: how.may_be_directory,
            image,
            required: how.required,
        });
    }

    /// Adds a path, unless it is empty.
    pub fn add_path(&mut self, origin: Origin, path: &[u8], how: Usage) {
        self.add_image(origin, path, how, None);
    }

    /// Adds a path whose header may name further files.
    pub fn add_image(&mut self, origin: Origin, path: &[u8], how: Usage, image: Option<Image>) {
        let path = bytes::c_string(path);
        if path.is_empty() {
            return;
        }
        if let (true, Some(set)) = (how.fdset, path.strip_prefix(b"/dev/fdset/")) {
            self.use_fdset(origin, set, how, image.as_ref());
            return;
        }
        self.add(origin, Target::Path(bytes::os_string(path)), how, image);
    }

    /// Adds all members of an fd set. QEMU takes the one with the same access mode
    /// (`monitor_fdset_dup_fd_add`), which the line does not tell.
    fn use_fdset(&mut self, origin: Origin, set: &[u8], how: Usage, image: Option<&Image>) {
        let Some(set) = bytes::number::<i64>(set)
            .and_then(|set| self.fdsets.get_mut(&set))
            .filter(|set| !set.members.is_empty())
        else {
            let message = format!(
                "no -add-fd puts a descriptor into fd set {}",
                bytes::show(set)
            );
            self.error_at(&origin, message);
            return;
        };
        set.used = true;
        let members: Vec<i32> = set.members.iter().map(|(fd, _)| *fd).collect();
        for fd in members {
            self.add(
                origin.clone(),
                Target::Fd(fd),
                descriptor(how.reason),
                image.cloned(),
            );
        }
    }

    /// Adds the path that a key holds. Returns whether the tree has the key.
    pub fn add_key(&mut self, site: &Site, tree: &Tree, key: &str, how: Usage) -> bool {
        match tree.leaf(key) {
            Some(leaf) if !leaf.text.is_empty() => {
                self.add_path(site.origin(key, leaf.set_by), leaf.text, how);
                true
            }
            _ => false,
        }
    }

    /// Adds a file that QEMU searches for in its data directories, unless the name is empty.
    pub fn add_data_file(&mut self, origin: Origin, name: &[u8], how: Usage) {
        let name = bytes::c_string(name);
        if !name.is_empty() {
            self.add(origin, Target::DataFile(bytes::os_string(name)), how, None);
        }
    }

    /// Adds a name of which QEMU chooses the end.
    pub fn add_template(&mut self, origin: Origin, start: &[u8], how: Usage) {
        self.add(origin, Target::Template(bytes::os_string(start)), how, None);
    }

    /// Adds the inherited descriptors whose numbers a key holds, separated by colons. Returns
    /// whether the tree has the key.
    pub fn add_fds(&mut self, site: &Site, tree: &Tree, key: &str, reason: &'static str) -> bool {
        let Some(leaf) = tree.leaf(key).filter(|leaf| !leaf.text.is_empty()) else {
            return false;
        };
        let origin = site.origin(key, leaf.set_by);
        for part in leaf.text.split(|b| *b == b':') {
            self.add_fd(origin.clone(), part, reason);
        }
        true
    }

    /// Adds an inherited descriptor by its number.
    pub fn add_fd(&mut self, origin: Origin, number: &[u8], reason: &'static str) {
        match bytes::number::<i32>(number) {
            Some(fd) => self.add(origin, Target::Fd(fd), descriptor(reason), None),
            None => {
                let message = format!("'{}' is no descriptor number", bytes::show(number));
                self.error_at(&origin, message);
            }
        }
    }

    /// Records a member of an fd set.
    pub fn add_fdset_member(&mut self, set: i64, fd: i32, origin: Origin) {
        let set = self.fdsets.entry(set).or_default();
        set.members.push((fd, origin));
    }

    /// Adds the members of fd sets that nothing on the line uses; the monitor may use them later.
    pub fn add_unused_fdsets(&mut self) {
        for set in std::mem::take(&mut self.fdsets).into_values() {
            for (fd, origin) in set.members {
                if !set.used {
                    self.add(
                        origin,
                        Target::Fd(fd),
                        descriptor("descriptor of an fd set"),
                        None,
                    );
                }
            }
        }
    }

    /// Adds a warning.
    pub fn warn(&mut self, site: &Site, message: impl Into<String>) {
        self.warnings.push(Diagnostic {
            word: site.word,
            option: site.option.clone(),
            message: message.into(),
        });
    }

    /// Adds a warning about something that no table knows, so that it is not labelled.
    pub fn warn_unknown(&mut self, site: &Site, message: impl Into<String>) {
        self.unknown.push(Diagnostic {
            word: site.word,
            option: site.option.clone(),
            message: message.into(),
        });
    }

    /// Adds a reason not to launch.
    pub fn error(&mut self, site: &Site, message: impl Into<String>) {
        self.errors.push(Diagnostic {
            word: site.word,
            option: site.option.clone(),
            message: message.into(),
        });
    }

    /// Adds a reason not to launch that one key's value gives.
    pub fn error_at(&mut self, origin: &Origin, message: impl Into<String>) {
        self.errors.push(diagnostic(origin, message.into()));
    }

    /// Adds a warning about one key's value.
    pub fn warn_at(&mut self, origin: &Origin, message: impl Into<String>) {
        self.warnings.push(diagnostic(origin, message.into()));
    }

    /// Returns the directory for temporary files: `$TMPDIR` unchanged, else /tmp (glib's
    /// `g_get_tmp_dir`).
    pub fn tmp_dir(&self) -> Vec<u8> {
        tmp_dir(self.env.tmpdir.as_ref())
    }
}

fn diagnostic(origin: &Origin, message: String) -> Diagnostic {
    let (word, option) = match origin {
        Origin::Word { word, option, .. } => (*word, option.clone()),
        Origin::BackingOf { .. }
        | Origin::DataFileOf { .. }
        | Origin::ExtentOf { .. }
        | Origin::TreeOf { .. } => (0, "".into()),
    };
    Diagnostic {
        word,
        option,
        message,
    }
}

fn tmp_dir(tmpdir: Option<&OsString>) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let dir = tmpdir.map(|dir| dir.as_bytes()).unwrap_or_default();
    if dir.is_empty() {
        b"/tmp".to_vec()
    } else {
        dir.to_vec()
    }
}

/// Returns how an inherited descriptor is used: it is open already, so nothing is labelled or
/// created.
const fn descriptor(reason: &'static str) -> Usage {
    Usage::host(reason)
}

/// Returns the requests sorted by word, identical ones once.
pub fn sorted(mut requests: Vec<Request>) -> Vec<Request> {
    requests.sort_by_key(|request| match request.origin {
        Origin::Word { word, .. } => word,
        Origin::BackingOf { .. }
        | Origin::DataFileOf { .. }
        | Origin::ExtentOf { .. }
        | Origin::TreeOf { .. } => 0,
    });
    // Requests with an image have no order; their duplicates are neighbours.
    requests.dedup();
    let mut seen = BTreeSet::new();
    let mut fresh = requests
        .iter()
        .map(|request| {
            let Request {
                target,
                class,
                access,
                origin,
                ..
            } = request;
            request.image.is_some() || seen.insert((target, class, access, origin))
        })
        .collect::<Vec<bool>>()
        .into_iter();
    requests.retain(|_| fresh.next().unwrap_or(true));
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fd_sets_replace_paths_only_where_qemu_looks_for_them() {
        let env = Environment::default();
        let mut requests = Requests::new(&env);
        let site = Site::new(3, "-x");
        requests.add_fdset_member(2, 11, site.origin("fd", None));
        requests.add_fdset_member(2, 12, site.origin("fd", None));
        requests.add_path(
            site.origin("", None),
            b"/dev/fdset/2",
            Usage::write("x").fdset(),
        );
        requests.add_path(site.origin("", None), b"/dev/fdset/2", Usage::write("x"));
        requests.add_path(
            site.origin("", None),
            b"/dev/fdset/3",
            Usage::write("x").fdset(),
        );
        let targets: Vec<Target> = requests.list.iter().map(|r| r.target.clone()).collect();
        let literal = Target::Path("/dev/fdset/2".into());
        assert_eq!(targets, [Target::Fd(11), Target::Fd(12), literal]);
        assert_eq!(requests.errors.len(), 1);
        requests.add_unused_fdsets();
        assert_eq!(requests.list.len(), 3);
    }

    #[test]
    fn temporary_directory() {
        for (tmpdir, want) in [
            (None, "/tmp"),
            (Some(""), "/tmp"),
            // create_tmp_file compares with "/tmp": with a slash after it, it is another.
            (Some("/tmp/"), "/tmp/"),
            (Some("/x//"), "/x//"),
            (Some("/"), "/"),
        ] {
            let tmpdir = tmpdir.map(OsString::from);
            assert_eq!(tmp_dir(tmpdir.as_ref()), want.as_bytes());
        }
    }
}
