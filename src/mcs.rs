//! Choosing a category pair that nobody on the host has, and claiming it.
//!
//! The kernel is the ledger. A pair is taken when some process is caged by it
//! (`attr/current`) or has asked for it (`attr/exec`); to claim one is to ask
//! for it with setexeccon(3), and then to look whether anybody else did. Of two
//! launchers with overlapping claims the later one sees the earlier; both may
//! back off; neither runs with the other's pair. This needs no daemon, no lock
//! and no common directory, and holds across users.

use std::io;

use nix::unistd::Pid;
use thiserror::Error;

use crate::host::{Host, ProcessLabels};
use crate::label::{Categories, Category, CategoryPair, Context, Level, Range};

/// Fewest categories a range may have, as in libvirt.
const FEWEST: usize = 8;

/// Claims made before giving up while the range still has free pairs: each
/// failure means that another launcher claimed the same pair at that moment.
const ATTEMPTS: usize = 64;

/// Random draws before the free pairs are listed instead.
const DRAWS: usize = 64;

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

/// A pair of the range that overlaps none of `taken`, every free one equally likely.
///
/// # Errors
/// Where every pair is taken, with the count.
pub fn draw(range: &Categories, taken: &[Categories]) -> Result<CategoryPair, PairError> {
    let categories: Vec<Category> = range.iter().collect();
    let free = |pair: &CategoryPair| {
        let set = pair.categories();
        !taken.iter().any(|other| set.overlaps(other))
    };
    let bound = u32::try_from(categories.len()).unwrap_or(u32::MAX);
    for _ in 0..DRAWS {
        let one = || -> Result<Option<Category>, PairError> {
            Ok(categories.get(random_below(bound)? as usize).copied())
        };
        if let (Some(a), Some(b)) = (one()?, one()?)
            && let Some(pair) = CategoryPair::new(a, b)
            && free(&pair)
        {
            return Ok(pair);
        }
    }
    let all: Vec<CategoryPair> = categories
        .iter()
        .enumerate()
        .flat_map(|(i, a)| {
            categories
                .iter()
                .skip(i.saturating_add(1))
                .filter_map(|b| CategoryPair::new(*a, *b))
        })
        .filter(free)
        .collect();
    let index = random_below(u32::try_from(all.len()).unwrap_or(u32::MAX).max(1))?;
    all.get(index as usize)
        .copied()
        .ok_or_else(|| PairError::UsedUp {
            range: range.to_string(),
            total: pair_count(categories.len()),
            taken: taken.iter().filter(|set| in_range(set, range)).count(),
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
    let mut all: Vec<Categories> = Vec::new();
    for (cage, _) in processes.iter().flat_map(cages) {
        if !all.contains(&cage) {
            all.push(cage);
        }
    }
    all
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
    /// Processes whose labels the kernel would not show (hidepid, a PID namespace).
    pub hidden: usize,
}

/// Draws pairs until one is claimed by this process alone.
///
/// `avoid` are pairs that files or journal entries still carry.
///
/// # Errors
/// Where the range is used up, the policy refuses the context, or others are faster.
pub fn claim(
    host: &dyn Host,
    domain: &Context,
    range: &Categories,
    avoid: &[Categories],
) -> Result<Claim, PairError> {
    let mut busy = taken(&host.processes().map_err(PairError::Scan)?);
    busy.extend_from_slice(avoid);
    for _ in 0..ATTEMPTS {
        let pair = draw(range, &busy)?;
        let context = domain.at(Level::with_pair(domain.sensitivity(), pair));
        host.claim(&context).map_err(|source| PairError::Claim {
            context: context.to_string(),
            source,
        })?;
        let processes = host.processes().map_err(PairError::Scan)?;
        if holder(&pair.categories(), &processes).is_none() {
            return Ok(Claim {
                context,
                hidden: processes.iter().filter(|process| process.hidden).count(),
            });
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
            level: Level {
                sensitivity: context.sensitivity().to_owned(),
                categories: cage,
            }
            .to_string(),
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
    host: &dyn Host,
    context: Context,
    sharing: Sharing,
) -> Result<Claim, PairError> {
    host.claim(&context).map_err(|source| PairError::Claim {
        context: context.to_string(),
        source,
    })?;
    let processes = host.processes().map_err(PairError::Scan)?;
    if sharing == Sharing::Refused {
        unheld(&context, &processes)?;
    }
    Ok(Claim {
        context,
        hidden: processes.iter().filter(|process| process.hidden).count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Categories {
        text.parse().unwrap()
    }

    fn context(text: &str) -> Context {
        text.parse().unwrap()
    }

    #[test]
    fn the_range_is_the_callers_clearance_narrowed() {
        let shell = context("u:r:t:s0-s0:c0.c1023");
        assert_eq!(range(&shell, None).unwrap().len(), 1024);
        assert_eq!(
            range(&shell, Some(set("c512.c1023"))).unwrap(),
            set("c512.c1023")
        );
        let service = context("u:r:t:s0");
        assert_eq!(range(&service, None).unwrap().len(), 1024);
        let tenant = context("u:r:t:s0-s0:c100.c199");
        assert_eq!(
            range(&tenant, Some(set("c150.c299"))).unwrap(),
            set("c150.c199")
        );
    }

    #[test]
    fn a_range_of_fewer_than_eight_categories_is_refused() {
        let error = range(&context("u:r:t:s0"), Some(set("c0.c6"))).unwrap_err();
        assert!(matches!(error, PairError::TooFew(_, 7)), "{error}");
        assert!(range(&context("u:r:t:s0"), Some(set("c0.c7"))).is_ok());
    }

    #[test]
    fn a_drawn_pair_lies_in_the_range_and_is_free() {
        let range = set("c10.c17");
        let busy = [set("c10,c11"), set("c12"), set("c13,c14,c15")];
        for _ in 0..500 {
            let pair = draw(&range, &busy).unwrap().categories();
            assert_eq!(pair.len(), 2);
            assert!(pair.is_subset(&range));
            assert!(busy.iter().all(|other| !pair.overlaps(other)), "{pair}");
        }
    }

    #[test]
    fn the_last_free_pair_is_found() {
        let range = set("c0.c7");
        let mut busy = Vec::new();
        for a in 0..8 {
            for b in a + 1..8 {
                if (a, b) != (2, 5) {
                    busy.push(set(&format!("c{a},c{b}")));
                }
            }
        }
        assert_eq!(draw(&range, &busy).unwrap().to_string(), "c2,c5");
        busy.push(set("c2,c5"));
        let error = draw(&range, &busy).unwrap_err();
        assert!(
            matches!(
                error,
                PairError::UsedUp {
                    total: 28,
                    taken: 28,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn every_pair_is_drawn_about_equally_often() {
        let range = set("c0.c7");
        let mut counts = std::collections::HashMap::new();
        for _ in 0..28_000 {
            *counts.entry(draw(&range, &[]).unwrap()).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 28);
        // 1000 expected, standard deviation about 31: eight of them are a wide berth.
        for (pair, count) in counts {
            assert!((750..1250).contains(&count), "{pair}: {count}");
        }
    }

    #[test]
    fn a_chosen_level_is_one_cage_at_the_callers_sensitivity() {
        for (own, given, want) in [
            ("u:r:t:s0-s0:c0.c1023", "a:b:c:s0:c1,c2", Ok("s0:c1,c2")),
            ("u:r:t:s0", "a:b:c:s0:c1.c3", Ok("s0:c1.c3")),
            ("u:r:t:s3-s15:c0.c1023", "a:b:c:s3:c1,c2", Ok("s3:c1,c2")),
            (
                "u:r:t:s3-s15:c0.c1023",
                "a:b:c:s0:c1,c2",
                Err("write s3 in its place"),
            ),
            (
                "u:r:t:s0-s15:c0.c1023",
                "a:b:c:s3:c1,c2",
                Err("write s0 in its place"),
            ),
            ("u:r:t:s0", "a:b:c:s0", Err("level s0: a guest needs two")),
            (
                "u:r:t:s0",
                "a:b:c:s0:c5",
                Err("level s0:c5: a guest needs two"),
            ),
            (
                "u:r:t:s0",
                "a:b:c:s0:c5,c5",
                Err("level s0:c5: a guest needs two"),
            ),
            ("u:r:t:s0", "a:b:c", Err("level a:b:c: a guest needs two")),
            ("u:r:t:s0", "a:b:c:s0:c1,c2-s0:c0.c9", Err("not in a range")),
            ("u:r:t:s0", "a:b:c:s0-s0:c1,c2", Err("not in a range")),
        ] {
            let seen = chosen(&context(own), &context(given));
            match (seen, want) {
                (Ok(level), Ok(want)) => assert_eq!(level.to_string(), want),
                (Err(error), Err(want)) => {
                    assert!(error.to_string().contains(want), "{given}: {error}");
                }
                (seen, want) => panic!("{own} {given}: {seen:?} is not {want:?}"),
            }
        }
    }

    #[test]
    fn a_pending_claim_counts_and_a_clearance_does_not() {
        let processes = [
            ProcessLabels {
                pid: Pid::from_raw(7),
                pending: Some(context("u:r:svirt_t:s0:c1,c2")),
                current: Some(context("u:r:svirt_launcher_t:s0-s0:c0.c1023")),
                hidden: false,
            },
            ProcessLabels {
                pid: Pid::from_raw(8),
                pending: None,
                current: Some(context("u:r:unconfined_t:s0-s0:c0.c1023")),
                hidden: false,
            },
        ];
        assert_eq!(taken(&processes), [set("c1,c2")]);
        for (level, held) in [
            ("s0:c1,c2", true),
            ("s0:c1.c3", true),
            ("s0:c2", true),
            ("s0:c2,c3", false),
            ("s0", false),
        ] {
            let asked = context(&format!("u:r:svirt_t:{level}"));
            assert_eq!(unheld(&asked, &processes).is_err(), held, "{level}");
        }
        assert_eq!(holder(&set("c2"), &processes).unwrap().0, Pid::from_raw(7));
        assert!(holder(&set("c5,c6"), &processes).is_none());
    }
}
