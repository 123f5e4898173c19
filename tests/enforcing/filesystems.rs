//! File systems that keep no labels or cannot be written to, files of other users, long chains and
//! many disks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::lib::*;

/// What guests without KVM may write on Debian, without categories.
const SHARED: &str = "system_u:object_r:svirt_prot_exec_image_t:s0";
const CONTENT: &str = "system_u:object_r:virt_content_t:s0";

/// A file system that is mounted until the end of a test.
struct Mounted {
    point: PathBuf,
    directories: Vec<tempfile::TempDir>,
}

impl Mounted {
    /// `mount OPTIONS SOURCE POINT`.
    fn new(options: &[&str], source: &Path) -> Self {
        let directory = directory();
        let point = directory.path().join("mnt");
        fs::create_dir(&point).unwrap();
        succeeds(Command::new("mount").args(options).args([source, &point]));
        Self {
            point,
            directories: vec![directory],
        }
    }

    /// A FAT file system, whose files have no labels of their own.
    fn vfat() -> Self {
        let directory = directory();
        let file = image(directory.path(), "fat");
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
        succeeds(Command::new("mkfs.vfat").arg(&file));
        let mut mounted = Self::new(&["-o", "loop"], &file);
        mounted.directories.push(directory);
        mounted
    }

    /// A tmpfs whose files all have one label.
    fn with_context(context: &str) -> Self {
        let option = format!("context={context}");
        Self::new(&["-t", "tmpfs", "-o", &option], Path::new("t"))
    }

    /// A squashfs of a directory, labels and all.
    fn squashfs(of: &Path) -> Self {
        let directory = directory();
        let file = directory.path().join("squash");
        succeeds(
            Command::new("mksquashfs")
                .args([of, &file])
                .args(["-quiet", "-no-progress"]),
        );
        let mut mounted = Self::new(&["-o", "loop"], &file);
        mounted.directories.push(directory);
        mounted
    }

    /// A directory once more, read-only.
    fn read_only(of: &Path) -> Self {
        let mounted = Self::new(&["--bind"], of);
        let point = mounted.point.to_str().unwrap();
        run(&["mount", "-o", "remount,bind,ro", point]);
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.point).status();
    }
}

/// `svirt-exec stub -drive …`, which opens `path` as a guest.
fn open(mode: &str, path: &Path, drive: &str) -> Output {
    let drive = format!("file={},if=virtio,{drive}", path.display());
    svirt_exec([STUB, "-drive", &drive])
        .env("STUB", format!("open {mode} {}", path.display()))
        .output()
        .unwrap()
}

fn goes_on(output: &Output) -> String {
    let said = ended_with(output, 0, &[]);
    assert_eq!(stdout(output), "ok\n", "{said}");
    keepers_done();
    said
}

/// Checks that a launch is refused in one line besides warnings and notes, with the label as it was.
fn stops(output: &Output, path: &Path, before: &str, parts: &[&str]) {
    let said = refused(output, parts);
    let aside = [": warning: ", ": note: "];
    let refusals = said
        .lines()
        .filter(|line| !aside.iter().any(|word| line.contains(word)));
    assert_eq!(refusals.count(), 1, "{said}");
    nothing_happened(path, before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_on_vfat_goes_on_where_a_boolean_lets_guests_use_it_and_names_it_where_not() {
    let fat = Mounted::vfat();
    let disk = image(&fat.point, "disk.img");
    let before = label(&disk);
    assert!(before.contains(":dosfs_t:"), "{before}");
    stops(
        &open("rw", &disk, "format=raw"),
        &disk,
        &before,
        &[
            "QEMU will not be allowed to use",
            "its file system (vfat) keeps no labels of files",
            "setsebool -P virt_use_usb on",
        ],
    );
    let _boolean = Boolean::on("virt_use_usb");
    let said = goes_on(&open("rw", &disk, "format=raw"));
    assert!(said.contains("keeps its label"), "{said}");
    nothing_happened(&disk, &before);
    // An image whose header has to be read, and the files that it names.
    succeeds(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .args([&disk, &fat.point.join("top.qcow2")]),
    );
    goes_on(&open("rw", &fat.point.join("top.qcow2"), "format=qcow2"));
    nothing_happened(&disk, &before);
    // And one that QEMU makes.
    let log = fat.point.join("serial.log");
    let serial = format!("file:{}", log.display());
    succeeds(svirt_exec([STUB, "-serial", &serial]).env("STUB", "exit 0"));
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_tmpfs_with_one_context_goes_on_where_the_policy_lets_guests_use_that() {
    let good = Mounted::with_context(SHARED);
    let disk = image(&good.point, "disk.img");
    let said = goes_on(&open("rw", &disk, "format=raw"));
    assert!(said.contains("(tmpfs) keeps no labels of files"), "{said}");
    nothing_happened(&disk, SHARED);
    let bad = Mounted::with_context("system_u:object_r:user_home_t:s0");
    let disk = image(&bad.point, "disk.img");
    let before = label(&disk);
    for drive in ["format=raw", "format=raw,readonly=on"] {
        stops(
            &open("r", &disk, drive),
            &disk,
            &before,
            &["(tmpfs) keeps no labels of files; copy it to"],
        );
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_is_read_only_goes_on_where_guests_may_read_it() {
    let source = directory();
    let (good, bad) = (
        image(source.path(), "good.iso"),
        image(source.path(), "bad.iso"),
    );
    chcon(&[CONTENT], &good);
    let before = label(&bad);
    assert!(before.contains(":user_home_t:"), "{before}");
    for mounted in [
        Mounted::squashfs(source.path()),
        Mounted::read_only(source.path()),
    ] {
        let [good, bad] = ["good.iso", "bad.iso"].map(|name| mounted.point.join(name));
        goes_on(&open("r", &good, "format=raw,readonly=on"));
        nothing_happened(&good, CONTENT);
        stops(
            &open("r", &bad, "format=raw,readonly=on"),
            &bad,
            &before,
            &[
                "may not open user_home_t",
                "it is on a read-only file system; copy it to",
            ],
        );
        stops(
            &open("rw", &bad, "format=raw"),
            &bad,
            &before,
            &[
                "cannot use",
                "for writing: it is on a read-only file system",
            ],
        );
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_file_of_another_user_is_refused_even_where_everybody_may_write_it() {
    let path = Path::new("/var/tmp/svirt-bobs.img");
    fs::write(path, [0; 4096]).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    run(&["chown", "bob", path.to_str().unwrap()]);
    let before = label(path);
    let output = as_user("alice")
        .args([STUB, "-drive"])
        .arg(format!("file={},format=raw", path.display()))
        .env("STUB", "exit 0")
        .output()
        .unwrap();
    stops(
        &output,
        path,
        &before,
        &["it belongs to user", "CAP_FOWNER", "make a copy"],
    );
    fs::remove_file(path).unwrap();
}

/// A chain of that many qcow2 files, the first on top. Each names the next; the last names none.
fn chain(directory: &Path, length: usize) -> Vec<PathBuf> {
    let name = |number: usize| format!("{number:03}.qcow2");
    let make = |arguments: &[&str]| {
        succeeds(
            Command::new("qemu-img")
                .args(["create", "-q", "-u", "-f", "qcow2"])
                .args(arguments)
                .args(["new", "1M"])
                .current_dir(directory),
        );
        fs::read(directory.join("new")).unwrap()
    };
    let last = make(&[]);
    let link = make(&["-F", "qcow2", "-b", &name(0)]);
    fs::remove_file(directory.join("new")).unwrap();
    let at = link
        .windows(9)
        .position(|part| part == name(0).as_bytes())
        .unwrap();
    (0..length)
        .map(|number| {
            let mut bytes = link.clone();
            bytes[at..at + 9].copy_from_slice(name(number + 1).as_bytes());
            let path = directory.join(name(number));
            let whole = if number + 1 == length { &last } else { &bytes };
            fs::write(&path, whole).unwrap();
            path
        })
        .collect()
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_chain_of_200_images_runs_in_the_real_qemu_and_one_of_300_is_refused() {
    let directory = directory();
    let images = chain(directory.path(), 300);
    let before = label(&images[0]);
    let drive = |top: &Path| {
        let top = top.display();
        format!("file={top},format=qcow2,if=none,id=d")
    };
    let output = svirt_exec([STUB, "-drive", &drive(&images[0])])
        .env("STUB", "exit 0")
        .output()
        .unwrap();
    stops(
        &output,
        &images[0],
        &before,
        &["more than 200 in a chain", "'"],
    );
    let all = |images: &[PathBuf], wanted: &str| labels(images).iter().all(|label| label == wanted);
    assert!(all(&images, &before));
    let guest = Guest::qemu(&[], ["-S", "-drive", &drive(&images[100])]);
    assert_eq!(level(&label(&images[100])), level(&guest.label()));
    assert!(all(&images[101..], CONTENT));
    assert!(all(&images[..100], &before));
    assert_eq!(guest.end(), 0);
    assert!(all(&images, &before));
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_thousand_disks_in_one_line_are_labelled_and_restored() {
    let directory = directory();
    let disks: Vec<PathBuf> = (0..1000)
        .map(|number| image(directory.path(), &format!("{number}.img")))
        .collect();
    let before = labels(&disks);
    let words = disks.iter().flat_map(|disk| {
        [
            "-drive".to_owned(),
            format!("file={},format=raw,if=none", disk.display()),
        ]
    });
    let guest = Guest::start_stub(svirt_exec([STUB.to_owned()].into_iter().chain(words)));
    let pair = level(&guest.label());
    assert_eq!(
        labels(&disks)
            .iter()
            .filter(|label| level(label) == pair)
            .count(),
        1000
    );
    assert_eq!(guest.end(), 0);
    assert_eq!(labels(&disks), before);
}
