//! Files whose labels cannot be set, by what mountinfo says of their file systems: those that keep
//! no label for each file (vfat, NFS, anything mounted with `context=`), and read-only ones.
//!
//! Such a file stays as it is, and the policy is asked whether the guest may use it so (`preflight`).

use crate::host::Host;
use crate::host::mountinfo::{self, MOUNTINFO, Mount};
use crate::host::sysfs::SystemFiles;
use crate::model::resource::{Access, Class};
use crate::plan::step::{Action, Step};
use crate::text::message::Message;
use std::collections::BTreeMap;
use std::path::Path;

/// What is said of files whose labels cannot be set.
#[derive(Debug, Default)]
pub struct Kept {
    /// Those that stay as they are.
    pub warnings: Vec<Message>,
    /// Those that QEMU cannot use at all.
    pub obstacles: Vec<Message>,
}

/// Has files that cannot be labelled keep the labels that they have.
pub fn keep_labels(host: &dyn Host, files: &dyn SystemFiles, steps: &mut [Step]) -> Kept {
    let mut found = Kept::default();
    let Ok(table) = files.read_table(Path::new(MOUNTINFO)) else {
        // Setting a label will tell.
        return found;
    };
    let mounts: Vec<Mount<'_>> = mountinfo::mounts(&table).collect();
    let table = Table::new(&mounts);
    for step in steps {
        if let Some(mount) = table.of(host, step) {
            leave(step, mount, &mut found);
        }
    }
    found
}

fn leave(step: &mut Step, mount: &Mount<'_>, found: &mut Kept) {
    let resource = &step.resource;
    let (name, origin) = (resource.name(), &resource.origin);
    let why = if !mount.is_labelled() {
        format!(
            "its file system ({}) keeps no labels of files",
            String::from_utf8_lossy(mount.type_)
        )
    } else if !mount.is_writable() && step.action == Action::Relabel {
        let read = matches!(resource.access, Access::Read | Access::Exec);
        if !read {
            found.obstacles.push(Message::new(
                format!("cannot use {name} ({origin}) for writing: it is on a read-only file system"),
                "mount it for writing (mount -o remount,rw), name a copy, or have QEMU only read it \
                 (readonly=on)",
            ));
        }
        "it is on a read-only file system".to_owned()
    } else {
        return;
    };
    if step.class != Class::Content {
        found.warnings.push(
            format!(
                "{name} ({origin}) keeps its label, by which other guests may use it too: {why}"
            )
            .into(),
        );
    }
    step.class = Class::Keep;
    step.action = Action::None;
    step.label = None;
    step.reason.push_str(", not relabelled: ");
    step.reason.push_str(&why);
    step.fixed = Some(why);
}

/// Mounts by the number of their file system.
struct Table<'a> {
    mounts: &'a [Mount<'a>],
    /// None if its mounts differ in what matters.
    alike: BTreeMap<u64, Option<&'a Mount<'a>>>,
}

impl<'a> Table<'a> {
    fn new(mounts: &'a [Mount<'a>]) -> Self {
        let mut alike: BTreeMap<u64, Option<&Mount<'_>>> = BTreeMap::new();
        for mount in mounts {
            let one = alike.entry(mount.device).or_insert(Some(mount));
            if one.is_some_and(|one| {
                (one.is_labelled(), one.is_writable()) != (mount.is_labelled(), mount.is_writable())
            }) {
                *one = None;
            }
        }
        Self { mounts, alike }
    }

    /// Returns the mount of what a step would label or make.
    fn of(&self, host: &dyn Host, step: &Step) -> Option<&'a Mount<'a>> {
        let directory;
        let pinned = match (step.action, &step.resource.pinned, &step.resource.path) {
            (Action::Relabel, Some(pinned), _) => pinned,
            (Action::Create, _, Some(path)) => {
                directory = host.pin(path.parent()?).ok()?;
                &directory
            }
            _ => return None,
        };
        if let Some(Some(mount)) = self.alike.get(&pinned.identity.dev) {
            return Some(mount);
        }
        // Bound read-only somewhere, or a subvolume, whose number mountinfo does not have.
        let id = pinned.mount_id()?;
        self.mounts.iter().find(|mount| mount.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_is_mounted_in_two_ways_is_looked_up_by_its_mount() {
        let table = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,seclabel\n\
            31 22 254:0 /x /mnt ro,relatime - ext4 /dev/root rw,seclabel\n";
        let mounts: Vec<_> = mountinfo::mounts(table).collect();
        let table = Table::new(&mounts);
        let root = nix::sys::stat::makedev(254, 0);
        assert!(table.alike[&root].is_none(), "mounted in two ways");
    }
}
