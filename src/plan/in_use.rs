//! Files that are in use already: by the host itself, or by another QEMU.

use std::ffi::OsStr;

use crate::host::block_use::{Number, user_of};
use crate::host::files::Files;
use crate::host::image_lock;
use crate::host::pinned::Kind;
use crate::host::real::RealHost;
use crate::host::sysfs::SystemFiles;
use crate::plan::step::{Action, Step};
use crate::text::escape::shell_word;
use crate::text::message::Message;

/// Says of every block device that would be labelled, and that this host itself uses, who does.
pub fn by_host(files: &dyn SystemFiles, steps: &[Step]) -> Vec<Message> {
    let mut obstacles = Vec::new();
    for step in steps {
        let resource = &step.resource;
        let Some(pinned) = &resource.pinned else {
            continue;
        };
        if step.action != Action::Relabel || pinned.kind != Kind::Block {
            continue;
        }
        let what = format!("cannot label {} ({})", resource.name(), resource.origin);
        match user_of(files, Number::of(pinned.device)) {
            Ok(None) => {}
            Ok(Some(found)) => {
                obstacles.push(format!("{what}: this host uses the device: {found}").into());
            }
            Err(error) => obstacles.push(
                format!("{what}: cannot tell whether this host uses the device: {error}").into(),
            ),
        }
    }
    obstacles
}

/// Says of every image that would be labelled, and that another QEMU has open, which one does.
pub fn by_other_qemus(host: &RealHost, steps: &[Step]) -> Vec<Message> {
    let mut obstacles = Vec::new();
    for step in steps {
        let resource = &step.resource;
        let (Action::Relabel, Some(pinned)) = (step.action, &resource.pinned) else {
            continue;
        };
        if pinned.kind != Kind::File {
            continue;
        }
        if let Ok(file) = host.open(pinned)
            && let Some(why) = image_lock::in_the_way(host, pinned, &file, step.class)
        {
            obstacles.push(
                format!(
                    "cannot label {} ({}): {why}",
                    resource.name(),
                    resource.origin
                )
                .into(),
            );
        }
    }
    obstacles
}

/// Says that somebody has opened a device for himself alone.
pub fn claimed(node: &OsStr) -> String {
    format!(
        "this host uses the device, somebody has claimed it for himself alone (a mount in another \
         namespace, a volume that has just been set up); lsblk {node} and grep {node} \
         /proc/*/mountinfo show who",
        node = shell_word(node)
    )
}
