//! `svirt-exec plan`: what it lists, and how it says it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::program::{svirt_exec, text};

fn plan(directory: &Path, words: &[&OsStr]) -> (Value, Output) {
    plan_with(directory, &[], words)
}

fn plan_with(directory: &Path, options: &[&str], words: &[&OsStr]) -> (Value, Output) {
    let output = svirt_exec()
        .args(["plan", "--json"])
        .args(options)
        .arg("qemu-system-x86_64")
        .args(words)
        .current_dir(directory)
        .output()
        .unwrap();
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (value, output)
}

#[test]
fn devices_of_another_host_are_planned_by_their_address() {
    let directory = tempfile::tempdir().unwrap();
    // No host has a PCI domain of this number, nor a USB device of this kind.
    let (plan, output) = plan(
        directory.path(),
        &[
            "-device",
            "vfio-pci,host=fffffffe:00:00.0",
            "-device",
            "usb-host,vendorid=0xfffe,productid=0xfffd",
        ]
        .map(OsStr::new),
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let devices: Vec<&Value> = plan["resources"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|resource| resource["host"].is_string())
        .collect();
    let hosts: Vec<&str> = devices
        .iter()
        .map(|d| d["host"].as_str().unwrap())
        .collect();
    assert_eq!(
        hosts,
        [
            "pci:fffffffe:00:00.0",
            "usb:vendorid=0xfffe,productid=0xfffd"
        ]
    );
    for device in devices {
        assert!(device["path"].is_null(), "{device}");
        assert_eq!(device["class"], "exclusive");
        assert_eq!(device["access"], "write");
        assert_eq!(device["action"], "none");
    }
    let warnings = plan["warnings"].to_string();
    for part in [
        "there is no '/sys/bus/pci/devices/fffffffe:00:00.0'; lspci -D",
        "no device is plugged in that fits usb:vendorid=0xfffe",
    ] {
        assert!(warnings.contains(part), "{warnings}");
    }
    let (plan, output) = self::plan(
        directory.path(),
        &["-device", "vfio-pci,host=../../x"].map(OsStr::new),
    );
    assert_eq!(output.status.code(), Some(125));
    assert!(plan["errors"].to_string().contains("is no PCI address"));
}

#[test]
fn the_plan_is_the_documented_contract() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("disk.img"), [0; 512]).unwrap();
    let words = [
        "-accel",
        "kvm",
        "-m",
        "2G",
        "-drive",
        "file=disk.img,format=raw,if=virtio",
    ]
    .map(OsStr::new);
    let (plan, output) = plan(directory.path(), &words);
    assert!(output.status.success(), "{output:?}");
    let object = plan.as_object().unwrap();
    for key in [
        "version",
        "qemu",
        "accelerator",
        "context",
        "image_context",
        "resources",
        "warnings",
        "errors",
    ] {
        assert!(object.contains_key(key), "{key}");
    }
    assert_eq!(plan["version"], 1);
    assert_eq!(plan["accelerator"], "kvm");
    let disk = plan["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|resource| resource["class"] == "exclusive")
        .unwrap();
    let path = directory.path().join("disk.img");
    assert_eq!(disk["path"], path.to_str().unwrap());
    assert_eq!(disk["access"], "write");
    assert_eq!(disk["kind"], "file");
    assert_eq!(disk["origin"]["word"], 7);
    assert_eq!(disk["origin"]["option"], "-drive");
    assert_eq!(disk["origin"]["key"], "file");
    assert_eq!(disk["action"], "relabel");
    assert!(
        disk["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty())
    );
    for key in ["label", "current"] {
        assert!(disk.as_object().unwrap().contains_key(key));
    }
}

#[test]
fn a_plan_needs_no_files_and_no_qemu() {
    let directory = tempfile::tempdir().unwrap();
    let words = ["-hda", "/srv/no/such.img", "-kernel", "vmlinuz"].map(OsStr::new);
    let (plan, output) = plan(directory.path(), &words);
    assert!(output.status.success(), "{output:?}");
    let resources = plan["resources"].as_array().unwrap();
    let of = |path: &str| {
        resources
            .iter()
            .find(|resource| resource["path"] == path)
            .unwrap_or_else(|| panic!("{path} is not in {resources:?}"))
    };
    assert_eq!(of("/srv/no/such.img")["kind"], "missing");
    let kernel = directory.path().join("vmlinuz");
    assert_eq!(of(kernel.to_str().unwrap())["class"], "content");
    assert!(!plan["warnings"].as_array().unwrap().is_empty());
}

#[test]
fn a_plan_for_people_is_a_table_and_minus_v_tells_its_steps() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("disk.img"), [0; 512]).unwrap();
    let output = svirt_exec()
        .args(["plan", "-v", "qemu-system-x86_64", "-hda", "disk.img"])
        .args(["-serial", "file:serial.log"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let table: Vec<&str> = said.lines().skip_while(|line| !line.is_empty()).collect();
    let heading = table[1];
    let at = heading.find("RESOURCE").unwrap();
    assert!(heading.starts_with("ACTION "), "{said}");
    for (row, name) in table[2..].iter().zip(["disk.img", "serial.log"]) {
        assert!(row[at..].starts_with('\'') && row.contains(name), "{said}");
    }
    assert_eq!(table.len(), 4, "{said}");
    let told = String::from_utf8(output.stderr).unwrap();
    for step in ["read the command line: 2 resources", "asked the policy"] {
        let line = told.lines().find(|line| line.contains(step));
        let line = line.unwrap_or_else(|| panic!("{step}: {told}"));
        assert!(line.contains(" ms  "), "{line}");
    }
}

#[test]
fn names_of_one_file_are_one_resource() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("disk.img"), [0; 512]).unwrap();
    symlink("disk.img", directory.path().join("link.img")).unwrap();
    let words = ["-hda", "disk.img", "-hdb", "./link.img"].map(OsStr::new);
    let (plan, _) = plan(directory.path(), &words);
    let disks = plan["resources"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|resource| resource["class"] == "exclusive")
        .count();
    assert_eq!(disks, 1);
}

#[test]
fn a_file_that_is_written_and_shared_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("disk.img"), [0; 512]).unwrap();
    let words = ["-hda", "disk.img", "-cdrom", "disk.img"].map(OsStr::new);
    let (plan, output) = plan(directory.path(), &words);
    assert_eq!(output.status.code(), Some(125));
    let errors = plan["errors"].as_array().unwrap();
    assert!(
        errors[0].as_str().unwrap().contains("cannot use"),
        "{errors:?}"
    );
}

#[test]
fn a_path_that_is_no_text_is_named_in_full() {
    let directory = tempfile::tempdir().unwrap();
    let name = OsString::from_vec(b"a \xff,\n.img".to_vec());
    fs::write(directory.path().join(&name), [0; 512]).unwrap();
    let (plan, output) = plan(directory.path(), &[OsStr::new("-hda"), &name]);
    assert!(output.status.success(), "{output:?}");
    let disk = &plan["resources"][0];
    let hex: String = directory
        .path()
        .join(&name)
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(disk["path_hex"], hex);
    let human = svirt_exec()
        .args(["plan", "qemu-system-x86_64", "-hda"])
        .arg(&name)
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(
        text(&human.stdout).contains(r"a \xff,\n.img"),
        "{}",
        text(&human.stdout)
    );
}

#[test]
fn what_is_not_known_is_a_warning_and_with_strict_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let words = ["-new-option", "on", "-device", "edu,new-key=/srv/x"];
    for (option, variable, status, list) in [
        (None, "", 0, "warnings"),
        (Some("--strict"), "", 125, "errors"),
        (None, "1", 125, "errors"),
        (None, "0", 0, "warnings"),
    ] {
        let output = svirt_exec()
            .args(["plan", "--json"])
            .args(option)
            .arg("qemu-system-x86_64")
            .args(words)
            .current_dir(directory.path())
            .env("SVIRT_EXEC_STRICT", variable)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        for name in ["-new-option", "new-key=/srv/x"] {
            let said = plan[list].as_array().unwrap().iter().any(|message| {
                let message = message.as_str().unwrap();
                message.contains(name) && message.contains("--strict") == (list == "errors")
            });
            assert!(said, "{name}: {plan}");
        }
    }
}

#[test]
fn names_with_any_byte_are_planned_and_labelled_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    for name in [
        &b"a b,c"[..],
        b"\xff\xfe",
        b"new\nline",
        b"\x01\x7f",
        "ü".as_bytes(),
    ] {
        let path = directory.path().join(OsStr::from_bytes(name));
        fs::write(&path, b"").unwrap();
        let doubled: Vec<u8> = path
            .as_os_str()
            .as_bytes()
            .iter()
            .flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }))
            .collect();
        let word = OsString::from_vec([b"file=", doubled.as_slice(), b",format=raw"].concat());
        let (value, output) = plan(directory.path(), &[OsStr::new("-drive"), &word]);
        let resource = &value["resources"][0];
        assert_eq!(resource["kind"], "file", "{output:?}");
        match path.to_str() {
            Some(text) => assert_eq!(resource["path"], text),
            None => {
                let bytes = path.as_os_str().as_bytes();
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(resource["path_hex"], hex);
            }
        }
    }
}

#[test]
fn the_advice_for_a_form_that_states_no_format_can_be_typed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it's, a disk.qcow2");
    let made = Command::new("qemu-img")
        .args([
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            "/etc/hostname",
        ])
        .arg(&path)
        .arg("1M")
        .status();
    assert!(made.is_ok_and(|status| status.success()), "needs qemu-img");
    let (value, _) = plan(directory.path(), &[OsStr::new("-hda"), path.as_os_str()]);
    let error = value["errors"][0].as_str().unwrap();
    let advice = error.split("replace it with: ").nth(1).unwrap();
    let echoed = Command::new("bash")
        .args(["-c", &format!("printf '%s\\n' {advice}")])
        .output()
        .unwrap();
    let words = text(&echoed.stdout);
    let words: Vec<&OsStr> = words.lines().map(OsStr::new).collect();
    let (value, _) = plan(directory.path(), &words);
    assert_eq!(value["errors"].as_array().unwrap().len(), 0, "{advice}");
    assert_eq!(value["resources"][0]["path"], path.to_str().unwrap());
    assert_eq!(value["resources"][1]["path"], "/etc/hostname");
}

#[test]
fn the_header_behind_a_descriptor_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("base.raw"), b"").unwrap();
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b"])
        .args([file("base.raw"), file("top.qcow2")])
        .arg("1M")
        .status();
    assert!(made.is_ok_and(|status| status.success()), "needs qemu-img");
    let script = "exec \"$0\" plan --json qemu -add-fd fd=9,set=1 \
                  -drive file=/dev/fdset/1,format=qcow2 9<>top.qcow2";
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_svirt-exec")])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let resources = value["resources"].as_array().unwrap();
    assert_eq!(resources[0]["fd"], 9);
    let backing = &resources[1];
    assert_eq!(backing["path"], file("base.raw").to_str().unwrap());
    assert_eq!(backing["class"], "content");
    assert_eq!(
        backing["origin"]["backing_of"],
        file("top.qcow2").to_str().unwrap()
    );
}

#[test]
fn a_pipe_named_by_its_descriptor_is_said_to_be_one() {
    for path in ["/proc/self/fd/1", "/dev/fd/1", "/dev/stdout"] {
        let output = svirt_exec()
            .args(["plan", "qemu-system-x86_64", "-chardev"])
            .arg(format!("file,id=x,path={path}"))
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(said.contains("is a pipe without a name"), "{path}: {said}");
        assert!(said.contains("-chardev stdio"), "{said}");
    }
}

/// Runs `qemu-img create` in a directory.
fn create(directory: &Path, words: &[&str]) {
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-u", "-f", "qcow2"])
        .args(words)
        .current_dir(directory)
        .status()
        .unwrap();
    assert!(made.success());
}

#[test]
fn a_data_file_that_only_a_header_names_is_refused_unless_stated_or_accepted() {
    let directory = tempfile::tempdir().unwrap();
    create(
        directory.path(),
        &["-o", "data_file=d.raw", "disk.qcow2", "1M"],
    );
    let planned = |options: &[&str], further: &str| {
        let drive = format!("file=disk.qcow2,format=qcow2{further}");
        let words = ["-drive", &drive].map(OsStr::new);
        plan_with(directory.path(), options, &words)
    };
    let (document, output) = planned(&[], "");
    assert_eq!(output.status.code(), Some(125));
    let errors = document["errors"].to_string();
    for part in [
        "cannot give",
        "d.raw",
        "--accept-chain",
        "data-file.filename=",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    for (options, further) in [
        (&["--accept-chain", "disk.qcow2"][..], ""),
        (&[], ",data-file.driver=file,data-file.filename=d.raw"),
        (&[], ",readonly=on"),
        // Nothing is labelled.
        (&["--no-relabel"], ""),
    ] {
        let (document, output) = planned(options, further);
        assert_eq!(output.status.code(), Some(0), "{document}");
    }
}

#[test]
fn each_name_that_only_a_header_gives_is_noted() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("base.raw"), [0; 512]).unwrap();
    create(
        directory.path(),
        &["-b", "base.raw", "-F", "raw", "mid.qcow2", "1M"],
    );
    create(
        directory.path(),
        &["-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", "1M"],
    );
    let notes = |further: &str| {
        let drive = format!("file=top.qcow2,format=qcow2{further}");
        let words = ["-drive", &drive].map(OsStr::new);
        let (document, output) = plan(directory.path(), &words);
        assert_eq!(output.status.code(), Some(0), "{document}");
        document["notes"].clone()
    };
    let said = notes("");
    assert_eq!(said.as_array().unwrap().len(), 2, "{said}");
    assert!(said[0].as_str().unwrap().contains("mid.qcow2"), "{said}");
    assert!(said[1].as_str().unwrap().contains("base.raw"), "{said}");
    let said = notes(",backing.driver=raw,backing.file.filename=base.raw");
    assert_eq!(said, Value::Null);
}
