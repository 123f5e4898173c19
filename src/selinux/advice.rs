//! What to type where the policy is in the way: booleans, and types for good.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::text::escape::shell_word;

/// Booleans that open a type to guests: the tunables of virt.te in refpolicy and in Fedora's policy, and
/// those of the svirt_launcher module.
const BOOLEANS: [(&str, &str); 11] = [
    ("nfs_t", "virt_use_nfs"),
    ("cifs_t", "virt_use_samba"),
    ("fusefs_t", "virt_use_fusefs"),
    ("dosfs_t", "virt_use_usb"),
    ("usb_device_t", "virt_use_usb"),
    ("sysfs_t", "virt_use_sysfs"),
    ("vfio_device_t", "virt_use_vfio"),
    ("tty_device_t", "svirt_launcher_use_serial"),
    ("boot_t", "svirt_launcher_read_boot"),
    ("modules_object_t", "svirt_launcher_read_boot"),
    ("evdev_device_t", "virt_use_evdev"),
];

/// Booleans of the svirt_launcher module that let the launcher give devices of a type to guests.
const DEVICE_BOOLEANS: [(&str, &str); 6] = [
    ("fixed_disk_device_t", "svirt_launcher_use_fixed_disks"),
    ("removable_device_t", "svirt_launcher_use_removable"),
    ("tun_tap_device_t", "svirt_launcher_use_macvtap"),
    ("tty_device_t", "svirt_launcher_use_serial"),
    ("vfio_device_t", "svirt_launcher_use_vfio"),
    ("usb_device_t", "svirt_launcher_use_usb"),
];

fn look_up(table: &[(&str, &'static str)], type_: &str) -> Option<&'static str> {
    let row = table.iter().find(|(opened, _)| *opened == type_);
    row.map(|(_, boolean)| *boolean)
}

/// Returns the policy's boolean that opens a type to guests.
pub fn boolean_for(type_: &str) -> Option<&'static str> {
    look_up(&BOOLEANS, type_)
}

/// Returns the boolean of the svirt_launcher module that gives devices of a type to guests.
pub fn device_boolean(type_: &str) -> Option<&'static str> {
    look_up(&DEVICE_BOOLEANS, type_)
}

/// Returns the command that gives a file a type for good.
///
/// semanage-fcontext(8) takes a regular expression. The policy knows what systemd keeps in
/// /var/lib/private below /var/lib (`file_contexts.subs_dist`).
pub fn giving_type(type_: &str, path: &Path) -> String {
    let known = match path.strip_prefix("/var/lib/private") {
        Ok(rest) => Path::new("/var/lib").join(rest),
        Err(_) => path.to_path_buf(),
    };
    let mut expression = Vec::new();
    for byte in known.as_os_str().as_bytes() {
        // A dot matches itself, too.
        if b"\\+*?()[]{}^$|".contains(byte) {
            expression.push(b'\\');
        }
        expression.push(*byte);
    }
    format!(
        "semanage fcontext -a -t {type_} {} && restorecon -F {}",
        shell_word(OsStr::from_bytes(&expression)),
        shell_word(path)
    )
}

/// Returns the remedy for a file whose type is not given to guests. `path` is the file's, without
/// symbolic links.
pub fn not_an_image(path: &Path) -> String {
    format!(
        "files of this type are not given to guests: move it to /var/lib/libvirt/images or a home \
         directory, or give it an image's type: {}",
        giving_type("virt_image_t", path)
    )
}

/// Returns the remedy for a file of a type that a boolean opens to guests.
pub fn opened_by(type_: &str) -> Option<String> {
    boolean_for(type_).map(|boolean| format!("setsebool -P {boolean} on, or make a copy"))
}

/// Returns the remedy for a directory that guests may not pass through.
pub fn not_searchable(type_: &str, directory: &Path) -> String {
    match boolean_for(type_) {
        Some(boolean) => format!(
            "setsebool -P {boolean} on, or copy the file to a directory that guests may search, such as \
             /var/lib/libvirt/images"
        ),
        None => format!(
            "move the file to a directory that guests may search, such as /var/lib/libvirt/images, or \
             give the directory such a type: {}",
            giving_type("virt_image_t", directory)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// semanage(8) would take the name for an expression, the shell for several words.
    #[test]
    fn a_name_is_typed_so_that_shell_and_semanage_read_it() {
        let table = [
            ("/srv/a.img", "/srv/a.img", "/srv/a.img"),
            ("/new+comer/a", r"'/new\+comer/a'", "/new+comer/a"),
            ("/a (1)", r"'/a \(1\)'", "'/a (1)'"),
            ("/it's", r"'/it'\''s'", r"'/it'\''s'"),
            ("/var/lib/private/x", "/var/lib/x", "/var/lib/private/x"),
        ];
        for (path, expression, word) in table {
            assert_eq!(
                giving_type("t", Path::new(path)),
                format!("semanage fcontext -a -t t {expression} && restorecon -F {word}")
            );
        }
    }
}
