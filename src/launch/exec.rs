//! The QEMU to run: found as execvp(3) finds it, and executed.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::execve;

use crate::plan::preflight;
use crate::sys;
use crate::text::escape::quoted;
use crate::text::message::{Message, NOT_EXECUTABLE, NOT_FOUND, Refusal, refuse};

/// A QEMU and how it is called.
#[derive(Debug)]
pub struct QemuProgram {
    /// The program.
    pub path: PathBuf,
    /// Its name as the caller gave it; QEMU's argument 0.
    pub word: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl QemuProgram {
    /// Finds the program as execvp(3) does.
    ///
    /// # Errors
    /// With status 127 if there is none, with 126 if it is not executable.
    pub fn find(words: &[OsString], search: Option<&OsStr>) -> Result<Self, Refusal> {
        let Some((word, args)) = words.split_first() else {
            let messages = [
                "no QEMU given; put svirt-exec in front of a QEMU command line: \
                 svirt-exec qemu-system-x86_64 -m 2G -drive file=disk.qcow2,format=qcow2",
                "svirt-exec plan … says what that would do; svirt-exec doctor, whether this \
                 host can; svirt-exec --help, everything else",
            ];
            return Err(Refusal::new(messages.map(Message::from).into()));
        };
        // By its mode, not by access(2): whether SELinux lets the launcher execute it is asked of the
        // policy, which can say more.
        let mut denied = false;
        let mut usable = |path: &Path| match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.mode() & 0o111 != 0 => true,
            Ok(_) => {
                denied = true;
                false
            }
            Err(error) => {
                denied |= error.kind() == io::ErrorKind::PermissionDenied;
                false
            }
        };
        let found = if word.as_bytes().contains(&b'/') {
            Some(PathBuf::from(word)).filter(|path| usable(path))
        } else {
            std::env::split_paths(search.unwrap_or(OsStr::new("/usr/bin:/bin")))
                .map(|directory| directory.join(word))
                .find(|path| usable(path))
        };
        match found {
            Some(path) => Ok(Self {
                path,
                word: word.clone(),
                args: args.to_vec(),
            }),
            None if denied => Err(Refusal {
                messages: vec![Message::new(
                    format!("cannot execute {}: permission denied", quoted(word)),
                    "it needs execute permission (chmod +x)",
                )],
                status: NOT_EXECUTABLE,
            }),
            None => Err(Refusal {
                messages: vec![Message::new(
                    preflight::not_found(word),
                    "install it, or give its path",
                )],
                status: NOT_FOUND,
            }),
        }
    }

    /// Becomes QEMU; execve(2). Returns only if that fails.
    pub fn execute(&self, environment: &[CString]) -> Refusal {
        let to_c = |word: &OsStr| CString::new(word.as_bytes());
        let words = std::iter::once(&self.word)
            .chain(&self.args)
            .map(|word| to_c(word))
            .collect::<Result<Vec<CString>, _>>();
        let (Ok(program), Ok(words)) = (to_c(self.path.as_os_str()), words) else {
            return refuse("cannot execute QEMU: a word of its command line holds a NUL byte");
        };
        // If one of them could not be started, that was found when it did not answer.
        let _ = sys::wait_for_starters();
        let Err(error) = execve(&program, &words, environment);
        let why = match error {
            Errno::EACCES => {
                "permission denied (SELinux refuses the transition, or a file system is mounted noexec; \
                 ausearch -m avc -ts recent)"
                    .to_owned()
            }
            Errno::ENOENT => "its interpreter or loader is missing".to_owned(),
            Errno::ENOEXEC => "it is no program for this machine".to_owned(),
            other => other.desc().to_owned(),
        };
        Refusal {
            messages: vec![
                format!("cannot execute {}: {why}", quoted(self.path.as_os_str())).into(),
            ],
            status: NOT_EXECUTABLE,
        }
    }
}
