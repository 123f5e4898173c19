//! This host, by the kernel's own word: libselinux, /proc, and the processes that open and parse images.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::Pid;

use crate::host::cmdline;
use crate::host::files::{Files, HeaderError};
use crate::host::pinned::{self, Kind, Pinned};
use crate::host::policy::{self, Policy, VirtualContexts};
use crate::host::privsep::Assistants;
use crate::host::process_labels::{ProcessLabels, ProcessLook, Processes, Sought};
use crate::host::procfs::{self, Procfs};
use crate::host::reserving;
use crate::image::{self, ImageFormat, References};
use crate::model::label::Context;
use crate::selinux::{self, Mode};
use crate::sys;

/// This host.
#[derive(Debug)]
pub struct RealHost {
    procfs: Procfs,
    assistants: Assistants,
}

impl RealHost {
    /// Opens /proc.
    ///
    /// # Errors
    /// Those of open(2), and that it is no procfs.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            procfs: Procfs::open()?,
            assistants: Assistants::default(),
        })
    }

    /// Returns its /proc.
    pub fn procfs(&self) -> &Procfs {
        &self.procfs
    }

    /// Looks at the processes other than this one and `another`.
    ///
    /// # Errors
    /// Those of listing /proc.
    pub fn look_besides(&self, another: Option<Pid>, sought: Sought) -> io::Result<ProcessLook> {
        let mut look = self.procfs.look_besides(another, sought)?;
        reserving::note(&self.procfs, &mut look.processes);
        Ok(look)
    }

    /// Labels a pinned file.
    ///
    /// # Errors
    /// Those of setfilecon(3).
    pub fn set_label(&self, pinned: &Pinned, label: &Context) -> io::Result<()> {
        selinux::set_label_of_path(&pinned.proc_path(), label)
    }

    /// Returns what a process calls itself, if it is a QEMU: for messages only.
    pub fn guest_name(&self, pid: Pid) -> Option<String> {
        cmdline::of_qemu(&self.procfs, pid)?.name()
    }
}

impl Policy for RealHost {
    fn mode(&self) -> Mode {
        selinux::mode()
    }

    fn own_context(&self) -> io::Result<Context> {
        selinux::own_context()
    }

    fn denied<'p>(
        &self,
        source: &Context,
        target: &Context,
        class: &str,
        permissions: &[&'p str],
    ) -> io::Result<Vec<&'p str>> {
        selinux::denied(source, target, class, permissions)
    }

    fn label_of_new(
        &self,
        source: &Context,
        directory: &Context,
        kind: Kind,
        name: &OsStr,
    ) -> io::Result<Context> {
        // Names only matter to rules for named files, and those are text.
        selinux::label_of_new(source, directory, kind.class(), &name.to_string_lossy())
    }

    fn is_valid(&self, context: &Context) -> bool {
        selinux::is_valid(context)
    }

    fn virtual_contexts(&self) -> io::Result<VirtualContexts> {
        Ok(VirtualContexts {
            domains: policy::contexts_in(selinux::virtual_domain_context()?)?,
            images: policy::contexts_in(selinux::virtual_image_context()?)?,
        })
    }
}

impl Files for RealHost {
    fn pin(&self, path: &Path) -> io::Result<Pinned> {
        pinned::pin(path)
    }

    fn open(&self, pinned: &Pinned) -> io::Result<File> {
        match self.assistants.reader()? {
            Some(reader) => reader.open(pinned.as_fd()),
            None => pinned::open_to_read(pinned.as_fd()),
        }
    }

    fn header(
        &self,
        mut file: File,
        stated: Option<ImageFormat>,
        name: &OsStr,
    ) -> Result<(ImageFormat, References), HeaderError> {
        match self.assistants.probe()? {
            Some(probe) => Ok(probe.header(file.as_fd(), stated, name)?),
            None => Ok(image::header(stated, &mut file, name.as_bytes())?),
        }
    }

    fn label_of(&self, pinned: &Pinned) -> io::Result<Option<Context>> {
        selinux::label_of_path_if_any(&pinned.proc_path())
    }
}

impl Processes for RealHost {
    fn look(&self) -> io::Result<ProcessLook> {
        self.look_besides(None, Sought::Labels)
    }

    fn entered(&self) -> io::Result<Vec<ProcessLabels>> {
        let mut processes = self.procfs.entered()?;
        reserving::note(&self.procfs, &mut processes);
        Ok(processes)
    }

    fn claim(&self, context: &Context) -> io::Result<()> {
        selinux::set_exec_context(context)?;
        // Not what somebody has mounted over the file. (openat2(2), which could say so, is refused by
        // the filters of services with RestrictSUIDSGID=.)
        let noted = self.procfs.open_file("thread-self/attr/exec")?;
        if sys::mount_id(noted.as_fd())? != sys::mount_id(self.procfs.as_fd())? {
            return Err(io::Error::other(
                "something is mounted over /proc/thread-self/attr/exec: umount it, or run svirt-exec \
                 where it is not",
            ));
        }
        let text = sys::rest_at_once(noted.as_fd())?;
        let set = procfs::parsed(&String::from_utf8(text).map_err(io::Error::other)?)?;
        if set.as_ref() != Some(context) {
            return Err(io::Error::other(format!(
                "the kernel has noted '{}' instead",
                set.map_or_else(String::new, |set| set.to_string())
            )));
        }
        Ok(())
    }
}
