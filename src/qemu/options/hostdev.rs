//! Host devices that the line names by address, for `-device` and the block layer.
//!
//! Pure. Facts: hw/vfio/*.c, hw/usb/host-libusb.c, util/vfio-helpers.c (QEMU 10).

use crate::model::resource::{HostDevice, Origin, PciAddress, Target, UsbMatch, Vfio};
use crate::qemu::requests::Requests;
use crate::qemu::syntax::bytes::{self, matches};
use crate::qemu::syntax::tree::Tree;
use crate::qemu::usage::Usage;

/// Why an address names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no PCI address.
    #[error("'{0}' is no PCI address: {form}", form = PciAddress::FORM)]
    NotPci(String),
    /// It is a PCI address that the nvme driver does not find in sysfs.
    #[error("the nvme driver needs '{text}' spelt as in sysfs: {address}")]
    Spelling {
        /// As written.
        text: String,
        /// The same in the spelling of sysfs.
        address: PciAddress,
    },
    /// `sysfsdev=` is empty.
    #[error("sysfsdev= must be a directory below /sys")]
    NoDirectory,
    /// It is no name of a platform device.
    #[error("'{0}' is no platform device: it must be a name in /sys/bus/platform/devices")]
    NotPlatform(String),
    /// A key of usb-host is no number, or too large.
    #[error("{key}= must be a number of at most {most} (0x{most:x}), not '{text}'")]
    UsbNumber {
        /// The key.
        key: &'static str,
        /// The largest number that it takes.
        most: u16,
        /// As written.
        text: String,
    },
    /// `hostport=` is no list of ports.
    #[error("hostport= must be ports on the way from the root hub, such as 2 or 1.4, not '{0}'")]
    UsbPort(String),
}

/// Devices whose `host=` is the name of a platform device (hw/vfio/platform.c and its children).
const PLATFORM: &[&str] = &["vfio-platform", "vfio-amd-xgbe", "vfio-calxeda-xgmac"];

/// Returns the device of a `sysfsdev=`.
///
/// # Errors
/// [`AddressError::NoDirectory`].
pub fn sysfs(dir: &[u8], how: Vfio) -> Result<HostDevice, AddressError> {
    match dir {
        b"" => Err(AddressError::NoDirectory),
        dir => Ok(sysfs_device(dir, how)),
    }
}

/// Returns the device of the `host=` of a `vfio-` device of this name.
///
/// # Errors
/// [`AddressError::NotPci`] and [`AddressError::NotPlatform`].
pub fn vfio_host(driver: &[u8], host: &[u8], how: Vfio) -> Result<HostDevice, AddressError> {
    if PLATFORM.iter().any(|pattern| matches(pattern, driver)) {
        platform(host, how)
    } else {
        let address = pci(host)?;
        Ok(HostDevice::VfioPci { address, how })
    }
}

/// Returns the controller of `nvme://ADDRESS/NAMESPACE` or `device=ADDRESS`. QEMU uses the address
/// verbatim as a name in sysfs (`sysfs_find_group_file`, util/vfio-helpers.c), so that only one
/// spelling works.
///
/// # Errors
/// [`AddressError::NotPci`] and [`AddressError::Spelling`].
pub fn nvme(text: &[u8]) -> Result<HostDevice, AddressError> {
    let address = pci(text)?;
    if address.to_string().as_bytes() != text {
        let text = bytes::show(text);
        return Err(AddressError::Spelling { text, address });
    }
    let how = Vfio::Group;
    Ok(HostDevice::VfioPci { address, how })
}

/// Returns the device of a sysfs directory.
pub fn sysfs_device(dir: &[u8], how: Vfio) -> HostDevice {
    HostDevice::VfioSysfs {
        dir: bytes::os_string(bytes::c_string(dir)),
        how,
    }
}

/// Requests the node of a VFIO device; if it is reached by its group, the VFIO container too.
pub fn add_vfio(
    requests: &mut Requests<'_>,
    origin: &Origin,
    device: HostDevice,
    reason: &'static str,
) {
    if let HostDevice::VfioPci {
        how: Vfio::Group, ..
    }
    | HostDevice::VfioSysfs {
        how: Vfio::Group, ..
    } = device
    {
        let container = Usage::host("VFIO container");
        requests.add_path(origin.clone(), b"/dev/vfio/vfio", container);
    }
    let target = Target::Device(device);
    requests.add(origin.clone(), target, Usage::write(reason), None);
}

fn pci(text: &[u8]) -> Result<PciAddress, AddressError> {
    PciAddress::parse(text).ok_or_else(|| AddressError::NotPci(bytes::show(text)))
}

/// Returns the platform device of that name, which must be one file name (`vfio_base_device_init`,
/// hw/vfio/platform.c).
fn platform(name: &[u8], how: Vfio) -> Result<HostDevice, AddressError> {
    match name {
        b"" | b"." | b".." => {}
        name if name.iter().any(|b| matches!(b, b'/' | b'\0')) => {}
        name => {
            let dir = bytes::join(b"/sys/bus/platform/devices", name);
            return Ok(sysfs_device(&dir, how));
        }
    }
    Err(AddressError::NotPlatform(bytes::show(name)))
}

/// Returns the conditions that `usb-host` sets on a device, and its most specific key; None if it
/// sets none. 0 is no condition.
///
/// # Errors
/// [`AddressError::UsbNumber`] and [`AddressError::UsbPort`].
pub fn usb_match(tree: &Tree) -> Result<Option<(UsbMatch, &'static str)>, AddressError> {
    let number = |key: &'static str, most: u16| match tree.text(key) {
        None => Ok(None),
        Some(text) => match bytes::c_number::<u16>(text).filter(|n| *n <= most) {
            Some(0) => Ok(None),
            Some(number) => Ok(Some(number)),
            None => Err(AddressError::UsbNumber {
                key,
                most,
                text: bytes::show(text),
            }),
        },
    };
    let port = match tree.text("hostport") {
        None => None,
        Some(text) => Some(usb_port(text).ok_or_else(|| AddressError::UsbPort(bytes::show(text)))?),
    };
    let wanted = UsbMatch {
        bus: number("hostbus", 255)?,
        address: number("hostaddr", 127)?,
        port,
        vendor: number("vendorid", u16::MAX)?,
        product: number("productid", u16::MAX)?,
    };
    let keys = [
        ("hostaddr", wanted.address.is_some()),
        ("hostport", wanted.port.is_some()),
        ("productid", wanted.product.is_some()),
        ("vendorid", wanted.vendor.is_some()),
        ("hostbus", wanted.bus.is_some()),
    ];
    let key = keys.iter().find(|(_, given)| *given).map(|(key, _)| *key);
    Ok(key.map(|key| (wanted, key)))
}

/// Returns a list of ports with dots between them: at most six hubs (USB 2.0, 4.1.1), and QEMU
/// compares 15 bytes.
fn usb_port(text: &[u8]) -> Option<String> {
    let fits = text.len() < 16
        && text
            .split(|b| *b == b'.')
            .all(|part| bytes::number::<u8>(part).is_some());
    fits.then(|| bytes::show(text))
}
