//! Beside guests of the real libvirt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lib::*;

/// Where libvirt's user may go.
const IMAGES: &str = "/var/lib/libvirt/images";

/// A QEMU as libvirt knows it.
pub const BARE: &str = "/usr/bin/qemu-system-x86_64";
/// svirt-exec by that name.
pub const LINK: &str = "/usr/libexec/svirt-exec/qemu-system-x86_64";
/// What has libvirt leave the labels to svirt-exec.
pub const UNLABELLED: &str = "<seclabel type='none' model='selinux'/>";

/// A file of libvirt's users, removed at the test's end.
pub struct Image(pub PathBuf);

impl Image {
    pub fn new(name: &str) -> Self {
        let path = image(Path::new(IMAGES), name);
        run(&["restorecon", "-F", path.to_str().unwrap()]);
        Self(path)
    }

    pub fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A guest of libvirt's, destroyed at the test's end.
pub struct Domain {
    name: &'static str,
    /// libvirt's domain on Debian may not run code that it has made, as TCG does. It is off again after
    /// the guest: other tests look at the domain that guests get without it.
    _execmem: Boolean,
}

impl Domain {
    /// Starts one that only QEMU's code runs in, with these disks.
    pub fn create(name: &'static str, disks: &str, seclabel: &str) -> Self {
        Self::of(BARE, name, disks, seclabel)
    }

    /// The same with another emulator.
    pub fn of(emulator: &str, name: &'static str, disks: &str, seclabel: &str) -> Self {
        Self::begin(name, &xml(emulator, name, disks, seclabel), &["--paused"])
    }

    /// Starts one that is written down.
    pub fn begin(name: &'static str, xml: &str, options: &[&str]) -> Self {
        let execmem = Boolean::on("virt_use_execmem");
        run(&["systemctl", "start", "virtlogd.socket", "libvirtd"]);
        let file = format!("/run/{name}.xml");
        fs::write(&file, xml).unwrap();
        let domain = Self {
            name,
            _execmem: execmem,
        };
        run(&[&["virsh", "create", &file], options].concat());
        domain
    }

    /// A word to libvirt about it, which has to succeed.
    pub fn virsh(&self, words: &[&str]) -> String {
        let (command, further) = words.split_first().unwrap();
        run(&[&["virsh", command, self.name], further].concat())
    }

    /// Whether libvirt has it still.
    pub fn is_there(&self) -> bool {
        run(&["virsh", "list", "--name"])
            .lines()
            .any(|name| name == self.name)
    }

    pub fn pid(&self) -> u32 {
        let file = format!("/run/libvirt/qemu/{}.pid", self.name);
        fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    pub fn is_well(&self) -> bool {
        run(&["virsh", "domstate", self.name]).trim() == "paused"
    }

    pub fn end(self) {
        drop(self);
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let _ = Command::new("virsh").args(["destroy", self.name]).output();
        // snapshot-revert writes down a guest that shall not last, and the next start of libvirtd
        // finds it there.
        let _ = fs::remove_file(format!("/etc/libvirt/qemu/{}.xml", self.name));
    }
}

/// A guest as libvirt's users write it down.
pub fn xml(emulator: &str, name: &str, devices: &str, further: &str) -> String {
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
         <name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>\
         <devices><emulator>{emulator}</emulator>{devices}</devices>{further}</domain>"
    )
}

pub fn disk(image: &Image) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/>\
         <target dev='vda' bus='virtio'/></disk>",
        image.text()
    )
}

pub fn cdrom(image: &Image) -> String {
    format!(
        "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{}'/>\
         <target dev='hda' bus='ide'/><readonly/></disk>",
        image.text()
    )
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_of_a_libvirt_guest_is_refused_and_the_guest_named() {
    for (name, seclabel, words) in [
        ("labelled", "", "holds it"),
        // Nothing but QEMU's own lock shows that it is in use.
        (
            "unlabelled",
            "<seclabel type='none' model='selinux'/>",
            "has it open",
        ),
    ] {
        let image = Image::new("taken.img");
        let domain = Domain::create(name, &disk(&image), seclabel);
        let before = label(&image.0);
        for use_as in ["-hda", "-cdrom"] {
            // What it would make otherwise.
            let log = image.0.with_extension("log");
            let serial = format!("file:{}", log.display());
            let output = svirt_exec([STUB, use_as, image.text(), "-serial", &serial])
                .env("STUB", "exit 0")
                .output()
                .unwrap();
            println!("{name} {use_as}");
            let process = format!("process {}", domain.pid());
            refused(&output, &[&process, &format!("'{name}'"), words]);
            assert!(!log.exists(), "{name} {use_as}");
            assert_eq!(label(&image.0), before);
        }
        assert!(domain.is_well());
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn content_keeps_its_label_until_the_last_guest_has_ended_ours_or_libvirts() {
    let iso = Image::new("both.iso");
    run(&["chcon", "-t", "virt_image_t", iso.text()]);
    let before = label(&iso.0);
    let content = "system_u:object_r:virt_content_t:s0";
    let ours = || {
        Guest::qemu(
            &[],
            [
                "-S",
                "-drive",
                &format!("file={},format=raw,media=cdrom", iso.text()),
            ],
        )
    };
    // Ours ends first: the label goes back when libvirt's has ended.
    let guest = ours();
    assert_eq!(label(&iso.0), content);
    let domain = Domain::create("reader", &cdrom(&iso), "");
    assert!(domain.is_well());
    guest.quit();
    let directory = directory();
    another_guest_ends(directory.path());
    assert_eq!(label(&iso.0), content, "libvirt's guest still reads it");
    let output = svirt_exec(["restore"]).output().unwrap();
    assert!(stderr(&output).contains("both.iso"), "{output:?}");
    assert_eq!(label(&iso.0), content, "libvirt's guest still reads it");
    domain.end();
    wait_until("the label is back", || label(&iso.0) == before);

    // libvirt's ends first: it leaves the label of what guests only read.
    let domain = Domain::create("reader", &cdrom(&iso), "");
    let mut guest = ours();
    domain.end();
    assert_eq!(label(&iso.0), content);
    assert!(
        guest
            .qmp("{\"execute\":\"query-block\"}")
            .contains("both.iso")
    );
    guest.end();
}

/// libvirt's hook for its guests, removed at the test's end.
struct Hook;

impl Hook {
    const PATH: &str = "/etc/libvirt/hooks/qemu";

    fn install(script: &str) -> Self {
        fs::create_dir_all("/etc/libvirt/hooks").unwrap();
        fs::write(Self::PATH, script).unwrap();
        let hook = Self;
        run(&["chmod", "755", Self::PATH]);
        // Debian's policy lets libvirtd run no file of /etc/libvirt.
        run(&["chcon", "-t", "bin_t", Self::PATH]);
        // libvirtd looks for hooks when it starts.
        run(&["systemctl", "restart", "libvirtd"]);
        hook
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        let _ = fs::remove_file(Self::PATH);
        let _ = Command::new("systemctl")
            .args(["restart", "libvirtd"])
            .status();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_hook_of_libvirts_starts_a_confined_guest() {
    let out = "/run/svirt-hook.out";
    let hook = Hook::install(&format!(
        "#!/bin/sh\n[ \"$2\" = started ] || exit 0\n\
         STUB=dump {SVIRT_EXEC} {STUB} -S 2>&1 </dev/null | cat > {out}\n"
    ));
    let domain = Domain::create("hooked", "", "");
    wait_until("the hook has run", || {
        fs::read_to_string(out).is_ok_and(|text| text.contains("\nlabel "))
    });
    domain.end();
    drop(hook);
    let said = fs::read_to_string(out).unwrap();
    fs::remove_file(out).unwrap();
    let label = said
        .lines()
        .find(|line| line.starts_with("label "))
        .unwrap();
    assert!(label.contains("system_u:system_r:svirt_t:s0:c"), "{said}");
}
