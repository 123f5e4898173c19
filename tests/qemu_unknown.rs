//! What no table knows is said, and what is known to be no path is not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

#[path = "common/line.rs"]
mod line;

use std::collections::BTreeMap;
use std::ffi::OsString;

use svirt_exec::model::resource::Target;
use svirt_exec::qemu::{self, Environment, Invocation, Meaning, ValueKind};

fn parse(words: &[&str]) -> Invocation {
    line::parse("qemu-system-x86_64", words)
}

/// `word option: message` of what is not known, in a line without errors.
fn unknown(words: &[&str]) -> Vec<String> {
    let line = parse(words);
    assert!(line.errors.is_empty(), "{words:?}: {:?}", line.errors);
    line.unknown
        .iter()
        .map(|d| format!("{} {}: {}", d.word, d.option, d.message))
        .collect()
}

#[test]
fn what_is_not_known_is_named() {
    // The line, and for each thing that is not known the start of what is said.
    let table: &[(&[&str], &[&str])] = &[
        (
            &["-new", "-S"],
            &["2 -new: is not an option that svirt-exec"],
        ),
        (
            &["--new", "on"],
            &["2 --new: is not an option that svirt-exec"],
        ),
        (
            &["-S", "-new"],
            &["3 -new: is not an option that svirt-exec"],
        ),
        (
            &["-device", "virtio-blk-pci,new=/x"],
            &["3 -device: new=/x is not known"],
        ),
        (
            &["-device", "{'driver':'x','new':{'file':'a.img'}}"],
            &["3 -device: new.file=a.img is not known"],
        ),
        (
            &["-global", "virtio-blk-pci.new=/x"],
            &["3 -global: virtio-blk-pci.new=/x is not known"],
        ),
        (
            &["-object", "new,id=x"],
            &["3 -object: qom-type=new is not known"],
        ),
        (
            &["-object", "new,id=x,file=/x"],
            &[
                "3 -object: file=/x is not known",
                "3 -object: qom-type=new is not known",
            ],
        ),
        (
            &["-netdev", "new,id=x,path=/x"],
            &[
                "3 -netdev: path=/x is not known",
                "3 -netdev: type=new is not known",
            ],
        ),
        (
            &["-chardev", "new,id=x"],
            &["3 -chardev: backend=new is not known"],
        ),
        (
            &["-chardev", "socket,id=x,path=/x,new=/y"],
            &["3 -chardev: new=/y is not known"],
        ),
        (
            &[
                "-blockdev",
                "driver=new,node-name=n,filename=/x",
                "-device",
                "ide-hd,drive=n",
            ],
            &[
                "3 -blockdev: driver=new is not known",
                "3 -blockdev: filename=/x is not known",
            ],
        ),
        (
            &["-drive", "file=/x,format=new"],
            &[
                "3 -drive: driver=new is not known",
                "3 -drive: file=/x is not known",
            ],
        ),
        (
            &[
                "-blockdev",
                "driver=qcow2,file.driver=file,file.filename=/x,file.new=/y",
            ],
            &["3 -blockdev: file.new=/y is not known"],
        ),
        (
            &[
                "-drive",
                "file=json:{\"driver\":\"file\",,\"filename\":\"/x\",,\"new\":\"/y\"}",
            ],
            &["3 -drive: file=/y is not known"],
        ),
        (
            &["-display", "new,file=/x"],
            &[
                "3 -display: file=/x is not known",
                "3 -display: type=new is not known",
            ],
        ),
        (
            &[
                "-drive",
                "id=d,if=none",
                "-set",
                "drive.d.new=/x",
                "-machine",
                "q35,new=/y",
            ],
            &["7 -machine: new=/y is not known"],
        ),
    ];
    for (words, want) in table {
        let seen = unknown(words);
        assert_eq!(seen.len(), want.len(), "{words:?}: {seen:?}");
        for (seen, want) in seen.iter().zip(*want) {
            assert!(seen.starts_with(want), "{words:?}: {seen}");
        }
    }
}

#[test]
fn the_word_after_an_unknown_option_is_not_taken_for_an_image() {
    let line = parse(&["-new", "on", "-hda", "/d"]);
    let targets: Vec<&Target> = line.requests.iter().map(|r| &r.target).collect();
    assert!(targets.contains(&&Target::Path("/d".into())), "{targets:?}");
    assert!(
        !targets.contains(&&Target::Path("on".into())),
        "{targets:?}"
    );
    // It could be the name of an image: neither is labelled on a guess.
    let line = parse(&["-new", "/d"]);
    assert!(line.errors[0].message.contains("'/d'"), "{:?}", line.errors);
}

#[test]
fn groups_of_config_files() {
    for (text, errors, unknown) in [
        ("[new]\n  key = \"1\"\n", 0, 1),
        ("[new]\n  key = \"/x\"\n", 1, 0),
        ("[msg]\n  timestamp = \"on\"\n", 0, 0),
    ] {
        let args = ["-readconfig", "/c"].map(OsString::from);
        let configs = BTreeMap::from([(OsString::from("/c"), text.as_bytes().to_vec())]);
        let program = OsString::from("qemu-system-x86_64");
        let line = qemu::parse(&program, &args, &configs, &Environment::default());
        assert_eq!(line.errors.len(), errors, "{text}: {:?}", line.errors);
        assert_eq!(line.unknown.len(), unknown, "{text}: {:?}", line.unknown);
    }
}

#[test]
fn slashes_where_no_paths_are() {
    for words in [
        &["-append", "root=/dev/vda"][..],
        &["-name", "a/b,process=c/d"],
        &["-cpu", "max,vendor=a/b"],
        &["-rtc", "base=2006/01"],
        &["-msg", "timestamp=/"],
        &["-prom-env", "boot=/x"],
        &["-fw_cfg", "name=opt/org.example/x,string=/x"],
        &["-smbios", "type=1,product=a/b,serial=c/d.bin"],
        &["-smbios", "type=11,value=/x"],
        &["-device", "virtio-blk-pci,serial=a/b,id=c/d"],
        &["-device", "virtio-net-pci,mac=52:54:00:12:34:56,netdev=n"],
        &["-device", "isa-applesmc,osk=a/b"],
        &[
            "-netdev",
            "user,id=n,hostname=a/b,net=10.0.2.0/24,bootfile=/pxe.bin,dnssearch=a/b",
        ],
        &[
            "-netdev",
            "{'type':'user','id':'n','dnssearch':[{'str':'a/b'}]}",
        ],
        &[
            "-drive",
            "driver=nbd,export=/x,server.type=inet,server.host=h/x,server.port=1",
        ],
        &["-drive", "file=iscsi://h/iqn.x/1"],
        &["-drive", "file=https://example.com/x.img"],
        &["-drive", "file=nfs://h/x.img"],
        &[
            "-blockdev",
            "driver=ssh,node-name=s,path=/x,server.host=h,server.port=22",
        ],
        &["-iscsi", "id=iqn.2001:a/b,initiator-name=iqn.2001:c/d"],
        &["-object", "secret,id=s,data=ab/c="],
        &["-object", "sev-snp-guest,id=s,id-block=a/b"],
        &["-machine", "q35,append=/x,pflash0=a/b"],
        &["-audiodev", "alsa,id=a,out.dev=plug/x"],
        &["-audiodev", "pa,id=a,out.name=x/y"],
        &["-trace", "enable=a/b"],
        &["-spice", "port=1,x509-key-password=a/b"],
        &["-vnc", "127.0.0.1:1,tls-creds=a/b"],
        &["-run-with", "user=a/b"],
        &["-tpmdev", "emulator,id=t,chardev=a/b"],
        &["-device", "help"],
        &["-netdev", "help"],
        &["-object", "help"],
    ] {
        assert_eq!(unknown(words), [""; 0], "{words:?}");
    }
}

#[test]
fn rows_that_were_missing() {
    let table: &[(&[&str], &[&str])] = &[
        (
            &["-netdev", "passt,id=n,path=/opt/passt,address=10.0.0.1"],
            &["/opt/passt exec", "/tmp/passt-… create"],
        ),
        (&["-netdev", "passt,id=n"], &["/tmp/passt-… create"]),
        (
            &[
                "-object",
                "{'qom-type':'tdx-guest','id':'t','mrowner':'a/b','quote-generation-socket':{'type':'unix','path':'/run/qgs'}}",
            ],
            &["/run/qgs connect"],
        ),
        (
            &[
                "-object",
                "{'qom-type':'tdx-guest','id':'t','quote-generation-socket':{'type':'vsock','cid':'2','port':'4050'}}",
            ],
            &[],
        ),
        (
            &["-object", "igvm-cfg,id=i,file=/srv/guest.igvm"],
            &["/srv/guest.igvm read"],
        ),
        (
            &[
                "-device",
                "{'driver':'vfio-user-pci','socket':{'type':'unix','path':'/run/nvme.sock'}}",
            ],
            &["/run/nvme.sock connect"],
        ),
        // The class is named, so the property is its own.
        (&["-global", "guest-loader.kernel=/srv/k"], &["/srv/k read"]),
        (&["-global", "vhost-vsock-pci.vhostfd=7"], &["fd 7 write"]),
        (&["-global", "raven-pcihost.bios-name=b"], &["b read"]),
        // Of QEMU 10.0: a descriptor of a device, not of an object.
        (&["-device", "x-pci-proxy-dev,id=p,fd=7"], &["fd 7 write"]),
    ];
    for (words, want) in table {
        let parsed = parse(words);
        assert!(
            parsed.errors.is_empty() && parsed.unknown.is_empty(),
            "{parsed:?}"
        );
        let seen: Vec<String> = parsed
            .requests
            .iter()
            .map(|request| {
                let target = match &request.target {
                    Target::Path(path) => path.display().to_string(),
                    Target::Template(start) => format!("{}…", start.display()),
                    Target::Fd(fd) => format!("fd {fd}"),
                    Target::DataFile(name) => name.display().to_string(),
                    other => format!("{other:?}"),
                };
                format!("{target} {}", line::word(&request.access))
            })
            .collect();
        assert_eq!(seen, *want, "{words:?}");
    }
}

#[test]
fn the_tables_answer() {
    let table = [
        (
            "device",
            "virtio-net-pci",
            "romfile",
            Some(Meaning::Resource),
        ),
        ("device", "virtio-net-pci", "netdev", Some(Meaning::Id)),
        ("device", "virtio-net-pci", "mac", Some(Meaning::NoPath)),
        ("device", "virtio-net-pci", "new", None),
        ("device", "guest-loader", "kernel", Some(Meaning::Resource)),
        ("device", "other", "kernel", None),
        ("netdev", "stream", "addr.path", Some(Meaning::Resource)),
        ("netdev", "stream", "addr.host", Some(Meaning::NoPath)),
        ("netdev", "user", "guestfwd.0.str", Some(Meaning::Resource)),
        ("netdev", "user", "hostfwd.12.str", Some(Meaning::NoPath)),
        (
            "blockdev",
            "gluster",
            "server.0.path",
            Some(Meaning::Resource),
        ),
        ("blockdev", "gluster", "path", Some(Meaning::NoPath)),
        ("blockdev", "file", "filename", Some(Meaning::Resource)),
        ("blockdev", "qcow2", "data-file", Some(Meaning::Resource)),
        ("blockdev", "new", "filename", None),
        ("machine", "q35", "kernel", Some(Meaning::Resource)),
        ("chardev", "socket", "logfile", Some(Meaning::Resource)),
    ];
    for (family, kind, key, want) in table {
        assert_eq!(
            qemu::meaning(family, kind, key),
            want,
            "{family} {kind} {key}"
        );
    }
    assert_eq!(qemu::value_kind("drive"), Some(ValueKind::Keys));
    assert_eq!(qemu::value_kind("hda"), Some(ValueKind::Resource));
    assert_eq!(qemu::value_kind("append"), Some(ValueKind::Nothing));
    assert_eq!(qemu::value_kind("new"), None);
}
