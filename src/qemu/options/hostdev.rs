//! Devices of the host that the line names by address: what `-device` and the block layer share.
//!
//! Pure.

use crate::model::resource::{HostDevice, Origin, PciAddress, Target, Vfio};
use crate::qemu::requests::{Requests, Usage};
use crate::qemu::syntax::bytes;

/// A PCI function by its address; the error says the form.
pub fn pci(text: &[u8], how: Vfio) -> Result<HostDevice, String> {
    PciAddress::parse(text)
        .map(|address| HostDevice::VfioPci { address, how })
        .ok_or_else(|| no_pci_address(text))
}

/// The message about a text that is no PCI address.
pub fn no_pci_address(text: &[u8]) -> String {
    format!(
        "'{}' is no PCI address: {}",
        bytes::show(text),
        PciAddress::FORM
    )
}

/// A device by its sysfs directory.
pub fn sysfs(dir: &[u8], how: Vfio) -> HostDevice {
    HostDevice::VfioSysfs {
        dir: bytes::os(bytes::c_string(dir)),
        how,
    }
}

/// A device driven through VFIO. With groups there is a node for all of them beside.
pub fn vfio(
    origin: &Origin,
    device: HostDevice,
    reason: &'static str,
    requests: &mut Requests<'_>,
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
