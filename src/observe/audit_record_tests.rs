//! Lines as auditd and the kernel write them, and lines as nobody should.

use proptest::prelude::*;

use super::*;

const FILE: &str = concat!(
    r#"type=AVC msg=audit(1764122584.123:89): avc:  denied  { read open } for  pid=429 "#,
    r#"comm="qemu-system-x86" name="b.img" dev="vda" ino=131 "#,
    "scontext=unconfined_u:unconfined_r:svirt_prot_exec_t:s0:c835,c983 ",
    "tcontext=unconfined_u:object_r:svirt_prot_exec_image_t:s0:c423,c697 tclass=file permissive=0",
);

fn avc(line: &str) -> Option<Denial> {
    match parse_line(line.as_bytes())?.1 {
        AuditRecord::Avc(denial) => Some(*denial),
        AuditRecord::Path { .. } => None,
    }
}

#[test]
fn a_denial_in_the_log() {
    let (stamp, _) = parse_line(FILE.as_bytes()).unwrap();
    assert_eq!(
        (stamp.seconds, stamp.millis, stamp.serial),
        (1_764_122_584, 123, 89)
    );
    let denial = avc(FILE).unwrap();
    assert_eq!(denial.permissions, ["read", "open"]);
    assert_eq!(denial.pid, Some(429));
    assert_eq!(denial.comm, b"qemu-system-x86");
    assert_eq!(denial.name.as_deref(), Some(&b"b.img"[..]));
    assert_eq!(denial.device.as_deref(), Some("vda"));
    assert_eq!(denial.inode, Some(131));
    assert_eq!(denial.source.categories().to_string(), "c835,c983");
    assert_eq!(denial.target.type_, "svirt_prot_exec_image_t");
    assert_eq!(denial.class, "file");
    assert!(!denial.is_path && !denial.permissive);
}

#[test]
fn other_places_and_forms() {
    let body = FILE.split_once("avc:").unwrap().1;
    for line in [
        format!("node=host.example {FILE}"),
        format!("{FILE}\x1dARCH=x86_64 scontext=forged"),
        format!("[   12.345678] audit: type=1400 audit(1764122584.123:89): avc:{body}"),
        format!("<5>[   12.345678] audit: type=1400 audit(1764122584.123:89): avc:{body}"),
    ] {
        assert_eq!(
            parse_line(line.as_bytes()),
            parse_line(FILE.as_bytes()),
            "{line}"
        );
    }
    let user = "type=USER_AVC msg=audit(1.002:3): pid=1 uid=0 auid=42 ses=4 subj=u:r:init_t:s0 \
                msg='avc:  denied  { start } for auid=n/a uid=0 gid=0 path=\"/x.service\" \
                scontext=u:r:svirt_t:s0:c1,c2 tcontext=u:object_r:unit_t:s0 tclass=service \
                permissive=1 exe=\"/usr/lib/systemd\"'";
    let denial = avc(user).unwrap();
    assert_eq!(denial.permissions, ["start"]);
    assert_eq!(denial.class, "service");
    assert!(denial.permissive && denial.is_path);
    let path = "type=PATH msg=audit(1.002:3): item=0 name=2F72 inode=12 dev=fe:00 mode=0100644";
    assert_eq!(
        parse_line(path.as_bytes()).unwrap().1,
        AuditRecord::Path {
            name: b"/r".to_vec(),
            inode: Some(12)
        }
    );
}

#[test]
fn names_are_decoded() {
    for (value, name) in [
        (r#""a b.img""#, &b"a b.img"[..]),
        (r#""tclass=dir""#, b"tclass=dir"),
        ("6120620A", b"a b\n"),
        ("2F1B5D", b"/\x1b]"),
        // Neither in quotes nor hexadecimal: as it is.
        ("12x", b"12x"),
        ("123", b"123"),
    ] {
        let line = FILE.replace(r#""b.img""#, value);
        assert_eq!(avc(&line).unwrap().name.as_deref(), Some(name), "{value}");
        assert_eq!(avc(&line).unwrap().class, "file");
    }
}

#[test]
fn what_is_no_denial_is_nothing() {
    for line in [
        "",
        "type=AVC msg=audit(1.2:3): avc:  granted  { read } for pid=1 scontext=u:r:t:s0 \
         tcontext=u:r:t:s0 tclass=file",
        "type=AVC msg=audit(1.2:3): apparmor=\"DENIED\" operation=\"open\"",
        "type=SYSCALL msg=audit(1.2:3): arch=c000003e syscall=257 success=no",
        "type=AVC msg=audit(1.2): avc:  denied  { read } for",
        "type=AVC msg=audit(1.2:3): avc:  denied  { read } for pid=1",
        "type=PATH msg=audit(1.2:3): item=0 name=(null) nametype=UNKNOWN",
        "avc:  denied",
    ] {
        assert_eq!(parse_line(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn times() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_764_122_584, "2025-11-26T02:03:04Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(utc(seconds), text);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_end_or_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_line(&line);
    }

    #[test]
    fn a_damaged_line_is_read_without_panic(at in 0..FILE.len(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut line = FILE.as_bytes().to_vec();
        if cut {
            line.truncate(at);
        } else {
            line[at] = byte;
        }
        let _ = parse_line(&line);
    }

    #[test]
    fn a_name_is_read_as_the_kernel_writes_it(name in proptest::collection::vec(1_u8.., 1..60)) {
        // audit_string_contains_control: quotes, and what is no printable ASCII, go to hexadecimal.
        let plain = name.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'"');
        let written = if plain {
            format!("\"{}\"", String::from_utf8(name.clone()).unwrap())
        } else {
            name.iter().map(|byte| format!("{byte:02X}")).collect()
        };
        let denial = avc(&FILE.replace("\"b.img\"", &written)).unwrap();
        prop_assert_eq!(denial.name, Some(name));
        prop_assert_eq!(denial.class, "file");
    }

    #[test]
    fn no_time_is_too_late(seconds in any::<u64>()) {
        prop_assert!(utc(seconds).ends_with('Z'));
    }
}
