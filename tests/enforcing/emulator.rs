//! svirt-exec as libvirt's `<emulator>`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lib::*;
use crate::libvirt::{BARE, Domain, Image, LINK, UNLABELLED, cdrom, disk, xml};

/// Lets root look into processes of libvirt's user, whose guests these are.
const VERIFY_OTHERS: &str = "svirt_launcher_verify_others";

/// A serial port that virtlogd writes to a file, and the file.
fn serial(name: &str) -> (String, PathBuf) {
    let path = PathBuf::from(format!("/var/log/libvirt/qemu/{name}-serial.log"));
    let _ = fs::remove_file(&path);
    let device = format!(
        "<serial type='file'><source path='{}'/></serial>",
        path.display()
    );
    (device, path)
}

/// Waits until the guest has said so often that it is up.
fn up(log: &Path, times: usize) {
    wait_until("the guest is up", || {
        fs::read_to_string(log).is_ok_and(|text| text.matches("Up").count() == times)
    });
}

/// A qcow2 image that boots.
fn bootable(name: &str) -> Image {
    let raw = Image::new("boot.raw");
    boots(&raw.0);
    let image = Image::new(name);
    run(&[
        "qemu-img",
        "convert",
        "-O",
        "qcow2",
        raw.text(),
        image.text(),
    ]);
    image
}

fn qcow2(image: &Image) -> String {
    disk(image).replace("type='raw'", "type='qcow2'")
}

/// What libvirt's users do with a guest, whoever labels it.
fn a_life(name: &'static str, emulator: &str, seclabel: &str) {
    let _looks = Boolean::on(VERIFY_OTHERS);
    let image = bootable("life.qcow2");
    let before = label(&image.0);
    let (serial, log) = serial(name);
    let agent =
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>";
    let devices = format!("{}{serial}{agent}", qcow2(&image));
    let domain = Domain::begin(name, &xml(emulator, name, &devices, seclabel), &[]);
    let confined = || {
        let process = process_label(domain.pid());
        assert!(process.contains(":svirt_t:s0:c"), "{process}");
        assert_eq!(level(&label(&image.0)), level(&process));
        verified(name);
        let program = fs::read_link(format!("/proc/{}/exe", domain.pid())).unwrap();
        assert_eq!(program, Path::new(BARE));
    };
    up(&log, 1);
    confined();
    // The monitor, the agent's channel, the log of the console.
    let answer = domain.virsh(&["qemu-monitor-command", "{\"execute\":\"query-status\"}"]);
    assert!(answer.contains("running"), "{answer}");
    let xml = domain.virsh(&["dumpxml"]);
    assert!(
        xml.contains("org.qemu.guest_agent.0' state='disconnected'"),
        "{xml}"
    );
    if seclabel.is_empty() {
        let labelled = format!("<imagelabel>{}</imagelabel>", label(&image.0));
        assert!(xml.contains(&labelled), "{xml}");
    }
    domain.virsh(&["snapshot-create-as", "first"]);
    domain.virsh(&["suspend"]);
    domain.virsh(&["resume"]);
    // libvirt has it power itself down, and resets it.
    domain.virsh(&["reboot", "--mode", "acpi"]);
    up(&log, 2);
    domain.virsh(&["reset"]);
    up(&log, 3);
    confined();
    domain.virsh(&["snapshot-revert", "first", "--running"]);
    confined();
    // Saved and restored it goes on where it was, with another pair.
    let (pair, file) = (level(&process_label(domain.pid())), Image::new("life.save"));
    fs::remove_file(&file.0).unwrap();
    domain.virsh(&["save", file.text()]);
    assert_eq!(label(&image.0), before);
    run(&["virsh", "restore", file.text()]);
    confined();
    assert_ne!(level(&process_label(domain.pid())), pair);
    domain.virsh(&["shutdown", "--mode", "acpi"]);
    wait_until("the guest has shut down", || !domain.is_there());
    wait_until("the label is back", || label(&image.0) == before);
}

/// What libvirt on Debian lacks for `virsh save`: its helper is a program, and not called one.
struct Helper;

impl Helper {
    const PATH: &str = "/usr/lib/libvirt/libvirt_iohelper";

    fn allowed() -> Self {
        run(&["chcon", "-t", "bin_t", Self::PATH]);
        Self
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = Command::new("restorecon").arg(Self::PATH).status();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_libvirt_labels_lives_as_without_svirt_exec() {
    let _helper = Helper::allowed();
    a_life("labelled", LINK, "");
    // Nothing was written down for it.
    let journal = Path::new(STATE).join("users/64055");
    if journal.exists() {
        let mut left = entries(journal);
        left.retain(|path| path.extension() == Some("json".as_ref()));
        assert_eq!(left.len(), 0, "{left:?}");
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_svirt_exec_labels_lives_as_one_of_libvirts() {
    let _helper = Helper::allowed();
    a_life("unlabelled", LINK, UNLABELLED);
}

/// libvirt with one more line in qemu.conf.
struct Configured;

impl Configured {
    const PATH: &str = "/etc/libvirt/qemu.conf";

    fn with(line: &str) -> Self {
        fs::copy(Self::PATH, "/root/qemu.conf").unwrap();
        let text = fs::read_to_string(Self::PATH).unwrap();
        fs::write(Self::PATH, format!("{text}\n{line}\n")).unwrap();
        run(&["systemctl", "restart", "libvirtd"]);
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        let _ = fs::copy("/root/qemu.conf", Self::PATH);
        let _ = Command::new("systemctl")
            .args(["restart", "libvirtd"])
            .status();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_libvirt_without_a_security_driver_has_confined_guests() {
    let _looks = Boolean::on(VERIFY_OTHERS);
    let _configured = Configured::with("security_driver = \"none\"");
    let (image, iso) = (bootable("driverless.qcow2"), Image::new("driverless.iso"));
    let before = [label(&image.0), label(&iso.0)];
    let (serial, log) = serial("driverless");
    let devices = format!("{}{}{serial}", qcow2(&image), cdrom(&iso));
    let domain = Domain::begin("driverless", &xml(LINK, "driverless", &devices, ""), &[]);
    up(&log, 1);
    assert_eq!(level(&label(&image.0)), level(&process_label(domain.pid())));
    assert_eq!(label(&iso.0), "system_u:object_r:virt_content_t:s0");
    verified("driverless");
    domain.virsh(&["shutdown", "--mode", "acpi"]);
    wait_until("the guest has shut down", || !domain.is_there());
    wait_until("the labels are back", || {
        [label(&image.0), label(&iso.0)] == before
    });
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_stands_in_the_command_line_part_of_a_domain_is_labelled() {
    let _looks = Boolean::on(VERIFY_OTHERS);
    let names = ["passed.img", "passed.fw", "passed.mem", "passed.log"];
    let images = names.map(Image::new);
    for image in &images {
        run(&["chown", "libvirt-qemu:", image.text()]);
    }
    let before = images.each_ref().map(|image| label(&image.0));
    let [drive, firmware, memory, out] = images.each_ref().map(Image::text);
    let words = [
        "-drive".to_owned(),
        format!("file={drive},format=raw,if=none,id=passed"),
        "-fw_cfg".to_owned(),
        format!("name=opt/passed,file={firmware}"),
        "-object".to_owned(),
        format!("memory-backend-file,id=passed-memory,mem-path={memory},size=1M,share=on"),
        "-chardev".to_owned(),
        format!("file,id=passed-log,path={out}"),
    ];
    let words: String = words
        .iter()
        .map(|word| format!("<qemu:arg value='{word}'/>"))
        .collect();
    let further = format!(
        "{UNLABELLED}<qemu:commandline>{words}\
         <qemu:env name='SVIRT_EXEC_PRIVATE_CONTENT' value='1'/>\
         <qemu:env name='SVIRT_EXEC_MCS_RANGE' value='c100.c199'/></qemu:commandline>"
    );
    let domain = Domain::begin("passed", &xml(LINK, "passed", "", &further), &["--paused"]);
    let process = process_label(domain.pid());
    let pair = level(&process).replace("s0:", "");
    for category in pair.split(',') {
        let number: u32 = category.trim_start_matches('c').parse().unwrap();
        assert!((100..200).contains(&number), "{process}");
    }
    for image in &images {
        assert_eq!(level(&label(&image.0)), level(&process), "{}", image.text());
    }
    verified("passed");
    domain.end();
    wait_until("the labels are back", || {
        images.each_ref().map(|image| label(&image.0)) == before
    });
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_disk_is_attached_to_a_guest_of_libvirts() {
    let _looks = Boolean::on(VERIFY_OTHERS);
    let (image, plugged) = (Image::new("plug.img"), Image::new("plugged.img"));
    let before = label(&plugged.0);
    let domain = Domain::of(LINK, "plug", &disk(&image), UNLABELLED);
    let attach = [
        "attach-disk",
        plugged.text(),
        "vdb",
        "--driver",
        "qemu",
        "--subdriver",
        "raw",
    ];
    // Without a word to svirt-exec the guest may not open it.
    let refused = Command::new("virsh")
        .args([&attach[..1], &["plug"], &attach[1..]].concat())
        .output()
        .unwrap();
    assert!(
        stderr(&refused).contains("Permission denied"),
        "{refused:?}"
    );
    run(&[SVIRT_EXEC, "attach", "plug", plugged.text()]);
    domain.virsh(&attach);
    assert_eq!(
        level(&label(&plugged.0)),
        level(&process_label(domain.pid()))
    );
    verified("plug");
    domain.end();
    wait_until("the label is back", || label(&plugged.0) == before);
}

/// What libvirt says that an emulator can do.
fn domain_capabilities(emulator: &str) -> String {
    run(&[
        "virsh",
        "domcapabilities",
        "--virttype",
        "qemu",
        "--emulatorbin",
        emulator,
    ])
}

#[test]
#[ignore = "needs the bed: make test"]
fn libvirt_finds_in_the_link_what_it_finds_in_qemu() {
    run(&["systemctl", "start", "virtlogd.socket", "libvirtd"]);
    let capabilities = |emulator: &str| {
        let text = domain_capabilities(emulator);
        fs::write("/run/capabilities.xml", &text).unwrap();
        run(&["virt-xml-validate", "/run/capabilities.xml", "domaincaps"]);
        text.replace(emulator, "EMULATOR")
    };
    assert_eq!(capabilities(LINK), capabilities(BARE));
    let domain = xml(LINK, "valid", "", UNLABELLED);
    fs::write("/run/valid.xml", domain).unwrap();
    run(&["virt-xml-validate", "/run/valid.xml", "domain"]);
    for file in ["/run/capabilities.xml", "/run/valid.xml"] {
        fs::remove_file(file).unwrap();
    }
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_users_own_libvirt_has_confined_guests() {
    let execmem = Boolean::on("virt_use_execmem");
    let disk = "/home/alice/session.img";
    run(&["runuser", "-u", "alice", "--", "truncate", "-s", "1M", disk]);
    run(&["restorecon", "-F", disk]);
    boots(Path::new(disk));
    let before = label(Path::new(disk));
    let device = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>\
         <target dev='hda' bus='ide'/></disk>"
    );
    fs::write("/home/alice/session.xml", xml(LINK, "session", &device, "")).unwrap();
    // Not by way of PAM: logind is not what is tried here.
    let as_alice = |words: &str| {
        Command::new("setpriv")
            .args([
                "--reuid=alice",
                "--regid=alice",
                "--init-groups",
                "sh",
                "-c",
                words,
            ])
            .env("HOME", "/home/alice")
            .env("USER", "alice")
            .env("LOGNAME", "alice")
            .current_dir("/home/alice")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let virsh = |words: &str| as_alice(&format!("virsh -c qemu:///session {words}"));
    let created = virsh("create /home/alice/session.xml");
    let confined = || {
        assert!(created.status.success(), "{created:?}");
        let pid = run(&["pgrep", "-u", "alice", "-f", "guest=session"]);
        let process = process_label(pid.trim().parse().unwrap());
        assert!(process.contains(":svirt_t:s0:c"), "{process}");
        assert_eq!(level(&label(Path::new(disk))), level(&process));
        let output = as_alice("svirt-exec verify session");
        assert!(output.status.success(), "{output:?}");
    };
    let outcome = std::panic::catch_unwind(confined);
    virsh("destroy session");
    let ended = Command::new("pkill")
        .args(["-u", "alice", "libvirtd|virtlogd"])
        .status();
    drop(execmem);
    assert_eq!(label(Path::new(disk)), before);
    fs::remove_file(disk).unwrap();
    assert!(ended.unwrap().success());
    outcome.unwrap();
}

/// What libvirt has found out about the link, and when the link's file had changed last.
fn known_of_link() -> Option<i64> {
    let text = fs::read_dir("/var/cache/libvirt/qemu/capabilities")
        .unwrap()
        .flatten()
        .map(|entry| fs::read_to_string(entry.path()).unwrap())
        .find(|text| text.contains(&format!("<emulator>{LINK}</emulator>")))?;
    let (_, rest) = text.split_once("<qemuctime>")?;
    rest.split_once('<')?.0.parse().ok()
}

#[test]
#[ignore = "needs the bed: make test"]
fn doctor_notices_that_qemu_was_upgraded_behind_libvirts_back() {
    use std::os::unix::fs::MetadataExt;
    run(&["systemctl", "start", "virtlogd.socket", "libvirtd"]);
    let ask = || domain_capabilities(LINK);
    let check = || {
        let output = svirt_exec(["doctor", "--json"]).output().unwrap();
        member(&json(&output)["checks"], "libvirt_emulator").clone()
    };
    ask();
    let known = known_of_link();
    run(&["touch", BARE]);
    ask();
    assert_eq!(known_of_link(), known, "libvirt has noticed by itself");
    let failed = check();
    assert_eq!(failed["ok"], false, "{failed}");
    run(&["sh", "-c", failed["fix"].as_str().unwrap()]);
    assert_eq!(check()["ok"], true);
    ask();
    let now = fs::metadata(SVIRT_EXEC).unwrap().ctime();
    assert_eq!(known_of_link(), Some(now));
}
