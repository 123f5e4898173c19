//! What somebody does wrong who is new to it: each ends in a message, and what that says, typed as it
//! stands, mends it. What is said to the policy for good is not taken back, so these are run last. That
//! SELinux is off is the bed's job `fresh`, that the module is not loaded
//! `module::the_module_is_upgraded_removed_and_installed_under_way`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lib::*;

/// Launches, which has to be refused with this part. A QEMU that runs all the same is ended. Returns
/// what is said.
fn launch_refused(words: &[&str], part: &str) -> String {
    let output = Command::new("timeout")
        .args(["60", SVIRT_EXEC])
        .args(words)
        .output()
        .unwrap();
    refused(&output, &[part])
}

/// What QEMU is told in these tests besides what they are about.
const QUIET: [&str; 5] = ["-nodefaults", "-display", "none", "-S", "-machine"];

#[test]
#[ignore = "needs the bed: make test"]
fn an_image_in_a_directory_that_guests_may_not_search() {
    let directory = Path::new("/new+comer");
    fs::create_dir_all(directory).unwrap();
    let disk = directory.join("disk.img");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    // Debian's guests may pass through directories of most types, but not through those of others.
    run(&["chcon", "-l", "s0:c100,c200", "/new+comer"]);
    let drive = format!("file={},format=raw,if=none,id=d", disk.display());
    let words = [&[QEMU], &QUIET[..], &["pc", "-drive", &drive]].concat();
    let said = launch_refused(&words, "pass through '/new+comer'");
    follow(&said);
    let guest = Guest::qemu(&["--name", "newcomer"], ["-S", "-drive", &drive]);
    assert_eq!(level(&label(&disk)), level(&guest.label()));
    verified("newcomer");
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_qemu_in_usr_local() {
    let program = "/usr/local/bin/qemu-newcomer";
    fs::copy(format!("/usr/bin/{QEMU}"), program).unwrap();
    run(&["restorecon", "-F", program]);
    let words = [&[program], &QUIET[..], &["pc", "-nic", "none"]].concat();
    let said = launch_refused(&words, "no entry point");
    follow(&said);
    let guest = Guest::qemu_at(program, &["--name", "newcomer"], ["-S"]);
    assert!(guest.label().contains(":s0:c"), "{}", guest.label());
    verified("newcomer");
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_tap_device_that_qemu_would_make_itself() {
    let tap = ["pc", "-netdev", "tap,id=n0,script=no,downscript=no"];
    let words = [&[QEMU], &QUIET[..], &tap].concat();
    let said = launch_refused(&words, "-netdev tap");
    // use -netdev user,id=ID, or …
    let advice = said
        .split("use ")
        .nth(1)
        .unwrap()
        .split(", or")
        .next()
        .unwrap();
    let netdev: Vec<String> = advice
        .split(' ')
        .map(|word| word.replace("ID", "n0"))
        .collect();
    let mut words = vec!["-S".to_owned()];
    words.extend(netdev);
    let guest = Guest::qemu(&["--name", "newcomer"], words);
    verified("newcomer");
    guest.end();
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_svirt_exec_of_ones_own_making() {
    let copy = Path::new("/usr/local/bin/svirt-exec-copy");
    fs::copy(SVIRT_EXEC, copy).unwrap();
    run(&["restorecon", "-F", copy.to_str().unwrap()]);
    let launch = || {
        Command::new(copy)
            .args([QEMU, "-version"])
            .output()
            .unwrap()
    };
    let said = refused(&launch(), &["is not labelled svirt_launcher_exec_t"]);
    follow(&said);
    let output = launch();
    assert!(
        stdout(&output).contains("QEMU emulator version"),
        "{output:?}"
    );
    fs::remove_file(copy).unwrap();
}
