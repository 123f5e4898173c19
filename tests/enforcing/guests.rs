//! Guests and what separates them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lib::*;

/// Real mode code for a disk's first sector: writes that sector to the second
/// one through the BIOS, and leaves QEMU through isa-debug-exit at port 0xf4.
const BOOT_SECTOR: [u8; 28] = [
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xc0, // mov es, ax
    0xbb, 0x00, 0x7c, // mov bx, 0x7c00
    0xb8, 0x01, 0x03, // mov ax, 0x0301: write one sector
    0xb9, 0x02, 0x00, // mov cx, 2: cylinder 0, sector 2
    0x30, 0xf6, // xor dh, dh; dl is the boot disk
    0xcd, 0x13, // int 0x13
    0xb0, 0x10, // mov al, 16
    0xe6, 0xf4, // out 0xf4, al: exit status 2 * 16 + 1
    0xf4, // hlt
    0xeb, 0xfd, // jmp to hlt
    0x90, 0x90,
];

#[test]
#[ignore = "needs the bed: make test"]
fn two_guests_run_in_different_categories_and_so_are_their_disks() {
    let directory = directory();
    let images = [
        image(directory.path(), "a.img"),
        image(directory.path(), "b.img"),
    ];
    let before = label(&images[0]);
    let guests = images.each_ref().map(|image| Guest::qemu_on(&[], image));
    let labels = guests.each_ref().map(Guest::label);
    for (process, image) in labels.iter().zip(&images) {
        assert!(process.contains(":svirt_prot_exec_t:s0:c"), "{process}");
        assert!(label(image).contains(":svirt_prot_exec_image_t:s0:c"));
        assert_eq!(level(process), level(&label(image)));
    }
    assert_ne!(level(&labels[0]), level(&labels[1]));
    for guest in guests {
        guest.end();
    }
    for image in &images {
        assert_eq!(label(image), before);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_cannot_open_the_disk_of_another_guest() {
    let directory = directory();
    let ours = image(directory.path(), "ours.img");
    let theirs = image(directory.path(), "theirs.img");
    let mut a = Guest::qemu_on(&[], &ours);
    let b = Guest::qemu_on(&[], &theirs);
    // From inside A's own process, by its own monitor.
    let members = "\"locking\":\"off\",\"read-only\":true";
    let answer = a.blockdev_add("n", members, &theirs);
    assert!(answer.contains("Permission denied"), "{answer}");
    let answer = a.blockdev_add("n", members, &ours);
    assert!(answer.contains("return"), "its own disk: {answer}");
    let (a_label, b_level) = (a.label(), level(&label(&theirs)));
    let found = denials(&["theirs.img", &format!("scontext={a_label}"), &b_level]);
    assert!(!found.is_empty(), "no AVC names {a_label}");
    a.end();
    b.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_with_work_to_do_writes_to_its_disk() {
    let directory = directory();
    let disk = image(directory.path(), "boot.img");
    let sector = write_boot_sector(&disk, &BOOT_SECTOR);
    let output = svirt_exec([QEMU, "-machine", "pc", "-accel", "tcg", "-m", "32"])
        .args(["-display", "none", "-nodefaults"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .arg("-drive")
        .arg(format!("file={},format=raw,if=ide", disk.display()))
        .output()
        .unwrap();
    ended_with(&output, 33, &[]);
    let after = fs::read(&disk).unwrap();
    assert_eq!(after[512..1024], sector[..], "the guest wrote nothing");
    keepers_done();
    assert!(label(&disk).ends_with(":user_home_t:s0"));
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_on_a_disk_with_foreign_categories_dies_with_permission_denied() {
    let directory = directory();
    let disk = image(directory.path(), "foreign.img");
    chcon(&["-l", "s0:c1"], &disk);
    let foreign = label(&disk);
    // The domain of guests with KVM, which qtest stands in for, and that of guests with TCG.
    for (accelerator, domain) in [("qtest", "svirt_t:s0:c"), ("tcg", "svirt_prot_exec_t:s0:c")] {
        let output = svirt_exec(["--no-relabel", "--preflight=warn", QEMU])
            .args(["-machine", "pc", "-display", "none", "-nodefaults", "-S"])
            .args(["-accel", accelerator])
            .arg("-drive")
            .arg(format!("file={},format=raw", disk.display()))
            .output()
            .unwrap();
        let warning = "svirt-exec: warning: QEMU will not be allowed to use";
        ended_with(&output, 1, &["Permission denied", warning]);
        assert_eq!(label(&disk), foreign);
        let found = denials(&["foreign.img", domain, &format!("tcontext={foreign}")]);
        assert!(!found.is_empty(), "no AVC names {domain}");
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn kvm_guests_run_in_the_first_domain_of_the_policy_file() {
    let directory = directory();
    let disk = image(directory.path(), "kvm.img");
    let mut command = svirt_exec([STUB, "-accel", "kvm", "-hda"]);
    command.arg(&disk);
    let guest = Guest::start_stub(command);
    assert!(guest.label().contains(":svirt_t:s0:c"), "{}", guest.label());
    assert!(label(&disk).contains(":svirt_image_t:s0:c"));
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_whole_chain_of_images_is_labelled_and_works() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    let base = image(directory.path(), "base.raw");
    succeeds(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw"])
            .arg(path("top.qcow2"))
            .current_dir(directory.path()),
    );
    let file = format!(
        "{{\"driver\":\"qcow2\",\"node-name\":\"d\",\"file\":{{\"driver\":\"file\",\"filename\":\"{}\"}}}}",
        path("top.qcow2").display()
    );
    let iso = image(directory.path(), "cd.iso");
    let mut guest = Guest::qemu(
        &[],
        [
            "-S",
            "-blockdev",
            &file,
            "-device",
            "virtio-blk-pci,drive=d",
            "-cdrom",
            iso.to_str().unwrap(),
        ],
    );
    assert_eq!(level(&label(&path("top.qcow2"))), level(&guest.label()));
    for content in [&base, &iso] {
        assert_eq!(label(content), "system_u:object_r:virt_content_t:s0");
    }
    assert!(
        guest
            .qmp("{\"execute\":\"query-block\"}")
            .contains("base.raw")
    );
    guest.end();
    for file in [base, iso, path("top.qcow2")] {
        assert!(
            label(&file).ends_with(":user_home_t:s0"),
            "{}",
            label(&file)
        );
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_hosts_own_kernel_boots_without_being_relabelled() {
    let kernel = fs::read_dir("/boot")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("vmlinuz"))
        .unwrap();
    let before = label(&kernel);
    let mut command = svirt_exec([QEMU, "-S", "-display", "none", "-accel", "tcg", "-kernel"]);
    let output = command.arg(&kernel).output().unwrap();
    refused(
        &output,
        &["/boot/", "setsebool -P svirt_launcher_read_boot on"],
    );
    let _on = Boolean::turned("svirt_launcher_read_boot", "on");
    let guest = Guest::qemu(&[], ["-S".as_ref(), "-kernel".as_ref(), kernel.as_os_str()]);
    assert_eq!(label(&kernel), before);
    guest.end();
    // And with an initial ramdisk of the caller's own, which QEMU maps.
    let directory = directory();
    let initrd = image(directory.path(), "initrd");
    let guest = Guest::qemu(
        &[],
        [
            "-S".as_ref(),
            "-kernel".as_ref(),
            kernel.as_os_str(),
            "-initrd".as_ref(),
            initrd.as_os_str(),
        ],
    );
    assert_eq!(label(&initrd), "system_u:object_r:virt_content_t:s0");
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_plan_on_an_enforcing_host_names_pair_labels_and_actions() {
    let directory = directory();
    let disk = image(directory.path(), "plan.img");
    let before = label(&disk);
    let output = svirt_exec(["plan", "--json", QEMU, "-hda"])
        .arg(&disk)
        .output()
        .unwrap();
    ended_with(&output, 0, &[]);
    let plan = json(&output);
    assert_eq!(plan["version"], 1);
    assert_eq!(plan["accelerator"], "tcg");
    let context = plan["context"].as_str().unwrap();
    let image_context = plan["image_context"].as_str().unwrap();
    assert!(context.contains(":svirt_prot_exec_t:s0:c"), "{context}");
    assert_eq!(level(context), level(image_context));
    let resource = &plan["resources"][0];
    assert_eq!(resource["label"], image_context);
    assert_eq!(resource["current"], before.as_str());
    assert_eq!(resource["action"], "relabel");
    assert_eq!(label(&disk), before, "a plan changes nothing");
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_log_that_qemu_makes_is_the_guests_own_and_stays_with_an_ordinary_label() {
    let directory = directory();
    let log = directory.path().join("serial.log");
    let serial = format!("file:{}", log.display());
    let guest = Guest::qemu(&[], ["-S", "-serial", &serial]);
    assert_eq!(level(&label(&log)), level(&guest.label()));
    guest.end();
    assert!(label(&log).ends_with(":user_home_t:s0"), "{}", label(&log));
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_socket_that_the_policy_will_not_let_qemu_make_is_named_beforehand() {
    let output = svirt_exec([QEMU, "-S", "-display", "none"])
        .args(["-qmp", "unix:/tmp/svirt-qmp,server=on,wait=off"])
        .output()
        .unwrap();
    refused(
        &output,
        &["QEMU will not be allowed to make '/tmp/svirt-qmp'"],
    );
    // The kernel agrees.
    let output = svirt_exec(["--preflight=warn", QEMU, "-S", "-display", "none"])
        .args(["-qmp", "unix:/tmp/svirt-qmp,server=on,wait=off"])
        .output()
        .unwrap();
    ended_with(&output, 1, &["Permission denied"]);
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_node_of_a_macvtap_is_the_guests_own() {
    let run = |words: &str| run(&words.split(' ').collect::<Vec<_>>());
    run("modprobe -a dummy macvtap");
    run("ip link add svirt0 type dummy");
    run("ip link add link svirt0 name svirttap0 type macvtap mode bridge");
    run("udevadm settle");
    let index = fs::read_to_string("/sys/class/net/svirttap0/ifindex").unwrap();
    let node = format!("/dev/tap{}", index.trim());
    let (node, tun) = (Path::new(&node), Path::new("/dev/net/tun"));
    run(&format!("restorecon {}", node.display()));
    let before = [label(node), label(tun)];
    let nic = "tap,ifname=svirttap0,script=no,downscript=no";
    let guest = Guest::start_stub(svirt_exec([STUB, "-nic", nic]));
    assert_eq!(level(&label(node)), level(&guest.label()));
    assert_eq!(label(tun), before[1]);
    guest.end();
    assert_eq!([label(node), label(tun)], before);
    run("ip link del svirttap0");
    run("ip link del svirt0");
}

#[test]
#[ignore = "needs the bed: make test"]
fn nodes_of_the_whole_host_are_not_labelled() {
    let null = Path::new("/dev/null");
    let before = label(null);
    let guest = Guest::qemu(&[], ["-S", "-serial", "file:/dev/null"]);
    assert_eq!(label(null), before);
    guest.end();
    assert_eq!(label(null), before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_level_of_the_callers_choice_is_refused_if_it_overlaps_anothers() {
    let directory = directory();
    let disk = image(directory.path(), "level.img");
    let other = image(directory.path(), "other.img");
    let with = |level: &str, what: &str, disk: &Path| stub_with(&["--level", level], what, disk);
    for open in ["s0", "s0:c1"] {
        let output = with(open, "exit 0", &disk).output().unwrap();
        refused(&output, &["CVE-2021-3631"]);
    }
    let guest = Guest::start_stub(with("s0:c1,c2", "wait", &disk));
    assert_eq!(level(&guest.label()), "s0:c1,c2");
    for overlapping in ["s0:c1,c2", "s0:c1,c2,c3"] {
        let output = with(overlapping, "exit 0", &other).output().unwrap();
        refused(&output, &["has overlapping MCS categories"]);
    }
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn launches_at_the_same_time_in_a_small_range_get_pairs_of_their_own() {
    let directory = directory();
    let starting: Vec<_> = (0..12)
        .map(|number| {
            let disk = image(directory.path(), &format!("{number}.img"));
            let command = stub_with(&["--mcs-range", "c0.c9"], "wait", &disk);
            std::thread::spawn(move || Guest::start_stub(command))
        })
        .collect();
    let guests: Vec<_> = starting
        .into_iter()
        .map(|guest| guest.join().unwrap())
        .collect();
    let levels: std::collections::BTreeSet<_> =
        guests.iter().map(|guest| level(&guest.label())).collect();
    assert_eq!(levels.len(), guests.len(), "{levels:?}");
    for guest in guests {
        guest.end();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_range_that_is_used_up_is_an_error_with_the_count() {
    let directory = directory();
    // A level of all eight categories overlaps every pair of them.
    let disk = image(directory.path(), "all.img");
    let guest = Guest::start_stub(stub_with(&["--level", "s0:c20.c27"], "wait", &disk));
    let disk = image(directory.path(), "last.img");
    let output = stub_with(&["--mcs-range", "c20.c27"], "exit 0", &disk).output();
    refused(&output.unwrap(), &["all 28 pairs of c20.c27"]);
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn two_hundred_disks_are_labelled_and_put_back() {
    let directory = directory();
    let disks: Vec<_> = (0..200)
        .map(|number| image(directory.path(), &format!("{number}.img")))
        .collect();
    let before = label(&disks[0]);
    let mut command = svirt_exec([STUB]);
    for disk in &disks {
        command.arg("-drive");
        command.arg(format!("file={},format=raw,if=none", disk.display()));
    }
    let guest = Guest::start_stub(command);
    let pair = level(&guest.label());
    assert!(disks.iter().all(|disk| level(&label(disk)) == pair));
    guest.end();
    assert!(disks.iter().all(|disk| label(disk) == before));
}
