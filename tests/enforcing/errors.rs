//! Every refusal: one clear line, exit status 125 (126, 127), nothing launched,
//! nothing labelled.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::lib::*;

/// Launches the stub, which ends at once, with a file as a drive.
fn launch_on(file: &Path, further: &str) -> Output {
    svirt_exec([STUB, "-drive"])
        .arg(format!("file={}{further}", file.display()))
        .env("STUB", "exit 0")
        .output()
        .unwrap()
}

#[test]
#[ignore = "needs the bed: make test"]
fn exit_status_is_qemus_own() {
    let directory = directory();
    let disk = image(directory.path(), "exit.img");
    for status in [0, 1, 42, 125, 255] {
        let output = stub(&format!("exit {status}"), &disk).output().unwrap();
        ended_with(&output, status, &[]);
        keepers_done();
    }
    use std::os::unix::process::ExitStatusExt;
    let output = stub("signal 15", &disk).output().unwrap();
    assert_eq!(output.status.signal(), Some(15));
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_qemu_that_is_not_there_is_127_and_one_that_cannot_run_126() {
    let directory = directory();
    let output = svirt_exec(["qemu-system-nothing"]).output().unwrap();
    refused_in_one_line(&output, 127, &["cannot find 'qemu-system-nothing' in PATH"]);
    let path = directory.path().join("qemu");
    fs::write(&path, "text").unwrap();
    let output = svirt_exec([&path]).output().unwrap();
    refused_in_one_line(&output, 126, &["cannot execute", "chmod +x"]);
    // Executable, an entry point, and no program.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    chcon(&["-t", "qemu_exec_t"], &path);
    let disk = image(directory.path(), "126.img");
    let before = label(&disk);
    let output = svirt_exec([&path]).arg("-hda").arg(&disk).output().unwrap();
    refused_in_one_line(&output, 126, &["no program for this machine"]);
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_missing_image_is_named_with_its_word() {
    let directory = directory();
    let output = stub("exit 0", &directory.path().join("absent.img"))
        .output()
        .unwrap();
    refused_in_one_line(
        &output,
        125,
        &["cannot find", "absent.img", "word 3, -hda", "no such file"],
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_device_that_is_not_there_or_not_bound_is_named_with_what_was_looked_up() {
    let host = |address: &str| {
        let device = format!("vfio-pci,iommufd=i,host={address}");
        svirt_exec([STUB, "-device", &device]).output().unwrap()
    };
    refused_in_one_line(
        &host("fffffffe:00:00.0"),
        125,
        &[
            "cannot find the node of pci-iommufd:fffffffe:00:00.0 (word 3, -device host=)",
            "there is no '/sys/bus/pci/devices/fffffffe:00:00.0'; lspci -D",
        ],
    );
    // The host bridge of every PC.
    refused_in_one_line(
        &host("00:00.0"),
        125,
        &[
            "there is no '/sys/bus/pci/devices/0000:00:00.0/vfio-dev/vfioN': it is not bound",
            "driverctl set-override 0000:00:00.0 vfio-pci",
        ],
    );
    refused_in_one_line(&host("../../x"), 125, &["'../../x' is no PCI address"]);
    let usb = svirt_exec([STUB, "-device", "usb-host,vendorid=0xfffe"])
        .env("STUB", "exit 0")
        .output()
        .unwrap();
    ended_with(&usb, 0, &["warning: ", "no device is plugged in that fits"]);
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn an_image_that_the_user_may_not_read_or_does_not_own_is_refused() {
    let path = Path::new("/var/tmp/svirt-roots.img");
    fs::write(path, [0; 4096]).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let before = label(path);
    let launch = || {
        as_user("alice")
            .args([STUB, "-hda"])
            .arg(path)
            .env("STUB", "exit 0")
            .output()
            .unwrap()
    };
    refused_in_one_line(
        &launch(),
        125,
        &[
            "cannot read the header of",
            "svirt-roots.img",
            "Permission denied",
        ],
    );
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    refused_in_one_line(
        &launch(),
        125,
        &["cannot label", "it belongs to user 0", "CAP_FOWNER"],
    );
    assert_eq!(label(path), before);
    fs::remove_file(path).unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_qemu_that_is_no_entry_point_is_refused_with_the_commands_that_mend_it() {
    let directory = directory();
    let disk = image(directory.path(), "entry.img");
    let before = label(&disk);
    let own_build = directory.path().join("qemu-system-x86_64");
    fs::copy(STUB, &own_build).unwrap();
    let start = || {
        svirt_exec([&own_build])
            .arg("-hda")
            .arg(&disk)
            .env("STUB", "exit 7")
            .output()
            .unwrap()
    };
    let said = refused_in_one_line(
        &start(),
        125,
        &[
            "no entry point",
            "chcon -t qemu_exec_t",
            "semanage fcontext -a -t qemu_exec_t",
        ],
    );
    nothing_happened(&disk, &before);
    // The advice, followed to the letter.
    let advice = said.trim().rsplit("relabelling: ").next().unwrap();
    run(&["sh", "-c", advice]);
    assert_eq!(start().status.code(), Some(7));
    keepers_done();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_policy_without_types_for_guests_is_refused() {
    let file = "/etc/selinux/default/contexts/virtual_domain_context";
    let text = fs::read(file).unwrap();
    let directory = directory();
    let disk = image(directory.path(), "types.img");
    let before = label(&disk);
    // Overwritten in place and in a mount namespace of its own: the other tests run meanwhile.
    let other = directory.path().join("context");
    for (content, part) in [
        ("u:r:no_such_t:s0\n", "does not know this context"),
        ("", "is empty"),
    ] {
        fs::write(&other, content).unwrap();
        let script = format!(
            "mount --bind {} {file} && exec {SVIRT_EXEC} {STUB} -accel kvm -hda {}",
            other.display(),
            disk.display()
        );
        // The launcher reads the file as what it is: a file of the policy.
        chcon(&["--reference", file], &other);
        let output = in_mount_namespace(&script)
            .env("STUB", "exit 0")
            .output()
            .unwrap();
        refused_in_one_line(&output, 125, &[part]);
        nothing_happened(&disk, &before);
    }
    assert_eq!(fs::read(file).unwrap(), text);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_transition_that_the_policy_denies_is_refused_before_anything_changes() {
    let directory = directory();
    let disk = image(directory.path(), "denied.img");
    let before = label(&disk);
    // A login cleared for c0 to c99 only, asking for more.
    let output = Command::new("runcon")
        .args(["-l", "s0-s0:c0.c99", "sh", "-c"])
        .arg(format!(
            "exec {SVIRT_EXEC} --level s0:c200,c201 {STUB} -hda {}",
            disk.display()
        ))
        .env("STUB", "exit 0")
        .output()
        .unwrap();
    refused(&output, &["may not transition"]);
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_hosts_own_files_are_never_labelled() {
    let directory = directory();
    let link = directory.path().join("link.img");
    symlink("/etc/passwd", &link).unwrap();
    let before = label(Path::new("/etc/passwd"));
    for path in [
        Path::new("/etc/passwd"),
        &link,
        Path::new("/etc/../etc/passwd"),
    ] {
        let output = stub("exit 0", path).output().unwrap();
        refused_in_one_line(&output, 125, &["files below /etc are the host's own"]);
    }
    assert_eq!(label(Path::new("/etc/passwd")), before);
    // Files elsewhere that the policy protects by their type.
    let shadow = directory.path().join("shadow");
    fs::write(&shadow, "x").unwrap();
    chcon(&["-t", "shadow_t"], &shadow);
    let before = label(&shadow);
    let output = launch_on(&shadow, ",format=raw");
    refused_in_one_line(
        &output,
        125,
        &["cannot label", "may not relabelfrom shadow_t"],
    );
    assert_eq!(label(&shadow), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_hosts_own_disk_is_refused() {
    let disk = Path::new("/dev/vda");
    let before = label(disk);
    let output = launch_on(disk, ",format=raw");
    refused_in_one_line(
        &output,
        125,
        &["cannot label '/dev/vda'", "this host uses the device"],
    );
    assert_eq!(label(disk), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_full_or_read_only_journal_stops_the_launch() {
    let directory = directory();
    let disk = image(directory.path(), "journal.img");
    let before = label(&disk);
    for (options, part) in [
        ("size=4k", "No space left"),
        ("ro", "Read-only file system"),
    ] {
        // In a mount namespace of its own: the other tests go on with the real one.
        let script = format!(
            "mount -t tmpfs -o {options},rootcontext=system_u:object_r:svirt_launcher_var_lib_t:s0 \
             t {GUESTS}; dd if=/dev/zero of={GUESTS}/x bs=4k count=1 status=none 2>/dev/null; \
             exec {SVIRT_EXEC} {STUB} -hda {}",
            disk.display()
        );
        let output = in_mount_namespace(&script)
            .env("STUB", "exit 0")
            .output()
            .unwrap();
        refused_in_one_line(&output, 125, &[part, "no label stays changed"]);
        nothing_happened(&disk, &before);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_file_with_two_names_is_refused() {
    let directory = directory();
    let disk = image(directory.path(), "one.img");
    fs::hard_link(&disk, directory.path().join("two.img")).unwrap();
    let output = stub("exit 0", &disk).output().unwrap();
    refused_in_one_line(&output, 125, &["it has 2 hard links"]);
}

#[test]
#[ignore = "needs the bed: make test"]
fn an_image_whose_probed_header_names_a_file_is_refused_cve_2010_2237() {
    let directory = directory();
    image(directory.path(), "secret.raw");
    let disk = directory.path().join("evil.qcow2");
    succeeds(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw"])
            .args(["-b", "secret.raw"])
            .arg(&disk)
            .current_dir(directory.path()),
    );
    let before = label(&disk);
    let output = launch_on(&disk, "");
    refused_in_one_line(&output, 125, &["format=qcow2", "evil.qcow2"]);
    nothing_happened(&disk, &before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_json_name_in_a_header_gives_away_no_file_of_the_hosts_cve_2024_4467() {
    let shadow = Path::new("/etc/shadow");
    let of_shadow = label(shadow);
    let json = r#"json:{"driver":"file","filename":"/etc/shadow"}"#;
    let directory = directory();
    let create = |words: &[&str]| {
        succeeds(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2"])
                .args(words)
                .current_dir(directory.path()),
        );
    };
    create(&["-u", "-F", "raw", "-b", json, "backing.qcow2", "1M"]);
    // qemu-img makes no such data file; its name in the header is as long as the other.
    let stand_in = "d".repeat(json.len());
    let data_file = format!("data_file={stand_in}");
    create(&["-o", &data_file, "data.qcow2", "1M"]);
    let disk = directory.path().join("data.qcow2");
    let mut image = fs::read(&disk).unwrap();
    let at = image
        .windows(stand_in.len())
        .position(|window| window == stand_in.as_bytes())
        .unwrap();
    image[at..at + json.len()].copy_from_slice(json.as_bytes());
    fs::write(&disk, image).unwrap();
    for name in ["backing.qcow2", "data.qcow2"] {
        let disk = directory.path().join(name);
        let before = label(&disk);
        let output = launch_on(&disk, ",format=qcow2");
        refused(&output, &["/etc"]);
        nothing_happened(&disk, &before);
        assert_eq!(label(shadow), of_shadow, "{name}");
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_proc_that_is_not_the_kernels_is_refused_cve_2025_52881() {
    let directory = directory();
    let disk = image(directory.path(), "a.img");
    let before = label(&disk);
    // What a launcher would read and write there, as files that take anything.
    let script = format!(
        "mount -t tmpfs none /proc && mkdir -p /proc/self/attr /proc/thread-self/attr && \
         printf 'STUB=exit 0\\0' > /proc/self/environ && \
         for name in self/attr/current thread-self/attr/current thread-self/attr/exec; do \
             printf '{}' > /proc/$name; done; \
         exec /usr/bin/svirt-exec {STUB} -hda {}",
        "system_u:system_r:svirt_launcher_t:s0-s0:c0.c1023",
        disk.display()
    );
    let output = in_mount_namespace(&script).output().unwrap();
    refused_in_one_line(&output, 125, &["/proc"]);
    nothing_happened(&disk, &before);
}
