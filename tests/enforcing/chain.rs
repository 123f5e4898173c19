//! Headers that name what they did not when a guest had their images last. A guest that was taken over writes
//! the header of its own disk: the next launch, told that the disk is qcow2, does not give it what it named.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::lib::*;

/// Makes images with `qemu-img create`, in a directory.
fn create(directory: &Path, words: &[&str]) -> PathBuf {
    succeeds(
        Command::new("qemu-img")
            .args(["create", "-q"])
            .args(words)
            .current_dir(directory),
    );
    let name = words.iter().rev().find(|word| word.contains('.')).unwrap();
    directory.join(name)
}

/// Makes a qcow2 image of 1 MiB that names nothing.
fn alone(directory: &Path, name: &str) -> PathBuf {
    create(directory, &["-f", "qcow2", name, "1M"])
}

/// Makes an overlay that is not opened to be made.
fn overlay(directory: &Path, name: &str, base: &str, format: &str) -> PathBuf {
    create(
        directory,
        &["-u", "-f", "qcow2", "-b", base, "-F", format, name, "1M"],
    )
}

/// Returns `-drive` of an image of a stated format.
fn drive(path: &Path, further: &str) -> String {
    format!("file={}{further}", path.display())
}

fn launch(options: &[&str], drives: &[String]) -> Output {
    let mut command = svirt_exec(options);
    command.arg(STUB);
    for drive in drives {
        command.args(["-drive", drive]);
    }
    let output = command.env("STUB", "exit 0").output().unwrap();
    keepers_done();
    output
}

fn launch_qcow2(disk: &Path) -> Output {
    launch(&[], &[drive(disk, ",format=qcow2")])
}

fn goes(output: &Output) -> String {
    ended_with(output, 0, &[])
}

/// Has a guest whose disk this is replace all that is in it, in the guest's own domain.
fn taken_over(disk: &Path, format: &str, with: &Path) {
    let mut launch = svirt_exec([STUB, "-drive"]);
    launch
        .arg(drive(disk, &format!(",format={format}")))
        .arg("-drive")
        .arg(drive(with, ",format=raw,readonly=on"));
    let mut guest = Hostile::start(launch);
    let act = format!("replace {} {}", disk.display(), with.display());
    assert_eq!(guest.tries(&act), "ok");
    guest.ends();
    keepers_done();
}

/// Checks that a launch is refused, and that a plan says so too and labels nothing.
fn refused_and_planned(drives: &[String], parts: &[&str]) -> String {
    let said = refused(&launch(&[], drives), parts);
    let mut plan = svirt_exec(["plan", STUB]);
    for drive in drives {
        plan.args(["-drive", drive]);
    }
    refused(&plan.output().unwrap(), parts);
    said
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_names_anothers_disk_in_its_header_is_not_given_it() {
    let directory = directory();
    let at = directory.path();
    let theirs = image(at, "theirs.raw");
    // Another guest's, which is not running now.
    goes(&launch(&[], &[drive(&theirs, ",format=raw")]));
    let before = label(&theirs);
    let disk = alone(at, "disk.qcow2");
    let own = label(&disk);
    // It is known from its first launch on that the disk names nothing.
    taken_over(
        &disk,
        "qcow2",
        &overlay(at, "evil.qcow2", "theirs.raw", "raw"),
    );
    let on = [drive(&disk, ",format=qcow2")];
    let parts = ["cannot follow the header of", "theirs.raw", "backing file"];
    let said = refused_and_planned(&on, &parts);
    assert!(said.contains("--accept-chain"), "{said}");
    nothing_happened(&disk, &own);
    nothing_happened(&theirs, &before);
    // A second refusal is no acquaintance.
    refused(&launch_qcow2(&disk), &parts);
    // The caller's word: on the line,
    let stated = format!(
        ",format=qcow2,backing.driver=raw,backing.file.filename={}",
        theirs.display()
    );
    goes(&launch(&[], &[drive(&disk, &stated)]));
    // and from then on it is known; or by the option.
    goes(&launch_qcow2(&disk));
    let second = alone(at, "second.qcow2");
    taken_over(&second, "qcow2", &at.join("evil.qcow2"));
    refused(&launch_qcow2(&second), &parts);
    let accept = ["--accept-chain", second.to_str().unwrap()];
    goes(&launch(&accept, &[drive(&second, ",format=qcow2")]));
    assert_eq!(goes(&launch_qcow2(&second)), "");
    assert_eq!(label(&theirs), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_names_anothers_disk_as_its_data_file_is_not_given_it_to_write() {
    let directory = directory();
    let at = directory.path();
    let theirs = image(at, "theirs.raw");
    let before = label(&theirs);
    let disk = alone(at, "disk.qcow2");
    // qemu-img writes to the data file that it makes: another of a name as long.
    let named = theirs.to_str().unwrap();
    let stand_in = at.join("standi.raw");
    let option = format!("data_file={}", stand_in.display());
    let evil = create(at, &["-f", "qcow2", "-o", &option, "evil.qcow2", "1M"]);
    let mut bytes = fs::read(&evil).unwrap();
    let name = stand_in.to_str().unwrap().as_bytes();
    assert_eq!(name.len(), named.len());
    let found = bytes.windows(name.len()).position(|part| part == name);
    bytes[found.unwrap()..][..name.len()].copy_from_slice(named.as_bytes());
    fs::write(&evil, bytes).unwrap();
    taken_over(&disk, "qcow2", &evil);
    let on = [drive(&disk, ",format=qcow2")];
    refused_and_planned(
        &on,
        &["cannot follow the header of", "theirs.raw", "data file"],
    );
    nothing_happened(&theirs, &before);
    // Nor to a disk that nobody knows: an image that somebody else made.
    let on = [drive(&evil, ",format=qcow2")];
    let parts = [
        "cannot give",
        "theirs.raw",
        "to be written",
        "data-file.filename=",
    ];
    refused_and_planned(&on, &parts);
    nothing_happened(&theirs, &before);
    // What it is for: stated, and known from then on.
    let stated = format!(",format=qcow2,data-file.driver=file,data-file.filename={named}");
    goes(&launch(&[], &[drive(&evil, &stated)]));
    assert_eq!(goes(&launch_qcow2(&evil)), "");
    // What it was given to be read is not given to be written.
    let base = alone(at, "base.raw");
    let reader = overlay(at, "reader.qcow2", base.to_str().unwrap(), "qcow2");
    goes(&launch_qcow2(&reader));
    taken_over(&reader, "qcow2", &evil);
    refused(
        &launch_qcow2(&reader),
        &["cannot follow the header of", "data file"],
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn every_format_that_names_files_is_held_to_what_it_named_and_a_raw_disk_is_none_of_them() {
    let directory = directory();
    let at = directory.path();
    let theirs = alone(at, "theirs.img");
    let before = label(&theirs);
    for format in ["qcow", "qcow2", "qed", "vmdk"] {
        let disk = create(at, &["-f", format, &format!("disk.{format}"), "1M"]);
        let evil = format!("evil.{format}");
        let evil = if format == "vmdk" {
            // A plain descriptor: what it names is written.
            let path = at.join(&evil);
            let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
                        createType=\"monolithicFlat\"\nRW 384 FLAT \"theirs.img\" 0\n";
            fs::write(&path, text).unwrap();
            path
        } else {
            create(
                at,
                &[
                    "-u",
                    "-f",
                    format,
                    "-b",
                    "theirs.img",
                    "-F",
                    "raw",
                    &evil,
                    "1M",
                ],
            )
        };
        goes(&launch(&[], &[drive(&disk, &format!(",format={format}"))]));
        taken_over(&disk, format, &evil);
        let on = [drive(&disk, &format!(",format={format}"))];
        let parts = [
            "cannot follow the header of",
            "theirs.img",
            "--accept-chain",
        ];
        refused_and_planned(&on, &parts);
        // A disk that was raw and is said to be something else by now.
        let raw = image(at, &format!("raw.{format}"));
        taken_over(&raw, "raw", &evil);
        let on = [drive(&raw, &format!(",format={format}"))];
        refused_and_planned(&on, &parts);
        nothing_happened(&theirs, &before);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn an_overlay_says_its_base_once_and_a_commit_leads_further_down() {
    let directory = directory();
    let at = directory.path();
    image(at, "base.raw");
    overlay(at, "mid.qcow2", "base.raw", "raw");
    let top = overlay(at, "top.qcow2", "mid.qcow2", "qcow2");
    let said = goes(&launch_qcow2(&top));
    let notes: Vec<&str> = said.lines().collect();
    assert_eq!(notes.len(), 2, "{said}");
    for (note, names) in notes
        .iter()
        .zip([["top.qcow2", "mid.qcow2"], ["mid.qcow2", "base.raw"]])
    {
        assert!(
            note.starts_with("svirt-exec: note: the header of "),
            "{note}"
        );
        assert!(names.iter().all(|name| note.contains(name)), "{note}");
    }
    assert_eq!(goes(&launch_qcow2(&top)), "");
    let rebase = |words: &[&str]| {
        succeeds(
            Command::new("qemu-img")
                .args(["rebase", "-u", "-f", "qcow2"])
                .args(words)
                .arg(&top),
        )
    };
    // As block-commit leaves it: the middle is gone from the chain.
    rebase(&["-b", "base.raw", "-F", "raw"]);
    assert_eq!(goes(&launch_qcow2(&top)), "");
    // As block-stream: nothing is below.
    rebase(&["-b", ""]);
    assert_eq!(goes(&launch_qcow2(&top)), "");
    // And back is more than there was.
    rebase(&["-b", "base.raw", "-F", "raw"]);
    refused(
        &launch_qcow2(&top),
        &["cannot follow the header of", "base.raw"],
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_that_was_attached_to_be_written_is_known_by_what_it_named_then() {
    let directory = directory();
    let at = directory.path();
    image(at, "theirs.raw");
    image(at, "base.raw");
    let [evil, plugged] = ["evil.qcow2", "plugged.qcow2"].map(|name| {
        let base = if name == "evil.qcow2" {
            "theirs.raw"
        } else {
            "base.raw"
        };
        overlay(at, name, base, "raw")
    });
    let mut child = svirt_exec(["--name", "plugs", STUB, "-drive"])
        .arg(drive(&evil, ",format=raw,readonly=on"))
        .env("STUB", "acts")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it is found", || {
        let attached = svirt_exec(["attach", "plugs"]).arg(&plugged).output();
        attached.unwrap().status.success()
    });
    let mut say = child.stdin.take().unwrap();
    let act = format!("replace {} {}", plugged.display(), evil.display());
    writeln!(say, "{act}").unwrap();
    drop(say);
    let output = child.wait_with_output().unwrap();
    assert_eq!(stdout(&output), "ok\n", "{output:?}");
    keepers_done();
    refused(
        &launch_qcow2(&plugged),
        &["cannot follow the header of", "theirs.raw"],
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_header_of_a_block_device_is_held_to_what_it_named_too() {
    let directory = directory();
    let at = directory.path();
    let theirs = image(at, "theirs.raw");
    let before = label(&theirs);
    let evil = overlay(at, "evil.qcow2", theirs.to_str().unwrap(), "raw");
    let file = alone(at, "device.qcow2");
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let _ = Command::new("modprobe").arg("loop").status();
    let device = run(&["losetup", "--find", "--show", file.to_str().unwrap()]);
    let device = Path::new(device.trim());
    // udev labels the node when it hears of the new disk.
    run(&["udevadm", "settle"]);
    chcon(&["-t", "removable_device_t"], device);
    let of_device = label(device);
    taken_over(device, "qcow2", &evil);
    let said = refused(
        &launch_qcow2(device),
        &["cannot follow the header of", "theirs.raw"],
    );
    assert!(said.contains(device.to_str().unwrap()), "{said}");
    assert_eq!(label(device), of_device);
    nothing_happened(&theirs, &before);
    run(&["losetup", "--detach", device.to_str().unwrap()]);
}
