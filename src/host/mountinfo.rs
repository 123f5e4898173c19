//! `/proc/self/mountinfo`: which file system a file is on, and how it is mounted;
//! proc_pid_mountinfo(5).

use std::ffi::OsString;

use crate::host::mangle::{BLANKS, unmangled};

/// Where the kernel has this process's mounts.
pub const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A line of it.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'a> {
    /// Number of the mount.
    pub id: u64,
    /// Device of the file system, as `st_dev` has it.
    pub device: u64,
    point: &'a [u8],
    options: &'a [u8],
    /// Type of the file system.
    pub type_: &'a [u8],
    source: &'a [u8],
    super_options: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
        let id = number(fields.next()?)?;
        let device = fields.nth(1)?;
        let colon = device.iter().position(|byte| *byte == b':')?;
        let (major, minor) = device.split_at_checked(colon)?;
        let minor = minor.strip_prefix(b":")?;
        let point = fields.nth(1)?;
        let options = fields.next()?;
        // Optional fields end with a lone dash.
        fields.find(|field| *field == b"-")?;
        Some(Self {
            id,
            device: nix::sys::stat::makedev(number(major)?, number(minor)?),
            point,
            options,
            type_: fields.next()?,
            // May be empty, and is a field all the same.
            source: fields.next()?,
            super_options: fields.next()?,
        })
    }

    /// Returns where it is mounted.
    pub fn point(&self) -> OsString {
        unmangled(self.point, BLANKS)
    }

    /// Returns what was mounted, as the caller of mount(2) named it.
    pub fn source(&self) -> OsString {
        unmangled(self.source, BLANKS)
    }

    /// Tells whether the mount has this option.
    pub fn has_option(&self, wanted: &str) -> bool {
        has(self.options, wanted)
    }

    /// Tells whether files have labels of their own. SELinux shows `seclabel` then
    /// (`selinux_sb_show_options`, security/selinux/hooks.c in Linux).
    pub fn is_labelled(&self) -> bool {
        has(self.super_options, "seclabel")
    }

    /// Tells whether neither the mount nor the file system is read-only.
    pub fn is_writable(&self) -> bool {
        !has(self.options, "ro") && !has(self.super_options, "ro")
    }
}

fn has(options: &[u8], wanted: &str) -> bool {
    options
        .split(|byte| *byte == b',')
        .any(|option| option == wanted.as_bytes())
}

/// Returns the mounts of a table, in its order. Lines that are none are left out.
pub fn mounts(table: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(Mount::parse)
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
            .map(|mount| {
                let type_ = String::from_utf8_lossy(mount.type_);
                (
                    mount.id,
                    type_.into_owned(),
                    mount.is_labelled(),
                    mount.is_writable(),
                )
            })
            .collect();
        let expected = [
            (22, "ext4", true, true),
            (30, "vfat", false, true),
            (31, "ext4", true, false),
            (32, "tmpfs", false, true),
            (33, "squashfs", true, false),
        ]
        .map(|(id, type_, labelled, writable)| (id, type_.to_owned(), labelled, writable));
        assert_eq!(found, expected);
        assert_eq!(mounts(table).nth(1).unwrap().point(), "/srv/a b");
    }

    #[test]
    fn the_options_of_a_mount() {
        let table = b"22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      30 22 0:25 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,nosuid\n\
                      2\n";
        let options = |id| {
            let mount = mounts(table).find(|mount| mount.id == id)?;
            Some(std::str::from_utf8(mount.options).unwrap())
        };
        assert_eq!(options(22), Some("rw,relatime"));
        assert_eq!(options(30), Some("rw,nosuid,nodev"));
        assert_eq!(options(2), None);
        let nodev = |id| {
            mounts(table)
                .find(|m| m.id == id)
                .unwrap()
                .has_option("nodev")
        };
        assert_eq!((nodev(22), nodev(30)), (false, true));
    }
}
