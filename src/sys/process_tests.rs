use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use super::*;

const SHELL: &str = "/bin/sh";

/// Starts a program with a pipe as its standard output, and returns what it wrote once nobody has that
/// open any more.
fn output(
    program: &str,
    script: &str,
    before_exec: &dyn Fn() -> io::Result<()>,
) -> io::Result<String> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let null = File::open("/dev/null")?;
    let fds = [null.as_fd(), write.as_fd(), null.as_fd()];
    let args = [OsStr::new("-c"), OsStr::new(script)];
    start_detached(
        program.as_ref(),
        "a-name".as_ref(),
        &args,
        &fds,
        before_exec,
    )?;
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn what_is_started_has_its_descriptors_a_session_and_nothing_of_its_starter() {
    let held = File::open("/dev/null").unwrap();
    // A descriptor that would be inherited.
    let copy = nix::unistd::dup(&held).unwrap();
    let script = "echo $0; echo $PPID; cat /proc/$$/stat; ls /proc/$$/fd; env";
    let text = output(SHELL, script, &|| Ok(())).unwrap();
    drop(copy);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "a-name");
    let own = Pid::this().to_string();
    assert_ne!(lines[1], own, "its parent");
    let fields: Vec<&str> = lines[2].rsplit_once(')').unwrap().1.split(' ').collect();
    let own_session = nix::unistd::getsid(None).unwrap().to_string();
    assert_ne!(fields[4], own_session, "its session");
    assert_eq!(lines[3..6], ["0", "1", "2"]);
    // What the shell itself sets.
    let set = |line: &&str| {
        ["PWD=", "SHLVL=", "_=", "OLDPWD="]
            .iter()
            .any(|name| line.starts_with(name))
    };
    assert!(lines[6..].iter().all(set), "{text}");
}

#[test]
fn why_nothing_could_be_started_is_said_at_once() {
    let nothing = || Ok(());
    let error = output("/nowhere", "", &nothing).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let error = output("/dev/null", "", &nothing).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    let refused = || Err(io::Error::from_raw_os_error(libc::EINVAL));
    let error = output(SHELL, "", &refused).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let error = none_left(nix::errno::Errno::EAGAIN.into()).to_string();
    assert!(error.contains("RLIMIT_NPROC"), "{error}");
}
