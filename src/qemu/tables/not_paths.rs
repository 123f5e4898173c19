//! Keys whose values are never paths, even if they look like paths.
//!
//! Pure data. Values of these keys may contain slashes (`-smbios type=1,product=a/b`, `-fw_cfg
//! name=opt/x`) and cause no warning. Each key was reviewed in QEMU's sources. The test
//! tests/enforcing/tables.rs fails for a string key of a QEMU that is neither here nor in a table
//! of paths.
//!
//! Facts: `query-qmp-schema`, `device-list-properties` and `query-command-line-options` of QEMU
//! 10.0, qapi/*.json, and the sources named at a group.

use crate::qemu::syntax::bytes::matches;
use crate::qemu::tables::meaning::Meaning;

/// Keys of some types of a family that are no paths for the same reason.
struct Group {
    family: &'static str,
    /// Types; `start*` for all that start so, `*` for every type.
    kinds: &'static [&'static str],
    meaning: Meaning,
    keys: &'static [&'static str],
}

const fn ids(family: &'static str, keys: &'static [&'static str]) -> Group {
    Group {
        family,
        kinds: &["*"],
        meaning: Meaning::Id,
        keys,
    }
}

const fn text(
    family: &'static str,
    kinds: &'static [&'static str],
    keys: &'static [&'static str],
) -> Group {
    Group {
        family,
        kinds,
        meaning: Meaning::NoPath,
        keys,
    }
}

const ANY: &[&str] = &["*"];

#[rustfmt::skip]
const GROUPS: &[Group] = &[
    // Fields of the table's header.
    text("acpitable", ANY, &["asl_compiler_id", "oem_id", "oem_table_id", "sig"]),
    // A note for QMP's query-fdsets.
    text("add-fd", ANY, &["opaque"]),

    ids("audiodev", &["id"]),
    // Names of ALSA (`hw:0`), not files; its devices are listed as a whole.
    text("audiodev", &["alsa"], &["in.dev", "out.dev"]),
    // Names inside sound servers.
    text("audiodev", ANY, &[
        "in.client-name", "in.connect-ports", "in.name", "in.server-name", "in.stream-name",
        "out.client-name", "out.connect-ports", "out.name", "out.server-name", "out.stream-name",
    ]),
    // -audio: the device to create.
    text("audiodev", ANY, &["model"]),

    ids("blockdev", &[
        "bitmap.node", "bottom", "cookie-secret", "encrypt.key-secret", "group", "id", "key-secret",
        "node-name", "password-secret", "pr-manager", "proxy-password-secret", "throttle-group",
        "throttling.group", "tls-creds", "top-id",
    ]),
    // Bitmaps are inside images.
    text("blockdev", ANY, &["bitmap.name", "x-dirty-bitmap"]),
    // Of a server, and what it serves; paths there are the server's.
    text("blockdev", &["gluster"], &["path", "volume"]),
    text("blockdev", &["ftp", "ftps", "http", "https"], &[
        "cookie", "proxy-username", "url", "username",
    ]),
    text("blockdev", &["iscsi", "iser"], &["initiator-name", "portal", "target", "user"]),
    text("blockdev", &["nbd"], &["export", "host", "port", "tls-hostname"]),
    text("blockdev", &["nfs"], &["path", "server.host"]),
    text("blockdev", &["rbd"], &[
        "image", "namespace", "pool", "server.host", "server.port", "snapshot", "user",
    ]),
    text("blockdev", &["ssh"], &[
        "host", "host-key-check.hash", "host_key_check", "path", "port", "server.host",
        "server.port", "user",
    ]),
    // The label of the disk that the guest sees.
    text("blockdev", &["vvfat"], &["label"]),

    // -drive: words of enumerations.
    text("blockdev", ANY, &[
        "aio", "detect-zeroes", "discard", "driver", "format", "if", "media", "rerror", "werror",
    ]),

    // Letters of drives.
    text("boot", ANY, &["once", "order"]),

    ids("chardev", &["chardev", "chardevs", "id", "tls-authz", "tls-creds"]),
    text("chardev", ANY, &["host", "localaddr", "localport", "port"]),
    // A character set, names of channels, and a number with a unit.
    text("chardev", ANY, &["encoding", "name", "size"]),

    ids("device", &[
        "audiodev", "bus", "chardev", "chardev0", "chardev1", "chardev2", "chardev3", "chardev4",
        "chardev5", "chardev6", "chardev7", "chardev8", "chrA", "chrB", "cryptodev", "display",
        "drive", "failover_pair_id", "fsdev", "hostmem", "id", "iommufd", "iothread", "masterbus",
        "memdev", "netdev", "pci-id", "rng", "serial0", "sriov-pf", "target", "tls-authz", "tls-creds", "tpmdev",
    ]),
    // What the guest reads from the device: serial numbers, models, names, tags.
    text("device", ANY, &[
        "device_id", "firmware-version", "guid", "hba_serial", "hv-vendor-id", "instanceid", "mac", "model",
        "model-id", "mount_tag", "name", "nguid", "nqn", "product", "serial", "tag", "uuid",
        "vendor", "ver", "wwpn",
    ]),
    // Read-only, for QMP.
    text("device", ANY, &["unavailable-features"]),
    // Places on buses and networks, and words of an enumeration.
    text("device", ANY, &[
        "addr", "dev_id", "devno", "duplex", "loadparm", "pci-type", "port", "subch_id",
        "tls-hostname", "tx",
    ]),
    // Parts of boards: which processor and revision, and what the guest reads.
    text("device", ANY, &[
        "boot-cpu", "bus-label", "bus-name", "color", "command-line", "cpu-type", "description", "hart-config", "identifier",
        "part-name", "priv_spec", "stage", "version", "vext_spec",
    ]),
    // Nicknames in the NSS database, and `nss-emulated` or `certificates`.
    text("device", &["ccid-card-emulated"], &["backend", "cert1", "cert2", "cert3"]),
    // The key itself, in hexadecimal digits (hw/sd/sd.c).
    text("device", &["emmc"], &["auth-key"]),
    text("device", &["escc"], &["chnA-sunkbd-layout"]),
    // The inner guest's command line.
    text("device", &["guest-loader"], &["bootargs"]),
    text("device", &["hv-syndbg"], &["host_ip"]),
    text("device", &["ipmi-bmc-sim"], &[
        "lan.defgw_ipaddr", "lan.defgw_macaddr", "lan.ipaddr", "lan.macaddr", "lan.netmask",
    ]),
    // The key of a real SMC, in letters.
    text("device", &["isa-applesmc"], &["osk"]),
    // The kernel's command line.
    text("device", &["s390-ipl"], &["cmdline"]),
    text("device", &["sclpcpi"], &["sysplex_name", "system_name", "system_type"]),
    // Numbers with semicolons.
    text("device", &["nvme-ns"], &["fdp.ruhs"]),
    text("device", &["rocker"], &["fp_start_macaddr", "world"]),
    // Bus, port: `1.2`.
    text("device", &["usb-host"], &["hostport"]),
    // What the guest reads.
    text("device", &["usb-mtp"], &["desc"]),
    // Rules for what the client may redirect.
    text("device", &["usb-redir"], &["filter"]),
    text("device", &["vfio-*"], &["vf-token"]),
    // `xvda`: what the guest sees.
    text("device", &["xen-*"], &["vdev"]),

    ids("display", &["audiodev"]),
    // A character set, and keys.
    text("display", ANY, &["charset", "grab-mod"]),

    ids("fsdev", &["id"]),
    text("fsdev", ANY, &["mount_tag", "multidevs", "security_model", "writeout"]),

    ids("fw_cfg", &["gen_id"]),
    // `opt/org.example/x`, and the content itself.
    text("fw_cfg", ANY, &["name", "string"]),

    // A snapshot inside an image, and words of an enumeration.
    text("icount", ANY, &["rr", "rrsnapshot", "shift"]),

    text("incoming", &["rdma"], &["addr.host", "addr.port"]),

    ids("iscsi", &["password-secret"]),
    // `iqn.2001-04.com.example:storage/x`.
    text("iscsi", ANY, &["header-digest", "id", "initiator-name", "password", "user"]),

    ids("machine", &[
        "audiodev", "confidential-guest-support", "cxl-fmw.targets", "memory-backend",
        "memory-encryption", "pcspk-audiodev", "pflash0", "pflash1", "sgx-epc.memdev",
    ]),
    // The kernel's command line.
    text("machine", ANY, &["append"]),
    // Numbers with units, and groups of keys.
    text("machine", ANY, &[
        "aia-guests", "boot", "bus-lock-ratelimit", "clint-timebase-frequency", "max-fw-size",
        "max-ram-below-4g", "memory", "sgx-epc", "signature-granularity", "smp", "smp-cache",
        "virtio-mmio-transports",
    ]),
    // Words of enumerations, and what the guest reads.
    text("machine", ANY, &[
        "accel", "aia", "bmc-console", "boot-mode", "cap-cfpc", "cap-ibs", "cap-sbbc",
        "dt-compatible", "endianness", "fmc-model", "gic-version", "host-model", "host-serial",
        "iommu", "loadparm", "msi", "ospi-flash", "remap", "smbios-entry-point-type", "smp-cache.cache",
        "smp-cache.topology", "spi-model", "type", "x-oem-id", "x-oem-table-id", "x-south-bridge",
    ]),

    ids("mon", &["chardev", "id"]),
    text("mon", ANY, &["mode"]),

    ids("netdev", &["chardev", "id", "netdev"]),
    // What the guest sees.
    text("netdev", ANY, &["addr", "mac", "macaddr", "model", "name"]),
    text("netdev", &["af-xdp", "netmap", "vmnet-bridged"], &["ifname"]),
    text("netdev", &["bridge", "tap"], &["br", "ifname"]),
    text("netdev", &["l2tpv3"], &["dst", "dstport", "src", "srcport"]),
    // Passed to passt (net/passt.c). `param` may be any option of passt, whose files are not known;
    // there is a warning for all of passt.
    text("netdev", &["passt"], &[
        "address", "dns", "dns-forward", "dns-host", "fqdn", "gateway", "interface",
        "map-guest-addr", "map-host-loopback", "netmask", "outbound", "outbound-if4",
        "outbound-if6", "param", "param.str", "search", "search.str", "tcp-ports", "tcp-ports.str", "udp-ports",
        "udp-ports.str",
    ]),
    text("netdev", &["socket"], &["connect", "listen", "localaddr", "mcast", "udp"]),
    // Networks (`10.0.2.0/24`), names, and `bootfile`, which the guest asks the TFTP server for.
    text("netdev", &["user"], &[
        "bootfile", "dhcpstart", "dns", "dnssearch", "dnssearch.str", "domainname", "host",
        "hostfwd", "hostfwd.str", "hostname", "ip", "ipv6-dns", "ipv6-host", "ipv6-net",
        "ipv6-prefix", "net", "smbserver", "tftp-server-name",
    ]),
    // The owning group's name.
    text("netdev", &["vde"], &["group"]),

    ids("object", &[
        "audiodev", "canbus", "chardev", "device", "devid", "id", "indev", "iothread", "keyid",
        "netdev", "notify_dev", "outdev", "passwordid", "pci-bus", "pci-dev", "position",
        "prealloc-context", "primary_in", "secondary_in",
    ]),
    // Names of users, and patterns for them.
    text("object", &["authz-*"], &["identity", "rules.match"]),
    text("object", &["can-host-socketcan"], &["if"]),
    // Only -display dbus creates it, and its addr= is requested.
    text("object", &["dbus-display"], &["addr"]),
    text("object", &["dbus-vmstate"], &["id-list"]),
    // `on`, `off`.
    text("object", &["filter-*"], &["status"]),
    text("object", &["input-barrier"], &[
        "height", "name", "port", "server", "width", "x-origin", "y-origin",
    ]),
    // The secret itself, and its initialisation vector: base64, which has slashes.
    text("object", &["secret", "secret_keyring"], &["data", "iv"]),
    // base64.
    text("object", &["sev-snp-guest"], &[
        "guest-visible-workarounds", "host-data", "id-auth", "id-block",
    ]),
    text("object", &["tdx-guest"], &["mrconfigid", "mrowner", "mrownerconfig"]),
    // It has the members of credentials and reads only `priority` (crypto/tls-cipher-suites.c).
    text("object", &["tls-cipher-suites"], &["dir"]),
    text("object", &["tls-*"], &["priority", "username"]),

    // A user's name, or numbers.
    text("run-with", ANY, &["user"]),

    // `allow`, `deny`.
    text("sandbox", ANY, &["elevateprivileges", "obsolete", "resourcecontrol", "spawn"]),

    ids("semihosting-config", &["chardev"]),
    // The guest's arguments.
    text("semihosting-config", ANY, &["arg", "target"]),

    // Texts for the guest.
    text("smbios", ANY, &[
        "asset", "bank", "date", "designation", "external_reference", "family",
        "internal_reference", "kind", "loc_pfx", "location", "manufacturer", "part", "pcidev",
        "processor-id", "product", "release", "serial", "sku", "sock_pfx", "type", "uuid", "value",
        "vendor", "version",
    ]),

    ids("spice", &["password-secret"]),
    // `x509-key-password` is the password itself, whatever QEMU's help says (ui/spice-core.c).
    text("spice", ANY, &["password", "x509-key-password"]),
    // Words of enumerations, and names of channels and displays.
    text("spice", ANY, &[
        "display", "image-compression", "jpeg-wan-compression", "plaintext-channel",
        "streaming-video", "tls-channel", "tls-ciphers", "video-codec", "zlib-glz-wan-compression",
    ]),

    ids("tpmdev", &["chardev", "id"]),

    // A pattern of event names.
    text("trace", ANY, &["enable"]),

    ids("vnc", &[
        "audiodev", "display", "id", "password-secret", "sasl-authz", "tls-authz", "tls-creds",
    ]),
    text("vnc", ANY, &["share"]),
];

/// Options whose value never names a host resource: numbers, names, enumerations, texts for the
/// guest. QEMU 10 no longer has the older ones.
#[rustfmt::skip]
pub const OPTIONS: &[&str] = &[
    "action", "append", "balloon", "bootp", "bt", "clock", "compat", "cpu", "d", "dfilter", "echr",
    "g", "hdachs", "loadvm", "m", "msg", "name", "numa", "overcommit", "prom-env", "realtime",
    "redir", "rotate", "rtc", "runas", "seed", "smp", "soundhw", "startdate", "tb-size",
    "usbdevice", "uuid", "vga", "watchdog", "watchdog-action", "xen-domid",
];

/// Returns what a key that names no host resource is; None for a key that was not reviewed.
pub fn lookup(family: &str, kind: &[u8], key: &str) -> Option<Meaning> {
    GROUPS
        .iter()
        .filter(|group| group.family == family && group.keys.contains(&key))
        .find(|group| group.kinds.iter().any(|pattern| matches(pattern, kind)))
        .map(|group| group.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::tables::keys;

    #[test]
    fn the_lists_are_in_order_and_of_known_families() {
        assert!(GROUPS.is_sorted_by_key(|group| group.family));
        assert!(OPTIONS.is_sorted());
        for group in GROUPS {
            assert!(group.keys.is_sorted(), "{}: {:?}", group.family, group.keys);
            assert!(
                keys::family(group.family).is_some_and(|f| f.name == group.family),
                "{}",
                group.family
            );
        }
    }

    #[test]
    fn no_key_is_a_path_and_none() {
        for group in GROUPS {
            for kind in group.kinds.iter().filter(|kind| !kind.contains('*')) {
                for key in group.keys {
                    assert_eq!(
                        keys::meaning(group.family, kind, key),
                        Some(group.meaning),
                        "{} {kind} {key}",
                        group.family
                    );
                }
            }
        }
    }
}
