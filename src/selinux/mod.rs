//! SELinux: labels of processes and files, and questions to the policy. The only wing that names the
//! selinux crate. Contexts are raw, never translated.
//!
//! May import `sys`, `text` and `model`.
//!
//! * this file: libselinux, and what the kernel shows below /sys/fs/selinux
//! * `names`: what the svirt_launcher module calls its domains and types
//! * `advice`: booleans and commands for a person whom the policy stops

pub(crate) mod advice;
pub(crate) mod names;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::OnceLock;

use selinux::{KernelSupport, SELinuxMode, SecurityClass, SecurityContext};

use crate::model::label::Context;
use crate::sys;

/// What SELinux does on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not in the kernel, or not enabled.
    Disabled,
    /// Denials are logged only.
    Permissive,
    /// Denials are denials.
    Enforcing,
}

fn to_io(error: selinux::errors::Error) -> io::Error {
    use selinux::errors::Error;
    match error {
        Error::IO { source, .. }
        | Error::IO1Process { source, .. }
        | Error::IO1Name { source, .. }
        | Error::IO1Path { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}

fn parse(context: &SecurityContext<'_>) -> io::Result<Context> {
    std::str::from_utf8(context.as_bytes())
        .map_err(io::Error::other)?
        .parse()
        .map_err(io::Error::other)
}

fn with<T>(context: &Context, f: impl FnOnce(&SecurityContext<'_>) -> T) -> io::Result<T> {
    let text = std::ffi::CString::new(context.to_string())?;
    Ok(f(&SecurityContext::from_c_str(&text, true)))
}

/// Tells whether SELinux is on, and enforcing; `is_selinux_enabled(3)`, `security_getenforce(3)`.
pub fn mode() -> Mode {
    // This does not change while the process runs.
    static SUPPORT: OnceLock<bool> = OnceLock::new();
    if !SUPPORT.get_or_init(|| selinux::kernel_support() != KernelSupport::Unsupported) {
        return Mode::Disabled;
    }
    match selinux::current_mode() {
        SELinuxMode::NotRunning => Mode::Disabled,
        SELinuxMode::Permissive => Mode::Permissive,
        _ => Mode::Enforcing,
    }
}

/// Returns this process's context; `getcon_raw(3)`.
pub fn own_context() -> io::Result<Context> {
    parse(&SecurityContext::current(true).map_err(to_io)?)
}

/// Changes this process's context, for good; `setcon_raw(3)`.
pub fn set_own_context(context: &Context) -> io::Result<()> {
    with(context, |c| c.set_as_current())?.map_err(to_io)
}

/// Asks for a context at the next execve(2); `setexeccon_raw(3)`.
pub fn set_exec_context(context: &Context) -> io::Result<()> {
    with(context, |c| c.set_for_next_exec())?.map_err(to_io)
}

/// Does the same in a process that shares memory with another: libselinux would note it there as that one's;
/// proc_pid_attr(5).
pub fn write_exec_context(context: &Context) -> io::Result<()> {
    use std::io::Write;
    // Not std::fs::write: for its O_CREAT the policy would be asked whether this may make the file.
    std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/thread-self/attr/exec")?
        .write_all(context.to_string().as_bytes())
}

/// Takes back what was asked for; `setexeccon_raw(3)` with no context.
pub fn clear_exec_context() -> io::Result<()> {
    SecurityContext::set_default_context_for_next_exec().map_err(to_io)
}

/// Returns the context of the program that executed this one; `getprevcon_raw(3)`.
pub fn previous_context() -> io::Result<Context> {
    parse(&SecurityContext::previous(true).map_err(to_io)?)
}

/// Returns the label that a process of context `source` gives an object that it makes in a directory;
/// `security_compute_create_name_raw(3)`.
pub fn label_of_new(
    source: &Context,
    directory: &Context,
    class: &str,
    name: &str,
) -> io::Result<Context> {
    let class = class_of(class)?;
    let label = with(source, |s| {
        with(directory, |d| {
            s.of_labeling_decision(d, class, name)
                .map_err(to_io)
                .and_then(|label| parse(&label))
        })
    })???;
    Ok(label)
}

/// Labels files that this process makes from now on; `setfscreatecon_raw(3)`.
pub fn set_create_context(label: Option<&Context>) -> io::Result<()> {
    match label {
        Some(label) => with(label, |l| l.set_for_new_file_system_objects(true))?,
        None => SecurityContext::set_default_context_for_new_file_system_objects(),
    }
    .map_err(to_io)
}

/// Tells whether the policy knows this context; `security_check_context_raw(3)`.
pub fn is_valid(context: &Context) -> bool {
    with(context, |c| c.check()).is_ok_and(|valid| valid == Some(true))
}

/// Returns the label of what a path leads to, symbolic links followed; `getfilecon_raw(3)`.
pub fn label_of_path(path: &Path) -> io::Result<Option<Context>> {
    match SecurityContext::of_path(path, true, true).map_err(to_io)? {
        Some(context) => parse(&context).map(Some),
        None => Ok(None),
    }
}

/// Returns the label as [`label_of_path`] does. None also if the file system has no labels.
///
/// # Errors
/// Those of getfilecon(3), but for EOPNOTSUPP.
pub fn label_of_path_if_any(path: &Path) -> io::Result<Option<Context>> {
    match label_of_path(path) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        other => other,
    }
}

/// Labels what a path leads to; `setfilecon_raw(3)`.
pub fn set_label_of_path(path: &Path, label: &Context) -> io::Result<()> {
    with(label, |c| c.set_for_path(path, true, true))?.map_err(to_io)
}

/// Returns the label of an open descriptor's object; `fgetfilecon_raw(3)`.
pub fn label_of_fd(fd: BorrowedFd<'_>) -> io::Result<Option<Context>> {
    match SecurityContext::of_file(&fd.as_raw_fd(), true).map_err(to_io)? {
        Some(context) => parse(&context).map(Some),
        None => Ok(None),
    }
}

/// Labels an open descriptor's object; `fsetfilecon_raw(3)`.
pub fn set_label_of_fd(fd: BorrowedFd<'_>, label: &Context) -> io::Result<()> {
    with(label, |c| c.set_for_file(&fd.as_raw_fd()))?.map_err(to_io)
}

/// Returns which of these permissions the policy, constraints included, does not give;
/// `security_compute_av_flags_raw(3)`. A permission or class that the policy does not define is not given.
pub fn denied<'p>(
    source: &Context,
    target: &Context,
    class: &str,
    permissions: &[&'p str],
) -> io::Result<Vec<&'p str>> {
    let Ok(number) = class_of(class) else {
        return Ok(permissions.to_vec());
    };
    let allowed = allowed(source, target, class, number)?;
    Ok(permissions
        .iter()
        .filter(|permission| {
            let given = bit_of(class, permission).map(|bit| allowed & bit == bit);
            !given.unwrap_or(false)
        })
        .copied()
        .collect())
}

/// Returns the access vector. A process asks the kernel once for each: most disks of a guest have the same
/// labels, and what the kernel decides in the end is its own affair.
fn allowed(
    source: &Context,
    target: &Context,
    class: &str,
    number: SecurityClass,
) -> io::Result<u32> {
    let question = format!("{source} {target} {class}");
    if let Some(known) = ANSWERS.with_borrow(|answers| answers.get(&question).copied()) {
        return Ok(known);
    }
    let decision = with(source, |s| {
        with(target, |t| s.query_access_decision(t, number, u32::MAX))
    })??
    .map_err(to_io)?;
    ANSWERS.with_borrow_mut(|answers| answers.insert(question, decision.allowed));
    Ok(decision.allowed)
}

/// Where the kernel shows the numbers of the policy's classes and permissions.
const CLASSES: &str = "/sys/fs/selinux/class";

thread_local! {
    /// Numbers that this process has read.
    static NUMBERS: RefCell<BTreeMap<String, u32>> = RefCell::default();
    /// Access vectors that it was told.
    static ANSWERS: RefCell<BTreeMap<String, u32>> = RefCell::default();
}

/// Returns a number that the kernel shows below [`CLASSES`]. libselinux would read all permissions of a class
/// at the first question about it, some thirty files for one or two of them.
fn number(name: String) -> io::Result<u32> {
    if let Some(known) = NUMBERS.with_borrow(|numbers| numbers.get(&name).copied()) {
        return Ok(known);
    }
    let bytes = sys::read_at_once(nix::fcntl::AT_FDCWD, &format!("{CLASSES}/{name}"))?;
    let number = str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let number = number.ok_or(io::ErrorKind::InvalidData)?;
    NUMBERS.with_borrow_mut(|numbers| numbers.insert(name, number));
    Ok(number)
}

/// Returns a class by its name, as `string_to_security_class(3)` does.
fn class_of(name: &str) -> io::Result<SecurityClass> {
    let number = number(format!("{name}/index"))?;
    SecurityClass::new(number.try_into().map_err(io::Error::other)?).map_err(to_io)
}

/// Returns the bit of a permission, as `string_to_av_perm(3)` does.
fn bit_of(class: &str, permission: &str) -> io::Result<u32> {
    // Permissions are counted from 1.
    let shift = number(format!("{class}/perms/{permission}"))?.checked_sub(1);
    shift
        .and_then(|shift| 1_u32.checked_shl(shift))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Where the kernel shows the policy's booleans.
const BOOLEANS: &str = "/sys/fs/selinux/booleans";

/// Returns the state of one of the policy's booleans; `security_get_boolean_active(3)`. None if there is no
/// such boolean.
pub fn boolean(name: &str) -> Option<bool> {
    // Two numbers: as it is, and as it will be once changes are committed.
    let state = std::fs::read_to_string(Path::new(BOOLEANS).join(name)).ok()?;
    Some(state.trim_start().starts_with('1'))
}

/// Returns every boolean of the policy that can be read.
pub fn booleans() -> Vec<(String, bool)> {
    std::fs::read_dir(BOOLEANS)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let state = boolean(&name)?;
            Some((name, state))
        })
        .collect()
}

/// Returns the file that says which domains guests get; `selinux_virtual_domain_context_path(3)`.
pub fn virtual_domain_context() -> io::Result<&'static Path> {
    selinux::path::virtual_domain_context().map_err(to_io)
}

/// Returns the file that says which labels images get; `selinux_virtual_image_context_path(3)`.
pub fn virtual_image_context() -> io::Result<&'static Path> {
    selinux::path::virtual_image_context().map_err(to_io)
}
