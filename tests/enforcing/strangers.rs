//! Guests among those of others: every process with categories counts, of libvirt or of nobody.

use std::path::Path;
use std::process::Command;

use crate::crowd::{Launch, Outcome};
use crate::lib::observer::Observer;
use crate::lib::*;

#[test]
#[ignore = "needs the bed: make test"]
fn levels_of_strangers_with_one_and_with_three_categories_count() {
    let directory = directory();
    let strangers = ["s0:c1", "s0:c2.c4"].map(|level| Stranger::start("svirt_t", level));
    // Of 28 pairs seven have c1 in them, and three lie in c2.c4.
    all_free_pairs_and_no_other(directory.path(), "c0.c7", 28 - 7 - 3, strangers.len());
    let levels = [
        ("s0:c1,c5", false),
        ("s0:c2,c3", false),
        ("s0:c2.c4", false),
        ("s0:c2.c5", false),
        ("s0:c2,c5", true),
    ];
    for (number, (level, free)) in levels.into_iter().enumerate() {
        let disk = image(directory.path(), &format!("level-{number}.img"));
        let output = svirt_exec(["--level", level, STUB, "-drive"])
            .arg(format!("file={},format=raw", disk.display()))
            .env("STUB", "exit 0")
            .output()
            .unwrap();
        let said = stderr(&output);
        let status = if free { 0 } else { 125 };
        assert_eq!(output.status.code(), Some(status), "{level}: {said}");
        assert!(
            free || said.contains("has overlapping MCS categories"),
            "{said}"
        );
    }
    drop(strangers);
    keepers_done();
}

/// As many guests as there are free pairs, one after the other, and not one more.
fn all_free_pairs_and_no_other(directory: &Path, range: &str, free: usize, foreign: usize) {
    let observer = Observer::start();
    let mut guests = Vec::new();
    for number in 0..=free {
        let disk = image(directory, &format!("{number}.img"));
        let mut launch = Launch::prepare(&[], range, &disk);
        launch.go();
        match launch.outcome() {
            Outcome::Runs(guest, pid) => {
                assert!(number < free, "{number} guests have a pair of {range}");
                guests.push((guest, pid));
            }
            Outcome::Ended(status, said) => {
                assert_eq!(number, free, "{said}");
                assert_eq!(status, Some(125), "{said}");
                let all = format!(
                    "all 28 pairs of {range} overlap one of the {} that are in use",
                    free + foreign
                );
                assert!(said.contains(&all), "{said}");
            }
        }
    }
    let pids: Vec<u32> = guests.iter().map(|(_, pid)| *pid).collect();
    observer.has_seen(&pids);
    wait_until("all are in one look", || observer.most() >= free + foreign);
    for (guest, _) in guests {
        let (status, said) = guest.end();
        assert_eq!(status, Some(0), "{said}");
    }
    keepers_done();
    let report = observer.end();
    println!("{}", report.text);
    assert_eq!(report.overlaps, [""; 0]);
}

/// The guests of the real libvirt, gone when a test ends.
struct Libvirt {
    names: Vec<String>,
}

impl Libvirt {
    fn start() -> Self {
        let units = ["virtlogd.socket", "libvirtd.socket", "libvirtd"];
        run(&[&["systemctl", "start"], &units[..]].concat());
        Self { names: Vec::new() }
    }

    fn virsh(words: &[&str]) -> Command {
        let mut command = Command::new("virsh");
        command.args(["-c", "qemu:///system"]).args(words);
        command
    }

    /// A guest at a static level that libvirt is told, or one that libvirt draws. Returns its
    /// process.
    fn guest(&mut self, directory: &Path, level: Option<&str>) -> u32 {
        let name = format!("svirt-libvirt-{}", self.names.len());
        let seclabel = match level {
            Some(level) => format!(
                "<seclabel type='static' model='selinux' relabel='yes'>\
                 <label>system_u:system_r:svirt_t:{level}</label></seclabel>"
            ),
            None => "<seclabel type='dynamic' model='selinux' relabel='yes'/>".to_owned(),
        };
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os>\
             <devices><emulator>/usr/bin/{QEMU}</emulator><memballoon model='none'/>\
             <controller type='usb' model='none'/></devices>{seclabel}</domain>"
        );
        let file = directory.join(format!("{name}.xml"));
        std::fs::write(&file, xml).unwrap();
        let file = file.to_str().unwrap();
        succeeds(&mut Self::virsh(&["create", "--paused", file]));
        let pid = std::fs::read_to_string(format!("/run/libvirt/qemu/{name}.pid")).unwrap();
        self.names.push(name);
        pid.trim().parse().unwrap()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Self::virsh(&["destroy", name]).output();
        }
        let _ = Command::new("systemctl")
            .args([
                "stop",
                "libvirtd.socket",
                "libvirtd",
                "virtlogd.socket",
                "virtlogd",
            ])
            .status();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn categories_of_guests_of_libvirt_are_not_drawn_and_not_shared_unasked() {
    let directory = directory();
    // libvirt's guests run with TCG in its only domain for them.
    let _execmem = Boolean::on("virt_use_execmem");
    let mut libvirt = Libvirt::start();
    let levels = ["s0:c0,c1", "s0:c2", "s0:c3.c5"];
    for wanted in levels {
        let pid = libvirt.guest(directory.path(), Some(wanted));
        let seen = process_label(pid);
        assert_eq!(seen, format!("system_u:system_r:svirt_t:{wanted}"));
    }
    let drawn = process_label(libvirt.guest(directory.path(), None));
    assert!(
        drawn.starts_with("system_u:system_r:svirt_t:s0:c"),
        "{drawn}"
    );
    // Of 28 pairs one is taken as it is, seven have c2 in them, three lie in c3.c5.
    all_free_pairs_and_no_other(directory.path(), "c0.c7", 28 - 1 - 7 - 3, levels.len());
    let drawn = level(&drawn);
    let overlapping = [
        "s0:c0,c1",
        "s0:c0.c1,c6",
        "s0:c2,c7",
        "s0:c3,c4",
        "s0:c3.c6",
        &drawn,
    ];
    for (number, level) in overlapping.into_iter().enumerate() {
        let disk = image(directory.path(), &format!("level-{number}.img"));
        let launch = |options: &[&str]| {
            let options = [options, &["--level", level]].concat();
            stub_with(&options, "dump", &disk).output().unwrap()
        };
        let before = label(&disk);
        let output = launch(&[]);
        refused(&output, &["has overlapping MCS categories"]);
        nothing_happened(&disk, &before);
        ended_with(&launch(&["--share-level"]), 0, &[]);
        keepers_done();
        assert_eq!(label(&disk), before);
    }
}
