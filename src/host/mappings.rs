//! Which files a process has mapped, by `/proc/PID/maps`; proc_pid_maps(5).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use nix::sys::stat::makedev;
use nix::unistd::Pid;

use crate::host::mountinfo::{self, MOUNTINFO};
use crate::host::pinned::Identity;
use crate::host::procfs::Procfs;
use crate::host::sysfs::{SysRoot, SystemFiles};
use crate::host::{Files, RealHost};

/// Bytes of the table of a process that are read: the process decides how many mappings it has, up to
/// vm.max_map_count, and how long their names are. The default of 65,530 mappings with names of PATH_MAX
/// bytes is about that.
const MAX_TABLE: u64 = 320 << 20;

/// Bytes of the longest line: PATH_MAX, of which each may stand as four (`\012`), and the fields before it.
const MAX_LINE: u64 = 20 << 10;

/// How a file stands in tables of mappings.
///
/// They have the device of its file system (`show_map_vma`, fs/proc/task_mmu.c in Linux), which stat(2) does
/// not have where a subvolume has a device number of its own (btrfs), and not even that one for a file of
/// overlayfs, whose pages are those of a file below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InMaps {
    inode: u64,
    /// None: any.
    devices: Option<[u64; 2]>,
}

impl InMaps {
    /// Finds how a file stands there. In doubt its inode number is enough.
    pub fn of(host: &dyn Files, path: &Path, file: Identity) -> Self {
        let mount = || {
            let pinned = host.pin(path).ok()?;
            pinned.mount_id().filter(|_| pinned.identity == file)
        };
        let devices = mount().and_then(|mount| {
            let table = SysRoot::host().read_table(Path::new(MOUNTINFO)).ok()?;
            devices(&table, mount, file.dev)
        });
        Self {
            inode: file.ino,
            devices,
        }
    }

    /// Tells whether a process has the file mapped. One that has ended has nothing.
    ///
    /// # Errors
    /// The process may not be looked into, or its table is longer than any that is read.
    pub fn is_mapped(&self, host: &RealHost, pid: Pid) -> io::Result<bool> {
        let mut is_mapped = false;
        let seen = each(host.procfs(), pid, &mut |mapping| {
            is_mapped = self.is(mapping);
            !is_mapped
        });
        match seen {
            Err(error) if !Procfs::is_gone(&error) => Err(error),
            _ => Ok(is_mapped),
        }
    }

    fn is(&self, mapping: &Mapping<'_>) -> bool {
        let devices = self.devices.as_ref();
        mapping.inode == self.inode
            && devices.is_none_or(|devices| devices.contains(&mapping.device))
    }
}

/// A line of a table of mappings: `address permissions offset major:minor inode name`.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// Such as `rw-s`.
    pub permissions: &'a [u8],
    /// The device of the file's file system.
    pub device: u64,
    /// 0 for memory without a file.
    pub inode: u64,
    /// The file's name, newlines in it as `\012`; empty for memory without a file or name.
    pub name: &'a [u8],
}

impl<'a> Mapping<'a> {
    /// Reads a line. None if it is none.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut rest = line.strip_suffix(b"\n").unwrap_or(line);
        let mut field = || {
            rest = rest.trim_ascii_start();
            let end = rest.iter().position(|byte| *byte == b' ');
            let (field, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            field
        };
        let (_, permissions, _, device, inode) = (field(), field(), field(), field(), field());
        let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            permissions,
            device: makedev(number(major)?, number(minor)?),
            inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
            name: rest.trim_ascii_start(),
        })
    }
}

/// Calls `visit` with each mapping of a process, until that returns false.
///
/// # Errors
/// The process may not be looked into, is gone, or its table is longer than any that is read.
pub fn each(
    procfs: &Procfs,
    pid: Pid,
    visit: &mut dyn FnMut(&Mapping<'_>) -> bool,
) -> io::Result<()> {
    let table = File::from(procfs.open_file(&format!("{pid}/maps"))?);
    each_in(BufReader::with_capacity(64 << 10, table), MAX_TABLE, visit)
}

fn each_in(
    table: impl BufRead,
    most: u64,
    visit: &mut dyn FnMut(&Mapping<'_>) -> bool,
) -> io::Result<()> {
    let mut table = table.take(most);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut table).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if length == 0 && table.limit() > 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return Err(io::Error::other("its table of mappings is too long"));
        }
        if Mapping::parse(&line).is_some_and(|mapping| !visit(&mapping)) {
            return Ok(());
        }
    }
}

/// Returns the device numbers by which a table of mappings may name a file with this `st_dev`.
fn devices(table: &[u8], mount: u64, device: u64) -> Option<[u64; 2]> {
    let mount = mountinfo::mounts(table).find(|found| found.id == mount)?;
    (mount.type_ != b"overlay").then_some([device, mount.device])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"5600-5700 r-xp 00000000 fd:00 12   /usr/lib/a b.so\n\
        7f00-7f10 rw-s 00001000 00:2a 4711                       /srv/a b\\012.img (deleted)\n\
        7f10-7f20 rw-p 00000000 00:00 0 \n\
        7f20-7f30 rw-p 00000000 00:00 0                          [heap]\n";

    fn is_in(wanted: &InMaps, table: impl BufRead, most: u64) -> io::Result<bool> {
        let mut found = false;
        each_in(table, most, &mut |mapping| {
            found |= wanted.is(mapping);
            !found
        })?;
        Ok(found)
    }

    fn in_maps(inode: u64, devices: Option<[u64; 2]>) -> InMaps {
        InMaps { inode, devices }
    }

    #[test]
    fn a_file_is_found_by_its_inode_number_and_either_device_number() {
        let root = makedev(0xfd, 0);
        let subvolume = makedev(0, 0x2b);
        let file_system = makedev(0, 0x2a);
        for (wanted, found) in [
            (in_maps(12, Some([root, root])), true),
            (in_maps(13, Some([root, root])), false),
            // Another file that has this inode number on another file system.
            (in_maps(4711, Some([root, root])), false),
            (in_maps(4711, Some([subvolume, file_system])), true),
            (in_maps(4711, Some([file_system, file_system])), true),
            (in_maps(4711, Some([subvolume, subvolume])), false),
            (in_maps(4711, None), true),
            (in_maps(1, None), false),
        ] {
            assert_eq!(
                is_in(&wanted, TABLE, MAX_TABLE).unwrap(),
                found,
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn a_table_that_is_cut_off_or_too_long_is_no_answer() {
        let wanted = in_maps(1, None);
        assert!(is_in(&wanted, &TABLE[..TABLE.len() - 1], MAX_TABLE).is_err());
        let long = [
            b"7f00-7f10 rw-s 00001000 00:2a 1 /",
            &[b'x'; 30_000][..],
            b"\n",
        ]
        .concat();
        assert!(is_in(&wanted, long.as_slice(), MAX_TABLE).is_err());
        assert!(!is_in(&wanted, &b""[..], MAX_TABLE).unwrap());
        // More than any that is read, without an end.
        let endless = io::repeat(b'\n');
        assert!(is_in(&wanted, BufReader::new(endless), 1000).is_err());
    }

    #[test]
    fn devices_are_those_of_stat_and_of_the_mount_but_on_overlayfs() {
        let table = b"30 1 0:42 /sub /srv rw - btrfs /dev/vdb rw\n\
            31 1 0:50 / /var rw - overlay overlay rw\n";
        let own = makedev(0, 43);
        assert_eq!(devices(table, 30, own), Some([own, makedev(0, 42)]));
        assert_eq!(devices(table, 31, own), None);
        assert_eq!(devices(table, 32, own), None);
    }

    #[test]
    fn what_this_process_has_mapped_is_found_and_nothing_else() {
        let host = RealHost::new().unwrap();
        let is_mapped = |path: &Path| {
            let wanted = InMaps::of(&host, path, host.pin(path).unwrap().identity);
            wanted.is_mapped(&host, Pid::this()).unwrap()
        };
        // Its program is mapped, and closed.
        assert!(is_mapped(&std::env::current_exe().unwrap()));
        let other = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_mapped(other.path()));
    }
}
