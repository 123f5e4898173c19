//! Beside guests of the real libvirt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

/// Where libvirt's user may go.
const IMAGES: &str = "/var/lib/libvirt/images";

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    stdout(&output)
}

/// A file of libvirt's users, removed at the test's end.
struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Self {
        let path = image(Path::new(IMAGES), name);
        run(&["restorecon", "-F", path.to_str().unwrap()]);
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A guest of libvirt's, destroyed at the test's end.
struct Domain(&'static str);

impl Domain {
    /// Starts one that only QEMU's code runs in, with these disks.
    fn create(name: &'static str, disks: &str, seclabel: &str) -> Self {
        // libvirt's domain on Debian may not run code that it has made, as TCG does.
        run(&["setsebool", "virt_use_execmem", "on"]);
        run(&["systemctl", "start", "virtlogd.socket", "libvirtd"]);
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
             <emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}</devices>{seclabel}</domain>"
        );
        let file = format!("/run/{name}.xml");
        fs::write(&file, xml).unwrap();
        run(&["virsh", "create", "--paused", &file]);
        Self(name)
    }

    fn pid(&self) -> u32 {
        let file = format!("/run/libvirt/qemu/{}.pid", self.0);
        fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    fn is_well(&self) -> bool {
        run(&["virsh", "domstate", self.0]).trim() == "paused"
    }

    fn end(self) {
        drop(self);
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        let _ = Command::new("virsh").args(["destroy", self.0]).output();
        // Other tests look at the domain that guests get without it.
        let _ = Command::new("setsebool")
            .args(["virt_use_execmem", "off"])
            .output();
    }
}

fn disk(image: &Image) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/>\
         <target dev='vda' bus='virtio'/></disk>",
        image.text()
    )
}

fn cdrom(image: &Image) -> String {
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
            let output = svirt_exec([STUB, use_as, image.text()])
                .env("STUB", "exit 0")
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(125), "{name} {use_as}");
            let said = stderr(&output);
            for part in [
                &format!("process {}", domain.pid()),
                &format!("'{name}'"),
                words,
            ] {
                assert!(said.contains(part), "{name} {use_as}: {part}: {said}");
            }
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
    let mut guest = ours();
    assert_eq!(label(&iso.0), content);
    let domain = Domain::create("reader", &cdrom(&iso), "");
    assert!(domain.is_well());
    guest.qmp("{\"execute\":\"quit\"}");
    guest.child.wait().unwrap();
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
