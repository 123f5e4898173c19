//! Denials of made-up hosts, explained.

use super::*;
use crate::host::pinned::Identity;
use crate::model::resource::Class;
use crate::observe::audit_record;
use crate::observe::guests::{ConfinedGuest, CurrentLabel, LabelledResource, Owner, Process};
use crate::restore::entry;
use nix::unistd::Pid;

fn context(text: &str) -> Context {
    text.parse().unwrap()
}

fn guest(pid: i32, level: &str, disk: &str, ino: u64) -> ConfinedGuest {
    let context = context(&format!("u:r:svirt_t:{level}"));
    ConfinedGuest {
        name: Some(format!("g{pid}")),
        processes: vec![Process {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(1),
            session: 1,
            started: 1,
            uid: 0,
            context: context.clone(),
            program: "qemu".into(),
        }],
        pid: Pid::from_raw(pid),
        uid: 0,
        context,
        owner: Owner::SvirtExec,
        resources: vec![LabelledResource {
            record: entry::Record {
                path: disk.into(),
                identity: Identity {
                    dev: 1,
                    ino,
                    born: None,
                },
                file_system: None,
                tree: false,
                class: Class::Exclusive,
                set_id: None,
                original: String::new(),
                label: String::new(),
            },
            class: "file",
            now: CurrentLabel::Gone,
        }],
    }
}

fn line(permissions: &str, rest: &str) -> Vec<u8> {
    format!("type=AVC msg=audit(10.5:7): avc:  denied  {{ {permissions} }} for  pid=10 comm=\"qemu\" {rest}")
        .into_bytes()
}

/// Explains lines of a log on a host with guests 10 (c1,c2) and 20 (c3,c4); the policy allows
/// images by type, and nothing else.
fn explained(lines: &[Vec<u8>]) -> Vec<ExplainedDenial> {
    let guests = [
        guest(10, "s0:c1,c2", "/srv/a.img", 131),
        guest(20, "s0:c3,c4", "/srv/b.img", 132),
    ];
    let host = HostFacts {
        guests: &guests,
        allowed: &|source, target, _, _| {
            Some(
                target.type_ == "svirt_image_t"
                    && target.categories().is_subset(&source.categories()),
            )
        },
        boolean: &|name| (name == "virt_use_nfs").then_some(false),
    };
    let records = lines
        .iter()
        .filter_map(|line| audit_record::parse_line(line));
    let ours = |context: &Context| context.type_.starts_with("svirt_");
    explain(name_paths(records), &ours, &host)
}

fn one(permissions: &str, rest: &str) -> ExplainedDenial {
    let mut all = explained(&[line(permissions, rest)]);
    assert_eq!(all.len(), 1, "{rest}");
    all.remove(0)
}

#[test]
fn another_guests_disk_is_named_by_its_inode() {
    let found = one(
        "read",
        r#"name="b.img" dev="vda" ino=132 scontext=u:r:svirt_t:s0:c1,c2 tcontext=u:object_r:svirt_image_t:s0:c3,c4 tclass=file permissive=0"#,
    );
    assert_eq!(found.who, "guest 'g10'");
    assert_eq!(found.path.as_deref(), Some(&b"/srv/b.img"[..]));
    assert_eq!(found.tried, "read '/srv/b.img' (file read)");
    assert_eq!(found.why, Why::Categories);
    assert!(
        found
            .reason
            .contains("the categories of guest 'g20' (process 20)")
    );
    assert!(
        found
            .fix
            .starts_with("nothing: this is what keeps guests apart")
    );
    assert!(found.fix.contains("share-rw=on"));
}

#[test]
fn fixes_by_what_was_denied() {
    let table = [
        // (permissions, object, why, part of the fix)
        (
            "write",
            r#"name="x y" ino=9 tcontext=u:object_r:user_home_t:s0 tclass=file"#,
            Why::Type,
            "name it on its command line",
        ),
        // The guest's own, with another label by now.
        (
            "write",
            r#"path="/srv/a.img" ino=131 tcontext=u:object_r:user_home_t:s0 tclass=file"#,
            Why::Type,
            "chcon -t TYPE -l s0:c1,c2 /srv/a.img",
        ),
        (
            "read",
            r#"path="/net/x" ino=9 tcontext=u:object_r:nfs_t:s0 tclass=file"#,
            Why::Type,
            "has a boolean for that: setsebool -P virt_use_nfs on",
        ),
        (
            "read write",
            r#"path="/dev/bus/usb/1/2" ino=9 tcontext=u:object_r:usb_device_t:s0 tclass=chr_file"#,
            Why::Type,
            "if the policy has the boolean virt_use_usb",
        ),
        (
            "read",
            r#"name="c.img" ino=9 tcontext=u:object_r:svirt_image_t:s0:c8,c9 tclass=file"#,
            Why::Categories,
            "svirt-exec restore",
        ),
        (
            "execmem",
            "tcontext=u:r:svirt_t:s0:c1,c2 tclass=process",
            Why::Type,
            "-accel tcg",
        ),
        (
            "search",
            r#"name="root" ino=9 tcontext=u:object_r:admin_home_t:s0 tclass=dir"#,
            Why::Type,
            "/var/lib/libvirt/images",
        ),
        (
            "read",
            r#"name="a.img" ino=131 tcontext=u:object_r:svirt_image_t:s0:c1,c2 tclass=file"#,
            Why::Past,
            "nothing, if it does not come again",
        ),
        (
            "create",
            "anonclass=[io_uring] tcontext=u:object_r:svirt_t:s0:c1,c2 tclass=anon_inode",
            Why::Type,
            "nothing: QEMU does without (io_uring",
        ),
        (
            "connectto",
            "tcontext=u:r:init_t:s0 tclass=unix_stream_socket",
            Why::Type,
            "its server decides",
        ),
    ];
    for (permissions, object, why, part) in table {
        let found = one(
            permissions,
            &format!("scontext=u:r:svirt_t:s0:c1,c2 {object}"),
        );
        assert_eq!(found.why, why, "{object}");
        assert!(found.fix.contains(part), "{object}: {}", found.fix);
    }
    let own = one(
        "relabelfrom",
        r#"name="x" ino=9 scontext=u:r:svirt_launcher_t:s0 tcontext=u:object_r:shadow_t:s0 tclass=file"#,
    );
    assert_eq!(own.who, "svirt-exec itself");
    assert!(own.fix.contains("semodule -X 200 -i"));
}

/// The module is blamed for none of these: cron's line, and a lock.
#[test]
fn a_file_that_the_caller_had_open_is_no_fault_of_the_module() {
    for (permissions, object) in [
        (
            "append",
            r#"path="/var/log/x.log" ino=9 tcontext=u:object_r:cron_log_t:s0 tclass=file"#,
        ),
        (
            "read write",
            r#"path="/run/lock/vm.lock" ino=9 tcontext=u:object_r:var_lock_t:s0 tclass=file"#,
        ),
    ] {
        let found = one(
            permissions,
            &format!("scontext=u:r:svirt_launcher_t:s0 {object}"),
        );
        assert!(
            found.fix.contains("| cat > FILE") && found.fix.contains("flock -o"),
            "{}",
            found.fix
        );
        assert!(!found.fix.contains("semodule"), "{}", found.fix);
    }
}

#[test]
fn no_command_is_advised_for_a_file_that_an_attacker_may_have_chosen() {
    let source = "scontext=u:r:svirt_t:s0:c1,c2";
    for (permissions, object) in [
        (
            "read",
            r#"path="/home/alice/.ssh/id_rsa" ino=9 tcontext=u:object_r:ssh_home_t:s0 tclass=file"#,
        ),
        // Under the name or the number of its own disk, but not both.
        (
            "read",
            r#"path="/tmp/a.img" ino=9 tcontext=u:object_r:tmp_t:s0 tclass=file"#,
        ),
        (
            "read",
            r#"path="/etc/shadow" ino=131 tcontext=u:object_r:shadow_t:s0 tclass=file"#,
        ),
        (
            "read write",
            r#"path="/dev/vda" ino=9 tcontext=u:object_r:fixed_disk_device_t:s0 tclass=blk_file"#,
        ),
        (
            "read",
            r#"name="c.img" ino=9 tcontext=u:object_r:svirt_image_t:s0:c8,c9 tclass=file"#,
        ),
        (
            "connectto",
            "tcontext=u:r:virtd_t:s0 tclass=unix_stream_socket",
        ),
        (
            "read",
            r#"path="/net/x" ino=9 tcontext=u:object_r:nfs_t:s0 tclass=file"#,
        ),
    ] {
        // Of a guest that runs, and of one that has ended.
        for source in [source, "scontext=u:r:svirt_t:s0:c7,c8"] {
            let found = one(permissions, &format!("{source} {object}"));
            assert!(!found.fix.contains("chcon"), "{object}: {}", found.fix);
            assert!(
                found.fix.contains("may be an attack"),
                "{object}: {}",
                found.fix
            );
        }
    }
    // Its own disk is no attack.
    let own = one(
        "write",
        &format!(
            r#"{source} path="/srv/a.img" ino=131 tcontext=u:object_r:user_home_t:s0 tclass=file"#
        ),
    );
    assert!(!own.fix.contains("attack"), "{}", own.fix);
}

#[test]
fn alike_denials_are_one_and_strangers_are_left_out() {
    let ours = line(
        "read",
        r#"name="x" ino=9 scontext=u:r:svirt_t:s0:c7,c8 tcontext=u:object_r:t:s0 tclass=file"#,
    );
    let theirs = line(
        "read",
        r#"name="x" ino=9 scontext=u:r:httpd_t:s0 tcontext=u:object_r:t:s0 tclass=file"#,
    );
    let found = explained(&[ours.clone(), theirs, ours]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].count, 2);
    assert_eq!(found[0].who, "a guest that has ended");
}

#[test]
fn a_path_record_of_the_same_event_and_inode_names_the_file() {
    let avc = line(
        "read",
        r#"name="x" ino=9 scontext=u:r:svirt_t:s0:c1,c2 tcontext=u:object_r:t:s0 tclass=file"#,
    );
    let path = |serial: u32, inode: u32, name: &str| {
        format!(
            "type=PATH msg=audit(10.5:{serial}): item=0 name=\"{name}\" inode={inode} dev=fe:00"
        )
        .into_bytes()
    };
    let found = explained(&[
        avc,
        path(7, 8, "/srv"),
        path(8, 9, "/other/event"),
        path(7, 9, "/srv/x"),
    ]);
    assert_eq!(found[0].path.as_deref(), Some(&b"/srv/x"[..]));
}

#[test]
fn no_name_of_a_guests_making_reaches_a_terminal() {
    let found = one(
        "write",
        "name=2F1B5B33316D0A78 ino=9 scontext=u:r:svirt_t:s0:c1,c2 tcontext=u:object_r:t:s0 tclass=file",
    );
    for said in [&found.tried, &found.reason, &found.fix, &found.who] {
        assert!(!said.chars().any(char::is_control), "{said}");
    }
    assert!(found.tried.contains(r"/\u{1b}[31m\nx"));
}

#[test]
fn without_a_policy_the_labels_say_why() {
    let host = HostFacts {
        guests: &[],
        allowed: &|_, _, _, _| None,
        boolean: &|_| None,
    };
    for (target, why) in [
        ("u:object_r:svirt_image_t:s0:c3,c4", Why::Categories),
        ("u:object_r:user_home_t:s0", Why::Type),
    ] {
        let text = line(
            "read",
            &format!("name=\"x\" scontext=u:r:svirt_t:s0:c1,c2 tcontext={target} tclass=file"),
        );
        let found = explain(
            name_paths(audit_record::parse_line(&text)),
            &|_| true,
            &host,
        );
        assert_eq!(found[0].why, why);
        assert!(is_meant(&found[0], "10", &host));
        assert!(!is_meant(&found[0], "11", &host));
    }
}
