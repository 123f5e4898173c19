//! The vocabulary between the QEMU command line and the plan: what a guest uses of the host, how it uses it,
//! and what names it.
//!
//! Pure values; nothing here touches the host.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::text::escape::{escaped, quoted};

/// Which label a resource gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Not relabelled; access is checked against the label it has.
    Keep,
    /// The content type at the bare sensitivity: every guest may read it, none may write it.
    Content,
    /// The image type at the bare sensitivity: every guest may write it (`share-rw=on`).
    Shared,
    /// The image type with the guest's pair: this guest only.
    Exclusive,
}

impl Class {
    /// Returns its name, as in the plan.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Content => "content",
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        }
    }
}

/// What QEMU does with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Opened for reading.
    Read,
    /// Opened for writing too.
    Write,
    /// A file that QEMU makes.
    Create,
    /// A socket that QEMU makes.
    Bind,
    /// A socket that somebody else serves.
    Connect,
    /// A program that QEMU runs.
    Exec,
    /// A directory whose content QEMU hands on.
    Tree,
}

/// What names a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// A word of the command line.
    Word {
        /// Position in QEMU's argument vector, QEMU itself being word 1; the word that holds the
        /// value, not the option before it.
        word: usize,
        /// The option as its manual spells it, with one dash; `"image"` for a positional image.
        option: Cow<'static, str>,
        /// The key inside the option's value; empty if the value is the path.
        key: String,
    },
    /// The header of an image names this as its backing file.
    BackingOf {
        /// The image whose header it is.
        backing_of: PathBuf,
    },
    /// The header of a qcow2 image names this as its data file.
    DataFileOf {
        /// The image whose header it is.
        data_file_of: PathBuf,
    },
    /// It lies in a directory that is handed over to the guest (`--label-tree`).
    TreeOf {
        /// The directory.
        tree_of: PathBuf,
    },
    /// The descriptor of a vmdk image names this as an extent.
    ExtentOf {
        /// The image whose descriptor it is.
        extent_of: PathBuf,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word { word, option, key } if key.is_empty() => {
                write!(f, "word {word}, {}", escaped(option.as_bytes()))
            }
            Self::Word { word, option, key } => {
                let (option, key) = (escaped(option.as_bytes()), escaped(key.as_bytes()));
                write!(f, "word {word}, {option} {key}=")
            }
            Self::BackingOf { backing_of } => {
                write!(f, "backing file of {}", quoted(backing_of.as_os_str()))
            }
            Self::DataFileOf { data_file_of } => {
                write!(f, "data file of {}", quoted(data_file_of.as_os_str()))
            }
            Self::TreeOf { tree_of } => {
                write!(f, "--label-tree {}", quoted(tree_of.as_os_str()))
            }
            Self::ExtentOf { extent_of } => {
                write!(f, "extent of {}", quoted(extent_of.as_os_str()))
            }
        }
    }
}

/// How the command line points at a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A path as QEMU passes it to open(2) or bind(2); relative to its working directory.
    Path(OsString),
    /// A name that QEMU looks up: as given, then in each `-L` directory, then in its data
    /// directories (`qemu_find_file`, system/datadir.c).
    DataFile(OsString),
    /// A name made by a template: the part before the first random or numbered character.
    /// Only the directory matters.
    Template(OsString),
    /// A descriptor that the caller hands down under this number.
    Fd(i32),
    /// A device that is named by address, not by path.
    Device(HostDevice),
}

/// A device of the host that the line names by address. Which node that is only the host can tell. Its text
/// is what stands in a plan's `"host"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostDevice {
    /// A PCI function that QEMU drives through VFIO.
    VfioPci {
        /// Where it is.
        address: PciAddress,
        /// Which node is opened.
        how: Vfio,
    },
    /// Any other device that QEMU drives through VFIO: mediated ones, platform devices.
    VfioSysfs {
        /// Its directory in sysfs; relative to QEMU's working directory.
        dir: OsString,
        /// Which node is opened.
        how: Vfio,
    },
    /// The USB devices that fit.
    Usb(UsbMatch),
    /// A network interface of this name. QEMU opens its own node if it is a macvtap, else the one of all
    /// tap interfaces.
    Tap {
        /// The interface.
        ifname: OsString,
    },
}

impl fmt::Display for HostDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VfioPci { address, how } => write!(f, "pci{how}:{address}"),
            Self::VfioSysfs { dir, how } => write!(f, "sysfs{how}:{}", dir.display()),
            Self::Usb(wanted) => write!(f, "usb:{wanted}"),
            Self::Tap { ifname } => write!(f, "tap:{}", ifname.display()),
        }
    }
}

/// How a device is reached through VFIO (Documentation/driver-api/vfio.rst in Linux).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vfio {
    /// By the node of its IOMMU group.
    Group,
    /// By its own node; QEMU's `iommufd=`.
    Cdev,
}

impl fmt::Display for Vfio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "",
            Self::Cdev => "-iommufd",
        })
    }
}

/// Where a PCI function is. Its text is its name in sysfs, `DDDD:BB:SS.F`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    slot: u8,
    function: u8,
}

impl PciAddress {
    /// What [`parse`](Self::parse) takes, for messages.
    pub const FORM: &'static str =
        "[DOMAIN:]BUS:SLOT.FUNCTION in hexadecimal, such as 0000:3b:00.0";

    /// Reads an address as QEMU does (`set_pci_host_devaddr`, hw/core/qdev-properties-system.c):
    /// digits of either case, with or without leading zeros and `0x`, the function in decimal.
    /// Not taken although strtoul(3) would: blanks and signs.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (place, function) = text.rsplit_once('.')?;
        let (bus, slot) = place.rsplit_once(':')?;
        let (domain, bus) = bus.rsplit_once(':').unwrap_or(("0", bus));
        let address = Self {
            domain: digits(domain, 16)?,
            bus: digits(bus, 16)?.try_into().ok()?,
            slot: digits(slot, 16)?.try_into().ok()?,
            function: digits(function, 10)?.try_into().ok()?,
        };
        // Five and three bits: PCI_SLOT and PCI_FUNC, linux/pci.h.
        (address.slot < 32 && address.function < 8).then_some(address)
    }
}

fn digits(text: &str, radix: u32) -> Option<u32> {
    let text = match radix {
        16 => text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .unwrap_or(text),
        _ => text,
    };
    // from_str_radix takes a sign.
    text.chars()
        .all(|c| c.is_digit(radix))
        .then(|| u32::from_str_radix(text, radix).ok())?
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            slot,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{slot:02x}.{function}")
    }
}

/// What a USB device has to be like; what is not given fits every device (`usb_host_auto_check`,
/// hw/usb/host-libusb.c).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsbMatch {
    /// `hostbus=`
    pub bus: Option<u16>,
    /// `hostaddr=`
    pub address: Option<u16>,
    /// `hostport=`: the ports on the way from the root hub, with dots.
    pub port: Option<String>,
    /// `vendorid=`
    pub vendor: Option<u16>,
    /// `productid=`
    pub product: Option<u16>,
}

impl fmt::Display for UsbMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |key: &str, value: Option<u16>| value.map(|n| format!("{key}={n}"));
        let id = |key: &str, value: Option<u16>| value.map(|n| format!("{key}=0x{n:04x}"));
        let parts = [
            number("hostbus", self.bus),
            number("hostaddr", self.address),
            self.port.as_ref().map(|port| format!("hostport={port}")),
            id("vendorid", self.vendor),
            id("productid", self.product),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(","))
    }
}

/// Where an image's format comes from. QEMU probes what is not stated, and what it finds in a probed header
/// was possibly written by a guest (CVE-2008-2004, CVE-2010-2237).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// The command line, or the header of the image above, says it.
    Stated(String),
    /// Nobody says it, and adding this to the option would say it (`format=`, `driver=`).
    Unstated {
        /// The word to add, up to and including the `=`, for the message.
        add: &'static str,
    },
    /// Nobody says it and this form cannot: `-hda`, `-cdrom`, the positional image.
    CannotState {
        /// `-drive` keys that replace the option, e.g. `index=0,media=disk`.
        instead: String,
    },
}

/// What decides the backing file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The image's own header; QEMU opens it read-only unless `writable`.
    FromHeader {
        /// `backing.driver=` replaces the format that the header states.
        format: Option<String>,
        /// `backing.read-only=off`.
        writable: bool,
        /// `backing.backing…`: what decides the backing file of the backing file, if the line says something
        /// about that.
        below: Option<Box<Backing>>,
    },
    /// The command line names another one (listed on its own) or says there is none.
    NotFromHeader,
}

/// An image whose header has to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where its format comes from.
    pub format: Format,
    /// Where its backing file comes from.
    pub backing: Backing,
    /// True when the command line gives the qcow2 data file, so that the header's is not used.
    pub data_file_given: bool,
}

/// A resource of the host that the command line, or a header of an image, makes QEMU use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it is.
    pub target: Target,
    /// Which label it needs.
    pub class: Class,
    /// What QEMU does with it.
    pub access: Access,
    /// What names it.
    pub origin: Origin,
    /// What it is for, for display only: "writable disk", "kernel".
    pub reason: &'static str,
    /// True if QEMU maps the file, for which a policy has a permission of its own.
    pub mapped: bool,
    /// True if the path may be a file or a directory, which only the host can tell (hugetlbfs).
    pub may_be_directory: bool,
    /// What is expected in its header; None unless it is a disk image.
    pub image: Option<Image>,
    /// True if QEMU stops without it; false for `/etc/qemu/qemu.conf` or an optional ROM.
    pub required: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses() {
        for (text, want) in [
            ("0000:3b:00.0", Some("0000:3b:00.0")),
            ("3b:00.0", Some("0000:3b:00.0")),
            ("3B:1F.7", Some("0000:3b:1f.7")),
            ("0:6:2.1", Some("0000:06:02.1")),
            ("0x0:0x3b:0X0.1", Some("0000:3b:00.1")),
            ("10000:01:00.0", Some("10000:01:00.0")),
            ("ffffffff:ff:1f.7", Some("ffffffff:ff:1f.7")),
            ("", None),
            ("3b", None),
            ("3b:00", None),
            ("00.0", None),
            (":00.0", None),
            ("3b:.0", None),
            ("3b:00.", None),
            ("3b:00.8", None),
            ("3b:00.a", None),
            ("3b:20.0", None),
            ("100:00.0", None),
            ("100000000:00:00.0", None),
            ("0:0:0:0.0", None),
            ("3b:00.0 ", None),
            (" 3b:00.0", None),
            ("+3b:00.0", None),
            ("-1:00.0", None),
            ("3b:00.0/../x", None),
            ("../../x", None),
            ("..:..:..", None),
            ("../:0:0.0", None),
            ("3b:00.0\0", None),
            ("\u{663}:00.0", None),
        ] {
            let seen = PciAddress::parse(text.as_bytes()).map(|address| address.to_string());
            assert_eq!(seen.as_deref(), want, "{text}");
        }
        assert_eq!(PciAddress::parse(b"3b:00.\xff"), None);
    }

    #[test]
    fn what_a_plan_calls_them() {
        let pci = |how| HostDevice::VfioPci {
            address: PciAddress::parse(b"6:12.1").unwrap(),
            how,
        };
        let sysfs = |how| HostDevice::VfioSysfs {
            dir: "/sys/x".into(),
            how,
        };
        let usb = |wanted| HostDevice::Usb(wanted);
        for (device, want) in [
            (pci(Vfio::Group), "pci:0000:06:12.1"),
            (pci(Vfio::Cdev), "pci-iommufd:0000:06:12.1"),
            (sysfs(Vfio::Group), "sysfs:/sys/x"),
            (sysfs(Vfio::Cdev), "sysfs-iommufd:/sys/x"),
            (
                usb(UsbMatch {
                    vendor: Some(0x46d),
                    product: Some(0xc52b),
                    ..UsbMatch::default()
                }),
                "usb:vendorid=0x046d,productid=0xc52b",
            ),
            (
                usb(UsbMatch {
                    bus: Some(1),
                    port: Some("4.2".into()),
                    ..UsbMatch::default()
                }),
                "usb:hostbus=1,hostport=4.2",
            ),
            (
                HostDevice::Tap {
                    ifname: "macvtap0".into(),
                },
                "tap:macvtap0",
            ),
        ] {
            assert_eq!(device.to_string(), want);
        }
    }
}
