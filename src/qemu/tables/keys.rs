//! What the tables of all families say of a key, for the warnings in `unknown`, and for the test
//! that compares the tables with the keys that a QEMU reports (tests/enforcing/tables.rs).
//!
//! Pure.

use crate::qemu::block::drivers;
use crate::qemu::options::{
    accel, audio, boot, chardev, device, display, fsdev, net, object, process,
};
use crate::qemu::syntax::bytes;
use crate::qemu::tables::meaning::Meaning;
use crate::qemu::tables::not_paths;

/// What the value of an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Keys and values; [`meaning`] tells what each key is.
    Keys,
    /// The name of a host resource, verbatim or in a syntax of its own.
    Resource,
    /// Never the name of a host resource.
    Nothing,
}

/// Options with the same keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The option after which the family is named.
    pub name: &'static str,
    /// The key that holds the type, driver or backend; empty if there is none.
    pub kind: &'static str,
    /// The known types; empty if every name counts as known.
    pub kinds: &'static [&'static str],
}

impl Family {
    /// Returns whether a type is known, so that its keys name everything that it opens.
    pub fn knows(&self, kind: &[u8]) -> bool {
        match self.name {
            "blockdev" => drivers::lookup(kind).is_some(),
            _ => self.kinds.is_empty() || self.kinds.iter().any(|known| known.as_bytes() == kind),
        }
    }
}

const fn family_of(
    name: &'static str,
    kind: &'static str,
    kinds: &'static [&'static str],
) -> Family {
    Family { name, kind, kinds }
}

/// Audio drivers (qapi/audio.json, AudiodevDriver).
#[rustfmt::skip]
const AUDIO: &[&str] = &[
    "alsa", "coreaudio", "dbus", "dsound", "jack", "none", "oss", "pa", "pipewire", "sdl",
    "sndio", "spice", "wav",
];

/// Character device backends (qapi/char.json, ChardevBackendKind), with the names that older
/// QEMUs used.
#[rustfmt::skip]
const CHARDEVS: &[&str] = &[
    "braille", "con", "console", "dbus", "file", "hub", "memory", "msmouse", "mux", "null",
    "parallel", "parport", "pipe", "pty", "qemu-vdagent", "ringbuf", "serial", "socket",
    "spiceport", "spicevmc", "stdio", "testdev", "tty", "udp", "vc", "wctablet",
];

/// Displays (qapi/ui.json, DisplayType), and `vnc`, which QEMU parses separately.
#[rustfmt::skip]
const DISPLAYS: &[&str] = &[
    "cocoa", "curses", "dbus", "default", "egl-headless", "gtk", "none", "sdl", "spice-app", "vnc",
];

/// Drivers of shared directories (fsdev/qemu-fsdev.c); QEMU has no `proxy` since 9.2.
const FSDEVS: &[&str] = &["local", "proxy", "synth"];

/// Network backends (qapi/net.json, NetClientDriver); `passt` since 10.1.
#[rustfmt::skip]
const NETDEVS: &[&str] = &[
    "af-xdp", "bridge", "dgram", "hubport", "l2tpv3", "netmap", "nic", "none", "passt", "socket",
    "stream", "tap", "user", "vde", "vhost-user", "vhost-vdpa", "vmnet-bridged", "vmnet-host",
    "vmnet-shared",
];

/// Objects that users create (qapi/qom.json, ObjectType). QEMU 10.0 has two spellings of
/// `authz-list-file`. `igvm-cfg` and `tdx-guest` exist since 10.1, monitors since 11.1. Only
/// `-display dbus` creates `dbus-display`.
#[rustfmt::skip]
const OBJECTS: &[&str] = &[
    "acpi-generic-initiator", "acpi-generic-port", "authz-list", "authz-list-file",
    "authz-listfile", "authz-pam", "authz-simple", "can-bus", "can-host-socketcan", "colo-compare",
    "cryptodev-backend", "cryptodev-backend-builtin", "cryptodev-backend-lkcf",
    "cryptodev-vhost-user", "dbus-display", "dbus-vmstate", "filter-buffer", "filter-dump",
    "filter-mirror", "filter-redirector", "filter-replay", "filter-rewriter", "igvm-cfg",
    "input-barrier", "input-linux", "iommufd", "iothread", "main-loop", "monitor-hmp", "monitor-qmp", "memory-backend-epc",
    "memory-backend-file", "memory-backend-memfd", "memory-backend-ram", "memory-backend-shm",
    "pef-guest", "pr-manager-helper", "qtest", "rng-builtin", "rng-egd", "rng-random",
    "s390-pv-guest", "secret", "secret_keyring", "sev-guest", "sev-snp-guest", "tdx-guest",
    "thread-context", "throttle-group", "tls-cipher-suites", "tls-creds-anon", "tls-creds-psk",
    "tls-creds-x509", "x-remote-object", "x-vfio-user-server",
];

/// Every family of options with keys.
const FAMILIES: &[Family] = &[
    family_of(
        "accel",
        "accel",
        &["hvf", "kvm", "nvmm", "qtest", "tcg", "whpx", "xen"],
    ),
    family_of("acpitable", "", &[]),
    family_of("add-fd", "", &[]),
    family_of("audiodev", "driver", AUDIO),
    // `unknown::report_node_keys` reports each node separately.
    family_of("blockdev", "", &[]),
    family_of("boot", "", &[]),
    family_of("chardev", "backend", CHARDEVS),
    family_of("device", "driver", &[]),
    family_of("display", "type", DISPLAYS),
    family_of("fsdev", "fsdriver", FSDEVS),
    family_of("fw_cfg", "", &[]),
    family_of("icount", "", &[]),
    family_of(
        "incoming",
        "addr.transport",
        &["exec", "file", "rdma", "socket"],
    ),
    family_of("iscsi", "", &[]),
    family_of("machine", "type", &[]),
    family_of("mon", "", &[]),
    family_of("netdev", "type", NETDEVS),
    family_of("object", "qom-type", OBJECTS),
    family_of("option-rom", "", &[]),
    family_of("run-with", "", &[]),
    family_of("sandbox", "", &[]),
    family_of("semihosting-config", "", &[]),
    family_of("smbios", "", &[]),
    family_of("spice", "", &[]),
    family_of("tpmdev", "type", &["emulator", "passthrough"]),
    family_of("trace", "", &[]),
    family_of("vnc", "", &[]),
];

/// Keys that hold a `SocketAddress` (qapi/sockets.json): family, type, key.
const ADDRESSES: &[(&str, &str, &str)] = &[
    ("device", "vfio-user-pci", "socket"),
    ("incoming", "socket", "addr"),
    ("netdev", "dgram", "local"),
    ("netdev", "dgram", "remote"),
    ("netdev", "stream", "addr"),
    ("object", "tdx-guest", "quote-generation-socket"),
    ("object", "x-vfio-user-server", "socket"),
];

/// Options whose value names a host resource, verbatim or in a syntax of its own. `-global` and
/// `-set` can change any path of another option.
#[rustfmt::skip]
const RESOURCES: &[&str] = &[
    "D", "L", "bios", "cdrom", "debugcon", "dtb", "fda", "fdb", "gdb", "global", "hda", "hdb",
    "hdc", "hdd", "initrd", "k", "kernel", "mem-path", "monitor", "mtdblock",
    "parallel", "pflash", "plugin", "qmp", "qmp-pretty", "qtest", "readconfig", "sd", "serial",
    "set", "shim", "virtioconsole",
];

/// Returns the family of an option.
pub fn family(option: &str) -> Option<&'static Family> {
    let name = match option {
        "M" => "machine",
        "audio" => "audiodev",
        "drive" => "blockdev",
        "net" | "nic" => "netdev",
        "virtfs" => "fsdev",
        other => other,
    };
    FAMILIES.iter().find(|family| family.name == name)
}

/// Returns whether a type, driver or backend of a family is known.
pub fn knows(family: &str, kind: &str) -> bool {
    self::family(family).is_some_and(|family| family.knows(kind.as_bytes()))
}

/// Returns what the value of an option is; None if no table has the option.
pub fn value_kind(option: &str) -> Option<ValueKind> {
    if family(option).is_some() {
        Some(ValueKind::Keys)
    } else if RESOURCES.contains(&option) || process::is_path(option) {
        Some(ValueKind::Resource)
    } else if not_paths::OPTIONS.contains(&option) {
        Some(ValueKind::Nothing)
    } else {
        None
    }
}

/// Returns what a key of a family is, for a type (or a block driver) of it; None if no table has
/// the key.
pub fn meaning(family: &str, kind: &str, key: &str) -> Option<Meaning> {
    lookup(family, kind.as_bytes(), key)
}

/// Returns what [`meaning`] returns. Numbers in the key are list indexes, and do not count.
pub fn lookup(family: &str, kind: &[u8], key: &str) -> Option<Meaning> {
    let key = key
        .split('.')
        .filter(|part| bytes::number::<usize>(part.as_bytes()).is_none())
        .collect::<Vec<&str>>()
        .join(".");
    let driver = match family {
        "blockdev" => drivers::lookup(kind),
        _ => None,
    };
    let addresses = ADDRESSES
        .iter()
        .filter(|(name, at, _)| *name == family && at.as_bytes() == kind)
        .map(|(.., base)| *base)
        .chain(driver.and_then(drivers::Driver::address));
    for base in addresses {
        if let Some(member) = key.strip_prefix(base).and_then(|k| k.strip_prefix('.')) {
            return Some(match member {
                "path" | "str" => Meaning::Resource,
                _ => Meaning::NoPath,
            });
        }
    }
    let resource = match family {
        "accel" => accel::names_resource(kind, &key),
        "audiodev" => audio::names_resource(kind, &key),
        "blockdev" => driver.is_some_and(|driver| driver.names_resource(&key)),
        "chardev" => chardev::names_resource(kind, &key),
        "device" => device::names_resource(kind, &key),
        "fsdev" => fsdev::names_resource(kind, &key),
        "netdev" => net::names_resource(kind, &key),
        "object" => object::names_resource(kind, &key),
        "tpmdev" => object::tpm_names_resource(kind, &key),
        "display" | "spice" | "vnc" => display::names_resource(family, kind, &key),
        _ => boot::names_resource(family, &key) || process::names_resource(family, &key),
    };
    if resource {
        return Some(Meaning::Resource);
    }
    not_paths::lookup(family, kind, &key)
}
