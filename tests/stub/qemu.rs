//! Stands in for QEMU in tests. What it does is said by `STUB`, since its
//! arguments have to be a QEMU command line:
//!
//! * `dump` prints what a program is given: PID, descriptors, environment as
//!   getenv(3) sees it, limits, signals, and more, a line each;
//! * `open MODE PATH` opens a file (`r` or `rw`) and prints `ok` or the error;
//! * `connect PATH` connects to a socket, likewise;
//! * `cat` copies standard input to standard output;
//! * `write N TEXT` writes to descriptor N;
//! * `exit N`, `signal N` end in that way; `wait` waits for the end of standard input,
//!   `pause` for a signal;
//! * `acts` tries what a program would that has taken a domain over (acts.rs), `victim` is whom it
//!   would be tried on;
//! * `survive HOW COUNT` leaves processes that look ended, or that are hard to see (survive.rs); `adopt`
//!   executes its arguments, with STUB_OF_CHILD as `STUB`, and waits for all that they leave behind;
//! * `clock` prints CLOCK_MONOTONIC in nanoseconds;
//! * `limit` does nothing but what every launch must: it labels files, asks for a context and executes,
//!   as its arguments say: CONTEXT LABEL PROGRAM FILE…;
//! * `fork` leaves a child that waits and ends itself, as -daemonize does.
#![no_main]
#![allow(unsafe_code, missing_docs)]

mod acts;
mod survive;

use std::ffi::CStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;

svirt_exec::c_main!(run);

fn run() -> u8 {
    let what = std::env::var("STUB").unwrap_or_default();
    let mut words = what.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some("dump"), None, None) => dump(),
        (Some("open"), Some(mode), Some(path)) => {
            let opened = fs::OpenOptions::new()
                .read(true)
                .write(mode == "rw")
                .open(path);
            match opened {
                Ok(_) => println!("ok"),
                Err(error) => println!("{error}"),
            }
        }
        (Some("connect"), Some(path), None) => {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => println!("ok"),
                Err(error) => println!("{error}"),
            }
        }
        (Some("cat"), None, None) => {
            let mut text = Vec::new();
            let _ = std::io::stdin().read_to_end(&mut text);
            let _ = std::io::stdout().write_all(&text);
        }
        (Some("write"), Some(fd), Some(text)) => {
            // SAFETY: the test hands this number down open.
            let mut file = unsafe { fs::File::from_raw_fd(fd.parse().unwrap_or(1)) };
            if file.write_all(text.as_bytes()).is_err() {
                return 1;
            }
        }
        (Some("exit"), Some(status), None) => return status.parse().unwrap_or(99),
        (Some("signal"), Some(number), None) => {
            // SAFETY: raise(3) takes an integer.
            unsafe { libc::raise(number.parse().unwrap_or(libc::SIGKILL)) };
        }
        (Some("wait"), None, None) => {
            println!("ready {}", std::process::id());
            let _ = std::io::stdout().flush();
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        }
        (Some("pause"), None, None) => {
            println!("ready {}", std::process::id());
            let _ = std::io::stdout().flush();
            // SAFETY: pause(2) takes nothing.
            unsafe { libc::pause() };
        }
        (Some("clock"), None, None) => clock(),
        (Some("limit"), None, None) => return limit(),
        (Some("acts"), None, None) => acts::run(),
        (Some("victim"), None, None) => acts::victim(),
        (Some("survive"), Some(_), _) => {
            return survive::run(what.trim_start_matches("survive "));
        }
        (Some("adopt"), None, None) => return survive::adopt(),
        (Some("fork"), None, None) => {
            // SAFETY: one thread; the child only reads and ends.
            if unsafe { libc::fork() } == 0 {
                let _ = std::io::stdin().read_to_end(&mut Vec::new());
            } else {
                println!("forked");
            }
        }
        (Some("crowd"), Some(count), None) => crowd(count.parse().unwrap_or(0)),
        _ => return 98,
    }
    let _ = std::io::stdout().flush();
    0
}

fn clock() {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `now`, which lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    println!("{}{:09}", now.tv_sec, now.tv_nsec);
}

fn limit() -> u8 {
    use std::os::unix::process::CommandExt;
    let mut words = std::env::args().skip(1);
    let (Some(context), Some(label), Some(program)) = (words.next(), words.next(), words.next())
    else {
        return 98;
    };
    let label = std::ffi::CString::new(label).unwrap_or_default();
    for file in words {
        let file = std::ffi::CString::new(file).unwrap_or_default();
        let name = c"security.selinux".as_ptr();
        // SAFETY: all of them end with NUL and live through the call; the length has the NUL in it.
        let set = unsafe {
            libc::setxattr(
                file.as_ptr(),
                name,
                label.as_ptr().cast(),
                label.as_bytes_with_nul().len(),
                0,
            )
        };
        if set != 0 {
            return 97;
        }
    }
    if fs::write("/proc/thread-self/attr/exec", context).is_err() {
        return 96;
    }
    let _ = std::process::Command::new(program)
        .env("STUB", "clock")
        .exec();
    95
}

/// Processes that are there until standard input ends.
fn crowd(count: usize) {
    // SAFETY: one thread; the children only read and end.
    let first = (0..count).all(|_| unsafe { libc::fork() } != 0);
    if first {
        println!("ready");
        let _ = std::io::stdout().flush();
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn getenv(name: &CStr) -> String {
    // SAFETY: getenv(3) reads a string that ends with NUL; one thread.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return "unset".to_owned();
    }
    // SAFETY: not null, and the environment is not changed.
    unsafe { CStr::from_ptr(value) }
        .to_string_lossy()
        .into_owned()
}

fn dump() {
    println!("pid {}", std::process::id());
    println!("ppid {}", std::os::unix::process::parent_id());
    println!("args {:?}", std::env::args_os().collect::<Vec<_>>());
    println!("cwd {:?}", std::env::current_dir().ok());
    for name in [
        c"TMPDIR",
        c"LD_LIBRARY_PATH",
        c"MALLOC_CHECK_",
        c"ODD",
        c"HOME",
    ] {
        println!("getenv {name:?} {}", getenv(name));
    }
    let environ = fs::read("/proc/self/environ").unwrap_or_default();
    println!("environ {:?}", String::from_utf8_lossy(&environ));
    // SAFETY: getauxval(3) takes an integer.
    println!("secure {}", unsafe { libc::getauxval(libc::AT_SECURE) });
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines() {
        let name = line.split(':').next().unwrap_or_default();
        if [
            "Umask",
            "SigBlk",
            "SigIgn",
            "SigCgt",
            "CapEff",
            "CapPrm",
            "CapAmb",
            "NoNewPrivs",
            "Uid",
            "Gid",
        ]
        .contains(&name)
        {
            println!("{line}");
        }
    }
    print!(
        "{}",
        fs::read_to_string("/proc/self/limits").unwrap_or_default()
    );
    let mut fds: Vec<String> = Vec::new();
    for number in 0..64 {
        // SAFETY: fcntl with F_GETFL and F_GETFD takes two integers.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
        if flags != -1 {
            let target = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
            // SAFETY: as above.
            let cloexec = unsafe { libc::fcntl(number, libc::F_GETFD) };
            fds.push(format!(
                "fd {number} {} {flags:o} {cloexec}",
                target.display()
            ));
        }
    }
    println!("{}", fds.join("\n"));
    println!(
        "label {}",
        fs::read_to_string("/proc/self/attr/current")
            .unwrap_or_default()
            .trim_end_matches('\0')
    );
}
