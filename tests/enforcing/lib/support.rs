//! Images, commands and labels for the tests.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The program under test, as the package installs it.
pub const SVIRT_EXEC: &str = "/usr/bin/svirt-exec";
/// The stand-in for QEMU, labelled qemu_exec_t by the bed's job.
pub const STUB: &str = "/usr/local/bin/qemu-stub";
/// The real one.
pub const QEMU: &str = "qemu-system-x86_64";

/// A directory of one test's own, in root's home, removed at its end.
pub fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new()
        .prefix("svirt-")
        .tempdir_in("/root")
        .unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// An empty raw image of 1 MiB.
pub fn image(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    path
}

/// Real mode code for a disk's first sector: says `Up` on the first serial port, and switches the
/// machine off when its power button is pressed. The registers are where SeaBIOS puts them for the
/// `pc` machine (PORT_ACPI_PM_BASE, 0x600).
const POWER_BUTTON: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'U', 0xee, 0xb0, b'p', 0xee, 0xb0, b'\n', 0xee, // mov al, …; out dx, al
    0xba, 0x02, 0x06, // mov dx, 0x602: PM1 enable
    0xb8, 0x00, 0x01, 0xef, // mov ax, 0x0100: PWRBTN_EN; out dx, ax
    0xfb, 0xf4, // wait: sti; hlt: until the next tick
    0xba, 0x00, 0x06, 0xed, // mov dx, 0x600: PM1 status; in ax, dx
    0xf6, 0xc4, 0x01, // test ah, 1: PWRBTN_STS
    0x74, 0xf5, // jz wait
    0xb8, 0x00, 0x01, 0xef, // mov ax, 0x0100; out dx, ax: seen
    0xba, 0x04, 0x06, // mov dx, 0x604: PM1 control
    0xb8, 0x00, 0x20, 0xef, // mov ax, 0x2000: SLP_EN, S5; out dx, ax
    0xf4, 0xeb, 0xfd, // hlt; jmp to it
];

/// Makes an image what a machine boots that heeds its power button.
pub fn boots(image: &Path) {
    let mut sector = POWER_BUTTON.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    fs::File::options()
        .write(true)
        .open(image)
        .unwrap()
        .write_all(&sector)
        .unwrap();
}

/// The SELinux label of a file.
pub fn label(path: &Path) -> String {
    let output = Command::new("stat")
        .args(["-c", "%C"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The SELinux labels of many files.
pub fn labels(paths: &[PathBuf]) -> Vec<String> {
    let output = Command::new("stat")
        .args(["-c", "%C"])
        .args(paths)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    stdout(&output).lines().map(ToOwned::to_owned).collect()
}

/// The part of a label from the level on.
pub fn level(label: &str) -> String {
    label.splitn(4, ':').nth(3).unwrap_or_default().to_owned()
}

/// The label of a process.
pub fn process_label(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/attr/current"))
        .unwrap_or_default()
        .trim_end_matches('\0')
        .to_owned()
}

/// `svirt-exec ARGS…`, to be run.
pub fn svirt_exec<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(SVIRT_EXEC);
    command.args(args).stdin(Stdio::null());
    command
}

/// The stub in a guest's cage, doing `what`, with an image.
pub fn stub(what: &str, image: &Path) -> Command {
    let mut command = svirt_exec([STUB.as_ref(), "-hda".as_ref(), image.as_os_str()]);
    command.env("STUB", what);
    command
}

/// Runs a command that has to succeed, and returns what it printed.
pub fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    stdout(&output)
}

/// Types what messages say is to be typed: from the name of a command to the end of the line, or to
/// where a message goes on in words.
pub fn follow(said: &str) {
    const COMMANDS: [&str; 5] = [
        "semanage ",
        "semodule ",
        "restorecon ",
        "setsebool ",
        "setenforce ",
    ];
    let mut followed = 0;
    for line in said.lines() {
        let Some(start) = COMMANDS.iter().filter_map(|word| line.find(word)).min() else {
            continue;
        };
        let rest = &line[start..];
        let end = [", or ", " (", "; "]
            .iter()
            .filter_map(|word| rest.find(word))
            .min();
        run(&["sh", "-ec", &rest[..end.unwrap_or(rest.len())]]);
        followed += 1;
    }
    assert!(followed > 0, "nothing to type in: {said}");
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A guest that runs until its standard input is closed.
pub struct Guest {
    pub child: Child,
    pub out: BufReader<ChildStdout>,
    /// Said to it when it shall end.
    last_word: &'static str,
}

impl Guest {
    /// Starts the stub on an image and waits until it runs.
    pub fn stub(image: &Path) -> Self {
        Self::start(stub("wait", image), "ready")
    }

    /// Starts a command and waits for a line that begins with `ready`.
    pub fn start(mut command: Command, ready: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        loop {
            line.clear();
            let count = out.read_line(&mut line).unwrap();
            assert!(count > 0, "the guest ended: {:?}", child.wait());
            if line.starts_with(ready) {
                break;
            }
        }
        Self {
            child,
            out,
            last_word: "",
        }
    }

    /// A real QEMU with QMP on standard input and output.
    pub fn qemu<I, S>(options: &[&str], args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        Self::qemu_at(QEMU, options, args)
    }

    /// The same, by the program's name or path.
    pub fn qemu_at<I, S>(program: &str, options: &[&str], args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new(SVIRT_EXEC);
        command
            .args(options)
            .arg(program)
            .args([
                "-machine", "pc", "-accel", "tcg", "-m", "32", "-display", "none",
            ])
            .args(["-nodefaults", "-qmp", "stdio"])
            .args(args);
        let mut guest = Self::start(command, "{\"QMP\"");
        guest.last_word = "{\"execute\":\"quit\"}\n";
        assert!(
            guest
                .qmp("{\"execute\":\"qmp_capabilities\"}")
                .contains("return")
        );
        guest
    }

    /// Says one thing to QMP and returns the answer.
    pub fn qmp(&mut self, command: &str) -> String {
        // In one write: QEMU quits at the closing brace, and does not wait for the end of the line.
        let line = format!("{command}\n");
        let input = self.child.stdin.as_mut().unwrap();
        if let Err(error) = input.write_all(line.as_bytes()) {
            panic!("{command}: {error}: QEMU ended: {:?}", self.child.wait());
        }
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.out.read_line(&mut line).unwrap();
            assert!(count > 0, "{command}: QEMU ended: {:?}", self.child.wait());
            if line.contains("\"return\"") || line.contains("\"error\"") {
                return line;
            }
        }
    }

    pub fn label(&self) -> String {
        process_label(self.child.id())
    }

    /// Ends it and waits for it, not for its keeper: that may have to wait for other guests.
    pub fn leaves(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }

    /// Ends it, waits for it and for its keeper. Returns the exit status.
    pub fn end(mut self) -> i32 {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(self.last_word.as_bytes());
        }
        let mut rest = String::new();
        let _ = self.out.read_to_string(&mut rest);
        let status = self.child.wait().unwrap();
        keepers_done();
        status.code().unwrap_or(-1)
    }

    /// Kills it, and waits for its keeper.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        keepers_done();
    }
}

/// A test that fails leaves no guest behind, which would hold its output open for ever.
impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
    }
}

/// Another guest comes and goes: its keeper looks after what ended guests left.
pub fn another_guest_ends(directory: &Path) {
    let disk = image(directory, "another.img");
    let before = label(&disk);
    Guest::stub(&disk).leaves();
    wait_until("its disk is back", || label(&disk) == before);
}

/// Process IDs of the keepers of a guest: they claim its context.
pub fn keepers_of(guest: &Guest) -> Vec<String> {
    let context = guest.label();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let claims = fs::read_to_string(entry.path().join("attr/exec")).unwrap_or_default();
            claims.trim_end_matches('\0') == context
        })
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Kills the keepers of a guest.
pub fn kill_keepers_of(guest: &Guest) {
    for pid in keepers_of(guest) {
        let killed = Command::new("kill").args(["-9", &pid]).status().unwrap();
        assert!(killed.success());
    }
}

/// Ends a guest together with its keeper, so that its labels stay.
pub fn abandon(mut guest: Guest) {
    kill_keepers_of(&guest);
    guest.child.kill().unwrap();
    guest.child.wait().unwrap();
}

/// Waits until no keeper of an ended guest is at work: a keeper ends when the
/// journal entry of its guest is gone.
pub fn keepers_done() {
    wait_until("the keepers have put everything back", || {
        let entries = fs::read_dir("/var/lib/svirt-exec/guests").unwrap();
        let entries = entries.flatten().map(|entry| entry.path());
        let mut entries = entries.filter(|path| path.extension() == Some("json".as_ref()));
        entries.all(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            // An entry that is gone by now, or that of a guest that still runs.
            text.is_empty()
                || text.contains("\"pid\"") && {
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    let context = value["context"].as_str().unwrap();
                    caged(context)
                }
        })
    });
}

/// Whether some process runs in this context.
pub fn caged(context: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        fs::read_to_string(entry.path().join("attr/current"))
            .is_ok_and(|label| label.trim_end_matches('\0') == context)
    })
}

/// Polls for something that announces itself by nothing else.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2400 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("waited in vain: {what}");
}

/// Nothing is left of a launch that was refused: no journal, no label.
pub fn nothing_happened(image: &Path, before: &str) {
    assert_eq!(label(image), before);
    let left: Vec<_> = fs::read_dir("/var/lib/svirt-exec/guests")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            fs::read_to_string(path).is_ok_and(|text| text.contains(image.to_str().unwrap()))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Until it is dropped: the bed's policy that logs every denial, and which domains the launcher enters
/// (`build_talkative`).
pub struct Talkative;

impl Talkative {
    pub fn load() -> Self {
        // load_policy(8) also brings it to the version that the kernel knows.
        run(&[
            "unshare",
            "--mount",
            "sh",
            "-ec",
            "cd /etc/selinux/default/policy; mount --bind talkative policy.*; load_policy",
        ]);
        Self
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        let _ = Command::new("load_policy").status();
    }
}

/// AVC denials in the audit log that contain all of these.
pub fn denials(parts: &[&str]) -> Vec<String> {
    audited("denied", parts)
}

/// AVC records in the audit log of what was `denied` or `granted` that contain all of these.
pub fn audited(what: &str, parts: &[&str]) -> Vec<String> {
    // The daemon writes what the kernel has queued; a record of our own marks the end.
    static MARKS: AtomicUsize = AtomicUsize::new(0);
    let mark = format!(
        "mark-{}-{}.",
        std::process::id(),
        MARKS.fetch_add(1, Ordering::Relaxed)
    );
    let _ = Command::new("auditctl").args(["-m", &mark]).status();
    let mut log = String::new();
    wait_until("the audit daemon has written everything", || {
        log = fs::read_to_string("/var/log/audit/audit.log").unwrap_or_default();
        log.contains(&mark)
    });
    log.lines()
        .filter(|line| {
            line.contains(&format!("avc:  {what}")) && parts.iter().all(|p| line.contains(p))
        })
        .map(ToOwned::to_owned)
        .collect()
}
