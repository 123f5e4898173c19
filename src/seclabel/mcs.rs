//! Choosing a category pair that nobody on the host has, and claiming it.
//!
//! The kernel is the ledger. A pair is in use if some process runs with it (`attr/current`) or has asked
//! for it (`attr/exec`). To claim one is to ask for it with setexeccon(3), and then to look whether
//! anybody else has an overlapping one. Of two launchers with overlapping claims the later one sees the
//! earlier; both may back off; neither runs with the other's pair. This needs no daemon, no lock and no
//! common directory, and holds across users.

use std::collections::{BTreeMap, BTreeSet};

use nix::unistd::Pid;

use crate::host::process_labels::{ProcessLabels, ProcessLook, Processes};
use crate::host::random;
use crate::model::label::{Categories, Category, CategoryPair, Context, Level, Range};
use crate::seclabel::pair_error::{ATTEMPTS, FEWEST, LevelError, PairError};

/// Free pairs that a range has to have if processes may have been missed: a pair that is drawn is then one of
/// theirs in at most one of so many launches.
const PLENTY: usize = 4096;
/// Number of pairs from which on one is drawn without a look at who has which.
const ABUNDANT: usize = 100_000;

/// Returns the categories that pairs are drawn from: the caller's clearance, or all if it has none,
/// narrowed by `--mcs-range`.
///
/// # Errors
/// That fewer than eight are left.
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

/// Returns how many pairs a range has.
fn pair_count(categories: usize) -> usize {
    categories.saturating_mul(categories.saturating_sub(1)) / 2
}

/// Returns a random number below `bound`, every one equally likely.
fn random_below(bound: u32) -> Result<u32, PairError> {
    // Values from the last incomplete run of `bound` would favour small numbers.
    let fair = u32::MAX.saturating_sub(u32::MAX.checked_rem(bound).unwrap_or(0));
    loop {
        let mut bytes = [0_u8; 4];
        random::fill(&mut bytes).map_err(PairError::Random)?;
        let number = u32::from_ne_bytes(bytes);
        if number < fair {
            return Ok(number.checked_rem(bound).unwrap_or(0));
        }
    }
}

/// The pairs of a range that overlap no set in use. A set of one category excludes every pair that
/// contains it; a larger set excludes every pair within it.
struct FreePairs {
    open: Categories,
    /// Categories of larger sets, each with all that are in a set with it.
    together: BTreeMap<Category, Categories>,
}

impl FreePairs {
    fn new(range: &Categories, used: &[Categories]) -> Self {
        let mut open = *range;
        let mut together: BTreeMap<Category, Categories> = BTreeMap::new();
        for set in used {
            if set.len() == 1 {
                open = open.difference(set);
            } else {
                for category in set.iter() {
                    let with = together.entry(category).or_default();
                    *with = with.union(set);
                }
            }
        }
        Self { open, together }
    }

    /// Returns the higher categories with which one is a free pair.
    fn partners(&self, low: Category) -> Categories {
        let higher = self.open.above(low);
        match self.together.get(&low) {
            Some(with) => higher.difference(with),
            None => higher,
        }
    }

    /// Returns how many there are.
    fn count(&self) -> usize {
        self.counts().map(|(_, partners)| partners).sum()
    }

    /// Returns each category, and how many partners it has. They are counted only for categories of
    /// larger sets; any other category has all that are left.
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

/// Draws a pair of the range that overlaps no set in use, every free one equally likely.
///
/// The effort does not grow with how many are in use: no pair is tried and thrown away.
///
/// # Errors
/// That every pair is in use, and those of reading random bytes.
pub fn draw(range: &Categories, used: &[Categories]) -> Result<CategoryPair, PairError> {
    let free = FreePairs::new(range, used);
    let count = free.count();
    // An empty range has none: it is found to be used up below.
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
    // A running guest's pair is in its journal entry and on its files too.
    let used: BTreeSet<&Categories> = used.iter().filter(|set| in_range(set, range)).collect();
    Err(PairError::UsedUp {
        range: range.to_string(),
        total: pair_count(range.len()),
        used: used.len(),
    })
}

fn in_range(set: &Categories, range: &Categories) -> bool {
    !set.intersection(range).is_empty()
}

/// Returns the categories that a process has, and those that it has asked for, that it keeps others from.
fn categories_of(process: &ProcessLabels) -> impl Iterator<Item = (Categories, &Context)> {
    [
        (&process.pending, process.reserves.pending),
        (&process.current, process.reserves.current),
    ]
    .into_iter()
    .filter(|(_, reserves)| *reserves)
    .filter_map(|(context, _)| context.as_ref())
    .map(|context| (context.categories(), context))
    .filter(|(categories, _)| !categories.is_empty())
}

/// Returns every set of categories that some process has or has asked for.
pub fn used_categories(processes: &[ProcessLabels]) -> Vec<Categories> {
    let all: BTreeSet<Categories> = processes
        .iter()
        .flat_map(categories_of)
        .map(|(categories, _)| categories)
        .collect();
    all.into_iter().collect()
}

/// Returns the first process whose categories overlap these, with its context.
pub fn overlapping_process<'a>(
    categories: &Categories,
    processes: &'a [ProcessLabels],
) -> Option<(Pid, &'a Context)> {
    processes.iter().find_map(|process| {
        categories_of(process)
            .find(|(other, _)| other.overlaps(categories))
            .map(|(_, context)| (process.pid, context))
    })
}

/// A claimed pair.
#[derive(Debug)]
pub struct Claim {
    /// The guest's context, which the next execve(2) will enter.
    pub context: Context,
    /// The other processes that there were when it was this process's.
    pub look: ProcessLook,
}

impl Claim {
    fn new(context: Context, look: ProcessLook) -> Self {
        Self { context, look }
    }
}

/// Tells whether a range has so many pairs that one is drawn without a look at who has which.
pub fn is_abundant(range: &Categories) -> bool {
    pair_count(range.len()) >= ABUNDANT
}

/// Draws a pair that overlaps none of `used`, and asks the kernel for it. It is this process's once a look
/// at every process after this has found nobody else with overlapping categories.
///
/// # Errors
/// That the range is used up, or that the policy refuses the context.
pub fn claim_unverified(
    host: &dyn Processes,
    domain: &Context,
    range: &Categories,
    used: &[Categories],
) -> Result<Context, PairError> {
    let pair = draw(range, used)?;
    let context = domain.at(Level::with_pair(domain.sensitivity(), pair));
    enter_next(host, &context)?;
    Ok(context)
}

/// Asks the kernel for a context at the next execve(2).
///
/// # Errors
/// That the policy refuses it.
pub fn enter_next(host: &dyn Processes, context: &Context) -> Result<(), PairError> {
    host.claim(context).map_err(|source| PairError::Claim {
        context: context.to_string(),
        source,
    })
}

/// Draws pairs until one is claimed by this process alone. `avoid` are those that files or journal entries
/// still carry.
///
/// # Errors
/// That the range is used up, that the policy refuses the context, or that others are faster.
pub fn claim(
    host: &dyn Processes,
    domain: &Context,
    range: &Categories,
    avoid: &[Categories],
) -> Result<Claim, PairError> {
    // What makes a pair this process's is the look at every process after the claim. One before it only
    // saves drawing another, which is likely if there are few.
    let mut used = avoid.to_vec();
    if !is_abundant(range) {
        used.extend(used_categories(&host.entered().map_err(PairError::Scan)?));
    }
    for _ in 0..ATTEMPTS {
        let context = claim_unverified(host, domain, range, &used)?;
        let look = host.look().map_err(PairError::Scan)?;
        let mine = overlapping_process(&context.categories(), &look.processes).is_none();
        used = used_categories(&look.processes);
        used.extend_from_slice(avoid);
        if mine {
            check_plenty(&look, || FreePairs::new(range, &used).count())?;
            return Ok(Claim::new(context, look));
        }
    }
    Err(PairError::Contended)
}

/// Checks that a look has missed nobody, or that a pair was drawn from so many that this does not matter.
fn check_plenty(look: &ProcessLook, free: impl FnOnce() -> usize) -> Result<(), PairError> {
    if look.is_complete {
        return Ok(());
    }
    match free() {
        free if free < PLENTY => Err(PairError::Unsettled(free)),
        _ => Ok(()),
    }
}

/// Whether others may have overlapping categories with a level that the caller chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// No: it is an error if somebody has.
    Refused,
    /// `--share-level`.
    Meant,
}

/// Returns the level that the caller chose with a context, at which a guest of `own` may run.
///
/// # Errors
/// A range, another sensitivity, or fewer than two categories.
pub fn chosen(own: &Context, context: &Context) -> Result<Level, LevelError> {
    let text = || {
        let range = context.range.as_ref();
        range.map_or_else(|| context.to_string(), ToString::to_string)
    };
    let level = match &context.range {
        Some(Range { low, high: None }) => low.clone(),
        Some(Range { high: Some(_), .. }) => return Err(LevelError::Ranged(text())),
        None => return Err(LevelError::TooOpen(text())),
    };
    if level.sensitivity != own.sensitivity() {
        return Err(LevelError::Sensitivity {
            level: text(),
            own: own.sensitivity().to_owned(),
        });
    }
    if level.categories.len() < 2 {
        return Err(LevelError::TooOpen(text()));
    }
    Ok(level)
}

/// Checks that no process has overlapping categories with a context.
///
/// # Errors
/// The first that has.
pub fn check_no_overlap(context: &Context, processes: &[ProcessLabels]) -> Result<(), LevelError> {
    match overlapping_process(&context.categories(), processes) {
        None => Ok(()),
        Some((pid, label)) => Err(LevelError::Held {
            level: context.level().to_string(),
            pid,
            label: label.to_string(),
        }),
    }
}

/// Claims a level that the caller chose, which [`chosen`] has looked at.
///
/// # Errors
/// That somebody has overlapping categories and that is not meant, or that the policy refuses the
/// context.
pub fn claim_level(
    host: &dyn Processes,
    context: Context,
    sharing: Sharing,
) -> Result<Claim, PairError> {
    enter_next(host, &context)?;
    let look = host.look().map_err(PairError::Scan)?;
    if sharing == Sharing::Refused {
        check_no_overlap(&context, &look.processes)?;
        check_plenty(&look, || 1)?;
    }
    Ok(Claim::new(context, look))
}

#[cfg(test)]
#[path = "mcs_claim_tests.rs"]
mod claim_tests;
#[cfg(test)]
#[path = "mcs_tests.rs"]
mod tests;
