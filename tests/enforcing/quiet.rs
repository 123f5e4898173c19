//! What is done as it should be is denied nothing: no launch leaves a line in the audit log, and a
//! guest's QEMU is refused nothing that libvirt's is not refused too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::lib::*;
use crate::libvirt::{Domain, Image, LINK, UNLABELLED, disk};

/// Denials since this was made.
struct Log {
    before: usize,
}

impl Log {
    fn new() -> Self {
        Self {
            before: denials(&[]).len(),
        }
    }

    fn since(&self) -> Vec<String> {
        denials(&[]).split_off(self.before)
    }
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let value = line.split_once(&format!(" {name}=")).map(|(_, rest)| rest);
    value
        .unwrap_or_default()
        .split(' ')
        .next()
        .unwrap_or_default()
}

fn kind(context: &str) -> &str {
    context.split(':').nth(2).unwrap_or_default()
}

/// What guests were refused: permissions, class, and the type of the object, or that it is the
/// guest itself.
fn of_guests(log: &[String]) -> BTreeSet<String> {
    log.iter()
        .filter(|line| kind(field(line, "scontext")).starts_with("svirt_") && !is_ours(line))
        .map(|line| {
            let permissions = line.split(['{', '}']).nth(1).unwrap_or_default().trim();
            let (source, target) = (field(line, "scontext"), field(line, "tcontext"));
            let target = if kind(source) == kind(target) {
                "self"
            } else {
                kind(target)
            };
            format!("{target}:{} {{ {permissions} }}", field(line, "tclass"))
        })
        .collect()
}

fn is_ours(line: &str) -> bool {
    kind(field(line, "scontext")).starts_with("svirt_launcher_")
}

fn of_ours(log: &[String]) -> Vec<&String> {
    log.iter().filter(|line| is_ours(line)).collect()
}

#[test]
#[ignore = "needs the bed: make test"]
fn nothing_is_denied_that_a_plain_libvirt_guest_is_not_denied_too() {
    // libvirt's plain guest, to compare with.
    let image = Image::new("quiet.img");
    let log = Log::new();
    let domain = Domain::create("plain", &disk(&image), "");
    assert!(domain.is_well());
    run(&["virsh", "resume", "plain"]);
    domain.end();
    let plain = of_guests(&log.since());
    println!("a plain libvirt guest:\n    {plain:#?}");

    // The same through svirt-exec: confined by libvirt, and by svirt-exec.
    for (name, seclabel, after) in [
        ("labelled", "", ":svirt_t:s0:c"),
        ("unlabelled", UNLABELLED, ":svirt_t:s0:c"),
    ] {
        let log = Log::new();
        let domain = Domain::of(LINK, name, &disk(&image), seclabel);
        let guest = process_label(domain.pid());
        assert!(guest.contains(after), "{name}: {guest}");
        let own = label(&image.0);
        assert_eq!(level(&own), level(&guest), "{name}");
        let program = fs::read_link(format!("/proc/{}/exe", domain.pid())).unwrap();
        assert_eq!(program, Path::new("/usr/bin/qemu-system-x86_64"));
        run(&["virsh", "resume", name]);
        // libvirt's user has it: verify may not look at its descriptors.
        let _ = svirt_exec(["verify"]).output().unwrap();
        let list = run(&["svirt-exec", "list"]);
        assert!(list.contains(name), "{list}");
        domain.end();
        keepers_done();
        let log = log.since();
        let denied: Vec<_> = of_guests(&log).difference(&plain).cloned().collect();
        println!(
            "a libvirt guest through {LINK}, {name}:\n    {:#?}",
            of_guests(&log)
        );
        assert!(denied.is_empty(), "{name}: {denied:?} {log:#?}");
        assert!(of_ours(&log).is_empty(), "{name}: {log:#?}");
    }

    // Everything that svirt-exec does, with what its guests need.
    let log = Log::new();
    let directory = directory();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    run(&["qemu-img", "create", "-q", "-f", "qcow2", &at("base"), "8M"]);
    let (format, base) = (["-f", "qcow2", "-F", "qcow2"], at("base"));
    let top = at("top");
    let make = ["qemu-img", "create", "-q", "-b", &base];
    run(&[&make[..], &format[..], &[&top]].concat());
    for name in ["raw", "late", "initrd"] {
        crate::lib::image(directory.path(), name);
    }
    let sockets = "/run/svirt-exec/quiet";
    let words = [
        "-name".to_owned(),
        "quiet".to_owned(),
        "-drive".into(),
        format!("file={},format=qcow2,if=virtio", at("top")),
        "-drive".into(),
        format!(
            "file={},format=raw,if=virtio,aio=io_uring,cache=none",
            at("raw")
        ),
        "-serial".into(),
        format!("file:{}", at("serial.log")),
        "-monitor".into(),
        format!("unix:{sockets}/monitor,server=on,wait=off"),
        "-pidfile".into(),
        format!("{sockets}/pid"),
        "-netdev".into(),
        "user,id=u,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp:127.0.0.1:2223-:22".into(),
        "-device".into(),
        "virtio-net-pci,netdev=u".into(),
        "-netdev".into(),
        "socket,id=s,udp=127.0.0.1:2224,localaddr=127.0.0.1:2225".into(),
        "-device".into(),
        "virtio-net-pci,netdev=s".into(),
        "-object".into(),
        format!(
            "memory-backend-file,id=m,size=1M,share=on,mem-path={}",
            at("initrd")
        ),
    ];
    let mut guest = Guest::qemu(&["--runtime-dir"], &words);
    assert!(guest.label().contains(":svirt_prot_exec_t:s0:c"));
    for words in [
        &["list"][..],
        &["list", "--json"],
        &["verify"],
        &["verify", "--json", "quiet"],
        &["attach", "quiet", &at("late")],
        &["detach", "quiet", &at("late")],
        &["plan", "qemu-system-x86_64", "-hda", &at("late")],
        &["qemu-system-x86_64", "-version"],
        &["qemu-system-x86_64", "-device", "help"],
        &["restore"],
    ] {
        succeeds(&mut svirt_exec(words));
    }
    // Their status says whether all is well, which is not asked here.
    for words in [&["denials"][..], &["doctor"]] {
        assert!(!svirt_exec(words).output().unwrap().stdout.is_empty());
    }
    assert!(
        guest
            .qmp("{\"execute\":\"query-status\"}")
            .contains("running")
    );
    // User networking listens.
    let connect = "import socket; socket.create_connection(('127.0.0.1', 2222))";
    run(&["python3", "-c", connect]);
    assert_eq!(guest.end(), 0);
    // And what is left of one that was cut off.
    let disk = crate::lib::image(directory.path(), "cut.img");
    abandon(Guest::stub(&disk));
    run(&["svirt-exec", "restore", "--all"]);
    let log = log.since();
    let denied: Vec<_> = of_guests(&log).difference(&plain).cloned().collect();
    println!("a guest of svirt-exec's:\n    {:#?}", of_guests(&log));
    assert!(denied.is_empty(), "{denied:?}: {log:#?}");
    assert!(of_ours(&log).is_empty(), "{log:#?}");
}
