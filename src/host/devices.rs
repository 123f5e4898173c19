//! From devices that the command line names by address to the device nodes that QEMU opens for
//! them, as sysfs tells it.
//!
//! Reads links, small files and lists below /sys and /dev; opens no device and changes nothing.
//! A name from the line or from sysfs is checked before it becomes part of a path.

use crate::host::io_error::{explain, is_absent};
use crate::host::sysfs::{INTERFACES, SystemFiles};
use crate::model::resource::{HostDevice, PciAddress, UsbMatch, Vfio};
use crate::text::escape::quoted;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The node of every tap interface that has none of its own.
pub const TUN: &str = "/dev/net/tun";

/// Where a device is on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// Nodes that only the guest shall use. Empty if nothing fits now, and QEMU starts without.
    Own(Vec<PathBuf>),
    /// A node that others use too.
    HostWide(PathBuf),
}

/// Why there is no node: what was looked up, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Not on this host as it is now.
    #[error("{0}")]
    Absent(String),
    /// What is there is not what the kernel makes, or the name is none.
    #[error("{0}")]
    Malformed(String),
}

/// Finds the nodes of a device. `cwd` is QEMU's working directory.
///
/// # Errors
/// Why QEMU could not open the device.
pub fn resolve(files: &dyn SystemFiles, device: &HostDevice, cwd: &Path) -> Result<Nodes, Problem> {
    match device {
        HostDevice::VfioPci { address, how } => {
            let dir = Path::new("/sys/bus/pci/devices").join(address.to_string());
            vfio(files, &dir, *how).map(own)
        }
        HostDevice::VfioSysfs { dir, how } => vfio(files, &cwd.join(dir), *how).map(own),
        HostDevice::Usb(wanted) => usb(files, wanted).map(Nodes::Own),
        HostDevice::Tap { ifname } => tap(files, ifname),
    }
}

fn own(node: PathBuf) -> Nodes {
    Nodes::Own(vec![node])
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::Absent(format!("cannot read {}: {}", show(path), explain(error)))
}

fn show(path: &Path) -> String {
    quoted(path.as_os_str())
}

fn exists(files: &dyn SystemFiles, path: &Path) -> Result<bool, Problem> {
    match files.exists(path) {
        Err(error) if is_absent(&error) => Ok(false),
        other => other.map_err(|error| unreadable(path, &error)),
    }
}

/// Reads a number that consists of digits and nothing else.
fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Finds the node by which QEMU reaches a device through VFIO.
fn vfio(files: &dyn SystemFiles, dir: &Path, how: Vfio) -> Result<PathBuf, Problem> {
    if !exists(files, dir)? {
        return Err(Problem::Absent(format!(
            "there is no {}; {}",
            show(dir),
            Bus::of(dir).how_to_list()
        )));
    }
    match how {
        Vfio::Group => group(files, dir),
        Vfio::Cdev => cdev(files, dir),
    }
}

/// Returns `/dev/vfio/N`, N being where the link `iommu_group` leads (`vfio_device_get_groupid`,
/// hw/vfio/container.c). The node is there once a VFIO driver has a device of the group.
fn group(files: &dyn SystemFiles, dir: &Path) -> Result<PathBuf, Problem> {
    let link = dir.join("iommu_group");
    let target = match files.read_link(&link) {
        Ok(target) => target,
        Err(error) if is_absent(&error) => {
            return Err(Problem::Absent(format!(
                "there is no {}; {}",
                show(&link),
                Bus::of(dir).without_group(files, dir)
            )));
        }
        // EINVAL: it is there and no link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(Problem::Malformed(format!(
                "{} is no symbolic link, and in sysfs it is one to an IOMMU group; name the \
                 device's directory in /sys",
                show(&link)
            )));
        }
        Err(error) => return Err(unreadable(&link, &error)),
    };
    let name = target.file_name().unwrap_or_default();
    let number = decimal(name.as_bytes()).ok_or_else(|| {
        Problem::Malformed(format!(
            "{} leads to {}, and an IOMMU group is a number; name the device's directory in /sys",
            show(&link),
            show(&target)
        ))
    })?;
    let node = PathBuf::from(format!("/dev/vfio/{number}"));
    if exists(files, &node)? {
        return Ok(node);
    }
    Err(Problem::Absent(format!(
        "it is in IOMMU group {number}, and there is no {}: no device of the group is bound to a \
         VFIO driver{}",
        show(&node),
        Bus::of(dir).how_to_bind(files, dir)
    )))
}

/// Returns `/dev/vfio/devices/vfioN`, or else the same device by its number, as `iommufd_cdev_getfd`
/// (hw/vfio/iommufd.c) and `open_cdev` (util/chardev_open.c) have it.
fn cdev(files: &dyn SystemFiles, dir: &Path) -> Result<PathBuf, Problem> {
    let list = dir.join("vfio-dev");
    let names = match files.list(&list) {
        Ok(names) => names,
        Err(error) if is_absent(&error) => Vec::new(),
        Err(error) => return Err(unreadable(&list, &error)),
    };
    let Some(name) = names
        .iter()
        .find(|name| name.as_bytes().starts_with(b"vfio"))
    else {
        return Err(Problem::Absent(format!(
            "there is no {}: it is not bound to a VFIO driver{}",
            show(&list.join("vfioN")),
            Bus::of(dir).how_to_bind(files, dir)
        )));
    };
    let number = name.as_bytes().strip_prefix(b"vfio").and_then(decimal);
    let Some(number) = number else {
        return Err(Problem::Malformed(format!(
            "{} is no device of VFIO: those are named vfio and a number; name the device's \
             directory in /sys",
            show(&list.join(name))
        )));
    };
    let attribute = list.join(name).join("dev");
    let text = match files.read(&attribute) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => {
            return Err(Problem::Absent(format!(
                "there is no {}: this kernel makes no nodes for single devices \
                 (CONFIG_VFIO_DEVICE_CDEV); leave out iommufd=",
                show(&attribute)
            )));
        }
        Err(error) => return Err(unreadable(&attribute, &error)),
    };
    let Some((major, minor)) = device_number(&text) else {
        return Err(Problem::Malformed(format!(
            "{} holds no device number, which is MAJOR:MINOR; name the device's directory in /sys",
            show(&attribute)
        )));
    };
    let node = PathBuf::from(format!("/dev/vfio/devices/vfio{number}"));
    if exists(files, &node)? {
        return Ok(node);
    }
    let by_number = PathBuf::from(format!("/dev/char/{major}:{minor}"));
    if exists(files, &by_number)? {
        return Ok(by_number);
    }
    Err(Problem::Absent(format!(
        "there is neither {} nor {}, although {} has it; let udev make them: udevadm trigger \
         --subsystem-match=vfio-dev",
        show(&node),
        show(&by_number),
        show(&list)
    )))
}

/// Reads `MAJOR:MINOR`, as attributes in sysfs have it.
fn device_number(text: &[u8]) -> Option<(u32, u32)> {
    let text = text.trim_ascii_end();
    let colon = text.iter().position(|byte| *byte == b':')?;
    let (major, minor) = text.split_at_checked(colon)?;
    Some((decimal(major)?, decimal(minor.strip_prefix(b":")?)?))
}

/// What a device is plugged into, for advice.
enum Bus {
    Pci(PciAddress),
    Platform(String),
    Other,
}

impl Bus {
    /// Finds the bus by the name of the device's directory: sysfs lists a device in several places.
    fn of(dir: &Path) -> Self {
        let name = dir.file_name().unwrap_or_default();
        match PciAddress::parse(name.as_bytes()) {
            Some(address) if name == OsStr::new(&address.to_string()) => Self::Pci(address),
            _ if dir.parent() == Some(Path::new("/sys/bus/platform/devices")) => {
                Self::Platform(quoted(name))
            }
            _ => Self::Other,
        }
    }

    fn how_to_list(&self) -> &'static str {
        match self {
            Self::Pci(_) => "lspci -D lists the PCI functions of this host",
            Self::Platform(_) => "ls /sys/bus/platform/devices lists those of this host",
            Self::Other => {
                "a mediated device is made with mdevctl start, and listed in \
                 /sys/bus/mdev/devices"
            }
        }
    }

    /// Says what to do if the device is in no IOMMU group.
    fn without_group(&self, files: &dyn SystemFiles, dir: &Path) -> String {
        match self {
            Self::Pci(_) | Self::Platform(_) => "the IOMMU is off: switch it on in the firmware's \
                setup (VT-d, AMD-Vi, SMMU) and, on Intel, with the kernel parameter intel_iommu=on"
                .to_owned(),
            Self::Other => format!(
                "it is not bound to a VFIO driver, or the IOMMU is off (kernel parameter \
                 intel_iommu=on){}",
                self.how_to_bind(files, dir)
            ),
        }
    }

    /// Returns the end of a sentence that says that it is not bound to a VFIO driver.
    fn how_to_bind(&self, files: &dyn SystemFiles, dir: &Path) -> String {
        let driver = files.read_link(&dir.join("driver")).ok();
        let driver = driver.as_deref().and_then(Path::file_name);
        let (bus, name, wanted) = match self {
            Self::Pci(address) => ("pci", address.to_string(), "vfio-pci"),
            Self::Platform(name) => ("platform", name.clone(), "vfio-platform"),
            Self::Other => return driver.map_or_else(String::new, bound),
        };
        let devices = format!("/sys/bus/{bus}/devices/{name}");
        let unbind = match driver {
            Some(_) => format!("echo {name} > {devices}/driver/unbind && "),
            None => String::new(),
        };
        // driverctl's own --bus is pci.
        let bus_option = match self {
            Self::Platform(_) => "--bus platform ",
            Self::Pci(_) | Self::Other => "",
        };
        format!(
            "{}; bind it: driverctl {bus_option}set-override {name} {wanted}, or: echo {wanted} > \
             {devices}/driver_override && {unbind}echo {name} > /sys/bus/{bus}/drivers_probe",
            driver.map_or_else(String::new, bound),
        )
    }
}

fn bound(driver: &OsStr) -> String {
    format!(" (this one has driver {})", quoted(driver))
}

/// A device class in hexadecimal: USB hubs are never given to guests (`usb_host_auto_check`).
const USB_HUB: &[u8] = b"09";

/// Finds all that fit among the devices that are plugged in; libusb opens `/dev/bus/usb/BUS/ADDRESS`
/// (`linux_usbfs.c`).
fn usb(files: &dyn SystemFiles, wanted: &UsbMatch) -> Result<Vec<PathBuf>, Problem> {
    let list = Path::new("/sys/bus/usb/devices");
    let names = match files.list(list) {
        Ok(names) => names,
        Err(error) if is_absent(&error) => Vec::new(),
        Err(error) => return Err(unreadable(list, &error)),
    };
    let mut nodes = Vec::new();
    // 1-4:1.0 is an interface of the device 1-4.
    for name in names.iter().filter(|name| !name.as_bytes().contains(&b':')) {
        let dir = list.join(name);
        let attribute = |key: &str| -> Result<Vec<u8>, Problem> {
            let path = dir.join(key);
            match files.read(&path) {
                Ok(text) => Ok(text.trim_ascii().to_vec()),
                // Unplugged meanwhile.
                Err(error) if is_absent(&error) || is_gone(&error) => Ok(Vec::new()),
                Err(error) => Err(unreadable(&path, &error)),
            }
        };
        let number = |key| Ok(decimal(&attribute(key)?));
        let (Some(bus), Some(address)) = (number("busnum")?, number("devnum")?) else {
            continue;
        };
        let id = |key| -> Result<Option<u16>, Problem> {
            let text = attribute(key)?;
            let text = std::str::from_utf8(&text).ok();
            Ok(text.and_then(|text| u16::from_str_radix(text, 16).ok()))
        };
        let fits = attribute("bDeviceClass")? != USB_HUB
            && wanted.bus.is_none_or(|wanted| bus == u32::from(wanted))
            && wanted
                .address
                .is_none_or(|wanted| address == u32::from(wanted))
            && (wanted.vendor.is_none() || id("idVendor")? == wanted.vendor)
            && (wanted.product.is_none() || id("idProduct")? == wanted.product);
        let fits = fits
            && match &wanted.port {
                Some(port) => attribute("devpath")? == port.as_bytes(),
                None => true,
            };
        if fits {
            nodes.push(PathBuf::from(format!("/dev/bus/usb/{bus:03}/{address:03}")));
        }
    }
    Ok(nodes)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// Returns `/dev/tapN` if the interface exists with index N and has that node, as macvtap and ipvtap have
/// (`tap_open`, net/tap-linux.c; drivers/net/tap.c in Linux).
fn tap(files: &dyn SystemFiles, ifname: &OsStr) -> Result<Nodes, Problem> {
    let name = ifname.as_bytes();
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(Problem::Malformed(format!(
            "{} is no name of an interface",
            quoted(ifname)
        )));
    }
    let attribute = Path::new(INTERFACES).join(ifname).join("ifindex");
    let text = match files.read(&attribute) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Ok(Nodes::HostWide(TUN.into())),
        Err(error) => return Err(unreadable(&attribute, &error)),
    };
    let index = decimal(text.trim_ascii_end())
        .ok_or_else(|| Problem::Malformed(format!("{} holds no number", show(&attribute))))?;
    let node = PathBuf::from(format!("/dev/tap{index}"));
    if exists(files, &node)? {
        Ok(own(node))
    } else {
        Ok(Nodes::HostWide(TUN.into()))
    }
}

#[cfg(test)]
#[path = "devices_tests.rs"]
pub(crate) mod tests;
