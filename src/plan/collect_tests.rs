//! Tests of `collect`: names, symbolic links and devices in a tree of its own.

use std::fs;

use super::*;
use crate::host::devices::tests::tree;
use crate::host::pinned;
use crate::host::pinned::Pinned;
use crate::host::sysfs::SysRoot;
use crate::host::{Files, Policy, VirtualContexts};
use crate::model::label::Context;
use crate::model::resource::{Origin, PciAddress, UsbMatch, Vfio};
use crate::plan;
use crate::plan::decide::Running;
use crate::plan::resource::{CollectContext, Collected, Resource};
use crate::plan::step::{Action, Decision, Relabel};
use crate::selinux::Mode;

/// A host on which nobody runs.
const NOBODY: Running<'_> = Running {
    processes: &[],
    name_of: &|_| None,
};

/// A host without SELinux whose files are below a directory.
struct Rooted(PathBuf);

impl Files for Rooted {
    fn pin(&self, path: &Path) -> io::Result<Pinned> {
        pinned::pin(&self.0.join(path.strip_prefix("/").unwrap()))
    }

    fn open(&self, pinned: &Pinned) -> io::Result<fs::File> {
        fs::File::open(pinned.proc_path())
    }

    fn label_of(&self, _: &Pinned) -> io::Result<Option<Context>> {
        Ok(None)
    }
}

/// SELinux is off: nothing else is asked.
impl Policy for Rooted {
    fn mode(&self) -> Mode {
        Mode::Disabled
    }

    fn own_context(&self) -> io::Result<Context> {
        unreachable!()
    }

    fn denied<'p>(
        &self,
        _: &Context,
        _: &Context,
        _: &str,
        _: &[&'p str],
    ) -> io::Result<Vec<&'p str>> {
        unreachable!()
    }

    fn label_of_new(&self, _: &Context, _: &Context, _: Kind, _: &OsStr) -> io::Result<Context> {
        unreachable!()
    }

    fn is_valid(&self, _: &Context) -> bool {
        unreachable!()
    }

    fn virtual_contexts(&self) -> io::Result<VirtualContexts> {
        unreachable!()
    }
}

fn collected(root: &tempfile::TempDir, requests: Vec<Request>) -> Collected {
    let host = Rooted(root.path().to_path_buf());
    let around = CollectContext {
        cwd: Path::new("/"),
        program: Path::new("/usr/bin/qemu"),
        data_dirs: &[],
        system: &SysRoot::root(root.path()),
    };
    collect(&host, requests, &[], &around)
}

fn request(word: usize, target: Target, class: Class, access: Access) -> Request {
    Request {
        target,
        class,
        access,
        origin: Origin::Word {
            word,
            option: "-device".into(),
            key: "host".to_owned(),
        },
        reason: "test",
        mapped: false,
        may_be_directory: false,
        image: None,
        required: true,
    }
}

fn device(word: usize, device: HostDevice) -> Request {
    request(
        word,
        Target::Device(device),
        Class::Exclusive,
        Access::Write,
    )
}

fn pci(word: usize, address: &str, how: Vfio) -> Request {
    let address = PciAddress::parse(address.as_bytes()).unwrap();
    device(word, HostDevice::VfioPci { address, how })
}

/// `path host class access`, with `-` for what is not there.
fn lines(collected: &Collected) -> Vec<String> {
    let line = |r: &Resource| {
        let path = r.path.as_ref().map(|path| path.display().to_string());
        format!(
            "{} {} {:?} {:?}",
            path.as_deref().unwrap_or("-"),
            r.host.as_ref().map_or("-".to_owned(), ToString::to_string),
            r.class,
            r.access
        )
    };
    collected.resources.iter().map(line).collect()
}

#[test]
fn functions_of_one_group_are_one_resource() {
    let root = tree(&[
        ("sys/bus/pci/devices/0000:3b:00.0/iommu_group", "-> ../g/13"),
        ("sys/bus/pci/devices/0000:3b:00.1/iommu_group", "-> ../g/13"),
        ("sys/bus/pci/devices/0000:3b:00.2/iommu_group", "-> ../g/14"),
        ("dev/vfio/13", ""),
        ("dev/vfio/14", ""),
    ]);
    let seen = collected(
        &root,
        vec![
            pci(2, "3b:00.0", Vfio::Group),
            pci(3, "3b:00.1", Vfio::Group),
            pci(4, "3b:00.2", Vfio::Group),
        ],
    );
    assert_eq!(
        lines(&seen),
        [
            "/dev/vfio/13 pci:0000:3b:00.0 Exclusive Write",
            "/dev/vfio/14 pci:0000:3b:00.2 Exclusive Write",
        ]
    );
    assert!(seen.resources.iter().all(|r| r.pinned.is_some()));
    assert_eq!((&seen.errors, &seen.obstacles), (&vec![], &vec![]));
    let host = Rooted(root.path().to_path_buf());
    let Decision {
        steps,
        errors,
        obstacles,
        ..
    } = plan::decide(&host, seen, None, Relabel::Yes, &NOBODY);
    assert!(steps.iter().all(|step| step.action == Action::Relabel));
    assert_eq!((errors, obstacles), (vec![], vec![]));
}

#[test]
fn a_device_that_is_not_there_stays_an_address() {
    let root = tree(&[
        ("sys/bus/pci/devices/0000:3b:00.0/iommu_group", "-> ../g/13"),
        ("sys/bus/pci/devices/0000:3b:00.1/iommu_group", "-> ../g/x"),
    ]);
    let seen = collected(
        &root,
        vec![
            pci(2, "3b:00.0", Vfio::Group),
            pci(3, "3b:00.1", Vfio::Group),
            pci(4, "3b:00.2", Vfio::Cdev),
        ],
    );
    assert_eq!(
        lines(&seen),
        [
            "- pci:0000:3b:00.0 Exclusive Write",
            "- pci:0000:3b:00.1 Exclusive Write",
            "- pci-iommufd:0000:3b:00.2 Exclusive Write",
        ]
    );
    assert_eq!(seen.errors.len(), 1, "{:?}", seen.errors);
    assert!(
        seen.errors[0].to_string().starts_with(
            "cannot find the node of pci:0000:3b:00.1 (word 3, -device host=): \
             '/sys/bus/pci/devices/0000:3b:00.1/iommu_group' leads to"
        ),
        "{:?}",
        seen.errors
    );
    assert_eq!(seen.obstacles.len(), 2, "{:?}", seen.obstacles);
    let host = Rooted(root.path().to_path_buf());
    let Decision {
        steps, obstacles, ..
    } = plan::decide(&host, seen, None, Relabel::Yes, &NOBODY);
    assert_eq!(obstacles.len(), 2, "nothing said twice: {obstacles:?}");
    assert!(steps.iter().all(|step| step.action == Action::None));
}

#[test]
fn usb_devices_that_fit() {
    let root = tree(&[
        ("sys/bus/usb/devices/1-1/busnum", "1"),
        ("sys/bus/usb/devices/1-1/devnum", "4"),
        ("sys/bus/usb/devices/1-1/idVendor", "046d"),
        ("sys/bus/usb/devices/1-2/busnum", "1"),
        ("sys/bus/usb/devices/1-2/devnum", "5"),
        ("sys/bus/usb/devices/1-2/idVendor", "046d"),
        ("dev/bus/usb/001/004", ""),
        ("dev/bus/usb/001/005", ""),
    ]);
    let vendor = |id| {
        HostDevice::Usb(UsbMatch {
            vendor: Some(id),
            ..UsbMatch::default()
        })
    };
    let path = Target::Path("/dev/bus/usb/001/005".into());
    let mut absent = device(4, vendor(0x1234));
    absent.required = false;
    let seen = collected(
        &root,
        vec![
            request(2, path, Class::Exclusive, Access::Write),
            device(3, vendor(0x46d)),
            absent,
        ],
    );
    assert_eq!(
        lines(&seen),
        [
            "/dev/bus/usb/001/005 usb:vendorid=0x046d Exclusive Write",
            "/dev/bus/usb/001/004 usb:vendorid=0x046d Exclusive Write",
            "- usb:vendorid=0x1234 Exclusive Write",
        ]
    );
    assert_eq!((&seen.errors, &seen.obstacles), (&vec![], &vec![]));
    assert_eq!(seen.warnings.len(), 2, "{:?}", seen.warnings);
    assert!(
        seen.warnings[0]
            .to_string()
            .starts_with("2 devices fit usb:vendorid=0x046d (word 3,")
    );
    assert!(
        seen.warnings[1]
            .to_string()
            .starts_with("no device is plugged in that fits usb:vendorid=0x1234")
    );
}

#[test]
fn interfaces_with_and_without_a_node() {
    let root = tree(&[
        ("sys/class/net/macvtap0/ifindex", "7\n"),
        ("sys/class/net/tap0/ifindex", "8\n"),
        ("dev/tap7", ""),
        ("dev/net/tun", ""),
    ]);
    let tap = |word, ifname: &str| {
        let ifname = ifname.into();
        let target = Target::Device(HostDevice::Tap { ifname });
        request(word, target, Class::Keep, Access::Write)
    };
    let seen = collected(
        &root,
        vec![tap(2, "tap0"), tap(3, "macvtap0"), tap(4, "new0")],
    );
    assert_eq!(
        lines(&seen),
        [
            "/dev/net/tun - Keep Write",
            "/dev/tap7 tap:macvtap0 Exclusive Write",
        ]
    );
    assert_eq!((&seen.errors, &seen.obstacles), (&vec![], &vec![]));
}

#[test]
fn links_are_about_what_they_lead_to() {
    let root = tree(&[
        ("dev/sdz", "disk"),
        ("dev/disk/by-id/wwn-1", "-> ../../sdz"),
        ("dev/disk/by-path/pci-1", "-> ../../sdz"),
        ("dev/disk/by-uuid/2", "-> ../by-id/wwn-1"),
        ("dev/disk/by-id/gone", "-> ../../sdy"),
        ("dev/disk/by-id/dir", "-> ../by-path"),
    ]);
    let path =
        |word, path: &str, class, access| request(word, Target::Path(path.into()), class, access);
    let seen = collected(
        &root,
        vec![
            path(2, "/dev/disk/by-id/wwn-1", Class::Shared, Access::Read),
            path(
                3,
                "/dev/disk/by-path/pci-1",
                Class::Exclusive,
                Access::Write,
            ),
            path(4, "/dev/disk/by-uuid/2", Class::Keep, Access::Read),
            path(5, "/dev/disk/by-id/gone", Class::Exclusive, Access::Write),
            path(6, "/dev/disk/by-id/dir", Class::Keep, Access::Tree),
        ],
    );
    assert_eq!(
        lines(&seen),
        [
            "/dev/disk/by-id/wwn-1 - Exclusive Write",
            "/dev/disk/by-id/gone - Exclusive Write",
            "/dev/disk/by-id/dir - Keep Tree",
        ]
    );
    let kinds: Vec<Kind> = seen.resources.iter().map(|r| r.kind).collect();
    assert_eq!(kinds, [Kind::File, Kind::Missing, Kind::Dir]);
    let pinned = seen.resources[0].pinned.as_ref().unwrap();
    assert_eq!(
        pinned.real_path(),
        root.path().canonicalize().unwrap().join("dev/sdz")
    );
    assert_eq!(seen.obstacles.len(), 1, "{:?}", seen.obstacles);
    // A reader and a writer by different names are found out.
    let clash = collected(
        &root,
        vec![
            path(2, "/dev/disk/by-id/wwn-1", Class::Content, Access::Read),
            path(
                3,
                "/dev/disk/by-path/pci-1",
                Class::Exclusive,
                Access::Write,
            ),
        ],
    );
    assert_eq!(clash.resources.len(), 1);
    assert_eq!(clash.errors.len(), 1, "{:?}", clash.errors);
}

#[test]
fn names_in_messages_are_harmless() {
    let root = tree(&[]);
    let dir = "/sys/\u{1b}[2J\n'".into();
    let how = Vfio::Group;
    let seen = collected(&root, vec![device(2, HostDevice::VfioSysfs { dir, how })]);
    assert!(
        seen.obstacles[0]
            .to_string()
            .contains("sysfs:/sys/\\u{1b}[2J\\n\\'"),
        "{:?}",
        seen.obstacles
    );
    assert!(!seen.obstacles[0].to_string().contains(char::is_control));
}
