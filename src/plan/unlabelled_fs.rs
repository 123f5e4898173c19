//! Files whose labels cannot be set, by what mountinfo says of their file systems: those that keep
//! no label for each file (vfat, NFS, anything mounted with `context=`), and read-only ones.
//!
//! Such a file stays as it is, and the policy is asked whether the guest may use it so (`preflight`).

use std::collections::BTreeMap;
use std::path::Path;

use crate::host::Host;
use crate::host::devices::SystemFiles;
use crate::model::resource::{Access, Class};
use crate::plan::{Action, Step};

/// A line of `/proc/self/mountinfo`; proc_pid_mountinfo(5).
#[derive(Debug)]
struct Mount {
    id: u64,
    dev: u64,
    kind: String,
    /// SELinux shows `seclabel` where files have labels of their own (`selinux_sb_show_options`,
    /// security/selinux/hooks.c in Linux).
    labelled: bool,
    writable: bool,
}

/// What is to be said of such files.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that stay as they are.
    pub warnings: Vec<String>,
    /// Those that QEMU cannot use at all.
    pub obstacles: Vec<String>,
}

/// Leaves alone what cannot be labelled.
pub fn leave_alone(host: &dyn Host, files: &dyn SystemFiles, steps: &mut [Step]) -> Found {
    let mut found = Found::default();
    let mounts = match files.read_table(Path::new("/proc/self/mountinfo")) {
        Ok(table) => mounts(&table),
        // Setting a label will tell.
        Err(_) => return found,
    };
    let table = Table::new(&mounts);
    for step in steps {
        if let Some(mount) = table.of(host, step) {
            leave(step, mount, &mut found);
        }
    }
    found
}

fn leave(step: &mut Step, mount: &Mount, found: &mut Found) {
    let resource = &step.resource;
    let (name, origin) = (resource.name(), &resource.origin);
    let why = if !mount.labelled {
        format!("its file system ({}) keeps no labels of files", mount.kind)
    } else if !mount.writable && step.action == Action::Relabel {
        let read = matches!(resource.access, Access::Read | Access::Exec);
        if !read {
            found.obstacles.push(format!(
                "cannot use {name} ({origin}) for writing: it is on a read-only file system; mount \
                 it for writing (mount -o remount,rw), name a copy, or have QEMU only read it \
                 (readonly=on)"
            ));
        }
        "it is on a read-only file system".to_owned()
    } else {
        return;
    };
    if step.class != Class::Content {
        found.warnings.push(format!(
            "{name} ({origin}) keeps its label, by which other guests may use it too: {why}"
        ));
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
    mounts: &'a [Mount],
    /// None where its mounts differ in what matters.
    alike: BTreeMap<u64, Option<&'a Mount>>,
}

impl<'a> Table<'a> {
    fn new(mounts: &'a [Mount]) -> Self {
        let mut alike: BTreeMap<u64, Option<&Mount>> = BTreeMap::new();
        for mount in mounts {
            let one = alike.entry(mount.dev).or_insert(Some(mount));
            if one
                .is_some_and(|one| (one.labelled, one.writable) != (mount.labelled, mount.writable))
            {
                *one = None;
            }
        }
        Self { mounts, alike }
    }

    /// The mount of what a step would label or make.
    fn of(&self, host: &dyn Host, step: &Step) -> Option<&'a Mount> {
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

fn mounts(table: &[u8]) -> Vec<Mount> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| one(&String::from_utf8_lossy(line)))
        .collect()
}

fn one(line: &str) -> Option<Mount> {
    // Optional fields end with a lone dash.
    let (mount, system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let id = mount.next()?.parse().ok()?;
    let (major, minor) = mount.nth(1)?.split_once(':')?;
    let options = mount.nth(2)?;
    let mut system = system.split(' ');
    let kind = system.next()?.to_owned();
    // The source may be empty, and is a field all the same.
    let of_system = system.nth(1)?;
    let has = |options: &str, wanted: &str| options.split(',').any(|option| option == wanted);
    Some(Mount {
        id,
        dev: nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?),
        kind,
        labelled: has(of_system, "seclabel"),
        writable: !has(options, "ro") && !has(of_system, "ro"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_tells_labelled_and_writable_file_systems() {
        let table = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,seclabel\n\
            30 22 0:26 / /srv/a\\040b rw - vfat /dev/loop0 rw,fmask=0022\n\
            31 22 254:0 /x /mnt ro,relatime - ext4 /dev/root rw,seclabel\n\
            32 22 0:27 / /t rw shared:3 master:4 - tmpfs t rw,context=\"u:object_r:x_t:s0:c1,c2\"\n\
            33 22 0:28 / /s rw - squashfs  ro,seclabel\n\
            nonsense\n";
        let found: Vec<_> = mounts(table)
            .into_iter()
            .map(|mount| (mount.id, mount.kind, mount.labelled, mount.writable))
            .collect();
        let expected = [
            (22, "ext4", true, true),
            (30, "vfat", false, true),
            (31, "ext4", true, false),
            (32, "tmpfs", false, true),
            (33, "squashfs", true, false),
        ]
        .map(|(id, kind, labelled, writable)| (id, kind.to_owned(), labelled, writable));
        assert_eq!(found, expected);
        let found = mounts(table);
        let table = Table::new(&found);
        let root = nix::sys::stat::makedev(254, 0);
        assert!(table.alike[&root].is_none(), "mounted in two ways");
    }
}
