//! An ordinary user of the host against guests of another user, of root's and of libvirt's user: what he
//! may read, lock, name and write down, tried one act at a time. After each act the others' guests run as
//! before, with their keepers, their labels and their journal entries.
//!
//! `bob` is the one who tries: a login's domain (unconfined_t), no privilege.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::lib::*;

const BOB: u32 = 1001;
const ALICE: u32 = 1000;

/// Seconds that root's restore may take, whatever a user has written. The bed translates instructions.
const PATIENCE: u64 = 120;

fn users(name: impl ToString) -> PathBuf {
    Path::new(STATE).join("users").join(name.to_string())
}

fn make_bobs_journal() {
    let journal = users(BOB);
    let path = journal.to_str().unwrap();
    run(&["install", "-d", "-o", "bob", "-m", "700", path]);
    run(&["restorecon", "-F", path]);
}

/// Runs a script of bash(1) as a user.
fn as_(user: &str, script: &str) -> Command {
    let mut command = Command::new("runuser");
    command
        .args(["-u", user, "--", "bash", "-c", script])
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

fn restore_all() -> Output {
    let began = Instant::now();
    let output = svirt_exec(["restore", "--all"]).output().unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(PATIENCE), "{took:?}: {output:?}");
    output
}

/// A guest of somebody's, and what it has that others want.
struct Victim {
    guest: Guest,
    owner: u32,
    disk: PathBuf,
    before: String,
    given: String,
    entry: PathBuf,
    text: String,
    process: String,
    keeper: String,
}

impl Victim {
    fn new(user: &str, owner: u32, disk: &Path) -> Self {
        file_of(owner, disk);
        fs::set_permissions(disk, fs::Permissions::from_mode(0o644)).unwrap();
        let before = label(disk);
        let mut launch = as_user(user);
        launch.args(["--name", &format!("private-name-of-{user}"), STUB, "-hda"]);
        launch.arg(disk);
        let guest = Guest::start_stub(launch);
        let given = label(disk);
        let has = |name: &str| {
            let found = processes_with(name, |label| level(label) == level(&given));
            assert!(!found.is_empty(), "{user}: nobody has {given} in {name}");
            found[0].clone()
        };
        let journal = if owner == 0 {
            GUESTS.into()
        } else {
            users(owner)
        };
        let entry = entry_of(journal, disk);
        Self {
            guest,
            owner,
            before,
            process: has("current"),
            keeper: has("exec"),
            text: fs::read_to_string(&entry).unwrap(),
            entry,
            given,
            disk: disk.to_owned(),
        }
    }

    /// Checks that everything is as it was when the guest had started.
    fn is_unharmed(&self, act: &str) {
        assert_eq!(label(&self.disk), self.given, "{act}");
        let text = fs::read_to_string(&self.entry);
        assert_eq!(text.unwrap_or_default(), self.text, "{act}");
        for (pid, name) in [(&self.process, "current"), (&self.keeper, "exec")] {
            let path = format!("/proc/{pid}/attr/{name}");
            let label = fs::read_to_string(path).unwrap_or_default();
            let label = label.trim_end_matches('\0');
            assert_eq!(level(label), level(&self.given), "{act}: {name}");
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let state = stat.rsplit(") ").next().unwrap().chars().next().unwrap();
            assert!(!"TtZX".contains(state), "{act}: {stat}");
        }
    }

    fn ends(self) {
        let Self {
            guest,
            disk,
            before,
            ..
        } = self;
        guest.leaves();
        wait_until("the label is back", || label(&disk) == before);
        fs::remove_file(disk).unwrap();
    }

    /// What scripts call its parts.
    fn variables(&self, prefix: &str) -> String {
        format!(
            "{prefix}D={} {prefix}E={} {prefix}G={} {prefix}K={} {prefix}L={} {prefix}O={};",
            self.disk.display(),
            self.entry.display(),
            self.process,
            self.keeper,
            level(&self.given),
            self.owner
        )
    }
}

/// Acts that have to fail, each by itself: what is tried, and the script that tries it. `A…` are parts of
/// alice's guest, `R…` of root's, `V…` of libvirt's user's.
const REFUSED: &[(&str, &str)] = &[
    ("list root's journal", "ls $S/guests"),
    ("read root's entry", "cat $RE"),
    ("write root's entry", "echo x > $RE"),
    ("remove root's entry", "rm -f $RE"),
    (
        "make an entry of root's",
        "cp /etc/passwd $S/guests/7-7.json",
    ),
    ("lock root's journal", "flock -n $S/guests true"),
    ("list another user's journal", "ls $S/users/$AO"),
    ("read another user's entry", "cat $AE"),
    ("write another user's entry", "echo x > $AE"),
    ("remove another user's entry", "rm -f $AE"),
    ("rename another user's entry", "mv $AE $AE.new"),
    (
        "make an entry of another user's",
        "touch $S/users/$AO/7-7.json",
    ),
    ("link another user's entry", "ln $AE $S/users/1001/9-9.json"),
    (
        "open another user's journal to others",
        "chmod 777 $S/users/$AO",
    ),
    (
        "label another user's journal",
        "chcon -t tmp_t $S/users/$AO",
    ),
    (
        "rename another user's journal",
        "mv $S/users/$AO $S/users/$AO.away",
    ),
    ("remove another user's journal", "rm -rf $S/users/$AO"),
    (
        "exchange another user's journal",
        "mv --exchange $S/users/$AO $S/users/1001",
    ),
    ("lock another user's journal", "flock -n $S/users/$AO true"),
    ("lock another user's entry", "flock -n $AE true"),
    ("lock the entry of libvirt's user", "flock -n $VE true"),
    ("rename the state directory", "mv $S $S.away"),
    ("list what is unfinished", "ls $S/unfinished"),
    ("leave word for root", "touch $S/unfinished/of-bob"),
    (
        "make a directory for root to find",
        "mkdir $S/unfinished/of-bob",
    ),
    ("write another user's disk", "echo x > $AD"),
    ("label another user's disk", "chcon -l s0 $AD"),
    ("label root's disk", "chcon -l s0 $RD"),
    (
        "give another user's disk a second name",
        "ln $AD /home/bob/second.img",
    ),
    ("end another user's keeper", "kill -KILL $AK"),
    ("stop another user's keeper", "kill -STOP $AK"),
    ("end root's keeper", "kill -KILL $RK"),
    ("end the keeper of libvirt's user", "kill -TERM $VK"),
    ("end another user's guest", "kill -KILL $AG"),
    ("end root's guest", "kill -KILL $RG"),
    ("trace another user's keeper", "strace -p $AK"),
    ("trace another user's guest", "strace -p $AG"),
    (
        "list what another user's keeper has open",
        "ls /proc/$AK/fd/",
    ),
    (
        "open what another user's keeper has open",
        "cat /proc/$AK/fd/4",
    ),
    (
        "read the memory of another user's keeper",
        "cat /proc/$AK/mem",
    ),
    (
        "read the mappings of another user's guest",
        "[ -n \"$(cat /proc/$AG/maps)\" ]",
    ),
    (
        "read the environment of another user's guest",
        "cat /proc/$AG/environ",
    ),
    (
        "read the environment of root's keeper",
        "cat /proc/$RK/environ",
    ),
    (
        "change the claim of another user's keeper",
        "echo x > /proc/$AK/attr/exec",
    ),
    (
        "kill another user's keeper for want of memory",
        "echo 1000 > /proc/$AK/oom_score_adj",
    ),
    (
        "take the name of another user's control socket",
        "python3 -c \"$BIND\" $(grep -o \"@$AE.*\" /proc/net/unix)",
    ),
    (
        "take the name of root's control socket",
        "python3 -c \"$BIND\" $(grep -o \"@$RE.*\" /proc/net/unix)",
    ),
    (
        "ask another user's keeper",
        "python3 -c \"$ASK\" $(grep -o \"@$AE.*\" /proc/net/unix) $AD",
    ),
    (
        "ask root's keeper",
        "python3 -c \"$ASK\" $(grep -o \"@$RE.*\" /proc/net/unix) $RD",
    ),
    (
        "attach to another user's guest by its name",
        "$X attach private-name-of-alice /home/bob/own.img",
    ),
    (
        "attach to another user's guest",
        "$X attach --pid $AG /home/bob/own.img",
    ),
    (
        "attach to root's guest",
        "$X attach --pid $RG /home/bob/own.img",
    ),
    (
        "detach another user's disk",
        "$X detach private-name-of-alice $AD",
    ),
    ("detach root's disk", "$X detach --pid $RG $RD"),
    (
        "verify another user's guest by its name",
        "$X verify private-name-of-alice",
    ),
    (
        "see the name of another user's guest",
        "$X list | grep private-name-of",
    ),
    (
        "see the name of root's guest",
        "$X list --json | grep private-name-of",
    ),
    (
        "launch on another user's disk",
        "STUB='exit 0' $X $STUB -hda $AD",
    ),
    ("launch on root's disk", "STUB='exit 0' $X $STUB -hda $RD"),
    (
        "launch in another user's categories",
        "STUB='exit 0' $X --level $AL $STUB -hda /home/bob/own.img",
    ),
    (
        "launch in root's categories",
        "STUB='exit 0' $X --level $RL $STUB -hda /home/bob/own.img",
    ),
    (
        "read a file of another user's through a guest",
        "STUB='exit 0' $X $STUB -hda $AE",
    ),
    (
        "make a directory of root's guests",
        "mkdir /run/svirt-exec/web",
    ),
    ("list directories of root's guests", "ls /run/svirt-exec"),
    ("make a control node", "mknod $S/users/1001/3-3.json c 1 5"),
    (
        "replace the program's unit",
        "touch /etc/systemd/system/svirt-exec-restore.service",
    ),
    (
        "start root's restore by hand",
        "systemctl --no-ask-password start svirt-exec-restore",
    ),
    (
        "stop the watch for root's restore",
        "systemctl --no-ask-password stop svirt-exec-restore.path",
    ),
];

/// Acts that may succeed, and harm nobody.
const HARMLESS: &[(&str, &str)] = &[
    ("restore everybody's", "$X restore --all"),
    (
        "restore another user's guest by its name",
        "$X restore private-name-of-alice",
    ),
    (
        "restore another user's guest by its process",
        "$X restore $AG",
    ),
    ("restore another user's disk", "$X restore $AD"),
    ("restore root's disk", "$X restore $RD"),
    (
        "trust everybody",
        "$X restore --all --trust-user alice --trust-user root",
    ),
    ("list everything", "$X list --json"),
    (
        "lock the directory of all journals",
        "flock -n $S/users $X restore",
    ),
    (
        "make a name of root's number",
        "mkdir $S/users/0; ln -s ../guests $S/users/00",
    ),
    (
        "make a name of an unforeseeable kind",
        "mkdir -p $S/users/$AO.0123456789abcdef",
    ),
    (
        "lead a name to root's journal",
        "ln -sfn $S/guests $S/users/1002",
    ),
];

const BIND: &str =
    "import socket, sys; socket.socket(socket.AF_UNIX).bind('\\0' + sys.argv[1][1:])";

/// Succeeds if a keeper gives a file back.
const ASK: &str = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(10); \
                   s.connect('\\0' + sys.argv[1][1:]); s.sendall(b'R' + sys.argv[2].encode() + b'\\0\\0'); \
                   sys.exit(s.recv(4096)[:1] != b'D')";

#[test]
#[ignore = "needs the bed: make test"]
fn what_an_ordinary_user_tries_harms_no_guest_of_others() {
    run(&["chmod", "755", "/home/alice"]);
    let roots = directory();
    fs::set_permissions("/root", fs::Permissions::from_mode(0o711)).unwrap();
    let own = Path::new("/home/bob/own.img");
    file_of(BOB, own);
    let own_label = label(own);
    make_bobs_journal();
    let libvirts: u32 = run(&["id", "-u", "libvirt-qemu"]).trim().parse().unwrap();
    let victims = [
        Victim::new("alice", ALICE, Path::new("/home/alice/victim.img")),
        Victim::new("root", 0, &roots.path().join("victim.img")),
        Victim::new(
            "libvirt-qemu",
            libvirts,
            Path::new("/var/lib/libvirt/images/victim.img"),
        ),
    ];
    let variables: String = ["A", "R", "V"]
        .iter()
        .zip(&victims)
        .map(|(prefix, victim)| victim.variables(prefix))
        .collect();
    let variables = format!("S={STATE} X={SVIRT_EXEC} STUB={STUB}; {variables}");
    let mut wrong = Vec::new();
    for (refused, acts) in [(true, REFUSED), (false, HARMLESS)] {
        for (act, script) in acts {
            let mut command = as_("bob", &format!("{variables} {script}"));
            command.env("BIND", BIND).env("ASK", ASK);
            let output = command.output().unwrap();
            println!(
                "{act}: {:?} {}",
                output.status.code(),
                stderr(&output).trim()
            );
            assert!(!stderr(&output).contains("Usage"), "{act}: {output:?}");
            if refused && output.status.success() {
                wrong.push((*act, format!("{output:?}")));
            }
            for victim in &victims {
                victim.is_unharmed(act);
            }
            assert_eq!(label(own), own_label, "{act}");
        }
    }
    for name in ["0", "00", "1002", "1000.0123456789abcdef"] {
        let path = users(name);
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir(&path);
    }
    for victim in victims {
        victim.ends();
    }
    fs::remove_file(own).unwrap();
    fs::set_permissions("/root", fs::Permissions::from_mode(0o700)).unwrap();
    run(&["chmod", "700", "/home/alice"]);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        REFUSED.len() + HARMLESS.len(),
        stated_acts("hostile_users::what_an_ordinary_user_tries_harms_no_guest_of_others")
    );
}

/// What a user writes down of a file, with all that he can find out of it.
fn record(file: &Path, given: &str, original: &str, tree: bool) -> serde_json::Value {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(file).unwrap();
    let born = found.created().unwrap();
    let born = born.duration_since(std::time::UNIX_EPOCH).unwrap();
    serde_json::json!({
        "path": file.to_str().unwrap(),
        "identity": {"dev": found.dev(), "ino": found.ino(),
                     "born": u64::try_from(born.as_nanos()).unwrap()},
        "tree": tree,
        "class": "exclusive",
        "original": original,
        "label": given,
    })
}

fn entry(context: &str, records: Vec<serde_json::Value>) -> serde_json::Value {
    serde_json::json!({
        "version": 1, "name": "forged", "pid": 1, "started": 1, "boot": "", "context": context,
        "records": records,
    })
}

/// Bob's journal, empty before and after.
struct Journal(PathBuf);

impl Journal {
    fn new() -> Self {
        let path = users(BOB);
        let _ = fs::remove_dir_all(&path);
        make_bobs_journal();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        chown(&path, Some(BOB), Some(BOB)).unwrap();
        path
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CONTEXT: &str = "unconfined_u:unconfined_r:svirt_prot_exec_t:s0:c7,c77";
const IMAGE: &str = "unconfined_u:object_r:svirt_prot_exec_image_t:s0:c7,c77";

#[test]
#[ignore = "needs the bed: make test"]
fn a_forged_entry_has_root_change_no_file_but_one_that_bears_it_out() {
    let journal = Journal::new();
    let roots = directory();
    let running = image(roots.path(), "running.img");
    let guest = Guest::stub(&running);
    let (running_label, running_context) = (label(&running), guest.label());
    let original = "system_u:object_r:virt_image_t:s0";
    let alices = Path::new("/home/alice/forged.img");
    file_of(ALICE, alices);
    let own = Path::new("/home/bob/forged.img");
    file_of(BOB, own);
    let plain = label(own);
    let shadow = Path::new("/etc/shadow");
    let shadow_label = label(shadow);
    let bare = "unconfined_u:object_r:svirt_prot_exec_image_t:s0";
    // What stands in the entry, of which file, and the label that the file has now.
    let at_level = format!(
        "unconfined_u:unconfined_r:svirt_t:{}",
        level(&running_context)
    );
    let (running_label, running_context) = (running_label.as_str(), running_context.as_str());
    let acts: [(&str, &Path, &str, &str, &str); 10] = [
        (
            "the host's passwords",
            shadow,
            CONTEXT,
            &shadow_label,
            &shadow_label,
        ),
        ("a file of another user's", alices, CONTEXT, IMAGE, IMAGE),
        (
            "the disk of root's guest",
            &running,
            running_context,
            running_label,
            running_label,
        ),
        (
            "a file of his that carries another label",
            own,
            CONTEXT,
            IMAGE,
            bare,
        ),
        (
            "a file of his at another guest's level",
            own,
            CONTEXT,
            running_label,
            running_label,
        ),
        (
            "a file of his of no guest's type",
            own,
            CONTEXT,
            &plain,
            &plain,
        ),
        (
            "a context of no guest",
            own,
            "u:r:init_t:s0:c7,c77",
            IMAGE,
            IMAGE,
        ),
        (
            "a context without categories",
            own,
            "u:r:svirt_prot_exec_t:s0",
            bare,
            bare,
        ),
        ("a context that is none", own, "x", IMAGE, IMAGE),
        (
            "the level of a guest that runs",
            own,
            &at_level,
            running_label,
            running_label,
        ),
    ];
    for (act, file, context, given, now) in acts {
        if file != shadow && file != running {
            chcon(&[now], file);
        }
        let text = entry(context, vec![record(file, given, original, false)]);
        let path = journal.write("1-1.json", &text.to_string());
        let output = restore_all();
        println!("{act}: {}", stderr(&output));
        assert_eq!(label(file), now, "{act}: {output:?}");
        assert!(path.exists(), "{act}: root removes nothing there");
    }
    // What is borne out is put back: a file of his that carries what the entry says.
    chcon(&[IMAGE], own);
    let text = entry(CONTEXT, vec![record(own, IMAGE, original, false)]);
    journal.write("1-1.json", &text.to_string());
    assert_eq!(restore_all().status.code(), Some(0));
    assert_eq!(label(own), original);
    guest.end();
    for file in [own, alices] {
        fs::remove_file(file).unwrap();
    }
}

/// `sweep` looked at no owner.
#[test]
#[ignore = "needs the bed: make test"]
fn in_a_tree_of_a_users_entry_files_of_others_keep_their_labels() {
    let journal = Journal::new();
    let tree = Path::new("/home/bob/tree");
    let _ = fs::remove_dir_all(tree);
    fs::create_dir_all(tree.join("sub")).unwrap();
    for (name, owner) in [("his", BOB), ("alices", ALICE), ("sub/roots", 0)] {
        file_of(owner, &tree.join(name));
    }
    for name in ["", "sub"] {
        chown(tree.join(name), Some(BOB), Some(BOB)).unwrap();
    }
    let original = "system_u:object_r:virt_image_t:s0";
    let names = ["", "his", "alices", "sub", "sub/roots"].map(|name| tree.join(name));
    for name in &names {
        chcon(&[IMAGE], name);
    }
    let text = entry(CONTEXT, vec![record(tree, IMAGE, original, true)]);
    journal.write("1-1.json", &text.to_string());
    let output = restore_all();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = stderr(&output);
    let levels = labels(&names)
        .iter()
        .map(|label| level(label))
        .collect::<Vec<_>>();
    assert_eq!(
        levels,
        ["s0", "s0", "s0:c7,c77", "s0", "s0:c7,c77"],
        "{said}"
    );
    for name in ["alices", "roots"] {
        let line = said.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.contains("it belongs to user"), "{line}");
    }
    fs::remove_dir_all(tree).unwrap();
}

/// What a user may put in the place of entries, of any kind, number and size: root's restore goes on, in
/// 64 MiB and in time, and puts back for others what is theirs.
#[test]
#[ignore = "needs the bed: make test"]
fn what_a_user_fills_his_journal_with_stops_no_restore() {
    let journal = Journal::new();
    let one = entry(CONTEXT, vec![]).to_string();
    let record = "{\"path\":\"\",\"identity\":{\"dev\":1,\"ino\":1,\"born\":null},\"class\":\"keep\",\
                  \"original\":\"\",\"label\":\"\"}";
    let mut roots = entries(GUESTS);
    roots.sort();
    let acts: [(&str, &dyn Fn()); 9] = [
        ("a million records", &|| {
            let records = vec![record; 1_000_000].join(",");
            let text = one.replace("\"records\":[]", &format!("\"records\":[{records}]"));
            journal.write("2-1.json", &text);
        }),
        ("a file of a terabyte without content", &|| {
            let path = journal.write("2-2.json", "");
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
        ("depth without end", &|| {
            let text = "[".repeat(1 << 20);
            let value = format!("\"records\":{text}");
            journal.write("2-3.json", &one.replace("\"records\":[]", &value));
        }),
        ("a name of megabytes", &|| {
            journal.write("2-4.json", &one.replace("forged", &"x".repeat(7 << 20)));
        }),
        ("a pipe", &|| {
            succeeds(&mut as_(
                "bob",
                &format!("mkfifo {}/2-5.json", journal.0.display()),
            ));
        }),
        ("links to root's entries and to devices", &|| {
            for (number, to) in [GUESTS, "/dev/zero", "/proc/kmsg", "/etc/shadow"]
                .iter()
                .enumerate()
            {
                let path = journal.0.join(format!("2-6{number}.json"));
                symlink(to, &path).unwrap();
            }
        }),
        ("directories and sockets", &|| {
            succeeds(&mut as_(
                "bob",
                &format!("mkdir {}/2-7.json", journal.0.display()),
            ));
            let bind = format!(
                "import socket; socket.socket(socket.AF_UNIX).bind('{}/2-8.json')",
                journal.0.display()
            );
            succeeds(as_("bob", "python3 -c \"$BIND\"").env("BIND", bind));
        }),
        ("one large entry by a thousand names", &|| {
            let path = journal.write("other", &one.replace("forged", &"y".repeat(400)));
            for number in 0..1000 {
                fs::hard_link(&path, journal.0.join(format!("3-{number}.json"))).unwrap();
            }
        }),
        ("more entries than are read", &|| {
            for number in 0..6000 {
                fs::write(journal.0.join(format!("4-{number}.json")), &one).unwrap();
            }
            succeeds(Command::new("chown").args(["-R", "bob:"]).arg(&journal.0));
        }),
    ];
    for (act, fill) in acts {
        println!("{act}");
        fill();
        let began = Instant::now();
        let unit = format!("svirt-bound-{}", act.len());
        let output = Command::new("systemd-run")
            .args(["--wait", "--quiet", "--collect", "--pipe", "--unit", &unit])
            .args([
                "-p",
                "MemoryMax=64M",
                "-p",
                "MemorySwapMax=0",
                "-p",
                "SuccessExitStatus=1",
            ])
            .args([SVIRT_EXEC, "restore", "--all"])
            .output()
            .unwrap();
        let took = began.elapsed();
        println!("{took:?}, {} bytes said", output.stderr.len());
        assert!(took < Duration::from_secs(PATIENCE), "{act}: {took:?}");
        // It was not killed, and has not ended without a word.
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{act}: {output:?}"
        );
        assert!(
            !stderr(&output).contains("ended at once"),
            "{act}: {output:?}"
        );
        let mut now = entries(GUESTS);
        now.sort();
        assert_eq!(now, roots, "{act}");
        assert!(journal.0.exists());
    }
    let list = svirt_exec(["list"]).output().unwrap();
    assert!(list.status.success(), "{list:?}");
    assert!(stderr(&restore_all()).contains("not all entries of user 1001"));
}

/// A process of bob's that goes on until it is dropped.
struct Busy(Child);

impl Busy {
    fn new(script: &str) -> Self {
        let mut command = as_("bob", script);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // It says when it has begun.
        let mut byte = [0];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut byte).unwrap();
        Self(child)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // runuser(1) hands SIGTERM on to what it has started.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// renameat2(2) with RENAME_EXCHANGE, as fast as it goes, while root restores slowly.
#[test]
#[ignore = "needs the bed: make test"]
fn a_journal_that_is_exchanged_for_a_link_to_roots_leads_root_nowhere() {
    let journal = Journal::new();
    let roots = directory();
    // Root's own entry, of a guest that runs, with a file that the attacker would like to have changed.
    let disk = image(roots.path(), "roots.img");
    let guest = Guest::stub(&disk);
    let given = label(&disk);
    let entry_path = entry_of(GUESTS, &disk);
    let text = fs::read_to_string(&entry_path).unwrap();
    // The same name in both, as the way by names would have taken it from one to the other.
    let name = entry_path.file_name().unwrap().to_str().unwrap();
    let alices = Path::new("/home/alice/exchanged.img");
    file_of(ALICE, alices);
    chcon(&[IMAGE], alices);
    let original = "system_u:object_r:virt_image_t:s0";
    let forged = entry(CONTEXT, vec![record(alices, IMAGE, original, false)]);
    journal.write(name, &forged.to_string());
    // A directory of bob's that root's restore would take for its own entries' by name.
    let link = users("1001.away");
    symlink(GUESTS, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(BOB), Some(BOB)).unwrap();
    let swap = format!("echo; cd {STATE}/users; while mv -T --exchange 1001 1001.away; do :; done");
    let busy = Busy::new(&swap);
    for _ in 0..10 {
        // strace(1) leaves time between any two looks at names: the exchange comes in between.
        let slow = ["-e", "trace=%file", "-e", "inject=%file:delay_enter=1000"];
        let _ = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null"])
            .args(slow)
            .args([SVIRT_EXEC, "restore", "--all"])
            .output()
            .unwrap();
        assert_eq!(label(alices), IMAGE);
        assert_eq!(label(&disk), given);
        assert_eq!(fs::read_to_string(&entry_path).unwrap(), text);
    }
    drop(busy);
    let _ = fs::remove_file(&link);
    if users(BOB).is_symlink() {
        fs::remove_file(users(BOB)).unwrap();
    }
    let _ = fs::remove_dir_all(&link);
    guest.end();
    fs::remove_file(alices).unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn names_that_another_user_has_taken_stop_no_launch() {
    let libvirts: u32 = run(&["id", "-u", "libvirt-qemu"]).trim().parse().unwrap();
    for (user, uid, home) in [
        ("alice", ALICE, "/home/alice"),
        ("libvirt-qemu", libvirts, "/var/lib/libvirt/images"),
    ] {
        for squat in ["mkdir", "touch", "mkfifo", "ln -s /etc"] {
            let plain = users(uid);
            let _ = fs::remove_dir_all(&plain);
            succeeds(&mut as_("bob", &format!("{squat} {}", plain.display())));
            let disk = Path::new(home).join("squatted.img");
            file_of(uid, &disk);
            let before = label(&disk);
            let guest = Guest::of_user(user, &disk);
            assert_ne!(label(&disk), before, "{user}: {squat}");
            let his: Vec<PathBuf> = entries(Path::new(STATE).join("users"))
                .into_iter()
                .filter(|path| {
                    path.file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .starts_with(&format!("{uid}."))
                })
                .collect();
            assert_eq!(his.len(), 1, "{user}: {squat}: {his:?}");
            assert_eq!(entries(&his[0]).len(), 1);
            guest.leaves();
            wait_until("the label is back", || label(&disk) == before);
            wait_until("the entry is gone", || entries(&his[0]).is_empty());
            // What a killed keeper left there, root finds, too.
            let guest = Guest::of_user(user, &disk);
            let given = label(&disk);
            for name in ["exec", "current"] {
                for pid in processes_with(name, |label| level(label) == level(&given)) {
                    let _ = Command::new("kill").args(["-9", &pid]).status();
                }
            }
            guest.leaves();
            assert_eq!(label(&disk), given);
            let output = restore_all();
            assert_eq!(label(&disk), before, "{output:?}");
            for path in [&his[0], &plain] {
                let _ = fs::remove_dir_all(path);
                let _ = fs::remove_file(path);
            }
            fs::remove_file(disk).unwrap();
        }
    }
}

/// flock(2) by who may only read.
#[test]
#[ignore = "needs the bed: make test"]
fn a_lock_of_who_may_only_read_stops_no_launch_and_keeps_no_label() {
    fs::set_permissions("/root", fs::Permissions::from_mode(0o711)).unwrap();
    let roots = directory();
    let (disk, iso) = (
        image(roots.path(), "locked.img"),
        image(roots.path(), "locked.iso"),
    );
    let before = labels(&[disk.clone(), iso.clone()]);
    let (of_disk, of_iso) = (disk.display(), iso.display());
    // Held by the process that has locked it, and by one that has inherited the lock.
    let held = [
        format!(
            "python3 -c 'import fcntl, time; files = [open(f, \"rb\") for f in (\"{of_disk}\", \"{of_iso}\")]\n\
             for f in files: fcntl.flock(f, KIND)\nprint(flush=True)\ntime.sleep(1000)'"
        ),
        format!("exec 8<{of_disk} 9<{of_iso}; flock -KIND 8; flock -KIND 9; echo; exec sleep 1000"),
    ];
    let both = || labels(&[disk.clone(), iso.clone()]);
    for (script, kinds) in held.iter().zip([["2", "1"], ["x", "s"]]) {
        for kind in kinds {
            // Before the launch, and while the guest runs.
            let busy = Busy::new(&script.replace("KIND", kind));
            let guest = Guest::with_cdrom(&disk, &iso);
            assert!(
                both()
                    .iter()
                    .zip(&before)
                    .all(|(now, before)| now != before)
            );
            // Another guest of root's is held off all the same.
            let output = stub("exit 0", &disk).output().unwrap();
            refused(&output, &["locked.img"]);
            guest.leaves();
            wait_until("the labels are back", || both() == before);
            drop(busy);
        }
    }
    // A keeper has the disk for itself alone; content is shared with whoever locks it meanwhile.
    let guest = Guest::with_cdrom(&disk, &iso);
    let busy = Busy::new(&format!(
        "exec 9<{of_iso}; flock -s 9; echo; exec sleep 1000"
    ));
    guest.leaves();
    wait_until("the labels are back", || both() == before);
    drop(busy);
    // QEMU's own locks, as any reader can set them (F_OFD_SETLK with F_RDLCK).
    let lock = format!(
        "python3 -c 'import fcntl, struct, time; f = open(\"{}\", \"rb\")\n\
         for at in (100, 203):\n  fcntl.fcntl(f, 37, struct.pack(\"hhqqi4x\", 0, 0, at, 1, 0))\n\
         print(flush=True)\ntime.sleep(1000)'",
        iso.display()
    );
    let busy = Busy::new(&lock);
    Guest::with_cdrom(&disk, &iso).leaves();
    wait_until("the labels are back", || both() == before);
    drop(busy);
    keepers_done();
    fs::set_permissions("/root", fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
#[ignore = "needs the bed: make test"]
fn no_number_of_starts_ends_the_watch_for_what_is_left() {
    for _ in 0..7 {
        run(&["systemctl", "start", "svirt-exec-restore.service"]);
    }
    run(&[
        "systemctl",
        "is-active",
        "--quiet",
        "svirt-exec-restore.path",
    ]);
    let failed = Command::new("systemctl")
        .args(["is-failed", "--quiet", "svirt-exec-restore.service"])
        .status();
    assert!(!failed.unwrap().success());
}
