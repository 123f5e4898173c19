//! Tests of `devices`: trees that are laid out like /sys and /dev.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::host::sysfs::{MAX_ATTRIBUTE, SysRoot};

/// A path that ends in a slash is a directory; text after `-> ` is where a link leads.
pub(crate) fn tree(entries: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in entries {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.strip_prefix("-> ") {
            Some(target) => symlink(target, &path).unwrap(),
            None if path.as_os_str().as_bytes().ends_with(b"/") => {
                fs::create_dir_all(&path).unwrap();
            }
            None => fs::write(&path, content).unwrap(),
        }
    }
    root
}

/// The node, or the problem's first word and text.
fn found(root: &TempDir, device: &HostDevice) -> String {
    let files = SysRoot::root(root.path());
    match resolve(&files, device, Path::new("/sys/bus")) {
        Ok(Nodes::Own(nodes)) => {
            let nodes: Vec<String> = nodes.iter().map(|n| n.display().to_string()).collect();
            format!("own {}", nodes.join(" "))
        }
        Ok(Nodes::HostWide(node)) => format!("host {}", node.display()),
        Err(Problem::Absent(text)) => format!("absent {text}"),
        Err(Problem::Malformed(text)) => format!("malformed {text}"),
    }
}

/// Each part of `want` must be in what was found, and the first at its start.
fn check(root: &TempDir, device: &HostDevice, want: &[&str]) {
    let seen = found(root, device);
    assert!(
        seen.starts_with(want[0]) && want.iter().all(|part| seen.contains(part)),
        "{device}: {seen:?} is not {want:?}"
    );
}

fn pci(address: &str, how: Vfio) -> HostDevice {
    let address = PciAddress::parse(address.as_bytes()).unwrap();
    HostDevice::VfioPci { address, how }
}

fn sysfs(dir: &str, how: Vfio) -> HostDevice {
    let dir = dir.into();
    HostDevice::VfioSysfs { dir, how }
}

const PCI: &str = "sys/devices/pci0000:3a/0000:3b:00.0";
const SECOND: &str = "sys/devices/pci0000:3a/0000:3b:00.1";
const UNBOUND: &str = "sys/devices/pci0000:3a/0000:3b:00.2";
const MDEV: &str = "sys/devices/pci0000:3a/0000:3b:00.3/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
const PLATFORM: &str = "sys/devices/platform/fff51000.ethernet";

fn host() -> TempDir {
    let at = |dir: &str, name: &str| format!("{dir}/{name}");
    let entries = [
        (at(PCI, "iommu_group"), "-> ../../../kernel/iommu_groups/13"),
        (at(PCI, "driver"), "-> ../../../bus/pci/drivers/vfio-pci"),
        (at(PCI, "vfio-dev/vfio4/dev"), "511:4\n"),
        (
            at(SECOND, "iommu_group"),
            "-> ../../../kernel/iommu_groups/13",
        ),
        (at(SECOND, "vfio-dev/vfio5/dev"), "511:5\n"),
        (
            at(UNBOUND, "iommu_group"),
            "-> ../../../kernel/iommu_groups/14",
        ),
        (at(UNBOUND, "driver"), "-> ../../../bus/pci/drivers/nvme"),
        (
            at(MDEV, "iommu_group"),
            "-> ../../../../kernel/iommu_groups/20",
        ),
        (at(MDEV, "vfio-dev/vfio6/dev"), "511:6\n"),
        (
            at(PLATFORM, "iommu_group"),
            "-> ../../../kernel/iommu_groups/21",
        ),
    ];
    let mut entries: Vec<(&str, &str)> = entries.iter().map(|(p, c)| (p.as_str(), *c)).collect();
    let up = "../../../devices";
    let links = [
        ("pci/devices/0000:3b:00.0", PCI),
        ("pci/devices/0000:3b:00.1", SECOND),
        ("pci/devices/0000:3b:00.2", UNBOUND),
        ("mdev/devices/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", MDEV),
        ("platform/devices/fff51000.ethernet", PLATFORM),
    ]
    .map(|(link, dir)| {
        let dir = dir.strip_prefix("sys/devices").unwrap();
        (format!("sys/bus/{link}"), format!("-> {up}{dir}"))
    });
    entries.extend(links.iter().map(|(p, c)| (p.as_str(), c.as_str())));
    entries.extend([
        ("sys/bus/pci/devices/0000:00:1f.0/", ""),
        ("dev/vfio/vfio", ""),
        ("dev/vfio/13", ""),
        ("dev/vfio/20", ""),
        ("dev/vfio/21", ""),
        ("dev/vfio/devices/vfio4", ""),
        ("dev/char/511:4", "-> ../vfio/devices/vfio4"),
        ("dev/char/511:5", ""),
        ("dev/net/tun", ""),
    ]);
    tree(&entries)
}

#[test]
fn functions_and_their_groups() {
    let root = host();
    for (address, want) in [
        ("0000:3b:00.0", &["own /dev/vfio/13"][..]),
        ("3B:00.0", &["own /dev/vfio/13"]),
        ("0:3b:0.1", &["own /dev/vfio/13"]),
        (
            "3b:00.2",
            &[
                "absent it is in IOMMU group 14",
                "no '/dev/vfio/14'",
                "(this one has driver 'nvme')",
                "driverctl set-override 0000:3b:00.2 vfio-pci",
                "echo vfio-pci > /sys/bus/pci/devices/0000:3b:00.2/driver_override",
                "echo 0000:3b:00.2 > /sys/bus/pci/devices/0000:3b:00.2/driver/unbind",
                "echo 0000:3b:00.2 > /sys/bus/pci/drivers_probe",
            ],
        ),
        (
            "00:1f.0",
            &[
                "absent there is no '/sys/bus/pci/devices/0000:00:1f.0/iommu_group'",
                "IOMMU is off",
                "intel_iommu=on",
                "firmware",
            ],
        ),
        (
            "1:00:1f.0",
            &[
                "absent there is no '/sys/bus/pci/devices/0001:00:1f.0'",
                "lspci -D",
            ],
        ),
    ] {
        check(&root, &pci(address, Vfio::Group), want);
    }
}

#[test]
fn functions_and_their_own_nodes() {
    let root = host();
    for (address, want) in [
        ("3b:00.0", &["own /dev/vfio/devices/vfio4"][..]),
        ("3b:00.1", &["own /dev/char/511:5"]),
        (
            "3b:00.2",
            &[
                "absent there is no '/sys/bus/pci/devices/0000:3b:00.2/vfio-dev/vfioN'",
                "'nvme'",
                "driverctl set-override 0000:3b:00.2 vfio-pci",
            ],
        ),
        ("3b:00.7", &["absent there is no", "lspci -D"]),
    ] {
        check(&root, &pci(address, Vfio::Cdev), want);
    }
    let mdev = "/sys/bus/mdev/devices/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
    check(
        &root,
        &sysfs(mdev, Vfio::Cdev),
        &[
            "absent there is neither '/dev/vfio/devices/vfio6' nor '/dev/char/511:6'",
            "udevadm",
        ],
    );
}

#[test]
fn directories_in_sysfs() {
    let root = host();
    for (dir, want) in [
        (
            "/sys/bus/mdev/devices/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001",
            &["own /dev/vfio/20"][..],
        ),
        ("/sys/bus/pci/devices/0000:3b:00.0", &["own /dev/vfio/13"]),
        ("/sys/bus/pci/devices/0000:3b:00.0/", &["own /dev/vfio/13"]),
        // As QEMU, from its working directory, /sys/bus here.
        ("pci/devices/0000:3b:00.0", &["own /dev/vfio/13"]),
        ("../devices/pci0000:3a/0000:3b:00.1", &["own /dev/vfio/13"]),
        (
            "/sys/bus/platform/devices/fff51000.ethernet",
            &["own /dev/vfio/21"],
        ),
        (
            "/sys/bus/platform/devices/x",
            &["absent there is no", "ls /sys/bus/platform/devices"],
        ),
        (
            "/sys/bus/mdev/devices/0-0",
            &[
                "absent there is no '/sys/bus/mdev/devices/0-0'",
                "mdevctl start",
            ],
        ),
        ("/sys/bus", &["absent there is no '/sys/bus/iommu_group'"]),
    ] {
        check(&root, &sysfs(dir, Vfio::Group), want);
    }
}

#[test]
fn what_the_kernel_would_not_make() {
    let root = tree(&[
        ("a/iommu_group", "-> ../groups/13/x"),
        ("b/iommu_group", "-> ../groups/-1"),
        ("c/iommu_group", "-> ../groups/13 4"),
        ("d/iommu_group", "-> .."),
        ("e/iommu_group", "13"),
        ("f/iommu_group", "-> ../groups/99999999999"),
        ("g/vfio-dev/vfio../dev", "1:1"),
        ("h/vfio-dev/vfio0/dev", "1:1/../../kvm"),
        ("i/vfio-dev/vfio0/dev", "11"),
        ("j/vfio-dev/vfio0/x", ""),
        ("k/vfio-dev/other/dev", "1:1"),
        ("l/iommu_group/", ""),
        ("file", ""),
        ("dev/vfio/13", ""),
        ("dev/vfio/devices/vfio0", ""),
        ("dev/kvm", ""),
    ]);
    for (dir, how, want) in [
        ("/a", Vfio::Group, "malformed '/a/iommu_group' leads to"),
        ("/b", Vfio::Group, "malformed '/b/iommu_group' leads to"),
        ("/c", Vfio::Group, "malformed '/c/iommu_group' leads to"),
        ("/d", Vfio::Group, "malformed '/d/iommu_group' leads to"),
        (
            "/e",
            Vfio::Group,
            "malformed '/e/iommu_group' is no symbolic link",
        ),
        ("/f", Vfio::Group, "malformed '/f/iommu_group' leads to"),
        (
            "/l",
            Vfio::Group,
            "malformed '/l/iommu_group' is no symbolic link",
        ),
        (
            "/g",
            Vfio::Cdev,
            "malformed '/g/vfio-dev/vfio..' is no device",
        ),
        (
            "/h",
            Vfio::Cdev,
            "malformed '/h/vfio-dev/vfio0/dev' holds no device number",
        ),
        (
            "/i",
            Vfio::Cdev,
            "malformed '/i/vfio-dev/vfio0/dev' holds no device number",
        ),
        (
            "/j",
            Vfio::Cdev,
            "absent there is no '/j/vfio-dev/vfio0/dev': this kernel",
        ),
        (
            "/k",
            Vfio::Cdev,
            "absent there is no '/k/vfio-dev/vfioN': it is not bound",
        ),
        (
            "/file",
            Vfio::Group,
            "absent there is no '/file/iommu_group'",
        ),
        ("/file/x", Vfio::Group, "absent there is no '/file/x'"),
        ("/a\0b", Vfio::Group, "absent cannot read '/a\\u{0}b'"),
    ] {
        check(&root, &sysfs(dir, how), &[want]);
    }
    for ifname in ["", ".", "..", "../../x", "a/b"] {
        let ifname = ifname.into();
        check(&root, &HostDevice::Tap { ifname }, &["malformed"]);
    }
}

#[test]
fn usb_devices_that_are_plugged_in() {
    let mut entries = Vec::new();
    for (name, vendor, product, bus, address, port, class) in [
        ("usb1", "1d6b", "0002", "1", "1", "0", "09"),
        ("1-1", "046d", "c52b", "1", "4", "1", "00"),
        ("1-2", "1d6b", "0104", "1", "5", "2", "09"),
        ("1-2.3", "046d", "c52b", "1", "12", "2.3", "00"),
        ("2-1", "0951", "1666", "2", "4", "1", "00"),
    ] {
        for (key, value) in [
            ("idVendor", vendor),
            ("idProduct", product),
            ("busnum", bus),
            ("devnum", address),
            ("devpath", port),
            ("bDeviceClass", class),
        ] {
            let path = format!("sys/bus/usb/devices/{name}/{key}");
            entries.push((path, format!("{value}\n")));
        }
    }
    for (path, text) in [
        // An interface; a device that goes away; nonsense.
        ("sys/bus/usb/devices/1-1:1.0/busnum", "1"),
        ("sys/bus/usb/devices/3-1/idVendor", "046d"),
        ("sys/bus/usb/devices/4-1/busnum", "../4"),
        ("sys/bus/usb/devices/4-1/devnum", "-1"),
        ("sys/bus/usb/devices/plain", ""),
    ] {
        entries.push((path.to_owned(), text.to_owned()));
    }
    let entries: Vec<(&str, &str)> = entries.iter().map(|(p, c)| (&**p, &**c)).collect();
    let root = tree(&entries);
    let wanted = |bus, address, port: Option<&str>, vendor, product| {
        HostDevice::Usb(UsbMatch {
            bus,
            address,
            port: port.map(str::to_owned),
            vendor,
            product,
        })
    };
    for (device, want) in [
        (
            wanted(None, None, None, Some(0x46d), Some(0xc52b)),
            "own /dev/bus/usb/001/004 /dev/bus/usb/001/012",
        ),
        (
            wanted(None, None, None, Some(0x951), None),
            "own /dev/bus/usb/002/004",
        ),
        (
            wanted(None, None, None, None, Some(0x1666)),
            "own /dev/bus/usb/002/004",
        ),
        (
            wanted(Some(1), None, Some("2.3"), None, None),
            "own /dev/bus/usb/001/012",
        ),
        (
            wanted(Some(2), None, Some("1"), None, None),
            "own /dev/bus/usb/002/004",
        ),
        (
            wanted(None, None, Some("1"), None, None),
            "own /dev/bus/usb/001/004 /dev/bus/usb/002/004",
        ),
        (
            wanted(Some(1), Some(12), None, Some(0x46d), None),
            "own /dev/bus/usb/001/012",
        ),
        // Never hubs, of which one has hostaddr 5.
        (wanted(Some(1), Some(5), None, Some(0x1d6b), None), "own "),
        (wanted(None, None, None, Some(0x1d6b), None), "own "),
        (wanted(Some(3), None, None, None, None), "own "),
        (wanted(None, None, None, Some(0xffff), None), "own "),
        (wanted(Some(1), None, Some("01"), None, None), "own "),
    ] {
        assert_eq!(found(&root, &device), want, "{device}");
    }
    let nothing = tree(&[]);
    let device = wanted(None, None, None, Some(1), None);
    assert_eq!(found(&nothing, &device), "own ");
}

#[test]
fn interfaces() {
    let root = tree(&[
        ("sys/class/net/macvtap0/ifindex", "7\n"),
        ("sys/class/net/tap0/ifindex", "8\n"),
        ("sys/class/net/bonding_masters", ""),
        ("sys/class/net/bad/ifindex", "7/../kvm\n"),
        ("sys/class/net/void/ifindex", "\n"),
        ("dev/tap7", ""),
        ("dev/net/tun", ""),
    ]);
    for (ifname, want) in [
        ("macvtap0", "own /dev/tap7"),
        ("tap0", "host /dev/net/tun"),
        ("tap%d", "host /dev/net/tun"),
        ("bonding_masters", "host /dev/net/tun"),
        (
            "bad",
            "malformed '/sys/class/net/bad/ifindex' holds no number",
        ),
        (
            "void",
            "malformed '/sys/class/net/void/ifindex' holds no number",
        ),
    ] {
        let device = HostDevice::Tap {
            ifname: ifname.into(),
        };
        assert_eq!(found(&root, &device), want, "{ifname}");
    }
}

#[test]
fn this_host_can_be_asked() {
    let files = SysRoot::host();
    let device = HostDevice::Tap {
        ifname: "lo".into(),
    };
    assert_eq!(
        resolve(&files, &device, Path::new("/")),
        Ok(Nodes::HostWide(TUN.into()))
    );
    assert!(files.exists(Path::new("/dev/null")).unwrap());
    // A file without an end is read to the limit.
    let text = files.read(Path::new("/dev/zero")).unwrap();
    assert_eq!(text.len() as u64, MAX_ATTRIBUTE);
}
