//! Tests of `mcs` on hosts whose processes do not stand still: claiming.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::host::process_labels::Reserves;

fn set(text: &str) -> Categories {
    text.parse().unwrap()
}

fn context(text: &str) -> Context {
    text.parse().unwrap()
}

/// A host of which only the processes matter: who they are is asked once for each look, with
/// what has been claimed by then.
struct Crowd<F>(F, RefCell<Vec<Context>>);

impl<F: Fn(&[Context]) -> Vec<ProcessLabels>> Crowd<F> {
    fn new(processes: F) -> Self {
        Self(processes, RefCell::default())
    }

    /// Categories claimed, in their order.
    fn claimed(&self) -> Vec<Categories> {
        self.1.borrow().iter().map(Context::categories).collect()
    }
}

impl<F: Fn(&[Context]) -> Vec<ProcessLabels>> Processes for Crowd<F> {
    fn look(&self) -> io::Result<ProcessLook> {
        Ok(ProcessLook {
            processes: (self.0)(&self.1.borrow()),
            is_complete: true,
        })
    }

    fn claim(&self, context: &Context) -> io::Result<()> {
        if context.categories().contains(Category::new(1023).unwrap()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.1.borrow_mut().push(context.clone());
        Ok(())
    }
}

fn process(pid: i32, pending: Option<Context>, current: &str) -> ProcessLabels {
    ProcessLabels {
        pid: Pid::from_raw(pid),
        pending,
        current: Some(context(current)),
        hidden: false,
        reserves: Reserves::BOTH,
    }
}

const LAUNCHER: &str = "u:r:svirt_launcher_t:s0-s0:c0.c1023";

/// Another launcher that has asked for these categories.
fn claimant(pid: i32, set: &Categories) -> ProcessLabels {
    process(
        pid,
        Some(context(&format!("u:r:svirt_t:s0:{set}"))),
        LAUNCHER,
    )
}

fn domain() -> Context {
    context("u:r:svirt_t:s0")
}

#[test]
fn a_pair_that_another_launcher_claimed_meanwhile_is_given_up() {
    // After the first claim somebody else is seen to have it, asked for or running.
    for current in [LAUNCHER, "u:r:svirt_t:s0:PAIR"] {
        let host = Crowd::new(|claims| match claims {
            [] => Vec::new(),
            [first, ..] => {
                let one = first.categories().to_string();
                let pending = current.contains("launcher").then(|| first.clone());
                vec![process(7, pending, &current.replace("PAIR", &one))]
            }
        });
        let claim = claim(&host, &domain(), &set("c0.c7"), &[]).unwrap();
        let claimed = host.claimed();
        assert_eq!(claimed.len(), 2);
        assert!(!claimed[0].overlaps(&claimed[1]));
        assert_eq!(claim.context.categories(), claimed[1]);
    }
}

#[test]
fn of_many_pairs_one_is_drawn_unseen_and_given_up_where_a_guest_has_it() {
    let host = Crowd::new(|claims| {
        let first = claims
            .first()
            .expect("nobody is looked at before the claim");
        vec![process(
            7,
            None,
            &format!("u:r:svirt_t:s0:{}", first.categories()),
        )]
    });
    let claim = claim(&host, &domain(), &set("c0.c1022"), &[]).unwrap();
    let claimed = host.claimed();
    assert_eq!(claimed.len(), 2);
    assert!(!claimed[0].overlaps(&claimed[1]));
    assert_eq!(claim.context.categories(), claimed[1]);
    assert_eq!(claim.look.processes.len(), 1);
}

#[test]
fn a_launcher_that_is_always_too_late_gives_up() {
    let host = Crowd::new(|claims| {
        let last = claims.last().map(|last| claimant(7, &last.categories()));
        last.into_iter().collect()
    });
    let error = claim(&host, &domain(), &set("c0.c7"), &[]).unwrap_err();
    assert!(matches!(error, PairError::Contended), "{error}");
    assert_eq!(host.claimed().len(), ATTEMPTS);
}

#[test]
fn a_range_that_others_use_up_meanwhile_is_an_error_with_the_count() {
    // Everybody else is given what this one claims, and keeps it.
    let host = Crowd::new(|claims| {
        let mut all: Vec<_> = (1..)
            .zip(claims)
            .map(|(pid, other)| claimant(pid, &other.categories()))
            .collect();
        all.push(process(100, None, "u:r:svirt_t:s0:c0,c1"));
        all
    });
    // What files and entries carry is not drawn, and counts.
    let avoid = [set("c0,c1"), set("c2"), set("c3,c4")];
    let error = claim(&host, &domain(), &set("c0.c7"), &avoid).unwrap_err();
    let claimed = host.claimed();
    assert!(claimed.len() == 28 - 1 - 7 - 1, "{claimed:?}");
    for one in &claimed {
        assert!(!avoid.iter().any(|other| other.overlaps(one)), "{one}");
    }
    let text = error.to_string();
    assert!(
        text.contains("all 28 pairs of c0.c7 overlap one of the 22 that are in use"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_seen_is_counted_and_what_the_kernel_refuses_is_said() {
    let hidden = |pid| ProcessLabels {
        pid: Pid::from_raw(pid),
        pending: None,
        current: None,
        hidden: true,
        reserves: Reserves::BOTH,
    };
    let host = Crowd::new(|_| vec![hidden(1), process(2, None, LAUNCHER), hidden(3)]);
    let seen = claim(&host, &domain(), &set("c0.c7"), &[]).unwrap();
    assert!(!seen.look.shows_all());
    // The host of these tests refuses c1023.
    let only = [set("c1016"), set("c1017"), set("c1018"), set("c1019")];
    let rest = [set("c1020"), set("c1021")];
    let avoid = [&only[..], &rest[..]].concat();
    let error = claim(&host, &domain(), &set("c1016.c1023"), &avoid).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot ask the kernel for 'u:r:svirt_t:s0:c1022,c1023'"),
        "{error}"
    );
}

/// A host whose processes start and end faster than they can be looked at.
struct Restless;

impl Processes for Restless {
    fn look(&self) -> io::Result<ProcessLook> {
        Ok(ProcessLook {
            processes: vec![process(9, None, "u:r:svirt_t:s0:c1,c2")],
            is_complete: false,
        })
    }

    fn claim(&self, _: &Context) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn where_somebody_may_have_been_missed_a_pair_comes_from_many_or_not_at_all() {
    let seen = claim(&Restless, &domain(), &Categories::all(), &[]).unwrap();
    assert!(!seen.context.categories().overlaps(&set("c1,c2")));
    let error = claim(&Restless, &domain(), &set("c0.c7"), &[]).unwrap_err();
    assert!(matches!(error, PairError::Unsettled(27)), "{error}");
    let level = || context("u:r:svirt_t:s0:c5,c6");
    let error = claim_level(&Restless, level(), Sharing::Refused).unwrap_err();
    assert!(matches!(error, PairError::Unsettled(1)), "{error}");
    claim_level(&Restless, level(), Sharing::Meant).unwrap();
    assert!(Restless.processes().is_err());
}

#[test]
fn a_claim_keeps_the_low_sensitivity_of_the_caller() {
    let host = Crowd::new(|_| Vec::new());
    let seen = claim(&host, &context("u:r:svirt_t:s2"), &set("c0.c7"), &[]).unwrap();
    let level = seen.context.range.unwrap().to_string();
    assert!(level.starts_with("s2:c"), "{level}");
}

/// What each of the launchers of one host has asked for.
type Ledger = Arc<Vec<Mutex<Option<Categories>>>>;

/// One launcher of many: sees what the others have asked for, one after the other.
struct OneOfMany {
    ledger: Ledger,
    own: usize,
}

#[test]
fn of_many_launchers_at_once_no_two_win_overlapping_pairs() {
    for _ in 0..20 {
        let ledger: Ledger = Arc::new((0..24).map(|_| Mutex::new(None)).collect());
        let racing: Vec<_> = (0..ledger.len())
            .map(|own| {
                let one = OneOfMany {
                    ledger: Arc::clone(&ledger),
                    own,
                };
                std::thread::spawn(move || one.launch())
            })
            .collect();
        let won: Vec<Categories> = racing
            .into_iter()
            .filter_map(|thread| thread.join().unwrap())
            .collect();
        for (index, one) in won.iter().enumerate() {
            for other in &won[index + 1..] {
                assert!(!one.overlaps(other), "{one} and {other}");
            }
        }
        assert!(!won.is_empty());
    }
}

impl OneOfMany {
    /// The categories that it ends up with; what it asked for is taken back if it gets none.
    fn launch(self) -> Option<Categories> {
        let host = Crowd::new(|claims: &[Context]| {
            *self.ledger[self.own].lock().unwrap() = claims.last().map(Context::categories);
            let others = self.ledger.iter().enumerate();
            others
                .filter(|(number, _)| *number != self.own)
                .filter_map(|(number, other)| {
                    std::thread::yield_now();
                    let one = (*other.lock().unwrap())?;
                    Some(claimant(i32::try_from(number).unwrap(), &one))
                })
                .collect()
        });
        let won = claim(&host, &domain(), &set("c0.c7"), &[]).ok();
        let won = won.map(|claim| claim.context.categories());
        *self.ledger[self.own].lock().unwrap() = won;
        won
    }
}
