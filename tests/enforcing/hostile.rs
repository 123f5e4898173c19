//! Launchers and guests that somebody has taken over: what they try is denied by the kernel. The
//! tables are those of SECURITY.md.

mod acts;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::lib::*;

/// The stub, labelled as svirt-exec is: it runs in the launcher's domain.
const LAUNCHER_STUB: &str = "/usr/local/bin/launcher-stub";

/// An act is refused: it is not done, and not for a reason of this test's own (a missing file).
fn is_refusal(answer: &str) -> bool {
    ["Permission denied", "Operation not permitted"]
        .iter()
        .any(|why| answer.contains(why))
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_launcher_that_was_taken_over_is_denied() {
    let _policy = Talkative::load();
    let directory = directory();
    let bare = image(directory.path(), "bare.img");
    let (bare, bare_label) = (bare.to_str().unwrap().to_owned(), label(&bare));
    let taken = image(directory.path(), "taken.img");
    let guest = Guest::stub(&taken);
    let taken = taken.to_str().unwrap();
    let taken_label = label(Path::new(taken));
    let pid = guest.child.id();
    let keeper = keepers_of(&guest).first().unwrap().clone();
    fs::create_dir_all("/root/.ssh").unwrap();
    fs::write("/root/.ssh/authorized_keys", "").unwrap();
    run(&["restorecon", "-RF", "/root/.ssh"]);

    let mut launcher = Hostile::start(Command::new(LAUNCHER_STUB));
    let own = launcher.label();
    assert!(own.contains(":svirt_launcher_t:"), "{own}");
    let acts = acts::of_a_launcher(&acts::Launcher {
        label: &own,
        bare: &bare,
        taken,
        guest: pid,
        keeper: &keeper,
        directory: directory.path(),
    });
    let answers: Vec<String> = acts.iter().map(|(act, ..)| launcher.tries(act)).collect();
    let log = denials(&["comm=\"launcher-stub\"", ":svirt_launcher_t:"]);
    let mut wrong = Vec::new();
    for ((act, class, permission), answer) in acts.iter().zip(&answers) {
        let logged = log.iter().any(|line| {
            let permissions = line.split(['{', '}']).nth(1).unwrap_or_default();
            line.ends_with(&format!("tclass={class} permissive=0"))
                && permissions.split(' ').any(|one| one == *permission)
        });
        println!("{act}: {answer}; {class} {permission} logged: {logged}");
        if !is_refusal(answer) || !logged {
            wrong.push(format!("{act}: {answer}, logged: {logged}"));
        }
    }
    assert_eq!(label(Path::new(&bare)), bare_label);
    assert_eq!(label(Path::new(taken)), taken_label);
    assert_eq!(process_label(pid), guest.label());
    launcher.ends();
    guest.end();
    let _ = fs::remove_file("/root/.ssh/authorized_keys");
    assert!(
        wrong.is_empty(),
        "{}\n\n{}",
        wrong.join("\n"),
        log.join("\n")
    );
    assert_eq!(
        acts.len(),
        stated_acts("hostile::a_launcher_that_was_taken_over_is_denied")
    );
}

#[test]
#[ignore = "needs the bed: make test"]
fn forks_of_the_launcher_that_were_taken_over_are_denied() {
    let directory = directory();
    let bare = image(directory.path(), "bare.img");
    let bare_label = label(&bare);
    let bare = bare.to_str().unwrap();
    let new = directory.path().join("new");
    let new = new.to_str().unwrap();
    for (domain, may_open) in [
        ("svirt_launcher_reader_t", true),
        ("svirt_launcher_probe_t", false),
    ] {
        let mut fork = Hostile::start(Command::new(LAUNCHER_STUB));
        let launcher = fork.label();
        let own = launcher.replace("svirt_launcher_t", domain);
        let mut tries = |act: &str| fork.tries(&format!("as {own} {act}"));
        assert_eq!(tries("here"), "ok", "it gets to {domain}");
        let mut wrong = Vec::new();
        for act in acts::of_a_fork(&launcher, bare, new) {
            let answer = tries(&act);
            println!("{domain}: {act}: {answer}");
            if !is_refusal(&answer) {
                wrong.push(format!("{domain}: {act}: {answer}"));
            }
        }
        for file in [bare, "/etc/passwd", "/usr/share/qemu/kvmvapic.bin"] {
            let opened = tries(&format!("read {file}"));
            assert_eq!(opened == "ok", may_open, "{domain}: {file}: {opened}");
        }
        fork.ends();
        assert_eq!(label(Path::new(bare)), bare_label);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// Starts the stub that makes what others would want. Returns what it has: its name, and whether the
/// stub could make it.
fn has_what_others_want(mut command: Command) -> (Child, BTreeMap<String, (String, bool)>) {
    let mut child = command
        .env("STUB", "victim")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let hear = BufReader::new(child.stdout.take().unwrap());
    let mut has = BTreeMap::new();
    for line in hear.lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ready", _] => return (child, has),
            [what, which, made] => has.insert(what.to_owned(), (which.to_owned(), made == "true")),
            _ => panic!("{line}"),
        };
    }
    panic!("it ended: {:?}", child.wait());
}

/// A drive of the host's that no guest was given.
struct Removable(String);

impl Removable {
    fn new(backing: &Path) -> Self {
        let device = run(&["losetup", "--find", "--show", backing.to_str().unwrap()]);
        let device = device.trim().to_owned();
        chcon(&["-t", "removable_device_t"], Path::new(&device));
        Self(device)
    }

    fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Removable {
    fn drop(&mut self) {
        chcon(&["-t", "fixed_disk_device_t"], Path::new(&self.0));
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn what_a_guest_made_setuid_nobody_executes_and_it_is_setuid_no_more_afterwards() {
    let directory = directory();
    let (disk, tree) = (
        directory.path().join("disk.img"),
        directory.path().join("tree"),
    );
    let at = |name: &str| tree.join(name);
    fs::create_dir(&tree).unwrap();
    for file in [&disk, &at("theirs"), &at("program")] {
        fs::copy("/usr/bin/true", file).unwrap();
        set_mode(file, 0o755);
    }
    // In a tree that is a system of its own.
    set_mode(&at("program"), 0o4755);
    assert!(Command::new(&disk).status().unwrap().success());
    let before = labels(&[disk.clone(), at("theirs"), at("program")]);

    let mut command = svirt_exec(["--label-tree".as_ref(), tree.as_os_str(), STUB.as_ref()]);
    let share = format!(
        "local,path={},mount_tag=x,security_model=none",
        tree.display()
    );
    command.args(["-virtfs", &share, "-drive"]);
    command.arg(format!("file={},format=raw", disk.display()));
    let mut guest = Hostile::start(command);
    // What 9p shares are for goes on.
    for act in [
        format!("make {}", at("made").display()),
        format!("attribute {}", at("made").display()),
        format!("mode {} 6755", at("made").display()),
        format!("mode {} 4755", at("theirs").display()),
        format!("mode {} 6755", disk.display()),
    ] {
        assert_eq!(guest.tries(&act), "ok", "{act}");
    }
    assert_eq!(mode(&disk), 0o6755);
    for program in [&disk, &at("theirs"), &at("made")] {
        let error = Command::new(program).status().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{program:?}");
    }
    guest.ends();
    keepers_done();
    assert_eq!(labels(&[disk.clone(), at("theirs"), at("program")]), before);
    let modes = [&disk, &at("theirs"), &at("made"), &at("program")].map(|file| mode(file));
    assert_eq!(
        modes.map(|mode| format!("{mode:o}")),
        ["755", "755", "755", "4755"]
    );
    assert!(Command::new(&disk).status().unwrap().success());

    // And it is said, where somebody listens.
    let guest = Guest::stub(&disk);
    set_mode(&disk, 0o4755);
    abandon(guest);
    let output = svirt_exec(["restore"]).output().unwrap();
    let said = stderr(&output);
    assert!(
        said.contains("disk.img' setuid, which it is no more"),
        "{output:?}"
    );
    assert_eq!((output.status.code(), mode(&disk)), (Some(0), 0o755));
    assert_eq!(label(&disk), before[0]);
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_that_was_taken_over_is_denied() {
    are_denied(&GuestsOf {
        user: "root",
        domain: "svirt_prot_exec_t",
        stated: "a_guest_that_was_taken_over_is_denied",
    });
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_guest_of_kvms_that_was_taken_over_is_denied() {
    are_denied(&GuestsOf {
        user: "root",
        domain: "svirt_t",
        stated: "a_guest_of_kvms_that_was_taken_over_is_denied",
    });
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_users_guest_that_was_taken_over_is_denied() {
    are_denied(&GuestsOf {
        user: "alice",
        domain: "svirt_prot_exec_t",
        stated: "a_users_guest_that_was_taken_over_is_denied",
    });
}

#[test]
#[ignore = "needs the bed: make test"]
fn a_users_guest_of_kvms_that_was_taken_over_is_denied() {
    are_denied(&GuestsOf {
        user: "alice",
        domain: "svirt_t",
        stated: "a_users_guest_of_kvms_that_was_taken_over_is_denied",
    });
}

/// Two guests of one user, in the domain for TCG or in that for KVM.
struct GuestsOf {
    user: &'static str,
    domain: &'static str,
    /// The test that states in SECURITY.md how many acts these are.
    stated: &'static str,
}

impl GuestsOf {
    fn is_root(&self) -> bool {
        self.user == "root"
    }

    /// A launch of the stub. Without KVM its domain has to be asked for, and the level with it.
    fn launch(&self, name: &str, pair: &str, disk: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", self.user, "--regid", self.user, "--clear-groups"])
            .args([SVIRT_EXEC, "--runtime-dir", "--name", name])
            .current_dir("/");
        if self.domain == "svirt_t" {
            let label = format!("unconfined_u:unconfined_r:svirt_t:s0:{pair}");
            command.args(["--label", &label]);
        }
        command.args([STUB, "-hda"]).arg(disk);
        command
    }

    /// Where its guests' directories are.
    fn runtime(&self) -> String {
        match self.user {
            "root" => "/run/svirt-exec".to_owned(),
            user => format!("/run/svirt-exec/users/{}", run(&["id", "-u", user]).trim()),
        }
    }

    fn journal(&self) -> String {
        match self.user {
            "root" => GUESTS.to_owned(),
            user => format!("{STATE}/users/{}", run(&["id", "-u", user]).trim()),
        }
    }

    /// A directory of the user's own, that everybody may enter.
    fn directory(&self) -> tempfile::TempDir {
        let home = if self.is_root() {
            "/root"
        } else {
            "/home/alice"
        };
        let made = tempfile::Builder::new()
            .prefix("svirt-")
            .tempdir_in(home)
            .unwrap();
        set_mode(made.path(), 0o755);
        made
    }

    fn image(&self, directory: &Path, name: &str) -> PathBuf {
        let image = image(directory, name);
        run(&["chown", self.user, image.to_str().unwrap()]);
        image
    }
}

/// Has a guest try everything on another one of the same user, and on the host.
fn are_denied(who: &GuestsOf) {
    run(&["chmod", "755", "/home/alice"]);
    let directory = who.directory();
    let disk = who.image(directory.path(), "theirs.img");
    let own_disk = who.image(directory.path(), "own.img");
    let at_host = image(directory.path(), "host.img");
    let removable = Removable::new(&at_host);
    let victims = format!("{}/victim", who.runtime());
    let mut command = who.launch("victim", "c901,c902", &disk);
    command.env("STUB_SOCKET", format!("{victims}/socket"));
    let (mut victim, has) = has_what_others_want(command);
    let (mut host, hosts) = has_what_others_want(Command::new(HOST_STUB));
    for what in ["shm", "semaphore", "messages", "key", "posix"] {
        assert!(hosts[what].1, "{hosts:?}");
    }
    println!("the victim has {has:?}");
    let of = |what: &str| has[what].0.clone();
    let pid = victim.id();
    let victim_label = process_label(pid);
    let keeper = claimants(&victim_label).swap_remove(0);
    // What its domain cannot make itself others have made for it.
    let (shm, _) = &has["posix"];
    let image_label = label(&disk);
    if !Path::new(shm).exists() {
        fs::write(shm, "secret").unwrap();
        run(&["chcon", &image_label, shm]);
    }

    let mut guest = Hostile::start(who.launch("hostile", "c903,c904", &own_disk));
    // It answers once it is in its domain.
    assert!(guest.tries("nothing").contains("no such act"));
    let own = guest.label();
    assert!(own.contains(&format!(":{}:s0:c", who.domain)), "{own}");
    assert_ne!(own, victim_label);
    run(&["systemctl", "start", "virtlogd.socket", "libvirtd"]);
    let drive = removable.path();
    let host_terminal = &hosts["terminal"].0;
    let pair = &level(&own);
    let theirs = disk.to_str().unwrap();
    let mine = own_disk.to_str().unwrap();
    let unlabelled = at_host.to_str().unwrap();
    let entry = entry_of(who.journal(), &own_disk);
    let entry = entry.to_str().unwrap();
    let sockets = run(&["ss", "-xlH"]);
    let door = sockets
        .split_whitespace()
        .find_map(|word| {
            word.strip_prefix('@')
                .filter(|name| name.contains("svirt-exec"))
        })
        .unwrap();
    let mut acts: Vec<String> = [
        // The other guest's disk.
        format!("read {theirs}"),
        format!("open-rw {theirs}"),
        format!(
            "relabel {theirs} {}",
            image_label.replace(&level(&image_label), pair)
        ),
        format!("unlink {theirs}"),
        // Its sockets, and where it has them.
        format!("unix {victims}/socket"),
        format!("list {victims}"),
        format!("make {victims}/ours"),
        format!("abstract {}", of("abstract")),
        // Its memory, and what /proc shows of it.
        format!("ptrace {pid}"),
        format!("process-vm-read {pid}"),
        format!("pidfd-getfd {pid} 0"),
        format!("read /proc/{pid}/mem"),
        format!("write /proc/{pid}/mem x"),
        format!("read /proc/{pid}/maps"),
        format!("read /proc/{pid}/environ"),
        format!("read /proc/{pid}/cmdline"),
        format!("read /proc/{pid}/stat"),
        format!("read /proc/{pid}/attr/current"),
        format!("read /proc/{pid}/fd/0"),
        format!("read /proc/{pid}/fd/{}", of("memory")),
        format!("list /proc/{pid}/fd"),
        format!("list /proc/{pid}/root/"),
        format!("list /proc/{pid}/cwd/"),
        // What else it shares with nobody.
        format!("read {shm}"),
        format!("read {}", of("terminal")),
        format!("terminal-input {}", of("terminal")),
        // Signals and the like.
        format!("kill 0 {pid}"),
        format!("kill 15 {pid}"),
        format!("kill 19 {pid}"),
        format!("kill 9 {pid}"),
        format!("priority {pid}"),
        format!("affinity {pid}"),
        format!("limit {pid}"),
        // To be it.
        format!("setcon {victim_label}"),
        format!("exec-as {victim_label} {STUB}"),
        // The host's daemons, whose sockets are at s0.
        "unix /run/libvirt/libvirt-sock".into(),
        "unix /run/libvirt/libvirt-sock-ro".into(),
        "unix /run/systemd/private".into(),
        "unix /run/dbus/system_bus_socket".into(),
        // Terminals: one of a login, of the console, of nobody.
        format!("read {host_terminal}"),
        format!("open-rw {host_terminal}"),
        format!("terminal-input {host_terminal}"),
        "read /dev/tty1".into(),
        "open-rw /dev/tty1".into(),
        "open-rw /dev/ttyS0".into(),
        "open-rw /dev/console".into(),
        // What root could do by its user ID.
        "tcp-bind 22".into(),
        "tcp-bind 53".into(),
        "tcp-bind 80".into(),
        "tcp-bind 443".into(),
        "udp-bind 53".into(),
        "set-uid 1001".into(),
        "chroot".into(),
        "make /var/cache/libvirt/ours".into(),
        format!("open-rw {drive}"),
        "list /boot/".into(),
        "userfaultfd".into(),
        format!("stat {theirs}"),
        // What confines it.
        format!(
            "relabel {mine} {}",
            image_label.replace(&level(&image_label), "s0")
        ),
        format!("relabel {mine} {image_label}"),
        format!("chmod {entry}"),
        format!("read {entry}"),
        format!("open-rw {entry}"),
        format!("list {}", who.journal()),
        format!("make {}/1-1.json", who.journal()),
        "make /run/svirt-exec/ours".into(),
        format!("kill 9 {keeper}"),
        format!("ptrace {keeper}"),
        format!("read /proc/{keeper}/environ"),
        "write /sys/fs/selinux/enforce 0".into(),
        "write /sys/fs/selinux/load x".into(),
        // The host.
        format!("read {unlabelled}"),
        "read /etc/shadow".into(),
        "read /root/.bashrc".into(),
        "make /etc/cron.d/ours".into(),
        "open-rw /usr/bin/svirt-exec".into(),
        format!("open-rw /proc/{keeper}/exe"),
        "read /dev/vda".into(),
        "read /dev/mem".into(),
        "exec-as system_u:system_r:unconfined_t:s0 /usr/bin/id".into(),
        "raw".into(),
        "packet".into(),
        "netlink 9".into(),
        "mount".into(),
        "unshare user".into(),
        "unshare mount".into(),
        "load-module".into(),
        "kexec".into(),
        "bpf".into(),
        "reboot".into(),
        "set-time".into(),
        "kernel-log".into(),
        "node /dev/shm/node".into(),
    ]
    .into();
    acts.push(format!("abstract {door}"));
    // No guest may have semaphores, message queues or keys: the host's are tried too.
    for theirs in [&has, &hosts] {
        for what in ["shm", "semaphore", "messages", "key"] {
            let (which, made) = &theirs[what];
            if *made {
                acts.push(format!("{what} {which}"));
            }
        }
    }
    let answers: Vec<String> = acts.iter().map(|act| guest.tries(act)).collect();
    let mut wrong = Vec::new();
    for (act, answer) in acts.iter().zip(&answers) {
        println!("{act}: {answer}");
        // A process that the policy does not show is not there.
        let unseen = act.contains("/proc/") && answer.contains("No such file");
        if !is_refusal(answer) && !unseen {
            wrong.push(format!("{act}: {answer}"));
        }
    }
    assert_eq!(process_label(pid), victim_label);
    assert_eq!(label(&disk), image_label);
    for granted in [
        format!("open-rw {mine}"),
        "io-uring".into(),
        "tcp-bind 5900".into(),
        "tcp-bind 10022".into(),
        "udp-bind 10053".into(),
    ] {
        assert_eq!(guest.tries(&granted), "ok", "{granted}");
    }
    // A CD: Debian's domain for KVM may read none that was not labelled for it.
    if who.is_root() && who.domain == "svirt_prot_exec_t" {
        assert_eq!(guest.tries(&format!("read {drive}")), "ok");
    }
    if who.is_root() {
        // Users have none (vm.unprivileged_userfaultfd), whatever the policy says.
        let _on = Boolean::turned("svirt_launcher_use_userfaultfd", "on");
        assert_eq!(guest.tries("userfaultfd"), "ok");
    }
    guest.ends();
    for process in [&mut victim, &mut host] {
        drop(process.stdin.take());
        process.wait().unwrap();
    }
    let _ = fs::remove_file(shm);
    keepers_done();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    run(&["chmod", "700", "/home/alice"]);
    assert_eq!(acts.len(), stated_acts(&format!("hostile::{}", who.stated)));
}
