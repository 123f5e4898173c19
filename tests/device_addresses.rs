//! Devices that a line names by address: what the parser makes of the addresses. The forms are
//! those of QEMU 10 (set_pci_host_devaddr, qemu_strtou64, usb_host_realize).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

#[path = "common/line.rs"]
mod line;

use svirt_exec::model::resource::Target;

use line::parse;

fn device_or_path(target: &Target) -> String {
    match target {
        Target::Device(device) => device.to_string(),
        Target::Path(path) => path.display().to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn addresses() {
    let table: &[(&[&str], &[&str])] = &[
        (
            &[
                "-device",
                "usb-host,hostbus=0x1,hostaddr=010",
                "-device",
                "{'driver':'usb-host','vendorid':1133,'productid':50475}",
                "-device",
                "usb-host,hostbus=2,hostport=1.4,vendorid=0",
            ],
            &[
                "3 -device hostaddr: /dev/bus/usb/001/008 write exclusive",
                "5 -device productid: usb:vendorid=0x046d,productid=0xc52b write exclusive",
                "7 -device hostport: usb:hostbus=2,hostport=1.4 write exclusive",
            ],
        ),
        (
            &[
                "-device",
                "usb-host,hostbus=1,hostaddr=4,hostport=2,id=u",
                "-set",
                "device.u.hostaddr=5",
            ],
            &["5 -set device.u.hostaddr: usb:hostbus=1,hostaddr=5,hostport=2 write exclusive"],
        ),
        (
            &[
                "-device",
                "vfio-platform,host=fff51000.ethernet",
                "-device",
                "vfio-ap,sysfsdev=mdev,iommufd=i",
                "-device",
                "vfio-pci,host=3b:00.0,sysfsdev=/sys/x",
            ],
            &[
                "3 -device host: /dev/vfio/vfio write keep",
                "3 -device host: sysfs:/sys/bus/platform/devices/fff51000.ethernet write exclusive",
                "5 -device sysfsdev: sysfs-iommufd:mdev write exclusive",
                "7 -device sysfsdev: /dev/vfio/vfio write keep",
                "7 -device sysfsdev: sysfs:/sys/x write exclusive",
            ],
        ),
        (
            &[
                "-device",
                "vfio-pci,host=3B:1f.7",
                "-global",
                "vfio-pci.host=0:6:2.1",
            ],
            &[
                "3 -device host: /dev/vfio/vfio write keep",
                "3 -device host: pci:0000:3b:1f.7 write exclusive",
                "5 -global host: /dev/vfio/vfio write keep",
                "5 -global host: pci:0000:06:02.1 write exclusive",
            ],
        ),
        (
            &[
                "-blockdev",
                "driver=nvme,node-name=n,device=0000:04:00.0,namespace=1",
                "-blockdev",
                "driver=virtio-blk-vfio-pci,node-name=v,path=/sys/bus/pci/devices/0000:05:00.0",
            ],
            &[
                "3 -blockdev device: /dev/vfio/vfio write keep",
                "3 -blockdev device: pci:0000:04:00.0 write exclusive",
                "5 -blockdev path: /dev/vfio/vfio write keep",
                "5 -blockdev path: sysfs:/sys/bus/pci/devices/0000:05:00.0 write exclusive",
            ],
        ),
        (
            &["-nic", "tap,ifname=macvtap0,script=no,downscript=no"],
            &["3 -nic ifname: tap:macvtap0 write keep"],
        ),
        // Without a name that an interface can have there is no macvtap.
        (
            &[
                "-nic",
                "tap,ifname=,script=no,downscript=no",
                "-nic",
                "tap,ifname=sixteencharacter,script=no,downscript=no",
            ],
            &[
                "3 -nic type: /dev/net/tun write keep",
                "5 -nic type: /dev/net/tun write keep",
            ],
        ),
    ];
    for (words, want) in table {
        let seen = line::requests(&parse("qemu", words), device_or_path);
        line::check(words, &seen, want);
    }
}

/// What is no address never becomes a part of a path.
#[test]
fn addresses_that_are_none() {
    for (words, want) in [
        (
            &["-device", "vfio-pci,host=../../x"][..],
            "'../../x' is no PCI address: [DOMAIN:]BUS:SLOT.FUNCTION",
        ),
        (&["-device", "vfio-pci,host=3b:00"], "0000:3b:00.0"),
        (&["-device", "vfio-pci,host="], "is no PCI address"),
        (
            &["-global", "vfio-pci.host=3b:00.8"],
            "'3b:00.8' is no PCI address",
        ),
        (&["-device", "vfio-pci,sysfsdev="], "below /sys"),
        (
            &["-device", "vfio-platform,host=../x"],
            "must be a name in /sys/bus/platform/devices",
        ),
        (&["-device", "vfio-platform,host=.."], "'..' is no platform"),
        (
            &["-device", "vfio-amd-xgbe,host=a/b"],
            "'a/b' is no platform",
        ),
        (
            &["-drive", "file=nvme://../../x/1,format=raw"],
            "is no PCI address",
        ),
        (
            &["-drive", "file=nvme://4:0.0/1,format=raw"],
            "spelt as in sysfs: 0000:04:00.0",
        ),
        (
            &["-device", "usb-host,vendorid=0x10000"],
            "vendorid= must be a number of at most 65535 (0xffff), not '0x10000'",
        ),
        (
            &["-device", "usb-host,productid=46d"],
            "productid= must be a number",
        ),
        (
            &["-device", "usb-host,hostbus=1,hostaddr=008"],
            "hostaddr= must be a number of at most 127",
        ),
        (
            &["-device", "usb-host,hostbus=../1,hostaddr=1"],
            "hostbus= must be a number of at most 255",
        ),
        (
            &["-device", "usb-host,hostbus=1,hostport=../1"],
            "hostport= must be ports",
        ),
        (
            &["-device", "usb-host,hostport=1..2"],
            "hostport= must be ports",
        ),
        (
            &["-netdev", "tap,id=n,ifname=../x"],
            "'../x' is no name of an interface",
        ),
    ] {
        let line = parse("qemu", words);
        assert_eq!(line.errors.len(), 1, "{words:?}: {:?}", line.errors);
        let message = &line.errors[0].message;
        assert!(message.contains(want), "{words:?}: {message}");
        assert!(
            !line
                .requests
                .iter()
                .any(|r| matches!(r.target, Target::Device(_))),
            "{words:?}: {:?}",
            line.requests
        );
    }
}

/// A device that the line leaves to chance is said, not listed.
#[test]
fn devices_left_to_chance() {
    for word in [
        "usb-host",
        "usb-host,hostbus=0,vendorid=0x0",
        "u2f-passthru",
    ] {
        let line = parse("qemu", &["-device", word]);
        assert_eq!(line.requests, [], "{word}");
        assert_eq!(line.warnings.len(), 1, "{word}: {:?}", line.warnings);
    }
}
