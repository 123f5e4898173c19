//! Images on block devices: the device gets the guest's label first, then its header is read, and
//! what that names is labelled as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Guest, STUB, directory, image, label, level, stderr, svirt_exec};

/// An overlay on a loop device of a type that is given to guests; its backing file is a file.
struct Overlay {
    device: PathBuf,
    base: PathBuf,
    _directory: tempfile::TempDir,
}

impl Overlay {
    fn new() -> Self {
        let directory = directory();
        let base = image(directory.path(), "base.raw");
        let overlay = directory.path().join("overlay.qcow2");
        let overlay = overlay.to_str().unwrap();
        let backing = base.to_str().unwrap();
        output(
            "qemu-img",
            &[
                "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, overlay,
            ],
        );
        // A device of its own size, as a logical volume would have.
        fs::File::options()
            .write(true)
            .open(overlay)
            .unwrap()
            .set_len(4 << 20)
            .unwrap();
        let _ = Command::new("modprobe").arg("loop").status();
        let device = output("losetup", &["--find", "--show", overlay]);
        // udev labels the node when it hears of the new disk.
        output("udevadm", &["settle"]);
        output("chcon", &["-t", "removable_device_t", &device]);
        Self {
            device: PathBuf::from(device),
            base,
            _directory: directory,
        }
    }

    fn labels(&self) -> [String; 2] {
        [label(&self.device), label(&self.base)]
    }

    fn drive(&self) -> String {
        format!("file={},format=qcow2,if=virtio", self.device.display())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let device = self.device.to_str().unwrap();
        output("losetup", &["--detach", device]);
        let _ = Command::new("restorecon").args(["-F", device]).status();
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_the_header_of_a_device_names_is_labelled_too() {
    let overlay = Overlay::new();
    let before = overlay.labels();
    let mut command = svirt_exec([STUB, "-drive", &overlay.drive()]);
    command.env("STUB", "wait");
    let guest = Guest::start(command, "ready");
    let [device, base] = overlay.labels();
    assert_eq!(level(&device), level(&guest.label()));
    assert!(base.ends_with(":virt_content_t:s0"), "{base}");
    guest.end();
    assert_eq!(overlay.labels(), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_refusal_behind_a_device_puts_its_label_back() {
    let overlay = Overlay::new();
    fs::hard_link(&overlay.base, overlay.base.with_extension("link")).unwrap();
    let before = overlay.labels();
    let output = svirt_exec([STUB, "-drive", &overlay.drive()])
        .env("STUB", "wait")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("hard links"), "{output:?}");
    assert_eq!(overlay.labels(), before);
    let left = fs::read_dir("/var/lib/svirt-exec/guests").unwrap().count();
    assert_eq!(left, 0);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_plan_says_that_the_chain_on_a_device_is_unknown() {
    let overlay = Overlay::new();
    let before = overlay.labels();
    let output = svirt_exec(["plan", "--json", STUB, "-drive", &overlay.drive()])
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings = plan["warnings"].to_string();
    assert!(warnings.contains("chain unknown"), "{warnings}");
    let device = &plan["resources"][0];
    assert_eq!(Path::new(device["path"].as_str().unwrap()), overlay.device);
    assert_eq!(device["action"], "relabel");
    assert_eq!(overlay.labels(), before);
}
