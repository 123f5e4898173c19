//! svirt-exec puts one QEMU process in an SELinux cage of its own, without a daemon.
//!
//! The way of the data: `qemu` parses the command line, `collect` looks at what it
//! names on this host, `plan` decides every label, `journal` and `keeper` make
//! that undoable, `launch` does it and becomes QEMU. Everything left of `launch`
//! changes nothing.

pub mod cli;
#[cfg(test)]
mod golden_tests;
pub mod host;
pub mod image;
pub mod launch;
pub mod model;
pub mod observe;
pub mod plan;
pub mod qemu;
pub mod restore;
pub mod seclabel;
pub mod selinux;
pub mod sys;
pub mod text;
pub mod version;

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use cli::{Cli, Command, Launch};
use launch::{attach, planning};
use model::resource;
use plan::report;
use restore::command;
use restore::keeper::{client, main};
use text::escape;
use text::message::{NOT_FOUND, REFUSED, Refusal, say};
use text::output::println;

/// The name by which libvirt calls this program as a hook.
const HOOK: &str = "svirt-exec-libvirt-hook";

/// The program: what its name and arguments ask for. Returns the exit status,
/// unless this process has become QEMU.
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
    let done = if name.as_bytes().starts_with(b"qemu-") {
        as_emulator(name.to_owned(), words.collect(), &environment)
    } else {
        match Cli::read(std::env::args_os().collect()) {
            Ok(cli) => dispatch(cli, &environment),
            Err(error) => {
                let _ = error.print();
                return if error.use_stderr() { REFUSED } else { 0 };
            }
        }
    };
    match done {
        Ok(status) => status,
        Err(refusal) => {
            for message in refusal.messages {
                say(message);
            }
            refusal.status
        }
    }
}

fn dispatch(cli: Cli, environment: &[CString]) -> Result<u8, Refusal> {
    if cli.version {
        println(&version::text());
        return Ok(0);
    }
    match cli.command {
        Some(Command::Plan { json, launch }) => {
            let plan = planning::plan(&launch, environment)?;
            if json {
                println(&report::json(&plan)?);
            } else {
                println(report::text(&plan).trim_end());
                for warning in plan.warnings.iter().chain(&plan.obstacles) {
                    say(format_args!("warning: {warning}"));
                }
            }
            for error in &plan.errors {
                say(error);
            }
            Ok(if plan.errors.is_empty() { 0 } else { REFUSED })
        }
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
                (true, _) => resource::Class::Content,
                (_, true) => resource::Class::Shared,
                _ => resource::Class::Exclusive,
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
        None => match launch::launch(&cli.launch, environment)? {},
    }
}

fn restore(wanted: &[OsString], scope: &command::Scope) -> Result<u8, Refusal> {
    if selinux::mode() == selinux::Mode::Disabled {
        return Ok(0);
    }
    let own = selinux::own_context()?;
    let back = command::restore(&own, wanted, scope, &mut |line| say(line))?;
    Ok(u8::from(!back))
}

/// Called by libvirt as its hook for guests: `HOOK GUEST OPERATION …`. When a guest has ended and
/// libvirt is done with it, its images belong to their owners again, and only root can put back what
/// its keeper could not.
fn hook(words: &[OsString]) -> u8 {
    if words.get(1).is_none_or(|operation| operation != "release") {
        return 0;
    }
    match command::scope(true, &[], true).and_then(|scope| restore(&[], &scope)) {
        Ok(status) => status,
        Err(refusal) => {
            refusal.messages.iter().for_each(say);
            refusal.status
        }
    }
}

/// Called by the name of a QEMU: every argument is QEMU's, and the QEMU is the
/// next of that name in PATH that is not this program.
fn as_emulator(
    name: OsString,
    args: Vec<OsString>,
    environment: &[CString],
) -> Result<u8, Refusal> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| {
        std::fs::metadata(path)
            .ok()
            .map(|metadata| (metadata.dev(), metadata.ino()))
    };
    let own = identity(Path::new("/proc/self/exe"));
    let program = match sys::variable(environment, "SVIRT_EXEC_QEMU") {
        Some(program) => Some(program),
        None => std::env::split_paths(&sys::variable(environment, "PATH").unwrap_or_default())
            .map(|directory| directory.join(&name))
            .find(|path| path.is_file() && identity(path) != own)
            .map(|path| path.into_os_string()),
    };
    let Some(program) = program else {
        return Err(Refusal {
            messages: vec![format!(
                "cannot find the real {} in PATH, apart from svirt-exec itself; install it, or name \
                 it with SVIRT_EXEC_QEMU",
                escape::quoted(&name)
            )],
            status: NOT_FOUND,
        });
    };
    let words = std::iter::once(program).chain(args).collect();
    match launch::launch(&Launch::of(words), environment)? {}
}
