//! The tables of libvirt's own label tests, row by row, as lines that libvirt would give QEMU:
//! tests/securityselinuxtest.c (which labels a guest gets) and tests/securityselinuxlabeldata
//! (disks, kernel, chardev, nfs: which label each file gets). Where the plan differs from libvirt,
//! the row says so, and why.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it stands"
)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use svirt_exec::host::pinned::{self, Kind, Pinned};
use svirt_exec::host::sysfs::SysRoot;
use svirt_exec::host::{Files, Policy, ProcessLook, Processes, VirtualContexts};
use svirt_exec::model::label::{Context, Level};
use svirt_exec::plan::CollectContext;
use svirt_exec::plan::collect;
use svirt_exec::plan::preflight;
use svirt_exec::plan::{self, Decision, Plan, Relabel, Running};
use svirt_exec::qemu::{self, Environment};
use svirt_exec::seclabel::domain::{self, Accelerator};
use svirt_exec::seclabel::labels::GuestLabels;
use svirt_exec::seclabel::mcs;
use svirt_exec::selinux::Mode;

/// Of every file before the launch.
const BEFORE: &str = "system_u:object_r:virt_image_t:s0";

/// Below this, file systems have no labels of their own: every file has this one, as on NFS.
const NFS: (&str, &str) = ("nfs", "system_u:object_r:nfs_t:s0");

/// A host with Fedora's files for virtual machines and a policy of a few rules. Its root is a
/// directory; its processes are nobody.
struct Fake {
    root: PathBuf,
    own: Context,
    /// `virt_use_nfs`
    nfs: bool,
}

fn context(text: &str) -> Context {
    text.parse().unwrap()
}

impl Files for Fake {
    fn pin(&self, path: &Path) -> io::Result<Pinned> {
        let mut pinned = pinned::pin(&self.root.join(path.strip_prefix("/").unwrap()))?;
        // No test may make device nodes.
        if path.extension() == Some(OsStr::new("dev")) {
            pinned.kind = Kind::Char;
        }
        Ok(pinned)
    }

    fn open(&self, pinned: &Pinned) -> io::Result<File> {
        File::open(pinned.proc_path())
    }

    fn label_of(&self, pinned: &Pinned) -> io::Result<Option<Context>> {
        let (directory, label) = NFS;
        let nfs = pinned.path.starts_with(self.root.join(directory));
        Ok(Some(context(if nfs { label } else { BEFORE })))
    }
}

impl Policy for Fake {
    fn mode(&self) -> Mode {
        Mode::Enforcing
    }

    fn own_context(&self) -> io::Result<Context> {
        Ok(self.own.clone())
    }

    fn denied<'p>(
        &self,
        source: &Context,
        target: &Context,
        class: &str,
        permissions: &[&'p str],
    ) -> io::Result<Vec<&'p str>> {
        let guest = ["svirt_t", "svirt_tcg_t"].contains(&source.type_.as_str());
        let allowed = |permission: &str| match (target.type_.as_str(), class) {
            _ if !guest => false,
            ("svirt_tcg_t", "process") => permission == "execmem",
            // The directories on the way.
            (_, "dir") => permission == "search",
            ("svirt_image_t", _) => target.categories().is_subset(&source.categories()),
            ("virt_content_t", _) => permission != "write",
            ("nfs_t", _) => self.nfs,
            _ => false,
        };
        Ok(permissions
            .iter()
            .copied()
            .filter(|permission| !allowed(permission))
            .collect())
    }

    fn label_of_new(&self, _: &Context, _: &Context, _: Kind, _: &OsStr) -> io::Result<Context> {
        Ok(context(BEFORE))
    }

    fn is_valid(&self, _: &Context) -> bool {
        true
    }

    fn virtual_contexts(&self) -> io::Result<VirtualContexts> {
        // tests/securityselinuxhelperdata
        let contexts = |lines: [&str; 2]| lines.map(context).to_vec();
        Ok(VirtualContexts {
            domains: contexts([
                "system_u:system_r:svirt_t:s0",
                "system_u:system_r:svirt_tcg_t:s0",
            ]),
            images: contexts([
                "system_u:object_r:svirt_image_t:s0",
                "system_u:object_r:virt_content_t:s0",
            ]),
        })
    }
}

impl Processes for Fake {
    fn look(&self) -> io::Result<ProcessLook> {
        Ok(ProcessLook {
            is_complete: true,
            ..ProcessLook::default()
        })
    }

    fn claim(&self, _: &Context) -> io::Result<()> {
        Ok(())
    }
}

fn fake(root: &Path, own: &str) -> Fake {
    Fake {
        root: root.to_path_buf(),
        own: context(own),
        nfs: true,
    }
}

/// DO_TEST_GEN_LABEL: the caller, then user, role, sensitivity and highest category of the guest.
/// The type of its image is svirt_image_t, its role object_r, all else as of the process.
const GENERATED: [(&str, &str, &str, &str, u16); 7] = [
    (
        "unconfined_u:unconfined_r:unconfined_t:s0",
        "unconfined_u",
        "unconfined_r",
        "s0",
        1023,
    ),
    (
        "unconfined_u:unconfined_r:unconfined_t:s0-s0",
        "unconfined_u",
        "unconfined_r",
        "s0",
        1023,
    ),
    (
        "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023",
        "unconfined_u",
        "unconfined_r",
        "s0",
        1023,
    ),
    (
        "system_u:system_r:virtd_t:s0-s0:c0.c1023",
        "system_u",
        "system_r",
        "s0",
        1023,
    ),
    (
        "system_u:system_r:virtd_t:s0-s0:c0.c10",
        "system_u",
        "system_r",
        "s0",
        10,
    ),
    // An MLS policy: the low sensitivity is kept.
    (
        "system_u:system_r:virtd_t:s2-s3:c0.c1023",
        "system_u",
        "system_r",
        "s2",
        1023,
    ),
    // A context without a level. libvirt gives its guests one all the same, as if the caller had
    // s0; so does this program.
    (
        "system_u:system_r:virtd_t",
        "system_u",
        "system_r",
        "s0",
        1023,
    ),
];

#[test]
fn labels_are_generated_as_libvirt_generates_them() {
    let root = tempfile::tempdir().unwrap();
    for (own, user, role, sensitivity, highest) in GENERATED {
        let host = fake(root.path(), own);
        let types = domain::guest_types(&host, &host.own, Accelerator::Kvm, None).unwrap();
        let range = mcs::range(&host.own, None).unwrap();
        for _ in 0..50 {
            let claim = mcs::claim(&host, &types.domain, &range, &[]).unwrap();
            let level = Level {
                sensitivity: claim.context.sensitivity().to_owned(),
                categories: claim.context.categories(),
            };
            let labels = GuestLabels::new(&types, level.clone());
            assert_eq!(labels.process, claim.context, "{own}");
            assert_eq!(
                labels.process.to_string(),
                format!("{user}:{role}:svirt_t:{level}"),
                "{own}"
            );
            assert_eq!(
                labels.image.to_string(),
                format!("{user}:object_r:svirt_image_t:{level}"),
                "{own}"
            );
            assert_eq!(level.sensitivity, sensitivity, "{own}");
            // libvirt's test would take one category too; since CVE-2021-3631 it is always two.
            let categories: Vec<u16> = level.categories.iter().map(|c| c.number()).collect();
            assert_eq!(categories.len(), 2, "{own}: {level}");
            assert!(categories[1] <= highest, "{own}: {level}");
        }
    }
}

/// What libvirt cannot generate a label for (virSecuritySELinuxMCSGetProcessRange), and what this
/// program does instead.
#[test]
fn clearances_that_libvirt_cannot_read_are_read() {
    for (own, want) in [
        // "No category range available", "Cannot parse category": one and two categories are too
        // few here as well.
        ("u:r:t:s0:c5", None),
        ("u:r:t:s0:c1,c2", None),
        ("u:r:t:s0-s0:c0.c6", None),
        // libvirt ignores what follows the first run.
        ("u:r:t:s0-s0:c0.c10,c20", Some("c0.c10,c20")),
        (
            "u:r:t:s0-s0:c0,c2,c4,c6,c8,c10,c12,c14",
            Some("c0,c2,c4,c6,c8,c10,c12,c14"),
        ),
        // Categories on the low level.
        ("u:r:t:s0:c0-s0:c0.c1023", Some("c0.c1023")),
    ] {
        let range = mcs::range(&context(own), None).ok();
        assert_eq!(
            range.map(|range| range.to_string()).as_deref(),
            want,
            "{own}"
        );
    }
}

/// What the guest of libvirt's label data runs as.
const GUEST: &str = "system_u:system_r:svirt_t:s0:c41,c264";

const IMAGE: &str = "system_u:object_r:svirt_image_t:s0:c41,c264";
const SHARED: &str = "system_u:object_r:svirt_image_t:s0";
const CONTENT: &str = "system_u:object_r:virt_content_t:s0";

/// The plan for a line in a root, with the guest's level stated as in libvirt's XML.
fn planned(host: &Fake, args: &[&str], relabel: Relabel) -> Plan {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let environment = Environment::default();
    let program = OsStr::new("qemu-system-x86_64");
    let invocation = qemu::parse(program, &args, &BTreeMap::new(), &environment);
    assert!(invocation.errors.is_empty(), "{:?}", invocation.errors);
    let around = CollectContext {
        cwd: Path::new("/"),
        program: Path::new("/usr/bin/qemu-system-x86_64"),
        data_dirs: &[],
        system: &SysRoot::root(&host.root),
    };
    let collected = collect::collect(host, invocation.requests, &[], &around);
    let types = domain::guest_types(host, &host.own, Accelerator::Kvm, None).unwrap();
    let level = context(GUEST).range.unwrap().low;
    let labels = GuestLabels::new(&types, level);
    assert_eq!(labels.process.to_string(), GUEST);
    let Decision {
        steps,
        warnings,
        errors,
        obstacles,
    } = plan::decide(
        host,
        collected,
        Some(&labels),
        relabel,
        &Running {
            processes: &[],
            name_of: &|_| None,
        },
    );
    Plan {
        becomes: None,
        chroots: false,
        runtime: None,
        program: PathBuf::from(program),
        accelerator: Accelerator::Kvm,
        labels: Some(labels),
        steps,
        notes: Vec::new(),
        warnings,
        errors,
        obstacles,
    }
}

/// The label that a path gets; empty where it keeps its own, as in libvirt's tables.
fn label(plan: &Plan, path: &str) -> String {
    let step = plan
        .steps
        .iter()
        .find(|step| step.resource.path.as_deref() == Some(Path::new(path)))
        .unwrap_or_else(|| panic!("{path} is not in the plan"));
    step.label
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn check(plan: &Plan, rows: &[(&str, &str)]) {
    assert!(plan.errors.is_empty(), "{:?}", plan.errors);
    assert!(plan.obstacles.is_empty(), "{:?}", plan.obstacles);
    for (path, want) in rows {
        assert_eq!(label(plan, path), *want, "{path}");
    }
}

/// A root with these files, empty each.
fn root(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match path.extension().and_then(OsStr::to_str) {
            Some("sock") => drop(UnixListener::bind(&path).unwrap()),
            Some("fifo") => {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            }
            _ => fs::write(&path, []).unwrap(),
        }
    }
    root
}

fn virtd(root: &tempfile::TempDir) -> Fake {
    fake(root.path(), "system_u:system_r:virtd_t:s0-s0:c0.c1023")
}

#[test]
fn disks() {
    let files = [
        "/plain.raw",
        "/shared.raw",
        "/readonly.raw",
        "/nolabel.raw",
        "/altlabel.raw",
    ];
    let root = root(&files);
    let host = virtd(&root);
    let drives = [
        "-drive",
        "file=/plain.raw,format=raw,if=none,id=a",
        "-device",
        "virtio-blk-pci,drive=a",
        "-drive",
        "file=/shared.raw,format=raw,if=none,id=b",
        "-device",
        "virtio-blk-pci,drive=b,share-rw=on",
        "-drive",
        "file=/readonly.raw,format=raw,if=none,id=c,readonly=on",
        "-device",
        "virtio-blk-pci,drive=c",
    ];
    check(
        &planned(&host, &drives, Relabel::Yes),
        &[
            ("/plain.raw", IMAGE),
            ("/shared.raw", SHARED),
            ("/readonly.raw", CONTENT),
        ],
    );
    // Differs: a QEMU line has no label of its own for one disk. What is not to be labelled is
    // so for the whole guest (--no-relabel), ...
    let drive = ["-drive", "file=/nolabel.raw,format=raw"];
    check(
        &planned(&host, &drive, Relabel::No),
        &[("/nolabel.raw", "")],
    );
    // ... and a disk with another type gets the image type: what a guest may use is what the
    // policy's own files say, and the label that it had comes back.
    let drive = ["-drive", "file=/altlabel.raw,format=raw"];
    check(
        &planned(&host, &drive, Relabel::Yes),
        &[("/altlabel.raw", IMAGE)],
    );
}

#[test]
fn kernel() {
    let root = root(&["/vmlinuz.raw", "/initrd.raw"]);
    let line = ["-kernel", "/vmlinuz.raw", "-initrd", "/initrd.raw"];
    check(
        &planned(&virtd(&root), &line, Relabel::Yes),
        &[("/vmlinuz.raw", CONTENT), ("/initrd.raw", CONTENT)],
    );
}

#[test]
fn chardev() {
    let files = [
        "/plain.txt",
        "/plain.fifo",
        "/plain.dev",
        "/nolabel.sock",
        "/yeslabel.sock",
        "/altlabel.sock",
    ];
    let root = root(&files);
    let line = [
        "-serial",
        "file:/plain.txt",
        "-serial",
        "pipe:/plain.fifo",
        "-chardev",
        "serial,id=dev,path=/plain.dev",
        "-chardev",
        "socket,id=bind,path=/plain.sock,server=on,wait=off",
        "-chardev",
        "socket,id=no,path=/nolabel.sock",
        "-chardev",
        "socket,id=yes,path=/yeslabel.sock",
        "-chardev",
        "socket,id=alt,path=/altlabel.sock",
    ];
    check(
        &planned(&virtd(&root), &line, Relabel::Yes),
        &[
            ("/plain.txt", IMAGE),
            ("/plain.fifo", IMAGE),
            ("/plain.dev", IMAGE),
            // QEMU makes it; nothing is there to be labelled.
            ("/plain.sock", ""),
            ("/nolabel.sock", ""),
            // Differs: a socket that somebody else serves keeps its label. Other clients use it
            // too, and who may connect is decided by the server's label, not by the socket's.
            ("/yeslabel.sock", ""),
            ("/altlabel.sock", ""),
        ],
    );
}

#[test]
fn nfs() {
    // libvirt goes on wherever the label cannot be set (EOPNOTSUPP).
    let root = root(&["/nfs/plain.raw"]);
    let line = ["-drive", "file=/nfs/plain.raw,format=raw"];
    for nfs in [true, false] {
        let host = Fake {
            nfs,
            ..virtd(&root)
        };
        let plan = planned(&host, &line, Relabel::Yes);
        // The label is tried, as by libvirt.
        check(&plan, &[("/nfs/plain.raw", IMAGE)]);
        // Differs: when it cannot be set, the launch goes on only where the policy lets the guest
        // use the file as it is (virt_use_nfs); libvirt starts a guest that cannot open its disk.
        assert_eq!(
            preflight::usable_as_it_is(&host, &plan, &plan.steps[0]).unwrap(),
            nfs
        );
    }
}
