//! `--label-tree`: a directory that is handed over to a guest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lib::*;

/// DIR/{a, sub/{b, deep/c}, link -> outside}, and a file outside.
fn tree() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = directory();
    let root = directory.path().join("share");
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    for name in ["a", "sub/b", "sub/deep/c"] {
        fs::write(root.join(name), name).unwrap();
    }
    let outside = directory.path().join("outside");
    fs::write(&outside, "").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    (directory, root, outside)
}

const INSIDE: [&str; 6] = ["", "a", "sub", "sub/b", "sub/deep", "sub/deep/c"];

fn labels_in(root: &Path) -> Vec<String> {
    labels(&INSIDE.map(|name| root.join(name)))
}

fn sharing(root: &Path) -> Command {
    let mut command = svirt_exec(["--label-tree".as_ref(), root.as_os_str(), STUB.as_ref()]);
    command
        .arg("-virtfs")
        .arg(format!(
            "local,path={},mount_tag=x,security_model=none",
            root.display()
        ))
        .env("STUB", "wait");
    command
}

#[test]
#[ignore = "needs the bed: make test"]
fn everything_in_it_is_the_guests_and_goes_back() {
    let (_directory, root, outside) = tree();
    let (before, before_outside) = (labels_in(&root), label(&outside));
    let guest = Guest::start_stub(sharing(&root));
    let pair = level(&guest.label());
    for (name, label) in INSIDE.iter().zip(labels_in(&root)) {
        assert_eq!(level(&label), pair, "{name}: {label}");
    }
    assert_eq!(label(&outside), before_outside);
    // Without handing it over the guest would not get in, and no other does.
    let file = root.join("a");
    let other = outsider(&format!("open r {}", file.display()));
    assert_eq!(other, "Permission denied (os error 13)");
    guest.end();
    assert_eq!(labels_in(&root), before);
    assert_eq!(label(&outside), before_outside);
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_the_guest_made_and_moved_in_it_goes_back_too() {
    let (_directory, root, outside) = tree();
    let before = label(&root);
    let guest = Guest::start_stub(sharing(&root));
    let given = label(&root);
    // As the guest would have made them: its own label, also on a link that leads elsewhere.
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/file"), "").unwrap();
    symlink(&outside, root.join("new/link")).unwrap();
    for name in ["new", "new/file", "new/link"] {
        chcon(&["-h", &given], &root.join(name));
    }
    fs::rename(root.join("sub/deep"), root.join("new/moved")).unwrap();
    let outside_before = label(&outside);
    guest.end();
    for name in [
        "new",
        "new/file",
        "new/link",
        "new/moved",
        "new/moved/c",
        "sub",
        "a",
    ] {
        let now = label(&root.join(name));
        assert_eq!(level(&now), level(&before), "{name}: {now}");
        assert_eq!(
            now.split(':').nth(2),
            before.split(':').nth(2),
            "{name}: {now}"
        );
    }
    assert_eq!(label(&outside), outside_before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_tree_with_something_that_cannot_be_labelled_is_refused_as_a_whole() {
    let (directory, root, outside) = tree();
    let before = labels_in(&root);
    fs::hard_link(&outside, root.join("sub/hard")).unwrap();
    let output = sharing(&root).output().unwrap();
    refused(&output, &["sub/hard", "hard links"]);
    assert_eq!(labels_in(&root), before);
    fs::remove_file(root.join("sub/hard")).unwrap();

    for (tree, words) in [
        (Path::new("/"), "the host's own"),
        (Path::new("/var"), "the host's own"),
        (Path::new("/etc"), "the host's own"),
        (&root.join("a"), "no directory"),
        (Path::new("/nonexistent"), "No such file"),
    ] {
        let output = sharing(tree).output().unwrap();
        refused(&output, &[words]);
    }
    drop(directory);
}

#[test]
#[ignore = "needs the bed: make test"]
fn other_file_systems_in_it_are_not_entered() {
    let (_directory, root, _) = tree();
    let mount = root.join("mount");
    fs::create_dir(&mount).unwrap();
    run(&["mount", "-t", "tmpfs", "tmpfs", mount.to_str().unwrap()]);
    fs::write(mount.join("file"), "").unwrap();
    let before = [label(&mount), label(&mount.join("file"))];
    let guest = Guest::start_stub(sharing(&root));
    assert_eq!([label(&mount), label(&mount.join("file"))], before);
    guest.end();
    Command::new("umount").arg(&mount).status().unwrap();
}

/// `fat:` reads every file of the directory when QEMU opens it.
#[test]
#[ignore = "needs the bed: make test"]
fn qemu_reads_a_tree_that_was_handed_over_and_no_other() {
    let (_directory, root, _) = tree();
    fs::remove_file(root.join("link")).unwrap();
    let before = labels_in(&root);
    let drive = format!(
        "file=fat:{},format=raw,if=virtio,readonly=on",
        root.display()
    );
    let output = svirt_exec([QEMU, "-accel", "qtest", "-S", "-drive", &drive])
        .output()
        .unwrap();
    refused(&output, &[]);
    let options = ["--label-tree", root.to_str().unwrap()];
    let mut guest = Guest::qemu(&options, ["-S", "-drive", &drive]);
    let answer = guest.qmp("{\"execute\":\"query-block\"}");
    assert!(answer.contains("vvfat"), "{answer}");
    assert_eq!(
        level(&label(&root.join("sub/deep/c"))),
        level(&guest.label())
    );
    guest.end();
    assert_eq!(labels_in(&root), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_socket_is_made_in_a_directory_that_becomes_the_guests_by_this_launch() {
    let (_directory, root, _outside) = tree();
    let socket = root.join("sub/channel");
    let channel = format!("socket,id=c,path={},server=on,wait=off", socket.display());
    let guest = Guest::qemu(
        &["--label-tree", root.to_str().unwrap()],
        ["-S", "-chardev", &channel],
    );
    assert_eq!(level(&label(&socket)), level(&guest.label()));
    // QEMU removes it.
    guest.end();
    wait_until("the label is back", || level(&label(&root)) == "s0");
}

/// The disk's record comes before the tree's in the entry, so the tree is swept first.
#[test]
#[ignore = "needs the bed: make test"]
fn a_hard_link_of_a_disk_in_a_tree_does_not_decide_the_disks_label() {
    let (directory, root, _outside) = tree();
    let disk = directory.path().join("disk.img");
    fs::write(&disk, [0; 4096]).unwrap();
    chcon(&["-t", "virt_image_t"], &disk);
    let before = label(&disk);
    let mut launch = sharing(&root);
    launch.arg("-hda").arg(&disk);
    let guest = Guest::start_stub(launch);
    assert_ne!(label(&disk), before);
    fs::hard_link(&disk, root.join("sub/second")).unwrap();
    guest.end();
    assert_eq!(label(&disk), before);
}

/// A guest may make a tree of any depth, which no path names the end of.
#[test]
#[ignore = "needs the bed: make test"]
fn a_chain_of_ten_thousand_directories_that_the_guest_made_goes_back() {
    use nix::fcntl::{OFlag, open, openat};
    use nix::sys::stat::{Mode, mkdirat};
    use std::os::fd::AsFd;

    let (_directory, root, _outside) = tree();
    let before = label(&root);
    let guest = Guest::start_stub(sharing(&root));
    let given = label(&root).parse().unwrap();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let top = || open(&root, flags, Mode::empty()).unwrap();
    svirt_exec::selinux::set_create_context(Some(&given)).unwrap();
    let mut at = top();
    for _ in 0..10_000 {
        mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
        at = openat(at.as_fd(), "d", flags, Mode::empty()).unwrap();
    }
    svirt_exec::selinux::set_create_context(None).unwrap();
    drop(at);
    guest.end();
    let mut at = top();
    for depth in 0..10_000 {
        let now = svirt_exec::selinux::label_of_fd(at.as_fd()).unwrap();
        assert_eq!(now.unwrap().to_string(), before, "{depth}");
        at = openat(at.as_fd(), "d", flags, Mode::empty()).unwrap();
    }
    drop(at);
    run(&["rm", "-rf", root.to_str().unwrap()]);
}
