//! The documents that programs and people read, held to the byte: `tests/data/golden`.
//!
//! `GOLDEN=write cargo test golden` writes them anew. Fields are only ever added.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::unistd::Pid;

use crate::host::pinned::{Identity, Kind};
use crate::host::runtime_dir;
use crate::launch::attach;
use crate::model::label::Context;
use crate::model::resource::{Access, Class, HostDevice, Origin, PciAddress, Vfio};
use crate::observe::audit_record::{Denial, Stamp};
use crate::observe::denial_facts::{ExplainedDenial, Why};
use crate::observe::denials_report;
use crate::observe::doctor::check::Check;
use crate::observe::doctor::report as doctor_report;
use crate::observe::guests::{ConfinedGuest, CurrentLabel, LabelledResource, Owner, Process, View};
use crate::observe::list;
use crate::observe::verify_facts::{Cell, Finding, GuestFacts, Judgement};
use crate::observe::verify_report;
use crate::plan::step::{Action, Plan, Step};
use crate::plan::{self, report};
use crate::restore::entry::{JournalEntry, Record};
use crate::restore::journal::Journal;
use crate::restore::running_guest;
use crate::seclabel::domain::{Accelerator, GuestTypes};
use crate::seclabel::labels::GuestLabels;

fn kept(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/golden", name]
        .iter()
        .collect()
}

/// Compares a document with the one that is kept, or writes that.
fn hold(name: &str, text: &str) {
    let path = kept(name);
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, kept, "{name}");
}

fn context(text: &str) -> Context {
    text.parse().unwrap()
}

/// A path that is no text, so that every document has to say it in hexadecimal.
fn odd_path() -> PathBuf {
    OsStr::from_bytes(b"/srv/odd \xff.img").into()
}

fn record(path: PathBuf, class: Class, label: &str) -> Record {
    Record {
        path,
        identity: Identity {
            dev: 64769,
            ino: 1311,
            born: Some(1_700_000_000_123_456_789),
        },
        file_system: Some(77),
        tree: class == Class::Shared,
        class,
        set_id: (class != Class::Content).then_some(0),
        original: "unconfined_u:object_r:user_home_t:s0".to_owned(),
        label: format!("system_u:object_r:{label}"),
    }
}

fn entry() -> JournalEntry {
    let mut entry = JournalEntry::new(
        "web".to_owned(),
        4242,
        990_017,
        "0f7a3c52-6c1e-4ad0-9a75-77d7a9f00f21".to_owned(),
        "system_u:system_r:svirt_t:s0:c7,c900".to_owned(),
    );
    entry.runtime = Some(runtime_dir::Directory::new(Some("web"), None, None).unwrap());
    entry.records = vec![
        record(
            "/srv/web.qcow2".into(),
            Class::Exclusive,
            "svirt_image_t:s0:c7,c900",
        ),
        record(odd_path(), Class::Content, "virt_content_t:s0"),
        record("/srv/shared".into(), Class::Shared, "svirt_image_t:s0"),
    ];
    entry
}

fn step(path: Option<PathBuf>, class: Class, action: Action) -> Step {
    Step {
        resource: plan::Resource {
            fd: path.is_none().then_some(9),
            host: None,
            class,
            access: Access::Write,
            origin: Origin::Word {
                word: 3,
                option: "-drive".into(),
                key: "file".to_owned(),
            },
            reason: "writable disk",
            mapped: false,
            required: true,
            template: false,
            handed_over: false,
            kind: Kind::File,
            pinned: None,
            current: Some(context("unconfined_u:object_r:user_home_t:s0")),
            path,
        },
        class,
        label: (class != Class::Keep)
            .then(|| context("system_u:object_r:svirt_image_t:s0:c7,c900")),
        action,
        reason: "writable disk".to_owned(),
        fixed: None,
    }
}

fn plan() -> Plan {
    let types = GuestTypes {
        domain: context("system_u:system_r:svirt_t:s0"),
        image: context("system_u:object_r:svirt_image_t:s0"),
        content: context("system_u:object_r:virt_content_t:s0"),
    };
    let mut backing = step(
        Some("/srv/base.img".into()),
        Class::Content,
        Action::Relabel,
    );
    backing.resource.origin = Origin::BackingOf {
        backing_of: "/srv/web.qcow2".into(),
    };
    let mut device = step(None, Class::Exclusive, Action::None);
    device.resource.fd = None;
    device.resource.host = Some(HostDevice::VfioPci {
        address: PciAddress::parse(b"3b:00.0").unwrap(),
        how: Vfio::Group,
    });
    Plan {
        program: "/usr/bin/qemu-system-x86_64".into(),
        accelerator: Accelerator::Kvm,
        labels: Some(GuestLabels::new(&types, "s0:c7,c900".parse().unwrap())),
        becomes: None,
        chroots: false,
        runtime: Some("/run/svirt-exec/web".into()),
        steps: vec![
            step(
                Some("/srv/web.qcow2".into()),
                Class::Exclusive,
                Action::Relabel,
            ),
            backing,
            step(Some(odd_path()), Class::Exclusive, Action::Create),
            step(None, Class::Keep, Action::None),
            device,
        ],
        notes: vec!["a note".into()],
        warnings: vec!["a warning".into()],
        errors: vec!["an error".into()],
        obstacles: vec!["an obstacle".into()],
    }
}

fn guest(pid: i32, name: Option<&str>, level: &str) -> ConfinedGuest {
    let context = context(&format!("system_u:system_r:svirt_t:{level}"));
    ConfinedGuest {
        name: name.map(ToOwned::to_owned),
        processes: vec![Process {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(1),
            session: pid,
            started: 990_017,
            // No user of this number: its name is not the host's to tell.
            uid: 3_999_999_999,
            context: context.clone(),
            program: "qemu-system-x86_64".into(),
        }],
        pid: Pid::from_raw(pid),
        uid: 3_999_999_999,
        context,
        owner: Owner::SvirtExec,
        resources: entry()
            .records
            .into_iter()
            .map(|record| LabelledResource {
                now: match record.class {
                    Class::Exclusive => {
                        CurrentLabel::Label(Box::new(record.label.parse().unwrap()))
                    }
                    _ => CurrentLabel::Gone,
                },
                class: "file",
                record,
            })
            .collect(),
    }
}

#[test]
fn golden_plan() {
    hold("plan.json", &report::json(&plan()).unwrap());
    hold("plan.txt", &report::text(&plan()));
}

#[test]
fn golden_list() {
    let view = View {
        guests: vec![
            guest(4242, Some("web"), "s0:c7,c900"),
            guest(4300, None, "s0:c1,c2"),
        ],
        hidden: 2,
        ..View::default()
    };
    hold("list.json", &list::json(&view).unwrap());
    hold("list.txt", &list::text(&view));
}

#[test]
fn golden_verify() {
    let facts = |pid, level| GuestFacts {
        guest: guest(pid, Some("web"), level),
        open: Vec::new(),
        unread: Vec::new(),
    };
    let all = [facts(4242, "s0:c7,c900"), facts(4300, "s0:c1,c2")];
    let verdict = Judgement {
        findings: vec![
            Finding {
                guest: Some("'web'".to_owned()),
                pid: Some(4242),
                problem: "a problem".to_owned(),
                fix: "a fix".to_owned(),
            },
            Finding {
                guest: None,
                pid: None,
                problem: "the host's problem".to_owned(),
                fix: "its fix".to_owned(),
            },
        ],
        matrix: vec![vec![Cell::Own, Cell::Read], vec![Cell::Shared, Cell::Own]],
    };
    hold("verify.json", &verify_report::json(&all, &verdict).unwrap());
    hold("verify.txt", &verify_report::text(&all, &verdict));
    let lines: Vec<String> = verdict.findings.iter().map(verify_report::line).collect();
    hold("verify-lines.txt", &lines.join("\n"));
}

#[test]
fn golden_denials() {
    let explained = ExplainedDenial {
        last: Stamp {
            seconds: 1_764_122_584,
            millis: 5,
            serial: 9,
        },
        count: 3,
        denial: Denial {
            permissions: vec!["read".to_owned(), "write".to_owned()],
            pid: Some(4242),
            comm: b"qemu-system-x86".to_vec(),
            name: Some(b"odd \xff.img".to_vec()),
            is_path: false,
            device: Some("vda1".to_owned()),
            inode: Some(1311),
            source: context("system_u:system_r:svirt_t:s0:c7,c900"),
            target: context("system_u:object_r:svirt_image_t:s0:c1,c2"),
            class: "file".to_owned(),
            permissive: false,
        },
        who: "guest 'web'".to_owned(),
        path: Some(odd_path().as_os_str().as_bytes().to_vec()),
        why: Why::Categories,
        tried: "read it".to_owned(),
        reason: "it is another's".to_owned(),
        fix: "nothing".to_owned(),
    };
    let all = [explained];
    hold("denials.json", &denials_report::json(&all).unwrap());
    hold("denials.txt", &denials_report::text(&all));
}

#[test]
fn golden_doctor() {
    let checks = [
        Check::well("selinux", "on, enforcing"),
        Check::bad("proc", "hidden", "mount it; or not"),
    ];
    hold("doctor.json", &doctor_report::json(&checks).unwrap());
    hold("doctor.txt", &doctor_report::text(&checks));
}

#[test]
fn golden_attach_and_detach() {
    let guest = running_guest::RunningGuest {
        name: "web".to_owned(),
        pid: Pid::from_raw(4242),
        started: 990_017,
        context: context("system_u:system_r:svirt_t:s0:c7,c900"),
    };
    let steps = [
        step(Some(odd_path()), Class::Exclusive, Action::Relabel),
        step(Some("/srv/cd.iso".into()), Class::Keep, Action::None),
    ];
    hold(
        "attach.json",
        &attach::attached_json(&guest, &steps).unwrap(),
    );
    let left = ["a line".to_owned()];
    let paths = [odd_path(), "/srv/cd.iso".into()];
    hold(
        "detach.json",
        &attach::detached_json(&guest, &paths, &left).unwrap(),
    );
}

/// An entry that an earlier version wrote is read, and written as that wrote it.
#[test]
fn golden_journal_entry() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::at(directory.path()).unwrap();
    let path = journal.write(&entry()).unwrap();
    assert_eq!(path.file_name(), Some(OsStr::new("4242-990017.json")));
    hold(
        "journal-entry.json",
        &std::fs::read_to_string(&path).unwrap(),
    );
    let kept = kept("journal-entry.json");
    let journal = Journal::at(kept.parent().unwrap()).unwrap();
    assert_eq!(journal.read(&kept).unwrap(), entry());
}
