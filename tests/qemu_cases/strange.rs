//! Lines that nobody would write: long, deep and random ones.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use crate::checks;
use crate::line::parse;

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
        let line = parse("qemu", &[option, word]);
        assert!(!line.errors.is_empty(), "{option} {:.40}", word);
    }
}

#[test]
fn a_thousand_disks_are_a_thousand_resources() {
    let mut args: Vec<OsString> = Vec::new();
    for at in 0..1000 {
        args.push("-blockdev".into());
        args.push(format!("{{\"driver\":\"qcow2\",\"node-name\":\"n{at}\",\"file\":{{\"driver\":\"file\",\"filename\":\"/d{at}\"}}}}").into());
        args.push("-device".into());
        args.push(format!("virtio-blk-pci,drive=n{at},id=v{at}").into());
        args.push("-S".into());
    }
    let line = parse("qemu", &args);
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
