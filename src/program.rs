//! What this program's name and arguments ask for.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::cli::{Cli, Command, Launch};
use crate::launch::{attach, dry_run, launch};
use crate::model::resource::Class;
use crate::observe;
use crate::plan::report;
use crate::qemu;
use crate::restore::command::{self, Scope};
use crate::restore::keeper::{client, main};
use crate::selinux::{self, Mode};
use crate::sys;
use crate::text::escape;
use crate::text::message::{Message, NOT_FOUND, REFUSED, Refusal, refuse, say};
use crate::text::output::println;
use crate::version;

/// The name by which libvirt calls this program as a hook.
const HOOK: &str = "svirt-exec-libvirt-hook";

/// The QEMU of Fedora and RHEL that is in no PATH.
const FEDORAS: &str = "/usr/libexec/qemu-kvm";

/// Runs the program. Returns the exit status, unless this process has become QEMU.
pub fn run() -> u8 {
    sys::hold_standard_descriptors();
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    if name == HOOK {
        return hook(&words.collect::<Vec<_>>());
    }
    if name == client::NAME {
        let args: Vec<Vec<u8>> = words.map(OsStringExt::into_vec).collect();
        return main::run(&args);
    }
    let environment = match sys::caller_environment() {
        Ok(environment) => environment,
        Err(error) => {
            say(format_args!(
                "cannot read the environment from /proc: {error}; mount /proc"
            ));
            return REFUSED;
        }
    };
    let done = if qemu::is_program_name(name) {
        as_emulator(name.to_owned(), words.collect(), &environment)
    } else if name.as_bytes().starts_with(b"qemu-") {
        Err(no_emulator(name))
    } else {
        match Cli::read(std::env::args_os().collect()) {
            Ok(cli) => dispatch(cli, &environment),
            Err(error) => {
                print_usage_error(&error);
                return if error.use_stderr() { REFUSED } else { 0 };
            }
        }
    };
    done.unwrap_or_else(say_refusal)
}

/// Prints what clap says of words that are not valid, or the help that was asked for. Words that a terminal
/// would obey are quoted there as they are.
fn print_usage_error(error: &clap::Error) {
    let plain = error.to_string();
    let harmless = escape::lines(&plain);
    let unheard = error.use_stderr() && sys::was_taken_away(std::io::stderr().as_fd());
    if harmless == plain && !unheard {
        let _ = error.print();
    } else {
        sys::write_error(harmless.as_bytes());
    }
}

/// Says why nothing was done. Returns the exit status.
fn say_refusal(refusal: Refusal) -> u8 {
    refusal.messages.iter().for_each(say);
    refusal.status
}

/// Does what was typed.
fn dispatch(cli: Cli, environment: &[CString]) -> Result<u8, Refusal> {
    if cli.version {
        println(&version::text());
        return Ok(0);
    }
    match cli.command {
        Some(Command::Plan { json, launch }) => plan(json, &launch, environment),
        Some(Command::List { json }) => observe::list_guests(json),
        Some(Command::Verify { json, guests }) => observe::verify_guests(json, &guests),
        Some(Command::Denials {
            json,
            since,
            log,
            guest,
        }) => observe::explain_denials(json, since, log.as_deref(), guest.as_deref()),
        Some(Command::Doctor { json, qemu }) => {
            observe::examine_host(json, qemu.as_deref(), environment)
        }
        Some(Command::Attach {
            read_only,
            shared,
            attached,
        }) => {
            let class = match (read_only, shared) {
                (true, _) => Class::Content,
                (_, true) => Class::Shared,
                _ => Class::Exclusive,
            };
            attach::attach(&attached, class)
        }
        Some(Command::Detach(attached)) => attach::detach(&attached),
        Some(Command::Restore {
            all,
            trust_user,
            quiet,
            wanted,
        }) => restore(&wanted, &command::scope(all, &trust_user, quiet)?),
        None => match launch(&cli.launch, environment)? {},
    }
}

/// Prints the plan of a launch.
fn plan(json: bool, options: &Launch, environment: &[CString]) -> Result<u8, Refusal> {
    let plan = dry_run::plan(options, environment)?;
    if json {
        println(&report::json(&plan)?);
    } else {
        println(report::text(&plan).trim_end());
        for note in &plan.notes {
            say(format_args!("note: {note}"));
        }
        for warning in plan.warnings.iter().chain(&plan.obstacles) {
            say(format_args!("warning: {warning}"));
        }
    }
    for error in &plan.errors {
        say(error);
    }
    Ok(if plan.errors.is_empty() { 0 } else { REFUSED })
}

/// Puts back the labels that ended guests left.
fn restore(wanted: &[OsString], scope: &Scope) -> Result<u8, Refusal> {
    if selinux::mode() == Mode::Disabled {
        return Ok(0);
    }
    let own = selinux::own_context()?;
    let back = command::restore(&own, wanted, scope, &mut |line| say(line))?;
    Ok(u8::from(!back))
}

/// Runs as libvirt's hook for guests: `HOOK GUEST OPERATION …`. When a guest has ended and libvirt is done
/// with it, its images belong to their owners again, and only root can put back what its keeper could not.
fn hook(words: &[OsString]) -> u8 {
    if words.get(1).is_none_or(|operation| operation != "release") {
        return 0;
    }
    command::scope(true, &[], true)
        .and_then(|scope| restore(&[], &scope))
        .unwrap_or_else(say_refusal)
}

/// Says that this program has been given a name of a tool of QEMU's, such as qemu-nbd.
fn no_emulator(name: &OsStr) -> Refusal {
    refuse(Message::new(
        format!(
            "cannot run as {}: svirt-exec confines QEMUs that run guests, and no other program",
            escape::quoted(name)
        ),
        "call that program itself; links to svirt-exec may be called qemu-system-NAME, qemu-kvm and kvm",
    ))
}

/// Runs under the name of a QEMU: every argument is QEMU's, and the QEMU is the next of that name in PATH
/// that is not this program.
fn as_emulator(
    name: OsString,
    args: Vec<OsString>,
    environment: &[CString],
) -> Result<u8, Refusal> {
    let program = match sys::variable(environment, "SVIRT_EXEC_QEMU") {
        Some(program) => Some(program),
        None => next_in_path(Path::new(&name), environment)
            .or_else(|| {
                Some(PathBuf::from(FEDORAS)).filter(|path| path.ends_with(&name) && path.is_file())
            })
            .map(PathBuf::into_os_string),
    };
    let Some(program) = program else {
        return Err(Refusal {
            messages: vec![Message::new(
                format!(
                    "cannot find the real {} in PATH, apart from svirt-exec itself",
                    escape::quoted(&name)
                ),
                "install it, or name it with SVIRT_EXEC_QEMU",
            )],
            status: NOT_FOUND,
        });
    };
    let words = std::iter::once(program).chain(args).collect();
    match launch(&Launch::of(words), environment)? {}
}

/// Returns the first program of a name in PATH that is not this one.
fn next_in_path(name: &Path, environment: &[CString]) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| {
        std::fs::metadata(path)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()))
    };
    let own = identity(Path::new("/proc/self/exe"));
    std::env::split_paths(&sys::variable(environment, "PATH").unwrap_or_default())
        .map(|directory| directory.join(name))
        .find(|path| path.is_file() && identity(path) != own)
}
