//! What strace(1) saw QEMU do with files and sockets, as values.
//!
//! Run with `-f -y -xx` and the calls of [`CALLS`]: every string is in hexadecimal, so that no
//! name can look like syntax, and every descriptor says what it is.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The system calls to trace.
pub const CALLS: &str = "trace=%file,bind,connect,clone,clone3,fork,vfork,fchdir";

/// What a program did with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Opened it for reading.
    Read,
    /// Opened it for writing, or changed it by name.
    Write,
    /// Made a name.
    Make,
    /// Took a name away.
    Remove,
    /// Made a socket of that name.
    Bind,
    /// Connected to that socket.
    Connect,
    /// Became that program.
    Execute,
    /// Asked whether it is there.
    Look,
}

/// One call that names something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub deed: Deed,
    /// Absolute, otherwise as the program wrote it.
    pub path: PathBuf,
    /// The call as strace prints its end: `3<…>`, `-1 ENOENT (…)`.
    pub result: String,
}

impl Event {
    /// Whether nothing had that name.
    pub fn is_absent(&self) -> bool {
        ["ENOENT", "ENOTDIR", "ENXIO", "ENODEV"]
            .iter()
            .any(|error| self.result.contains(error))
    }
}

/// Returns what the traced program did itself, without what programs did that it started.
pub fn events(trace: &str, cwd: &Path) -> Vec<Event> {
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    let mut directories: HashMap<String, PathBuf> = HashMap::new();
    let mut foreign: HashSet<String> = HashSet::new();
    let mut started = false;
    let mut found = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.trim_start().split_once(char::is_whitespace) else {
            continue;
        };
        let call = call.trim_start();
        let whole = if let Some(start) = call.strip_suffix("<unfinished ...>") {
            unfinished.insert(pid, start.to_owned());
            continue;
        } else if let Some(rest) = call.strip_prefix("<... ") {
            let end = rest.split_once('>').map_or("", |(_, end)| end);
            let end = end.strip_prefix(" ").unwrap_or(end);
            unfinished.remove(pid).unwrap_or_default() + end
        } else {
            call.to_owned()
        };
        let Some((name, arguments, result)) = take_apart(&whole) else {
            continue;
        };
        // A child may be seen before the call that made it has returned.
        if !directories.contains_key(pid) {
            let mut parents = unfinished
                .iter()
                .filter(|(_, call)| call.split('(').next().is_some_and(makes_a_process))
                .peekable();
            if parents.peek().is_some() && parents.all(|(parent, _)| foreign.contains(*parent)) {
                foreign.insert(pid.to_owned());
            }
        }
        let own = directories
            .entry(pid.to_owned())
            .or_insert_with(|| cwd.to_owned())
            .clone();
        if makes_a_process(name) {
            if let Some(child) = result.split(['<', ' ']).next() {
                directories.insert(child.to_owned(), own);
                if foreign.contains(pid) {
                    foreign.insert(child.to_owned());
                }
            }
            continue;
        }
        if foreign.contains(pid) {
            continue;
        }
        let names = names(name, arguments, &own);
        if name == "chdir" && result.starts_with('0') {
            if let Some(path) = names.first() {
                directories.insert(pid.to_owned(), path.clone());
            }
            continue;
        }
        let Some(deed) = deed(name, arguments) else {
            continue;
        };
        if deed == Deed::Execute {
            if !started {
                started = true;
                continue;
            }
            if result.starts_with('0') {
                foreign.insert(pid.to_owned());
            }
        }
        found.extend(names.into_iter().map(|path| Event {
            deed,
            path,
            result: result.to_owned(),
        }));
    }
    found
}

fn makes_a_process(call: &str) -> bool {
    matches!(call, "clone" | "clone3" | "fork" | "vfork")
}

/// Splits `name(arguments) = result`.
fn take_apart(call: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    Some((name, arguments.trim_end(), result))
}

fn deed(name: &str, arguments: &str) -> Option<Deed> {
    Some(match name {
        "open" | "openat" | "openat2" => {
            // O_PATH opens nothing of a file.
            if arguments.contains("O_WRONLY") || arguments.contains("O_RDWR") {
                Deed::Write
            } else if arguments.contains("O_CREAT") || arguments.contains("O_TMPFILE") {
                Deed::Make
            } else if arguments.contains("O_PATH") {
                Deed::Look
            } else {
                Deed::Read
            }
        }
        "creat" | "mknod" | "mknodat" | "mkdir" | "mkdirat" | "rename" | "renameat"
        | "renameat2" | "link" | "linkat" | "symlink" | "symlinkat" => Deed::Make,
        "unlink" | "unlinkat" | "rmdir" => Deed::Remove,
        "truncate" | "chmod" | "fchmodat" | "fchmodat2" | "chown" | "lchown" | "fchownat"
        | "utime" | "utimes" | "utimensat" | "futimesat" | "setxattr" | "lsetxattr"
        | "removexattr" | "lremovexattr" => Deed::Write,
        "bind" => Deed::Bind,
        "connect" => Deed::Connect,
        "execve" | "execveat" => Deed::Execute,
        "stat" | "lstat" | "newfstatat" | "statx" | "access" | "faccessat" | "faccessat2"
        | "readlink" | "readlinkat" | "statfs" | "getxattr" | "lgetxattr" | "listxattr"
        | "inotify_add_watch" => Deed::Look,
        _ => return None,
    })
}

/// Returns the absolute names among the arguments.
fn names(name: &str, arguments: &str, cwd: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let mut rest = arguments;
    let mut count = 0;
    while let Some((before, tail)) = rest.split_once('"') {
        let (text, after) = tail.split_once('"').unwrap_or((tail, ""));
        rest = after;
        count += 1;
        // An abstract socket has no name in the file system.
        if before.ends_with('@') {
            continue;
        }
        // An address of another family is no name either.
        if matches!(name, "bind" | "connect") && !before.ends_with("sun_path=") {
            continue;
        }
        // The first word of symlink(2) is what it points to; execve(2) goes on with arguments.
        let skipped = match name {
            "symlink" | "symlinkat" => count == 1,
            "execve" | "setxattr" | "lsetxattr" | "getxattr" | "lgetxattr" | "removexattr"
            | "lremovexattr" => count > 1,
            _ => false,
        };
        if skipped || text.is_empty() {
            continue;
        }
        // openat(AT_FDCWD</root>, "…") and openat(7</srv/share>, "…")
        let directory = before
            .trim_end_matches([',', ' '])
            .strip_suffix('>')
            .and_then(|before| before.rsplit_once('<'))
            .map(|(_, directory)| PathBuf::from(unescape(directory)));
        let base = directory.unwrap_or_else(|| cwd.to_owned());
        names.push(base.join(PathBuf::from(unescape(text))));
    }
    names
}

/// Decodes `\x2f` and the like.
fn unescape(text: &str) -> OsString {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at..].starts_with(b"\\x"))
            .then(|| text.get(at + 2..at + 4))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(out)
}

/// Removes doubled slashes and `.` from a path; `..` and links stay.
pub fn tidy(path: &Path) -> PathBuf {
    debug_assert!(path.as_os_str().as_bytes().starts_with(b"/"));
    path.components().collect()
}

/// Tests the parser itself and needs no bed: a trace that is misread would let every line pass.
#[test]
fn traces_are_read_as_strace_writes_them() {
    let trace = "\
1 execve(\"\\x2f\\x71\", [\"\\x71\"], 0x7ffd /* 3 vars */) = 0
1 openat(AT_FDCWD<\\x2f\\x72>, \"\\x61\", O_RDONLY|O_CLOEXEC) = 3<\\x2f\\x72\\x2f\\x61>
1 openat(5<\\x2f\\x73>, \"\\x62\", O_RDWR|O_CREAT, 0644 <unfinished ...>
2 bind(4<UNIX-STREAM:[77]>, {sa_family=AF_UNIX, sun_path=\"\\x2f\\x75\"}, 110) = 0
1 <... openat resumed>) = 6<\\x2f\\x73\\x2f\\x62>
1 connect(4<UNIX:[7]>, {sa_family=AF_UNIX, sun_path=@\"\\x78\"}, 110) = 0
1 bind(4<TCP:[7]>, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr(\"\\x31\")}, 16) = 0
1 symlink(\"\\x2f\\x64\\x65\\x76\", \"\\x6c\") = 0
1 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88) = 9
9 execve(\"\\x2f\\x68\", [\"\\x68\"], 0x7ffd) = 0
9 openat(AT_FDCWD<\\x2f>, \"\\x2f\\x6e\\x6f\", O_RDWR) = 3
9 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>
10 execve(\"\\x2f\\x6b\", [\"\\x6b\"], 0x7ffd) = 0
9 <... clone resumed>) = 10
1 openat(AT_FDCWD<\\x2f>, \"\\x2f\\x6e\", O_RDONLY) = -1 ENOENT (No such file or directory)
1 +++ exited with 0 +++
";
    let seen: Vec<(Deed, String)> = events(trace, Path::new("/w"))
        .iter()
        .map(|event| (event.deed, event.path.display().to_string()))
        .collect();
    let want = [
        (Deed::Read, "/r/a"),
        (Deed::Bind, "/u"),
        (Deed::Write, "/s/b"),
        (Deed::Make, "/w/l"),
        (Deed::Execute, "/h"),
        (Deed::Read, "/n"),
    ];
    assert_eq!(seen, want.map(|(deed, path)| (deed, path.to_owned())));
    assert!(events(trace, Path::new("/w"))[5].is_absent());
}
