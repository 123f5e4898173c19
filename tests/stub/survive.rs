//! Processes of a guest that look as if they had ended, or that are hard to see.
//!
//! QEMU's place is taken by a process that starts them, says `ready` with their numbers, and ends at the first line
//! on its standard input. They end when all of that has been closed.
// Safety, of every call below: pointers are to values that live through it. There is one thread but where it says
// so, so that a child may do anything.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::io::{self, Read, Write};

/// Does what the rest of `STUB` says.
pub fn run(how: &str) -> u8 {
    let (what, count) = how.split_once(' ').unwrap_or((how, "1"));
    let child: fn() = match what {
        "name" => with_a_name_that_is_no_text,
        "thread" => without_its_first_thread,
        "stopped" => stopped,
        "session" => in_a_session_of_its_own,
        "chain" => chain,
        "cmdline" => with_an_endless_command_line,
        "plain" => wait,
        _ => return 98,
    };
    let mut line = format!("ready {}", std::process::id());
    for _ in 0..count.parse().unwrap_or(1) {
        match unsafe { libc::fork() } {
            -1 => return 97,
            0 => {
                child();
                unsafe { libc::_exit(0) };
            }
            pid => line.push_str(&format!(" {pid}")),
        }
    }
    println!("{line}");
    let _ = io::stdout().flush();
    let _ = io::stdin().read(&mut [0]);
    0
}

/// Whether standard input has been closed by everybody who could write to it, after at most so many milliseconds.
fn is_over(milliseconds: i32) -> bool {
    let mut input = libc::pollfd {
        fd: 0,
        events: 0,
        revents: 0,
    };
    unsafe { libc::poll(&raw mut input, 1, milliseconds) == 1 }
}

fn wait() {
    is_over(-1);
}

fn name(bytes: &std::ffi::CStr) {
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

fn with_a_name_that_is_no_text() {
    name(c"\xff) Z 1\xfe");
    wait();
}

/// /proc shows it as a zombie.
fn without_its_first_thread() {
    std::thread::spawn(|| {
        wait();
        unsafe { libc::_exit(0) };
    });
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

fn stopped() {
    unsafe { libc::raise(libc::SIGSTOP) };
    wait();
}

fn in_a_session_of_its_own() {
    unsafe { libc::setsid() };
    wait();
}

/// Forks and ends, time and again, under another name each time. With what everybody else leaves of the processor:
/// hundreds of them want it all, and the test is to have some.
fn chain() {
    let lowest = libc::sched_param { sched_priority: 0 };
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const lowest) };
    let mut round = 0_u8;
    while !is_over(0) {
        match unsafe { libc::fork() } {
            0 => {
                round = round.wrapping_add(1);
                let bytes = [round | 0x80, b')', 0];
                unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
            }
            // No process is to be had just now.
            -1 => {}
            _ => unsafe { libc::_exit(0) },
        }
    }
}

/// Lets /proc/PID/cmdline be 400 MB of memory that it never touched; PR_SET_MM_ARG_END of prctl(2).
fn with_an_endless_command_line() {
    const LONG: usize = 400 << 20;
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            LONG,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        );
        // All of it at once, as it may be without CAP_SYS_RESOURCE: PR_SET_MM_MAP, which wants every address. The
        // others stay as /proc/self/stat has them.
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        // Fields 26 to 28 and 45 to 51 of proc_pid_stat(5), of which the third comes first here.
        let field = |number: usize| fields.get(number.saturating_sub(3)).copied().unwrap_or(0);
        let brk = libc::sbrk(0) as u64;
        let start = at as u64;
        let end = start.saturating_add(u64::try_from(LONG).unwrap_or(0));
        let map = PrctlMmMap {
            start_code: field(26),
            end_code: field(27),
            start_data: field(45),
            end_data: field(46),
            start_brk: field(47),
            brk,
            start_stack: field(28),
            arg_start: start,
            arg_end: end,
            env_start: start,
            env_end: start,
            auxv: 0,
            auxv_size: 0,
            exe_fd: u32::MAX,
        };
        let set = libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP,
            &raw const map,
            size_of::<PrctlMmMap>(),
            0,
        );
        if set != 0 {
            println!("no endless command line: {}", io::Error::last_os_error());
            return;
        }
    }
    wait();
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
struct PrctlMmMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Executes a program, and adopts whatever it leaves behind (PR_SET_CHILD_SUBREAPER): init would have to be told of
/// each of thousands that end. Ends as soon as no descendant is left, with status 0.
pub fn adopt() -> u8 {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        return 98;
    };
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let mut command = std::process::Command::new(program);
    command.args(words).env_remove("STUB");
    if let Some(what) = std::env::var_os("STUB_OF_CHILD") {
        command.env("STUB", what);
    }
    if command.spawn().is_err() {
        return 97;
    }
    // Of the standard input no writer is counted here: it is the program's.
    unsafe { libc::close(0) };
    // Nobody becomes a zombie, and wait(2) returns when the last has ended.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    while unsafe { libc::wait(std::ptr::null_mut()) } != -1 {}
    0
}
