//! The keeper's own claim of a guest's context: the pair stays in use until the labels are back.

use std::io;

use nix::unistd::Pid;
use thiserror::Error;

use crate::host::{Processes, RealHost, Sought};
use crate::model::label::Context;
use crate::restore::keeper::client::PIDFD;
use crate::restore::keeper::protocol::FromKeeper;
use crate::seclabel::mcs;

/// A context that the launcher claims.
pub struct Claim {
    /// The context.
    pub context: Context,
    /// Whether the launcher leaves it to this process to find that nobody else has its pair.
    pub unverified: bool,
    /// As [`join`] found.
    pub others: Result<Others, ClaimError>,
}

/// Processes besides the launcher.
pub struct Others {
    /// One with overlapping categories.
    pub overlapping: Option<Pid>,
    /// Whether there may be others: some do not show their labels, or were missed.
    pub unproven: bool,
}

/// Why a claim cannot be kept.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// The process behind the pidfd is gone.
    #[error("the guest has ended")]
    Ended,
    /// The launcher does not claim what it says.
    #[error("process {0} does not claim {1}")]
    NotClaimed(Pid, Box<Context>),
    /// This process cannot claim it.
    #[error("cannot keep the claim of {0}: {1}")]
    Claim(Box<Context>, #[source] io::Error),
    /// /proc cannot be read.
    #[error(transparent)]
    Proc(#[from] io::Error),
}

impl Claim {
    /// Returns what is said of a context that was claimed without a look. Of another one the launcher
    /// knows itself.
    pub fn verdict(&self) -> FromKeeper {
        match &self.others {
            Ok(Others {
                overlapping: Some(_),
                ..
            }) if self.unverified => FromKeeper::Taken,
            Ok(Others { unproven: true, .. }) if self.unverified => FromKeeper::ReadyUnproven,
            _ => FromKeeper::Ready,
        }
    }
}

/// Claims what the launcher claims, and returns who else has overlapping categories. From then on,
/// whoever comes to have some does so knowing of this claim.
pub fn join(host: &RealHost, context: &Context) -> Result<Others, ClaimError> {
    let launcher = host
        .procfs()
        .process_behind(PIDFD)
        .ok_or(ClaimError::Ended)?;
    check_claim(host, launcher, context)?;
    claim(host, context)?;
    // A launcher that has looked itself may mean to share its level (`--share-level`), and still must not
    // talk a keeper into taking a running guest's files.
    let look = host.look_besides(Some(launcher), Sought::Labels)?;
    let overlapping = mcs::overlapping_process(&context.categories(), &look.processes);
    Ok(Others {
        overlapping: overlapping.map(|(pid, _)| pid),
        unproven: !look.shows_all(),
    })
}

/// Claims a context, so that its pair stays claimed until the labels are back.
pub fn claim(host: &RealHost, context: &Context) -> Result<(), ClaimError> {
    host.claim(context)
        .map_err(|error| ClaimError::Claim(Box::new(context.clone()), error))
}

/// Checks that the launcher behind the pidfd claims this context.
pub fn check_claim(host: &RealHost, launcher: Pid, context: &Context) -> Result<(), ClaimError> {
    let labels = host.procfs().labels_of(launcher);
    if labels.is_some_and(|labels| labels.pending.as_ref() == Some(context)) {
        return Ok(());
    }
    Err(ClaimError::NotClaimed(launcher, Box::new(context.clone())))
}
