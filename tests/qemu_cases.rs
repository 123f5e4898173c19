//! The test vectors of tests/data/qemu-cases.json (checked against QEMU 10.0.2 under strace)
//! against what the pure parser finds in each line.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may stop where it stands"
)]

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;
use serde_json::Value;
use svirt_exec::model::resource::{
    Access, Backing, Class, Format, HostDevice, Origin, Target, Vfio,
};
use svirt_exec::qemu::{self, Environment, Invocation, RunMode};

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

fn parse(argv: &[OsString]) -> Invocation {
    let (program, args) = argv.split_first().unwrap();
    qemu::parse(program, args, &BTreeMap::new(), &Environment::default())
}

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

/// A line's requests as `word option key: target access class`.
fn lines(words: &[&str]) -> Vec<String> {
    let argv: Vec<OsString> = words.iter().map(OsString::from).collect();
    let line = parse(&argv);
    assert!(line.errors.is_empty(), "{words:?}: {:?}", line.errors);
    line.requests
        .iter()
        .map(|r| {
            let origin = match &r.origin {
                Origin::Word { word, option, key } => format!("{word} {option} {key}"),
                other => format!("{other:?}"),
            };
            let path = path(&r.target, &line);
            format!("{origin}: {path} {} {}", word(&r.access), word(&r.class))
        })
        .collect()
}

#[test]
fn a_relative_disk_of_a_daemon_is_worth_a_warning() {
    let warnings = |words: &[&str]| {
        let argv: Vec<OsString> = ["qemu"].iter().chain(words).map(OsString::from).collect();
        parse(&argv).warnings.len()
    };
    assert_eq!(warnings(&["-daemonize", "-drive", "file=a,format=raw"]), 1);
    assert_eq!(warnings(&["-daemonize", "-drive", "file=/a,format=raw"]), 0);
    assert_eq!(warnings(&["-drive", "file=a,format=raw"]), 0);
    assert_eq!(warnings(&["-daemonize", "-D", "log"]), 0);
}

/// What decides the label and the check of a file beside its class and access.
#[test]
fn what_is_mapped_and_what_may_be_a_directory() {
    let facts = |words: &[&str]| {
        let argv: Vec<OsString> = ["qemu"].iter().chain(words).map(OsString::from).collect();
        let requests = parse(&argv).requests;
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

/// What the block layer and others do in corners that the vectors do not reach.
#[test]
fn corners() {
    let table: &[(&[&str], &[&str])] = &[
        // The last file= counts, and -set comes later still.
        (
            &[
                "-drive",
                "id=d,file=/a,file=/b,if=none",
                "-set",
                "drive.d.file=/c",
            ],
            &["5 -set drive.d.file: /c write exclusive"],
        ),
        // backing.read-only=off opens a named backing file for writing.
        (
            &[
                "-blockdev",
                "driver=qcow2,node-name=t,file.driver=file,file.filename=/t,backing.driver=raw,backing.read-only=off,backing.file.driver=file,backing.file.filename=/b",
            ],
            &[
                "3 -blockdev backing.file.filename: /b write exclusive",
                "3 -blockdev file.filename: /t write exclusive",
            ],
        ),
        (
            &[
                "-blockdev",
                "driver=qcow2,node-name=t,file.driver=file,file.filename=/t,backing.driver=raw,backing.file.driver=file,backing.file.filename=/b",
            ],
            &[
                "3 -blockdev backing.file.filename: /b read content",
                "3 -blockdev file.filename: /t write exclusive",
            ],
        ),
        // A CD drive leaves a raw image alone, a qcow2 image not.
        (
            &[
                "-blockdev",
                "driver=raw,node-name=c,file.driver=file,file.filename=/c,auto-read-only=on",
                "-device",
                "scsi-cd,drive=c",
            ],
            &["3 -blockdev file.filename: /c read content"],
        ),
        (
            &[
                "-blockdev",
                "driver=qcow2,node-name=c,file.driver=file,file.filename=/c,auto-read-only=on",
                "-device",
                "scsi-cd,drive=c",
            ],
            &["3 -blockdev file.filename: /c write exclusive"],
        ),
        // A reader and a writer on one node.
        (
            &[
                "-drive",
                "id=d,if=none,file=/d,format=raw",
                "-device",
                "ide-cd,drive=d",
                "-device",
                "virtio-blk-pci,drive=d",
            ],
            &["3 -drive file: /d write exclusive"],
        ),
        // Nobody uses it yet: the monitor may.
        (
            &["-drive", "if=none,id=d,file=/d,format=raw"],
            &["3 -drive file: /d write exclusive"],
        ),
        (
            &[
                "-blockdev",
                "{'driver':'file','node-name':'f','filename':'/d','auto-read-only':true}",
            ],
            &["3 -blockdev filename: /d write exclusive"],
        ),
        // Filters pass on what is asked of them; a target is written.
        (
            &[
                "-blockdev",
                "driver=file,node-name=f,filename=/f,auto-read-only=on",
                "-blockdev",
                "driver=throttle,throttle-group=g,node-name=t,file=f,auto-read-only=on",
                "-device",
                "ide-cd,drive=t",
            ],
            &["3 -blockdev filename: /f read content"],
        ),
        (
            &[
                "-blockdev",
                "driver=copy-before-write,read-only=off,node-name=x,file.driver=file,file.filename=/f,target.driver=file,target.filename=/t",
            ],
            &[
                "3 -blockdev file.filename: /f write exclusive",
                "3 -blockdev target.filename: /t write exclusive",
            ],
        ),
        // -snapshot: not for -blockdev, not where the drive says off.
        (
            &[
                "-snapshot",
                "-drive",
                "file=/a,format=raw",
                "-drive",
                "file=/b,format=raw,snapshot=off",
                "-blockdev",
                "driver=file,node-name=c,filename=/c",
                "-hda",
                "/d",
            ],
            &[
                "4 -drive snapshot: /var/tmp/vl.… create exclusive",
                "4 -drive file: /a read content",
                "6 -drive file: /b write exclusive",
                "8 -blockdev filename: /c write exclusive",
                "10 -hda : /var/tmp/vl.… create exclusive",
                "10 -hda : /d read content",
            ],
        ),
        // Legacy names.
        (
            &["-drive", "file=fat:rw:/dos"],
            &[
                "3 -drive file: /dos tree keep",
                "3 -drive file: /var/tmp/vl.… create exclusive",
            ],
        ),
        (
            &[
                "-hda",
                "json:{'driver':'qcow2','file':{'driver':'file','filename':'/j'}}",
            ],
            &["3 -hda : /j write exclusive"],
        ),
        (&["-hda", "file:a:b"], &["3 -hda : a:b write exclusive"]),
        (
            &[
                "-drive",
                "file.driver=nbd,file.server.type=unix,file.server.path=/n,format=raw",
            ],
            &["3 -drive file.server.path: /n connect keep"],
        ),
        (
            &[
                "-drive",
                "driver=blkverify,raw.driver=file,raw.filename=/r,test.driver=raw,test.file.driver=file,test.file.filename=/t",
            ],
            &[
                "3 -drive test.file.filename: /t write exclusive",
                "3 -drive raw.filename: /r write exclusive",
            ],
        ),
        (
            &["-drive", "if=none,media=cdrom", "-drive", "file=,if=none"],
            &[],
        ),
        (
            &[
                "-blockdev",
                "driver=host_cdrom,node-name=x,filename=/dev/sr0,read-only=on",
            ],
            &["3 -blockdev filename: /dev/sr0 read content"],
        ),
        // Machine keys and options are one dictionary.
        (
            &["-kernel", "/a", "-machine", "q35,kernel=/b,firmware=/f"],
            &[
                "5 -machine kernel: /b read content",
                "5 -machine firmware: /f read content",
            ],
        ),
        // Words that add up.
        (
            &["-spice", "unix=on", "-spice", "addr=/s"],
            &["5 -spice addr: /s bind keep"],
        ),
        (
            &["-icount", "rr=record", "-icount", "rrfile=/r"],
            &["5 -icount rrfile: /r create exclusive"],
        ),
        (
            &["-vnc", "unix:/a,vnc=unix:/b,websocket=unix:/c"],
            &[
                "3 -vnc vnc: /a bind keep",
                "3 -vnc vnc: /b bind keep",
                "3 -vnc websocket: /c bind keep",
            ],
        ),
        (
            &["-display", "vnc=unix:/a"],
            &["3 -display vnc: /a bind keep"],
        ),
        (
            &["-display", "dbus,addr=unix:path=/bus"],
            &["3 -display addr: /bus connect keep"],
        ),
        // Networks.
        (
            &["-nic", "tap,script=no,downscript=,vhost=on"],
            &[
                "3 -nic type: /dev/net/tun write keep",
                "3 -nic vhost: /dev/vhost-net write keep",
            ],
        ),
        (
            &["-netdev", "tap,id=n"],
            &[
                "3 -netdev type: /dev/net/tun write keep",
                "3 -netdev script: /etc/qemu-ifup exec keep",
                "3 -netdev downscript: /etc/qemu-ifdown exec keep",
            ],
        ),
        (
            &["-netdev", "vde,id=n,sock=/v"],
            &[
                "3 -netdev sock: /v tree keep",
                "3 -netdev sock: /v/ctl connect keep",
                "3 -netdev sock: /v/.… bind keep",
            ],
        ),
        (
            &[
                "-netdev",
                "{'type':'user','id':'n','guestfwd':[{'str':'tcp:1.2.3.4:5-unix:/g'}]}",
            ],
            &["3 -netdev guestfwd: /g connect keep"],
        ),
        // Objects.
        (
            &["-object", "tls-creds-psk,id=t,dir=/p,endpoint=server"],
            &[
                "3 -object dir: /p/keys.psk read exclusive",
                "3 -object dir: /p/dh-params.pem read content",
            ],
        ),
        (
            &[
                "-object",
                "memory-backend-file,id=m,mem-path=/m,size=1M,share=on",
                "-device",
                "ivshmem-plain,memdev=m",
            ],
            &["3 -object mem-path: /m write shared"],
        ),
        (
            &["-object", "memory-backend-file,id=m,mem-path=/m,size=1M"],
            &["3 -object mem-path: /m write exclusive"],
        ),
        (
            &["-tpmdev", "passthrough,id=t"],
            &[
                "3 -tpmdev type: /dev/tpm0 write exclusive",
                "3 -tpmdev type: /sys/class/tpm/tpm0/device/cancel write exclusive",
            ],
        ),
        // Defaults for classes of devices.
        (
            &["-global", "virtio-net-pci.romfile=/r"],
            &["3 -global romfile: /r read content"],
        ),
        (
            &["-global", "driver=ds1225y,property=filename,value=/n"],
            &["3 -global filename: /n write exclusive"],
        ),
        // Descriptors.
        (
            &[
                "-add-fd",
                "fd=9,set=1",
                "-add-fd",
                "fd=10,set=2",
                "-pidfile",
                "/dev/fdset/2",
            ],
            &[
                "3 -add-fd fd: fd 9 write keep",
                "7 -pidfile : fd 10 write keep",
            ],
        ),
        (&["-incoming", "fd:5"], &["3 -incoming : fd 5 write keep"]),
        (
            &[
                "-incoming",
                "main,addr.transport=file,addr.filename=/m,addr.offset=0",
            ],
            &["3 -incoming addr.filename: /m read exclusive"],
        ),
        // Accelerators.
        (&["-machine", "pc,accel=tcg:kvm"], &[]),
        (
            &["-machine", "pc,accel=tcg", "-enable-kvm"],
            &["4 -enable-kvm : /dev/kvm write keep"],
        ),
        (
            &["-accel", "kvm,device=/dev/kvm2"],
            &["3 -accel device: /dev/kvm2 write keep"],
        ),
    ];
    for (words, want) in table {
        let words: Vec<&str> = [&["qemu-system-x86_64"][..], words].concat();
        let mut seen = lines(&words);
        let mut want: Vec<String> = want.iter().map(|line| (*line).to_owned()).collect();
        seen.sort();
        want.sort();
        assert_eq!(seen, want, "{words:?}");
    }
}

/// Each row went wrong once: the real QEMU did something else (tests/enforcing/differential.rs).
#[test]
fn which_of_several_words_counts() {
    type Row<'a> = (&'a [&'a str], &'a [&'a str]);
    let table: &[Row<'_>] = &[
        // Renaming readonly to read-only turns the order around.
        (
            &["-drive", "file=/a,format=raw,readonly=off,readonly=on"],
            &["3 -drive file: /a write exclusive"],
        ),
        (
            &["-drive", "file=/a,format=raw,read-only=off,read-only=on"],
            &["3 -drive file: /a read content"],
        ),
        (
            &[
                "-drive",
                "id=d,file=/a,format=raw,readonly=off",
                "-set",
                "drive.d.readonly=on",
            ],
            &["3 -drive file: /a write exclusive"],
        ),
        (
            &["-pidfile", "/a", "-pidfile", "/b"],
            &["5 -pidfile : /b create exclusive"],
        ),
        (
            &["-trace", "file=/a", "-D", "/d", "-trace", "vm_*"],
            &["5 -D : /d create exclusive"],
        ),
        (
            &["-M", "boot.splash=/a", "-boot", "splash=/b"],
            &["5 -boot splash: /b read content"],
        ),
        (
            &["-boot", "splash=/b", "-M", "boot.splash=/a"],
            &["5 -M boot.splash: /a read content"],
        ),
        (
            &["-D", "/log-%d", "-d", "unimp"],
            &["3 -D : /log-… create exclusive"],
        ),
        // A drive without medium is there for devices.
        (
            &["-drive", "if=none,id=e", "-device", "ide-cd,drive=e"],
            &[],
        ),
        // blkdebug takes a plain name.
        (
            &["-drive", "driver=blkdebug,image.filename=/a"],
            &["3 -drive image.filename: /a write exclusive"],
        ),
        // What the line says of a backing file's own backing file.
        (
            &[
                "-drive",
                "file=/a,format=qcow2,backing.driver=qcow2,backing.backing.file.filename=/c",
            ],
            &[
                "3 -drive backing.backing.file.filename: /c read content",
                "3 -drive file: /a write exclusive",
            ],
        ),
    ];
    for (words, want) in table {
        let words: Vec<&str> = [&["qemu-system-x86_64"][..], words].concat();
        let mut seen = lines(&words);
        let mut want: Vec<String> = want.iter().map(|line| (*line).to_owned()).collect();
        seen.sort();
        want.sort();
        assert_eq!(seen, want, "{words:?}");
        let argv: Vec<OsString> = words.iter().map(OsString::from).collect();
        assert_eq!(parse(&argv).warnings.len(), 0, "{words:?}");
    }
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
        let argv: Vec<OsString> = ["qemu"].iter().chain(words).map(OsString::from).collect();
        let found = parse(&argv)
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
        let argv: Vec<OsString> = ["qemu"].iter().chain(words).map(OsString::from).collect();
        assert!(!parse(&argv).errors.is_empty(), "{words:?}");
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
        let argv: Vec<OsString> = ["qemu"].iter().chain(*words).map(OsString::from).collect();
        assert_eq!(parse(&argv).run_mode, *want, "{words:?}");
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

/// Deep and long words must neither exhaust the stack nor take long.
#[test]
fn hostile_sizes() {
    let nested = format!("{}x", "blkdebug:c:".repeat(5_000));
    let dotted = format!(
        "driver=raw{},x=y",
        ",file".repeat(3) + &".file".repeat(50_000) + "=x"
    );
    let json = format!("{{\"driver\":{}", "{\"a\":".repeat(100_000));
    let inline = format!(
        "{}{{\"driver\":\"null-co\"}}{}",
        "{\"driver\":\"raw\",\"file\":".repeat(240),
        "}".repeat(240)
    );
    for (option, word) in [
        ("-hda", nested.as_str()),
        ("-drive", dotted.as_str()),
        ("-blockdev", dotted.as_str()),
        ("-blockdev", json.as_str()),
        ("-blockdev", inline.as_str()),
    ] {
        let argv: Vec<OsString> = ["qemu", option, word].iter().map(OsString::from).collect();
        assert!(!parse(&argv).errors.is_empty(), "{option} {:.40}", word);
    }
}

#[test]
fn a_thousand_disks_are_a_thousand_resources() {
    let mut argv = vec![OsString::from("qemu")];
    for at in 0..1000 {
        argv.push("-blockdev".into());
        argv.push(format!("{{\"driver\":\"qcow2\",\"node-name\":\"n{at}\",\"file\":{{\"driver\":\"file\",\"filename\":\"/d{at}\"}}}}").into());
        argv.push("-device".into());
        argv.push(format!("virtio-blk-pci,drive=n{at},id=v{at}").into());
        argv.push("-S".into());
    }
    let line = parse(&argv);
    assert_eq!(line.requests.len(), 1000);
}

fn words() -> impl Strategy<Value = Vec<OsString>> {
    let option = prop::sample::select(vec![
        "-drive",
        "-blockdev",
        "-device",
        "-chardev",
        "-netdev",
        "-nic",
        "-object",
        "-machine",
        "-accel",
        "-hda",
        "-serial",
        "-gdb",
        "-incoming",
        "-smbios",
        "-acpitable",
        "-initrd",
        "-spice",
        "-vnc",
        "-display",
        "-set",
        "-global",
        "-add-fd",
        "-audiodev",
        "-tpmdev",
        "-trace",
        "-D",
        "-d",
        "-snapshot",
        "-fsdev",
        "-bios",
        "-name",
    ]);
    let piece = prop::sample::select(vec![
        "file",
        "driver",
        "=",
        "=",
        ",",
        ",",
        ".",
        "/a",
        "/b",
        "qcow2",
        "raw",
        "id",
        "x",
        "unix:",
        "json:{",
        "}",
        "{",
        "\"",
        ":",
        "backing",
        "filename",
        "path",
        "socket",
        "server",
        "on",
        "node-name",
        "drive",
        "fd",
        "3",
        "0",
        "tap",
        "user",
        "guestfwd",
        "tcp:1:2-",
        "cmd:",
        "nbd:",
        "fat:",
        "blkdebug:",
        "children",
        "quorum",
        "vfio-pci",
        "host",
        "type",
        "%d",
        "tid",
        "help",
        "if",
        "none",
        "snapshot",
        "/dev/fdset/",
        "add",
        "vmdk",
        "\u{e9}",
    ]);
    let word = prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat());
    let raw = prop::collection::vec(any::<u8>(), 0..20).prop_map(OsString::from_vec);
    let item = prop_oneof![
        6 => (option, word).prop_map(|(option, word)| vec![OsString::from(option), word.into()]),
        1 => raw.prop_map(|word| vec![word]),
    ];
    prop::collection::vec(item, 0..8).prop_map(|items| items.concat())
}

proptest! {
    #[test]
    fn no_line_is_too_strange(words in words()) {
        checks::line::words_alone_name(&words);
    }

    #[test]
    fn no_backing_name_is_too_strange(
        overlay in "[a-z/:.]{0,12}",
        name in prop::collection::vec(any::<u8>(), 0..40),
        format in prop::option::of("(raw|qcow2|nbd|vmdk|x)"),
    ) {
        let mut parts = vec![overlay.as_bytes(), &name];
        parts.extend(format.as_deref().map(str::as_bytes));
        checks::line::filename(&parts.join(&0));
    }
}

type Entry = (String, String, String);

fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value)
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}

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
        let argv: Vec<OsString> = case["argv"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| OsString::from(word.as_str().unwrap()))
            .collect();
        let line = parse(&argv);
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
