//! Splits QEMU's argument vector into options and values, as `lookup_opt` does (system/vl.c, QEMU
//! 10). One table has every option and its syntax.
//!
//! Pure. Facts: `qemu-options.hx` of QEMU 10.0 and `docs/about/removed-features.rst`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// How the value of an option is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// The option takes no value.
    Flag,
    /// Verbatim, or in a syntax of the option's own.
    Verbatim,
    /// QemuOpts (util/qemu-option.c), with the key of a first item without `=`.
    Opts(Option<&'static str>),
    /// keyval (util/keyval.c), never JSON, with the key of a first item without `=`.
    Keyval(&'static str),
    /// JSON if the value starts with `{`, else keyval.
    KeyvalOrJson(Option<&'static str>),
    /// JSON if the value starts with `{`, else QemuOpts.
    OptsOrJson(&'static str),
    /// `-netdev`: JSON, keyval for `stream` and `dgram`, else QemuOpts (`netdev_is_modern`).
    Netdev,
}

/// Whether QEMU 10 still has an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// QEMU 10.0 has it.
    Current,
    /// An older QEMU had it.
    Removed,
}

/// One option of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name without dashes.
    pub name: &'static str,
    /// The name as its manual spells it, with one dash.
    pub dashed: &'static str,
    /// How its value is written.
    pub syntax: Syntax,
    /// Whether QEMU 10 still has it.
    pub age: Age,
}

/// One option or positional word, with the number of its word; QEMU itself is word 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A disk image: a word that does not start with a dash.
    Image {
        /// The number of the word.
        word: usize,
        /// The name.
        value: &'a [u8],
    },
    /// An option in the table.
    Option {
        /// The number of the word that holds the value; for a flag, of the option itself.
        word: usize,
        /// Which one.
        spec: &'static Spec,
        /// Its value; empty for a flag.
        value: &'a [u8],
    },
    /// An option in the table that needs a value and is the last word.
    NoValue {
        /// The number of the option's word.
        word: usize,
        /// Which one.
        spec: &'static Spec,
    },
    /// An option that is not in the table. Whether a QEMU that has it takes the next word as its
    /// value is not known.
    Unknown {
        /// The number of the word.
        word: usize,
        /// The word as written.
        option: &'a [u8],
        /// The next word; None if that is an option, or there is none.
        next: Option<&'a [u8]>,
    },
    /// A word that no QEMU can have as an option.
    Malformed {
        /// The number of the word.
        word: usize,
        /// The word as written.
        value: &'a [u8],
    },
}

use Age::{Current, Removed};
use Syntax::{Flag, Keyval, KeyvalOrJson, Netdev, Opts, OptsOrJson, Verbatim};

macro_rules! row {
    ($name:literal, $syntax:expr, $age:expr) => {
        Spec {
            name: $name,
            dashed: concat!("-", $name),
            syntax: $syntax,
            age: $age,
        }
    };
}

/// Every option, sorted by name for binary search.
#[rustfmt::skip]
pub const OPTIONS: &[Spec] = &[
    row!("D", Verbatim, Current),
    row!("L", Verbatim, Current),
    row!("M", Keyval("type"), Current),
    row!("S", Flag, Current),
    row!("accel", Opts(Some("accel")), Current),
    row!("acpitable", Opts(Some("data")), Current),
    row!("action", Opts(None), Current),
    row!("add-fd", Opts(None), Current),
    row!("alt-grab", Flag, Removed),
    row!("append", Verbatim, Current),
    row!("async-teardown", Flag, Removed),
    row!("audio", Keyval("driver"), Current),
    row!("audio-help", Flag, Removed),
    row!("audiodev", KeyvalOrJson(Some("driver")), Current),
    row!("balloon", Verbatim, Removed),
    row!("bios", Verbatim, Current),
    row!("blockdev", KeyvalOrJson(Some("driver")), Current),
    row!("boot", Keyval("order"), Current),
    row!("bootp", Verbatim, Removed),
    row!("bt", Verbatim, Removed),
    row!("cdrom", Verbatim, Current),
    row!("chardev", Opts(Some("backend")), Current),
    row!("chroot", Verbatim, Removed),
    row!("clock", Verbatim, Removed),
    row!("compat", KeyvalOrJson(None), Current),
    row!("cpu", Verbatim, Current),
    row!("ctrl-grab", Flag, Removed),
    row!("curses", Flag, Removed),
    row!("d", Verbatim, Current),
    row!("daemonize", Flag, Current),
    row!("debugcon", Verbatim, Current),
    row!("device", OptsOrJson("driver"), Current),
    row!("dfilter", Verbatim, Current),
    row!("display", Verbatim, Current),
    row!("drive", Opts(None), Current),
    row!("dtb", Verbatim, Current),
    row!("dump-vmstate", Verbatim, Current),
    row!("echr", Verbatim, Current),
    row!("enable-fips", Flag, Removed),
    row!("enable-kvm", Flag, Current),
    row!("enable-sync-profile", Flag, Current),
    row!("fda", Verbatim, Current),
    row!("fdb", Verbatim, Current),
    row!("fsdev", Opts(Some("fsdriver")), Current),
    row!("full-screen", Flag, Current),
    row!("fw_cfg", Opts(Some("name")), Current),
    row!("g", Verbatim, Current),
    row!("gdb", Verbatim, Current),
    row!("global", Verbatim, Current),
    row!("h", Flag, Current),
    row!("hda", Verbatim, Current),
    row!("hdachs", Verbatim, Removed),
    row!("hdb", Verbatim, Current),
    row!("hdc", Verbatim, Current),
    row!("hdd", Verbatim, Current),
    row!("help", Flag, Current),
    row!("icount", Opts(Some("shift")), Current),
    row!("incoming", Verbatim, Current),
    row!("initrd", Verbatim, Current),
    row!("iscsi", Opts(None), Current),
    row!("jitdump", Flag, Current),
    row!("k", Verbatim, Current),
    row!("kernel", Verbatim, Current),
    row!("loadvm", Verbatim, Current),
    row!("localtime", Flag, Removed),
    row!("m", Opts(Some("size")), Current),
    row!("machine", Keyval("type"), Current),
    row!("mem-path", Verbatim, Current),
    row!("mem-prealloc", Flag, Current),
    row!("mon", Opts(Some("chardev")), Current),
    row!("monitor", Verbatim, Current),
    row!("msg", Opts(None), Current),
    row!("mtdblock", Verbatim, Current),
    row!("name", Opts(Some("guest")), Current),
    row!("net", Opts(Some("type")), Current),
    row!("netdev", Netdev, Current),
    row!("nic", Opts(Some("type")), Current),
    row!("no-acpi", Flag, Removed),
    row!("no-fd-bootchk", Flag, Current),
    row!("no-hpet", Flag, Removed),
    row!("no-kvm", Flag, Removed),
    row!("no-kvm-irqchip", Flag, Removed),
    row!("no-kvm-pit", Flag, Removed),
    row!("no-kvm-pit-reinjection", Flag, Removed),
    row!("no-quit", Flag, Removed),
    row!("no-reboot", Flag, Current),
    row!("no-shutdown", Flag, Current),
    row!("no-user-config", Flag, Current),
    row!("nodefaults", Flag, Current),
    row!("nodefconfig", Flag, Removed),
    row!("nographic", Flag, Current),
    row!("numa", Opts(Some("type")), Current),
    row!("object", OptsOrJson("qom-type"), Current),
    row!("old-param", Flag, Current),
    row!("only-migratable", Flag, Current),
    row!("option-rom", Opts(Some("romfile")), Current),
    row!("overcommit", Opts(None), Current),
    row!("parallel", Verbatim, Current),
    row!("perfmap", Flag, Current),
    row!("pflash", Verbatim, Current),
    row!("pidfile", Verbatim, Current),
    row!("plugin", Opts(Some("file")), Current),
    row!("portrait", Flag, Removed),
    row!("preconfig", Flag, Current),
    row!("prom-env", Verbatim, Current),
    row!("qmp", Verbatim, Current),
    row!("qmp-pretty", Verbatim, Current),
    row!("qtest", Verbatim, Current),
    row!("qtest-log", Verbatim, Current),
    row!("readconfig", Verbatim, Current),
    row!("realtime", Verbatim, Removed),
    row!("redir", Verbatim, Removed),
    row!("rotate", Verbatim, Removed),
    row!("rtc", Opts(None), Current),
    row!("rtc-td-hack", Flag, Removed),
    row!("run-with", Opts(None), Current),
    row!("runas", Verbatim, Removed),
    row!("s", Flag, Current),
    row!("sandbox", Opts(Some("enable")), Current),
    row!("sd", Verbatim, Current),
    row!("sdl", Flag, Removed),
    row!("seed", Verbatim, Current),
    row!("semihosting", Flag, Current),
    row!("semihosting-config", Opts(None), Current),
    row!("serial", Verbatim, Current),
    row!("set", Verbatim, Current),
    row!("shim", Verbatim, Current),
    row!("show-cursor", Flag, Removed),
    row!("singlestep", Flag, Removed),
    row!("smb", Verbatim, Removed),
    row!("smbios", Opts(None), Current),
    row!("smp", Keyval("cpus"), Current),
    row!("snapshot", Flag, Current),
    row!("soundhw", Verbatim, Removed),
    row!("spice", Opts(None), Current),
    row!("startdate", Verbatim, Removed),
    row!("tb-size", Verbatim, Removed),
    row!("tdf", Flag, Removed),
    row!("tftp", Verbatim, Removed),
    row!("tpmdev", Opts(Some("type")), Current),
    row!("trace", Opts(Some("enable")), Current),
    row!("usb", Flag, Current),
    row!("usbdevice", Verbatim, Current),
    row!("uuid", Verbatim, Current),
    row!("version", Flag, Current),
    row!("vga", Verbatim, Current),
    row!("virtfs", Opts(Some("fsdriver")), Current),
    row!("virtioconsole", Verbatim, Removed),
    row!("vnc", Opts(Some("vnc")), Current),
    row!("watchdog", Verbatim, Removed),
    row!("watchdog-action", Verbatim, Current),
    row!("win2k-hack", Flag, Current),
    row!("writeconfig", Verbatim, Removed),
    row!("xen-attach", Flag, Current),
    row!("xen-domid", Verbatim, Current),
    row!("xen-domid-restrict", Flag, Current),
];

/// Returns the option of that name (without dashes); QEMU takes no abbreviations.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let at = OPTIONS
        .binary_search_by(|spec| spec.name.as_bytes().cmp(name))
        .ok()?;
    OPTIONS.get(at)
}

/// Returns whether some QEMU could have an option of that name: a letter, then letters, digits and
/// `-_` as in qemu-options.hx. QEMU compares whole words, so `name=value` is no option.
fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Returns whether an option of QEMU 10 takes the next word as its value; None if QEMU 10 has no
/// such option.
pub fn takes_value(option: &str) -> Option<bool> {
    lookup(option.as_bytes())
        .filter(|spec| spec.age == Age::Current)
        .map(|spec| spec.syntax != Syntax::Flag)
}

/// Splits the words after the program's name.
pub fn split(args: &[OsString]) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let mut words = (2_usize..)
        .zip(args.iter().map(|arg| arg.as_bytes()))
        .peekable();
    while let Some((word, value)) = words.next() {
        let Some(rest) = value.strip_prefix(b"-") else {
            items.push(Item::Image { word, value });
            continue;
        };
        // lookup_opt strips one more dash only: "---x" is unknown.
        let name = rest.strip_prefix(b"-").unwrap_or(rest);
        items.push(match lookup(name) {
            None if is_name(name) => Item::Unknown {
                word,
                option: value,
                next: words
                    .next_if(|(_, next)| !next.starts_with(b"-"))
                    .map(|(_, next)| next),
            },
            None => Item::Malformed { word, value },
            Some(spec) if spec.syntax == Syntax::Flag => Item::Option {
                word,
                spec,
                value: b"",
            },
            // The next word is the value whatever it looks like.
            Some(spec) => match words.next() {
                Some((word, value)) => Item::Option { word, spec, value },
                None => Item::NoValue { word, spec },
            },
        });
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(OPTIONS.is_sorted_by(|a, b| a.name < b.name));
        let flags = OPTIONS
            .iter()
            .filter(|spec| spec.syntax == Flag && spec.age == Current);
        assert_eq!(flags.count(), 27);
    }

    #[test]
    fn values_are_the_next_word_whatever_it_looks_like() {
        let words = args(&["-append", "-foo", "--name", "-S", "disk.img", "-S", ""]);
        let seen: Vec<(usize, String)> = split(&words)
            .iter()
            .map(|item| match item {
                Item::Image { word, value } => {
                    (*word, format!("image={}", String::from_utf8_lossy(value)))
                }
                Item::Option { word, spec, value } => (
                    *word,
                    format!("{}={}", spec.name, String::from_utf8_lossy(value)),
                ),
                Item::NoValue { word, spec } => (*word, format!("{}!", spec.name)),
                Item::Unknown { word, next, .. } => (*word, format!("unknown+{}", next.is_some())),
                Item::Malformed { word, .. } => (*word, "malformed".to_owned()),
            })
            .collect();
        let want = [
            (3, "append=-foo"),
            (5, "name=-S"),
            (6, "image=disk.img"),
            (7, "S="),
            (8, "image="),
        ];
        assert_eq!(seen, want.map(|(word, text)| (word, text.to_owned())));
    }

    #[test]
    fn unknown_words_and_missing_values() {
        for word in ["-", "--", "---name", "-name=x", "-9p", "-a/b"] {
            let words = args(&[word, "x"]);
            assert!(
                matches!(
                    split(&words).as_slice(),
                    [Item::Malformed { word: 2, .. }, Item::Image { word: 3, .. }]
                ),
                "{word}"
            );
        }
        // What follows goes with it, unless it is an option of its own.
        let words = args(&["-names", "x", "--new", "-S"]);
        let items = split(&words);
        let [first, second, Item::Option { word: 5, .. }] = items.as_slice() else {
            panic!("{items:?}");
        };
        let unknown = |word, option, next| Item::Unknown { word, option, next };
        assert_eq!(*first, unknown(2, &b"-names"[..], Some(&b"x"[..])));
        assert_eq!(*second, unknown(4, &b"--new"[..], None));
        let words = args(&["-S", "-drive"]);
        assert!(matches!(
            split(&words).last(),
            Some(Item::NoValue { word: 3, .. })
        ));
    }
}
