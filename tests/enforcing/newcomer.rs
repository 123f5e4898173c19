//! What somebody does wrong who is new to it: each ends in a message, and what that says, typed as it
//! stands, mends it. That SELinux is off is the job `fresh`, that the module is not loaded
//! `module::the_module_is_upgraded_removed_and_installed_under_way`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::*;

/// Undoes what was said to the policy for good.
pub struct Specified(pub &'static str);

impl Drop for Specified {
    fn drop(&mut self) {
        let list = Command::new("semanage")
            .args(["fcontext", "-l", "-C", "-n"])
            .output();
        for line in list.map(|list| stdout(&list)).unwrap_or_default().lines() {
            let Some(path) = line
                .split_whitespace()
                .next()
                .filter(|path| path.contains(self.0))
            else {
                continue;
            };
            let _ = Command::new("semanage")
                .args(["fcontext", "-d", path])
                .output();
        }
    }
}

fn refused(words: &[&str]) -> Output {
    let output = svirt_exec(words).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{words:?}: {output:?}");
    output
}

/// What QEMU is told in these tests besides what they are about.
const QUIET: [&str; 5] = ["-nodefaults", "-display", "none", "-S", "-machine"];

#[test]
#[ignore = "needs the bed: make test"]
fn an_image_in_a_directory_that_guests_may_not_search() {
    let _specified = Specified("/newcomer");
    let directory = Path::new("/newcomer/c++");
    fs::create_dir_all(directory).unwrap();
    let disk = directory.join("disk.img");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    run(&["chcon", "-R", "-t", "default_t", "/newcomer"]);
    let drive = format!("file={},format=raw,if=none,id=d", disk.display());
    let words = [&[QEMU], &QUIET[..], &["none", "-drive", &drive]].concat();
    let said = stderr(&refused(&words));
    assert!(said.contains("pass through '/newcomer'"), "{said}");
    follow(&said);
    let guest = Guest::qemu(&["--name", "newcomer"], ["-S", "-drive", &drive]);
    assert_eq!(level(&label(&disk)), level(&guest.label()));
    run(&[SVIRT_EXEC, "verify", "newcomer"]);
    guest.end();
    fs::remove_dir_all("/newcomer").unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_qemu_in_usr_local() {
    let _specified = Specified("/usr/local/bin/qemu-newcomer");
    let program = "/usr/local/bin/qemu-newcomer";
    fs::copy(format!("/usr/bin/{QEMU}"), program).unwrap();
    run(&["restorecon", "-F", program]);
    let words = [&[program], &QUIET[..], &["none"]].concat();
    let said = stderr(&refused(&words));
    assert!(said.contains("no entry point"), "{said}");
    follow(&said);
    let guest = Guest::qemu_at(program, &["--name", "newcomer"], ["-S"]);
    assert!(guest.label().contains(":s0:c"), "{}", guest.label());
    run(&[SVIRT_EXEC, "verify", "newcomer"]);
    guest.end();
    fs::remove_file(program).unwrap();
}

/// A bridge that qemu-bridge-helper may give guests a tap device of.
struct Bridge;

impl Bridge {
    const CONF: &str = "/etc/qemu/bridge.conf";

    fn new() -> Self {
        run(&["ip", "link", "add", "newcomer0", "type", "bridge"]);
        Self
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["link", "del", "newcomer0"])
            .output();
        let _ = fs::remove_file(Self::CONF);
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_tap_device_that_qemu_would_make_itself() {
    let _bridge = Bridge::new();
    let tap = ["none", "-netdev", "tap,id=n0,script=no,downscript=no"];
    let words = [&[QEMU], &QUIET[..], &tap].concat();
    let said = stderr(&refused(&words));
    assert!(said.contains("-netdev tap"), "{said}");
    // -netdev bridge,id=ID,br=BRIDGE, with a line 'allow BRIDGE' in FILE
    let advice = said.split("make it: ").nth(1).unwrap();
    let advice = advice.replace("ID", "n0").replace("BRIDGE", "newcomer0");
    let (netdev, rest) = advice.split_once(", with a line '").unwrap();
    let (line, rest) = rest.split_once("' in ").unwrap();
    let (file, _) = rest.split_once(',').unwrap();
    assert_eq!(file, Bridge::CONF);
    fs::create_dir_all("/etc/qemu").unwrap();
    fs::write(file, format!("{line}\n")).unwrap();
    run(&["restorecon", "-RF", "/etc/qemu"]);
    let netdev: Vec<&str> = netdev.split(' ').collect();
    let guest = Guest::qemu(
        &["--name", "newcomer"],
        [&["-S"], netdev.as_slice()].concat(),
    );
    let ports = run(&["ls", "/sys/class/net/newcomer0/brif"]);
    assert!(ports.contains("tap"), "{ports}");
    run(&[SVIRT_EXEC, "verify", "newcomer"]);
    guest.end();
}
