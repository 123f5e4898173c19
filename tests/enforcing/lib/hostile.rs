//! A program that tries what it is told to, in the domain in which it was started.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::*;

/// A program that tries what it is told to.
pub struct Hostile {
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Hostile {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .env("STUB", "acts")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut started = Self {
            say: child.stdin.take().unwrap(),
            hear: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        // A parent goes on when the child has a memory of its own (vfork(2)); it has the label of its program a
        // little later.
        assert_eq!(started.tries("here"), "ok");
        started
    }

    /// What the kernel says to an act.
    pub fn tries(&mut self, act: &str) -> String {
        writeln!(self.say, "{act}").unwrap();
        let mut answer = String::new();
        self.hear.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "it ended at: {act}");
        answer.trim().to_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn label(&self) -> String {
        process_label(self.child.id())
    }

    pub fn ends(mut self) {
        drop(self.say);
        self.child.wait().unwrap();
    }
}
