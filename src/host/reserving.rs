//! Whose categories keep others from a pair.
//!
//! Anybody may run a process at any level of their clearance, or ask for one with setexeccon(3). If all of that
//! counted, one process at `s0:c0.c1023` would stop every launch on the host. What counts is what categories
//! confine, and what could come to be:
//!
//! * a process in a domain whose processes the policy keeps apart by categories. One of another domain reaches
//!   no more and no less with them, and no guest reaches it by having them
//! * a context that was asked for, of such a domain, by a process that may enter it
//! * of other people's processes only what has exactly two categories, as guests and containers have. By a level
//!   with one, or with more, they would take a thousand pairs from everybody, or all. Root's processes and those
//!   of system users, libvirt's among them, count whatever they have

use std::ops::Range;

use nix::unistd::{Pid, Uid};

use crate::host::process_labels::{ProcessLabels, Reserves};
use crate::host::procfs::Procfs;
use crate::model::label::{Category, CategoryPair, Context, Level};
use crate::selinux;
use crate::selinux::names::{KEEPER_DOMAIN, OWN_DOMAIN};

/// Numbers of people's accounts: UID_MIN and UID_MAX of login.defs(5), the same on Debian and Fedora. Debian's
/// libvirt-qemu has one above them, as have users of the system's own making (systemd's DynamicUser=).
const PEOPLE: Range<u32> = 1000..60_001;

/// The lowest number that a user may become in a namespace; SUB_UID_MIN of login.defs(5).
const FIRST_SUBORDINATE: u32 = 100_000;

/// Permissions of class process that the policies' constraints for categories cover, and of which each domain
/// has some for itself (policy/mcs of refpolicy and of Fedora's).
const CONSTRAINED: [&str; 3] = ["signal", "sigkill", "sigstop"];

/// Notes of each process which of its labels keep others from their categories.
pub fn note(procfs: &Procfs, processes: &mut [ProcessLabels]) {
    for process in processes {
        if process.has_categories() {
            process.reserves = reserved_by(procfs, process);
        }
    }
}

fn reserved_by(procfs: &Procfs, process: &ProcessLabels) -> Reserves {
    let counts = |context: &Context| {
        !context.categories().is_empty()
            && is_confined(context).unwrap_or(true)
            && (context.categories().len() == 2 || !is_of_another_person(procfs, process.pid))
    };
    Reserves {
        current: process.current.as_ref().is_some_and(counts),
        pending: process.pending.as_ref().is_some_and(|pending| {
            counts(pending) && may_come_to_be(process.current.as_ref(), pending)
        }),
    }
}

/// Tells whether a process may enter the context that it has asked for, or holds it for a guest. In doubt it may.
fn may_come_to_be(current: Option<&Context>, pending: &Context) -> bool {
    current.is_none_or(|current| {
        [OWN_DOMAIN, KEEPER_DOMAIN].contains(&current.type_.as_str())
            || selinux::denied(current, pending, "process", &["transition"])
                .map_or(true, |denied| denied.is_empty())
    })
}

/// Asks the policy whether processes of a domain with different categories are kept from what those with the same
/// may do to each other. None if they may do nothing even then, or if it has no such contexts.
fn is_confined(domain: &Context) -> Option<bool> {
    let at = |low, high| {
        let pair = CategoryPair::new(Category::new(low)?, Category::new(high)?)?;
        Some(domain.at(Level::with_pair(domain.sensitivity(), pair)))
    };
    let (one, other) = (at(0, 1)?, at(2, 3)?);
    let refused = |target| selinux::denied(&one, target, "process", &CONSTRAINED).ok();
    let (to_itself, to_another) = (refused(&one)?, refused(&other)?);
    (to_itself.len() < CONSTRAINED.len()).then_some(to_itself != to_another)
}

/// Tells whether a process belongs to a person other than this one.
fn is_of_another_person(procfs: &Procfs, pid: Pid) -> bool {
    procfs.user_of(pid).is_some_and(|user| {
        (PEOPLE.contains(&user) || user >= FIRST_SUBORDINATE) && user != Uid::effective().as_raw()
    })
}
