//! What image headers name, against what is remembered of the disks: wires the judgement of `plan` to the
//! records that `restore` keeps.

use crate::cli::Launch;
use crate::host::pinned::{Identity, Kind, Pinned};
use crate::host::{Files, Host};
use crate::image::ImageFormat;
use crate::model::chain::{Chain, DiskKey};
use crate::model::resource::{Access, Backing, Format, Image, Request, Target};
use crate::plan::collect;
use crate::plan::remembered::{self, Judgement, Memory};
use crate::plan::resource::{CollectContext, Collected, FollowedHeader};
use crate::plan::step::Step;
use crate::restore::chains::{ChainStore, RememberError};
use crate::text::escape::quoted;
use crate::text::message::{Refusal, refuse};

/// What a launch knows of disks, and what its caller accepts.
#[derive(Debug)]
pub struct Chains {
    /// None with `--no-relabel`: a header gives nothing away then.
    store: Option<ChainStore>,
    accepted: Vec<Identity>,
}

impl Chains {
    /// Makes those of a launch.
    ///
    /// # Errors
    /// A disk of `--accept-chain` that is not there.
    pub fn of(host: &dyn Files, options: &Launch) -> Result<Self, Refusal> {
        let accepted = options.accept_chain.iter().map(|path| {
            let pinned = host.pin(path).map_err(|error| {
                refuse(format!(
                    "cannot look at {} (--accept-chain): {error}",
                    quoted(path)
                ))
            })?;
            Ok(pinned.identity)
        });
        Ok(Self {
            store: (!options.no_relabel).then(ChainStore::own),
            accepted: accepted.collect::<Result<_, Refusal>>()?,
        })
    }

    /// Judges the headers of what was collected.
    pub fn judge(&self, collected: &Collected) -> Judgement {
        let Some(store) = &self.store else {
            return Judgement::default();
        };
        let memory = Memory {
            recall: &|key| store.recall(key),
            accepts: &|header: &FollowedHeader| self.accepted.contains(&header.identity),
        };
        remembered::judge(&collected.headers, &collected.stated, &memory)
    }

    /// Writes down what a launch that is about to be made gives because of headers.
    ///
    /// # Errors
    /// Those of [`ChainStore::remember`].
    pub fn remember(&self, chains: &[(DiskKey, Chain)]) -> Result<(), RememberError> {
        match &self.store {
            Some(store) => store.remember(chains),
            None => Ok(()),
        }
    }
}

/// Writes down what the headers of files name that are attached to a running guest to be written, unless they
/// are known: from now on that guest may write there what it likes. QEMU is told by its monitor what to open
/// because of them, and nothing is given because of the header. A block device that is not a guest's yet
/// cannot be read: of that nothing is known.
///
/// # Errors
/// Those of [`ChainStore::remember`].
pub fn remember_attached(
    host: &dyn Host,
    steps: &[Step],
    context: &CollectContext<'_>,
) -> Result<(), RememberError> {
    let requests: Vec<Request> = steps
        .iter()
        .filter(|step| step.resource.access == Access::Write)
        .filter_map(|step| Some((step, step.resource.pinned.as_ref()?)))
        .filter(|(_, pinned)| pinned.kind == Kind::File)
        .filter_map(|(step, pinned)| with_probed_format(host, step, pinned))
        .collect();
    let collected = collect::collect(host, requests, &[], context);
    let store = ChainStore::own();
    let accepting = Memory {
        recall: &|_| Ok(None),
        accepts: &|_| true,
    };
    let mut chains = remembered::judge(&collected.headers, &[], &accepting).chains;
    chains.retain(|(key, _)| store.recall(key) == Ok(None));
    store.remember(&chains)
}

/// Returns the request for a file as what QEMU would take it for.
fn with_probed_format(host: &dyn Host, step: &Step, pinned: &Pinned) -> Option<Request> {
    let resource = &step.resource;
    let file = host.open(pinned).ok()?;
    // What no driver takes names nothing.
    let format = host
        .header(file, None, pinned.path.as_os_str())
        .map_or(ImageFormat::Raw, |(format, _)| format);
    Some(Request {
        target: Target::Path(resource.path.clone()?.into()),
        class: resource.class,
        access: resource.access,
        origin: resource.origin.clone(),
        reason: resource.reason,
        mapped: false,
        may_be_directory: false,
        image: Some(Image {
            format: Format::Stated(String::from_utf8_lossy(format.name()).into_owned()),
            backing: Backing::FromHeader {
                format: None,
                writable: false,
                below: None,
            },
            data_file_given: false,
        }),
        required: false,
    })
}
