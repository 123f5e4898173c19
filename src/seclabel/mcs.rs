//! Choosing a category pair that nobody on the host has, and claiming it.
//!
//! The kernel is the ledger. A pair is taken when some process is caged by it
//! (`attr/current`) or has asked for it (`attr/exec`); to claim one is to ask
//! for it with setexeccon(3), and then to look whether anybody else did. Of two
//! launchers with overlapping claims the later one sees the earlier; both may
//! back off; neither runs with the other's pair. This needs no daemon, no lock
//! and no common directory, and holds across users.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use nix::unistd::Pid;
use thiserror::Error;

use crate::host::process_labels::{ProcessLabels, Processes};
use crate::model::label::{Categories, Category, CategoryPair, Context, Level, Range};

/// Fewest categories a range may have, as in libvirt.
const FEWEST: usize = 8;

/// Claims made before giving up while the range still has free pairs: each
/// failure means that another launcher claimed the same pair at that moment.
const ATTEMPTS: usize = 64;
/// From so many pairs on, one is drawn without a look at who has which.
const ABUNDANT: usize = 100_000;

/// Why there is no pair.
#[derive(Debug, Error)]
pub enum PairError {
    /// The range is too small to choose from.
    #[error(
        "cannot choose a category pair: {0} has {1} categories, at least {FEWEST} are needed; \
         give a wider --mcs-range, or start from a login with a wider clearance"
    )]
    TooFew(String, usize),
    /// Every pair overlaps one in use.
    #[error(
        "cannot choose a category pair: all {total} pairs of {range} overlap one of the {taken} \
         that are in use; stop a guest or give a wider --mcs-range"
    )]
    UsedUp {
        /// The range.
        range: String,
        /// How many pairs it has.
        total: usize,
        /// How many cages on this host overlap it.
        taken: usize,
    },
    /// Others were always faster.
    #[error(
        "cannot claim a category pair: {ATTEMPTS} times another launcher claimed the same one; \
         try again, or give a wider --mcs-range"
    )]
    Contended,
    /// The level that the caller asked for is held.
    #[error(
        "cannot use level {level}: process {pid} ({label}) is in an overlapping cage; give another \
         level, or --share-level where both may use each other's files"
    )]
    Held {
        /// The level asked for.
        level: String,
        /// Who holds it.
        pid: Pid,
        /// With which label.
        label: String,
    },
    /// A level that is no cage.
    #[error(
        "cannot use level {0}: a guest needs two categories at least; with fewer, what it writes is \
         open to other guests (CVE-2021-3631)"
    )]
    TooOpen(String),
    /// A level of another sensitivity than the caller's.
    #[error(
        "cannot use level {level}: its sensitivity is not that of this login, {own}, which guests \
         keep; write {own} in its place, or start from a login at that level (newrole -l)"
    )]
    Sensitivity {
        /// The level asked for.
        level: String,
        /// The caller's low sensitivity.
        own: String,
    },
    /// A range, where one level is needed.
    #[error(
        "cannot use '{0}': a guest is at one level, not in a range; leave out what follows the dash"
    )]
    Ranged(String),
    /// The kernel or the policy did not accept the claim.
    #[error("cannot ask the kernel for '{context}' at the next execve: {source}")]
    Claim {
        /// The context.
        context: String,
        /// Why.
        source: io::Error,
    },
    /// /proc could not be read.
    #[error("cannot read which categories are in use from /proc: {0}")]
    Scan(#[source] io::Error),
    /// No randomness.
    #[error("cannot read random bytes: {0}")]
    Random(#[source] io::Error),
}

/// The categories that pairs are drawn from: the caller's clearance, all where
/// it has none, narrowed by `--mcs-range`.
///
/// # Errors
/// Where fewer than eight are left.
pub fn range(own: &Context, narrowed: Option<Categories>) -> Result<Categories, PairError> {
    let cleared = own
        .range
        .as_ref()
        .map(|range: &Range| range.clearance().categories)
        .filter(|categories| !categories.is_empty())
        .unwrap_or_else(Categories::all);
    let range = narrowed.map_or(cleared, |narrow| cleared.intersection(&narrow));
    if range.len() < FEWEST {
        return Err(PairError::TooFew(range.to_string(), range.len()));
    }
    Ok(range)
}

/// How many pairs a range has.
fn pair_count(categories: usize) -> usize {
    categories.saturating_mul(categories.saturating_sub(1)) / 2
}

/// A random number below `bound`, every one equally likely.
fn random_below(bound: u32) -> Result<u32, PairError> {
    // Values from the last incomplete run of `bound` would favour small numbers.
    let fair = u32::MAX.saturating_sub(u32::MAX.checked_rem(bound).unwrap_or(0));
    loop {
        let mut bytes = [0_u8; 4];
        getrandom(&mut bytes).map_err(PairError::Random)?;
        let number = u32::from_ne_bytes(bytes);
        if number < fair {
            return Ok(number.checked_rem(bound).unwrap_or(0));
        }
    }
}

fn getrandom(bytes: &mut [u8]) -> io::Result<()> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}

/// The pairs of a range that overlap none of `taken`. Of a cage of one category no pair is free
/// that has it, of a larger one none that lies in it, which two categories are that are their own.
struct FreePairs {
    open: Categories,
    /// Categories that larger cages have, each with everything that it is in a cage with.
    together: BTreeMap<Category, Categories>,
}

impl FreePairs {
    fn new(range: &Categories, taken: &[Categories]) -> Self {
        let mut open = *range;
        let mut together: BTreeMap<Category, Categories> = BTreeMap::new();
        for cage in taken {
            if cage.len() == 1 {
                open = open.difference(cage);
            } else {
                for category in cage.iter() {
                    let with = together.entry(category).or_default();
                    *with = with.union(cage);
                }
            }
        }
        Self { open, together }
    }

    /// The higher categories with which one is a free pair.
    fn partners(&self, low: Category) -> Categories {
        let higher = self.open.above(low);
        match self.together.get(&low) {
            Some(with) => higher.difference(with),
            None => higher,
        }
    }

    /// Each category, and how many partners it has. That is counted only for those in larger cages:
    /// of the others it is how many are left.
    fn counts(&self) -> impl Iterator<Item = (Category, usize)> {
        let mut left = self.open.len();
        self.open.iter().map(move |low| {
            left = left.saturating_sub(1);
            let among = self.together.contains_key(&low);
            let count = if among {
                self.partners(low).len()
            } else {
                left
            };
            (low, count)
        })
    }
}

/// A pair of the range that overlaps none of `taken`, every free one equally likely.
///
/// The effort does not grow with how many are taken: no pair is tried and thrown away.
///
/// # Errors
/// Where every pair is taken, with the count.
pub fn draw(range: &Categories, taken: &[Categories]) -> Result<CategoryPair, PairError> {
    let free = FreePairs::new(range, taken);
    let count: usize = free.counts().map(|(_, partners)| partners).sum();
    // None of an empty range: that is found to be used up below.
    let bound = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let mut index = random_below(bound)? as usize;
    for (low, partners) in free.counts() {
        match index.checked_sub(partners) {
            Some(rest) => index = rest,
            None => {
                let high = free.partners(low).iter().nth(index);
                if let Some(pair) = high.and_then(|high| CategoryPair::new(low, high)) {
                    return Ok(pair);
                }
            }
        }
    }
    // A running guest's cage is in its journal entry and on its files too.
    let cages: BTreeSet<&Categories> = taken.iter().filter(|set| in_range(set, range)).collect();
    Err(PairError::UsedUp {
        range: range.to_string(),
        total: pair_count(range.len()),
        taken: cages.len(),
    })
}

fn in_range(cage: &Categories, range: &Categories) -> bool {
    !cage.intersection(range).is_empty()
}

/// Cages of a process: what it is in, and what it has asked for.
fn cages(process: &ProcessLabels) -> impl Iterator<Item = (Categories, &Context)> {
    [&process.pending, &process.current]
        .into_iter()
        .flatten()
        .map(|context| (context.cage(), context))
        .filter(|(cage, _)| !cage.is_empty())
}

/// Every cage on the host.
pub fn taken(processes: &[ProcessLabels]) -> Vec<Categories> {
    let all: BTreeSet<Categories> = processes
        .iter()
        .flat_map(cages)
        .map(|(cage, _)| cage)
        .collect();
    all.into_iter().collect()
}

/// The first process in a cage that overlaps this one.
pub fn holder<'a>(cage: &Categories, processes: &'a [ProcessLabels]) -> Option<(Pid, &'a Context)> {
    processes.iter().find_map(|process| {
        cages(process)
            .find(|(other, _)| other.overlaps(cage))
            .map(|(_, context)| (process.pid, context))
    })
}

/// A claimed pair.
#[derive(Debug)]
pub struct Claim {
    /// The guest's context, which the next execve(2) will enter.
    pub context: Context,
    /// Who else there was when it was this process's.
    pub processes: Vec<ProcessLabels>,
}

impl Claim {
    /// How many processes there are whose labels the kernel would not show (hidepid, a PID namespace).
    pub fn hidden(&self) -> usize {
        let hidden = self.processes.iter().filter(|process| process.hidden);
        hidden.count()
    }
}

/// Whether a range has so many pairs that one is drawn without a look at who has which.
pub fn is_abundant(range: &Categories) -> bool {
    pair_count(range.len()) >= ABUNDANT
}

/// Draws a pair that is not among `busy` and claims it. It is this process's when a look at everybody
/// after this has found nobody else in it.
///
/// # Errors
/// Where the range is used up, or the policy refuses the context.
pub fn ask(
    host: &dyn Processes,
    domain: &Context,
    range: &Categories,
    busy: &[Categories],
) -> Result<Context, PairError> {
    let pair = draw(range, busy)?;
    let context = domain.at(Level::with_pair(domain.sensitivity(), pair));
    enter_next(host, &context)?;
    Ok(context)
}

/// Asks the kernel for a context at the next execve(2).
///
/// # Errors
/// Where the policy refuses it.
pub fn enter_next(host: &dyn Processes, context: &Context) -> Result<(), PairError> {
    host.claim(context).map_err(|source| PairError::Claim {
        context: context.to_string(),
        source,
    })
}

/// Draws pairs until one is claimed by this process alone.
///
/// `avoid` are pairs that files or journal entries still carry.
///
/// # Errors
/// Where the range is used up, the policy refuses the context, or others are faster.
pub fn claim(
    host: &dyn Processes,
    domain: &Context,
    range: &Categories,
    avoid: &[Categories],
) -> Result<Claim, PairError> {
    // What makes a pair this process's is the look at everybody after the claim. One before it only
    // saves drawing another, which is likely where there are few.
    let mut busy = avoid.to_vec();
    if !is_abundant(range) {
        busy.extend(taken(&host.entered().map_err(PairError::Scan)?));
    }
    for _ in 0..ATTEMPTS {
        let context = ask(host, domain, range, &busy)?;
        let processes = host.processes().map_err(PairError::Scan)?;
        if holder(&context.cage(), &processes).is_none() {
            return Ok(Claim { context, processes });
        }
        busy = taken(&processes);
        busy.extend_from_slice(avoid);
    }
    Err(PairError::Contended)
}

/// Whether a level that the caller chose may be one that others are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// No: somebody in an overlapping cage is an error.
    Refused,
    /// `--share-level`.
    Meant,
}

/// The level that the caller chose with a context, at which a guest of `own` may run.
///
/// # Errors
/// Where it is a range, of another sensitivity, or no cage.
pub fn chosen(own: &Context, context: &Context) -> Result<Level, PairError> {
    let text = || {
        let range = context.range.as_ref();
        range.map_or_else(|| context.to_string(), ToString::to_string)
    };
    let level = match &context.range {
        Some(Range { low, high: None }) => low.clone(),
        Some(Range { high: Some(_), .. }) => return Err(PairError::Ranged(text())),
        None => return Err(PairError::TooOpen(text())),
    };
    if level.sensitivity != own.sensitivity() {
        return Err(PairError::Sensitivity {
            level: text(),
            own: own.sensitivity().to_owned(),
        });
    }
    if level.categories.len() < 2 {
        return Err(PairError::TooOpen(text()));
    }
    Ok(level)
}

/// Whether nobody is in a cage that overlaps that of a context.
///
/// # Errors
/// Who is.
pub fn unheld(context: &Context, processes: &[ProcessLabels]) -> Result<(), PairError> {
    let cage = context.cage();
    match holder(&cage, processes) {
        None => Ok(()),
        Some((pid, label)) => Err(PairError::Held {
            level: context.level().to_string(),
            pid,
            label: label.to_string(),
        }),
    }
}

/// Claims a level that the caller chose; [`chosen`] has looked at it.
///
/// # Errors
/// Where somebody is in an overlapping cage and that is not meant, or the policy refuses the
/// context.
pub fn claim_level(
    host: &dyn Processes,
    context: Context,
    sharing: Sharing,
) -> Result<Claim, PairError> {
    enter_next(host, &context)?;
    let processes = host.processes().map_err(PairError::Scan)?;
    if sharing == Sharing::Refused {
        unheld(&context, &processes)?;
    }
    Ok(Claim { context, processes })
}

#[cfg(test)]
#[path = "mcs_claim_tests.rs"]
mod claim_tests;
#[cfg(test)]
#[path = "mcs_tests.rs"]
mod tests;
