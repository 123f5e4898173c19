//! The test vectors of tests/data/qemu-cases.json (checked against QEMU 10.0.2 under strace)
//! against what the pure parser finds in each line.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may stop where it stands"
)]

#[path = "../checks/mod.rs"]
mod checks;
mod corners;
#[path = "../common/line.rs"]
mod line;
mod strange;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use serde_json::Value;
use svirt_exec::model::resource::{
    Access, Backing, Class, Format, HostDevice, Origin, Target, Vfio,
};
use svirt_exec::qemu::{self, Environment, Invocation, RunMode};

use line::{parse, word};

/// Named by an image's header, not by the line.
const FROM_HEADERS: &[(&str, &str)] = &[
    ("vmdk-flat-extent", "/srv/vm/flat-flat.vmdk"),
    ("vmdk-parent-hint", "/srv/vm/parent.vmdk"),
    ("backing-format-missing", "/srv/vm/mid.qcow2"),
];

/// Listed beside the expected ones, because only the host can tell which one QEMU takes; all of
/// them are optional.
const ALTERNATIVES: &[(&str, &str)] = &[
    // PATH.in and PATH.out exist there, so PATH itself is not opened.
    ("chardev-client-and-logs", "/srv/cfg/fifo"),
    // The word read as one file name for a kernel that is not multiboot.
    (
        "multiboot-modules",
        "/srv/vm/mod-a arg=1,/srv/vm/mod,,b quiet",
    ),
];

/// Must be refused by whoever reads the headers; the line itself names one disk.
const REFUSED_LATER: &[(&str, &str)] = &[("backing-loop", "/srv/vm/loop-a.qcow2")];

/// The path as the vectors write it.
fn path(target: &Target, line: &Invocation) -> String {
    match target {
        Target::Path(path) => path.to_string_lossy().into_owned(),
        Target::DataFile(name) => match line.data_dirs.first() {
            Some(dir) if !name.to_string_lossy().starts_with('/') => {
                format!("{}/{}", dir.display(), name.display())
            }
            _ => name.to_string_lossy().into_owned(),
        },
        Target::Template(start) => format!("{}…", start.display()),
        Target::Fd(fd) => format!("fd {fd}"),
        Target::Device(device) => match device {
            HostDevice::VfioPci { how, .. } | HostDevice::VfioSysfs { how, .. } => match how {
                Vfio::Group => "/dev/vfio/GROUP".to_owned(),
                Vfio::Cdev => "/dev/vfio/devices/vfioN".to_owned(),
            },
            // No interface of the vectors exists.
            HostDevice::Tap { .. } => "/dev/net/tun".to_owned(),
            HostDevice::Usb(_) => device.to_string(),
        },
    }
}

#[test]
fn a_relative_disk_of_a_daemon_is_worth_a_warning() {
    let warnings = |words: &[&str]| parse("qemu", words).warnings.len();
    assert_eq!(warnings(&["-daemonize", "-drive", "file=a,format=raw"]), 1);
    assert_eq!(warnings(&["-daemonize", "-drive", "file=/a,format=raw"]), 0);
    assert_eq!(warnings(&["-drive", "file=a,format=raw"]), 0);
    assert_eq!(warnings(&["-daemonize", "-D", "log"]), 0);
}

#[test]
fn formats_and_backing_files() {
    let header = |format: Option<&str>| Backing::FromHeader {
        format: format.map(str::to_owned),
        writable: false,
        below: None,
    };
    let stated = |name: &str| Format::Stated(name.to_owned());
    let instead = |keys: &str| Format::CannotState {
        instead: keys.to_owned(),
    };
    let table = [
        (
            &["-drive", "file=/a,format=qcow2"][..],
            stated("qcow2"),
            header(None),
        ),
        (
            &["-drive", "file=/a,format=raw"],
            stated("raw"),
            Backing::NotFromHeader,
        ),
        (
            &["-drive", "file=/a"],
            Format::Unstated { add: "format=" },
            header(None),
        ),
        (
            &["-drive", "file=/a,driver=file"],
            stated("raw"),
            Backing::NotFromHeader,
        ),
        (&["-hdc", "/a"], instead("index=2,media=disk"), header(None)),
        (&["/a"], instead("index=0,media=disk"), header(None)),
        (
            &["-cdrom", "/a"],
            instead("index=2,media=cdrom"),
            header(None),
        ),
        (&["-fdb", "/a"], instead("index=1,if=floppy"), header(None)),
        (
            &["-drive", "file=/a,format=qcow2,backing.driver=qcow2"],
            stated("qcow2"),
            header(Some("qcow2")),
        ),
        (
            &["-drive", "file=/a,format=qcow2,backing="],
            stated("qcow2"),
            Backing::NotFromHeader,
        ),
        (
            &["-drive", "file=/a,format=qcow2,backing.file.filename=/b"],
            stated("qcow2"),
            Backing::NotFromHeader,
        ),
        (
            &[
                "-blockdev",
                "driver=file,node-name=f,filename=/a",
                "-blockdev",
                "driver=qcow2,node-name=q,file=f,backing.driver=raw",
            ],
            stated("qcow2"),
            header(Some("raw")),
        ),
        (
            &[
                "-drive",
                "file=/a,format=qcow2,backing.driver=qcow2,backing.backing=",
            ],
            stated("qcow2"),
            Backing::FromHeader {
                format: Some("qcow2".to_owned()),
                writable: false,
                below: Some(Box::new(Backing::NotFromHeader)),
            },
        ),
        // The header is below the raw node.
        (
            &[
                "-drive",
                "driver=qcow2,file.driver=raw,file.file.driver=file,file.file.filename=/a",
            ],
            stated("qcow2"),
            header(None),
        ),
        // The header is below the filter.
        (
            &[
                "-drive",
                "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=/a",
            ],
            stated("qcow2"),
            header(None),
        ),
        (
            &[
                "-blockdev",
                "driver=luks,node-name=l,file.driver=file,file.filename=/a",
            ],
            stated("luks"),
            Backing::NotFromHeader,
        ),
    ];
    for (words, format, backing) in table {
        let found = parse("qemu", words)
            .requests
            .into_iter()
            .filter_map(|r| Some((r.target, r.image?)))
            .find(|(target, _)| *target == Target::Path("/a".into()))
            .unwrap()
            .1;
        assert_eq!(
            (found.format, found.backing),
            (format, backing),
            "{words:?}"
        );
    }
}

#[test]
fn what_must_not_start() {
    for words in [
        &["-drive"][..],
        &["-nonsense=x"],
        &["---nonsense"],
        &["-nonsense", "/x"],
        &["-nonsense", "id=x,log=x.log"],
        &["-nonsense", "disk.qcow2"],
        &["-blockdev", "{"],
        &["-blockdev", "filename=/x"],
        &["-blockdev", "driver=qcow2,file=nowhere"],
        &["-drive", "file=weird:x"],
        &["-drive", "file=/x,format=qcow2,backing.data-file=d"],
        &["-drive", "file=/x,format=raw,driver=raw"],
        &["-machine", "pc,a=1,a.b=2"],
        &["-accel", "kvm", "-machine", "accel=tcg"],
        &["-accel", "kvm:tcg"],
        &["-set", "drive.x.file=/y"],
        &["-serial", "/tmp/x"],
        &["-add-fd", "fd=1,set=1"],
        &["-chardev", "file,id=c,path=/dev/fdset/7"],
        &["-D", "/log-%d-%d"],
        &["-readconfig", "/absent"],
    ] {
        assert!(!parse("qemu", words).errors.is_empty(), "{words:?}");
    }
}

/// What decides the label and the check of a file beside its class and access.
#[test]
fn what_is_mapped_and_what_may_be_a_directory() {
    let facts = |words: &[&str]| {
        let requests = parse("qemu", words).requests;
        let of_files = requests.iter().find(|r| r.reason != "KVM").unwrap();
        (of_files.mapped, of_files.may_be_directory)
    };
    let memory = |more: &str| format!("memory-backend-file,id=m,size=1G,mem-path={more}");
    for (words, want) in [
        (["-kernel", "/k"], (false, false)),
        (["-initrd", "/i"], (true, false)),
        (["-initrd", "/i,/j"], (true, false)),
        (["-machine", "initrd=/i"], (true, false)),
        (["-global", "s390-ipl.initrd=/i"], (true, false)),
        (["-mem-path", "/m"], (true, true)),
        (["-object", &memory("/m")], (true, true)),
        (["-object", &memory("/dev/hugepages")], (true, true)),
        (["-object", &memory("/m,readonly=on")], (true, true)),
        (["-drive", "file=/d,format=raw"], (false, false)),
    ] {
        assert_eq!(facts(&words), want, "{words:?}");
    }
}

#[test]
fn run_modes() {
    let table: &[(&[&str], RunMode)] = &[
        (&["-version"], RunMode::Information),
        (&["--help"], RunMode::Information),
        (&["-cpu", "?"], RunMode::Information),
        (&["-device", "virtio-blk-pci,help"], RunMode::Information),
        (&["-machine", "q35,help"], RunMode::Information),
        (&["-audio", "model=help"], RunMode::Information),
        (&["-global", "help"], RunMode::Information),
        (&["-append", "help"], RunMode::Guest),
        (&["-name", "help"], RunMode::Guest),
        (&["-option-rom", "help"], RunMode::Guest),
        (&["-netdev", "help"], RunMode::Guest),
        (&["-chardev", "help"], RunMode::Guest),
        (&["-drive", "format=help"], RunMode::Guest),
        (&["-vga", "help"], RunMode::Guest),
        (&["-device", "{\"driver\":\"help\"}"], RunMode::Guest),
        (&["-machine", "none", "-monitor", "stdio"], RunMode::Probe),
        (&["-machine", "none", "-S", "-nodefaults"], RunMode::Probe),
        (
            &["-machine", "none", "-S", "-nodefaults", "-hda", "/x"],
            RunMode::Guest,
        ),
        (&["-machine", "q35", "-S", "-nodefaults"], RunMode::Guest),
    ];
    for (words, want) in table {
        assert_eq!(parse("qemu", words).run_mode, *want, "{words:?}");
    }
}

#[test]
fn config_files_are_part_of_the_line() {
    let args: Vec<OsString> = ["-readconfig", "/c.ini", "-set", "drive.d.file=/z"]
        .iter()
        .map(OsString::from)
        .collect();
    let files = qemu::config_files(&args);
    let names: Vec<(&str, bool, usize)> = files
        .iter()
        .map(|file| (file.path.to_str().unwrap(), file.required, file.word))
        .collect();
    assert_eq!(
        names,
        [("/etc/qemu/qemu.conf", false, 1), ("/c.ini", true, 3)]
    );
    let configs = BTreeMap::from([
        (OsString::from("/etc/qemu/qemu.conf"), b"[machine]\n  kernel = \"/k,,k\"\n".to_vec()),
        (
            OsString::from("/c.ini"),
            b"[drive \"d\"]\n file = \"/d\"\n format = \"raw\"\n[chardev \"c\"]\n backend = \"file\"\n path = \"/l\"\n".to_vec(),
        ),
    ]);
    let line = qemu::parse("qemu".as_ref(), &args, &configs, &Environment::default());
    assert!(line.errors.is_empty(), "{:?}", line.errors);
    let seen: Vec<String> = line
        .requests
        .iter()
        .map(|r| match &r.origin {
            Origin::Word { word, option, key } => {
                format!("{word} {option} {key} {}", path(&r.target, &line))
            }
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        seen,
        [
            "1 -readconfig  /etc/qemu/qemu.conf",
            "1 -readconfig machine.kernel /k,,k",
            "3 -readconfig  /c.ini",
            "3 -readconfig chardev.path /l",
            "5 -set drive.d.file /z",
        ]
    );
    let none: Vec<OsString> = vec!["-no-user-config".into()];
    assert!(qemu::config_files(&none).is_empty());
}

type Entry = (String, String, String);

#[test]
fn the_vectors() {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/qemu-cases.json"
    ))
    .unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 62);
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let argv: Vec<&str> = case["argv"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        let line = parse(argv[0], &argv[1..]);
        if !line.errors.is_empty() || !line.unknown.is_empty() {
            wrong.push(format!("{name}: {:?} {:?}", line.errors, line.unknown));
        }
        let mut seen: BTreeSet<Entry> = line
            .requests
            .iter()
            .map(|r| (path(&r.target, &line), word(&r.access), word(&r.class)))
            .collect();
        for (_, path) in ALTERNATIVES.iter().filter(|(case, _)| *case == name) {
            let found = line
                .requests
                .iter()
                .find(|r| r.target == Target::Path(path.into()));
            assert!(!found.unwrap().required, "{name} {path}");
            seen.retain(|entry| entry.0 != *path);
        }
        let mut want: BTreeSet<Entry> = case["expect"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let path = match entry["path"].as_str() {
                    Some(path) => match path.find("TID") {
                        Some(at) => format!("{}…", &path[..at]),
                        None => path.to_owned(),
                    },
                    None => format!("fd {}", entry["fd"]),
                };
                let text = |key: &str| entry[key].as_str().unwrap().to_owned();
                (path, text("access"), text("class"))
            })
            .collect();
        for (_, path) in FROM_HEADERS.iter().filter(|(case, _)| *case == name) {
            let before = want.len();
            want.retain(|entry| entry.0 != *path);
            assert_eq!(want.len() + 1, before, "{name} {path}");
        }
        for (_, path) in REFUSED_LATER.iter().filter(|(case, _)| *case == name) {
            want.insert((
                (*path).to_owned(),
                word(&Access::Read),
                word(&Class::Content),
            ));
        }
        let missing: Vec<_> = want.difference(&seen).collect();
        let extra: Vec<_> = seen.difference(&want).collect();
        if !missing.is_empty() || !extra.is_empty() {
            wrong.push(format!(
                "{name}: missing {missing:?}, not expected {extra:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n{} wrong",
        wrong.join("\n"),
        wrong.len()
    );
}
