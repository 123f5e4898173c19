//! The policy module: what each of its booleans is for, and that it comes and goes cleanly.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::lib::*;

const MODULE: &str = "/usr/share/selinux/packages/svirt_launcher.cil";

#[test]
#[ignore = "needs the bed: make test"]
fn images_are_opened_and_their_headers_read_in_domains_of_their_own() {
    let directory = directory();
    let disk = directory.path().join("disk.qcow2");
    let path = disk.to_str().unwrap();
    run(&["qemu-img", "create", "-q", "-f", "qcow2", path, "8M"]);
    let drive = format!("file={path},format=qcow2,if=virtio");
    let entered = || audited("granted", &["dyntransition"]);
    let policy = Talkative::load();
    let before = entered().len();
    let guest = Guest::qemu(&[], ["-S", "-drive", &drive]);
    assert_eq!(guest.end(), 0);
    let granted = entered().split_off(before);
    drop(policy);
    for domain in ["svirt_launcher_reader_t", "svirt_launcher_probe_t"] {
        let into = |line: &&String| line.contains(&format!(":{domain}:"));
        assert_eq!(
            granted.iter().filter(into).count(),
            1,
            "{domain}: {granted:#?}"
        );
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn the_module_is_upgraded_removed_and_installed_under_way() {
    let directory = directory();
    let disk = image(directory.path(), "disk.img");
    let guest = Guest::stub(&disk);
    let (process, file) = (guest.label(), label(&disk));
    let program = Path::new(SVIRT_EXEC);
    let state = Path::new(STATE);
    let before = [label(program), label(state)];

    // An upgrade under a guest that runs: it stays where it is, and its label goes back.
    run(&["semodule", "-X", "200", "-i", MODULE]);
    assert_eq!((guest.label(), label(&disk)), (process, file));
    guest.end();
    assert!(!label(&disk).contains("svirt"));

    let restorecon = ["restorecon", "-RF", SVIRT_EXEC, STATE, "/run/svirt-exec"];
    // Without it the distribution's labels are back once restorecon has run, and svirt-exec says
    // what is missing.
    run(&["semodule", "-X", "200", "-r", "svirt_launcher"]);
    run(&restorecon);
    let without = [label(program), label(state)];
    let output = stub("exit 0", &disk).output().unwrap();
    // What it says is all that has to be typed.
    let said = stderr(&output);
    follow(&said);
    assert!(without[0].contains(":bin_t:"), "{without:?}");
    assert!(without[1].contains(":var_lib_t:"), "{without:?}");
    refused_in_one_line(&output, 125, &["module svirt_launcher is not loaded"]);
    assert_eq!([label(program), label(state)], before);
    // The stub of the other tests was labelled by hand.
    let guest = Guest::stub(&disk);
    assert!(guest.label().contains(":svirt_prot_exec_t:s0:c"));
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn each_boolean_is_what_something_works_by() {
    let directory = directory();
    let disk = image(directory.path(), "disk.img");
    let backend = image(directory.path(), "memory");
    let udp = "socket,id=s,udp=127.0.0.1:2224,localaddr=127.0.0.1:2225";
    let drive = format!(
        "file={},format=raw,if=none,id=d,aio=io_uring,cache=none",
        disk.display()
    );
    let memory = format!(
        "memory-backend-file,id=m,size=1M,share=on,mem-path={}",
        backend.display()
    );
    let device = "virtio-net-pci,netdev=s";
    let kernel = run(&["sh", "-c", "ls /boot/vmlinuz-* | head -n 1"]);
    let kernel = kernel.trim().to_owned();
    // QEMU goes on without io_uring, and says so with the first read.
    let ask = "{\"execute\":\"qmp_capabilities\"}\n\
               {\"execute\":\"human-monitor-command\",\"arguments\":\
               {\"command-line\":\"qemu-io d \\\"read 0 4k\\\"\"}}\n{\"execute\":\"quit\"}\n";
    for (boolean, words) in [
        (
            "svirt_launcher_use_udp",
            &["-netdev", udp, "-device", device][..],
        ),
        (
            "svirt_launcher_use_tcp",
            &[
                "-netdev",
                "user,id=s,hostfwd=tcp:127.0.0.1:2222-:22",
                "-device",
                device,
            ],
        ),
        ("svirt_launcher_use_io_uring", &["-drive", &drive]),
        ("svirt_launcher_map_images", &["-object", &memory]),
        ("svirt_launcher_change_user", &["-run-with", "user=bob"]),
        ("svirt_launcher_change_user", &["-run-with", "chroot=/srv"]),
        ("svirt_launcher_read_boot", &["-kernel", &kernel]),
    ] {
        let options = [
            "--preflight=warn",
            QEMU,
            "-accel",
            "tcg",
            "-display",
            "none",
        ];
        let further = ["-nodefaults", "-machine", "pc", "-S", "-qmp", "stdio"];
        let works = || {
            let mut command = svirt_exec([&options[..], &further[..], words].concat());
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
            // Where it ended at once nobody reads this.
            let _ = child.stdin.take().unwrap().write_all(ask.as_bytes());
            let output = child.wait_with_output().unwrap();
            let said = format!("{}{}", stdout(&output), stderr(&output));
            let works = output.status.success() && !said.contains("Permission denied");
            (works && !said.contains("falling back"), said)
        };
        let is_on = run(&["getsebool", boolean]).trim().ends_with(" on");
        let (worked, said) = works();
        assert_eq!(worked, is_on, "{boolean}: {said}");
        let turned = Boolean::turned(boolean, if is_on { "off" } else { "on" });
        let (works_then, said_then) = works();
        drop(turned);
        assert_eq!(works_then, !is_on, "{boolean}: {said_then}");
        let off = if is_on { said_then } else { said };
        println!("{boolean} off: {off}");
        keepers_done();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_serial_port_is_given_away_where_the_boolean_says_so_and_the_message_names_it() {
    // A console that nobody has: of the same type as serial ports.
    let port = Path::new("/dev/tty62");
    let before = label(port);
    assert!(before.contains(":tty_device_t:"), "{before}");
    let launch = |what: &str| {
        let mut command = svirt_exec([STUB, "-serial", "/dev/tty62"]);
        command.env("STUB", what).output().unwrap()
    };
    let without = launch("open rw /dev/tty62");
    let on = Boolean::turned("svirt_launcher_use_serial", "on");
    let done = launch("open rw /dev/tty62");
    keepers_done();
    let after = label(port);
    drop(on);
    refused(&without, &["setsebool -P svirt_launcher_use_serial on"]);
    assert_eq!(stdout(&done), "ok\n", "{done:?}");
    assert_eq!(after, before);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_fixed_disk_is_given_away_where_the_boolean_says_so_and_the_message_names_it() {
    let directory = directory();
    let backing = image(directory.path(), "backing.img");
    let device = run(&["losetup", "--find", "--show", backing.to_str().unwrap()]);
    let device = Path::new(device.trim());
    run(&[
        "chcon",
        "-t",
        "fixed_disk_device_t",
        device.to_str().unwrap(),
    ]);
    let before = label(device);
    let drive = format!("file={},format=raw,if=virtio", device.display());
    let launch = |what: &str| {
        let mut command = svirt_exec([STUB, "-drive", &drive]);
        command.env("STUB", what).output().unwrap()
    };
    let without = launch("exit 7");
    let on = Boolean::turned("svirt_launcher_use_fixed_disks", "on");
    let done = launch("exit 7");
    keepers_done();
    let after = label(device);
    drop(on);
    run(&["losetup", "--detach", device.to_str().unwrap()]);
    let advice = "setsebool -P svirt_launcher_use_fixed_disks on";
    refused(&without, &[advice]);
    assert_eq!(done.status.code(), Some(7), "{done:?}");
    assert_eq!(after, before);
}
