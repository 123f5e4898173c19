//! Guests that run for as long as a test needs them.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

/// A guest that runs until its standard input is closed.
pub struct Guest {
    pub child: Child,
    pub out: BufReader<ChildStdout>,
    /// What is written to it so that it ends.
    last_word: &'static str,
}

impl Guest {
    /// Starts the stub on an image and waits until it runs.
    pub fn stub(image: &Path) -> Self {
        Self::start_stub(stub("wait", image))
    }

    /// Starts the stub on an image, as a guest with a name.
    pub fn named(name: &str, image: &Path) -> Self {
        Self::start_stub(stub_with(&["--name", name], "wait", image))
    }

    /// Starts the stub on an image and a CD-ROM.
    pub fn with_cdrom(image: &Path, iso: &Path) -> Self {
        let mut launch = stub("wait", image);
        launch.arg("-cdrom").arg(iso);
        Self::start_stub(launch)
    }

    /// Starts the stub on an image as another user. The child is runuser(1), whose child is the guest.
    pub fn of_user(user: &str, image: &Path) -> Self {
        let mut launch = as_user(user);
        launch.args([STUB, "-hda"]).arg(image);
        Self::start_stub(launch)
    }

    /// Starts a launch of the stub and waits until it runs.
    pub fn start_stub(mut launch: Command) -> Self {
        launch.env("STUB", "wait");
        Self::start(launch, "ready")
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

    /// Starts a real QEMU on an image, stopped.
    pub fn qemu_on(options: &[&str], image: &Path) -> Self {
        Self::qemu(options, ["-S".as_ref(), "-hda".as_ref(), image.as_os_str()])
    }

    /// Starts a real QEMU with QMP on standard input and output.
    pub fn qemu<I, S>(options: &[&str], args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        Self::qemu_at(QEMU, options, args)
    }

    /// Starts a real QEMU by the program's name or path.
    pub fn qemu_at<I, S>(program: &str, options: &[&str], args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
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

    /// Sends a command through QMP and returns the answer.
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

    /// Has QEMU open a file as a node of its block layer, with these members of `blockdev-add`. Returns
    /// the answer.
    pub fn blockdev_add(&mut self, node: &str, members: &str, path: &Path) -> String {
        self.qmp(&format!(
            "{{\"execute\":\"blockdev-add\",\"arguments\":{{\"driver\":\"file\",\"node-name\":\"{node}\",\
             {members},\"filename\":\"{}\"}}}}",
            path.display()
        ))
    }

    /// Ends QEMU through QMP and waits for it, not for its keeper.
    pub fn quit(mut self) {
        self.qmp("{\"execute\":\"quit\"}");
        self.child.wait().unwrap();
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

/// Kills the guest if the test fails: it would hold the test's output open for ever.
impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
    }
}

/// Starts and ends another guest, whose keeper restores what ended guests left.
pub fn another_guest_ends(directory: &Path) {
    let disk = image(directory, "another.img");
    let before = label(&disk);
    Guest::stub(&disk).leaves();
    wait_until("its disk is back", || label(&disk) == before);
}

/// Ends a guest together with its keeper, so that its labels stay.
pub fn abandon(mut guest: Guest) {
    kill_keepers_of(&guest);
    guest.child.kill().unwrap();
    guest.child.wait().unwrap();
}

/// Has a guest without files try something, and returns the stub's answer.
pub fn outsider(what: &str) -> String {
    let output = svirt_exec([STUB]).env("STUB", what).output().unwrap();
    stdout(&output).trim().to_owned()
}
