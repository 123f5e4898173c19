//! Tests of `mcs` without a host: ranges, drawing, levels of the caller's choice.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::host::process_labels::Reserves;

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
                used: 28,
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
fn a_chosen_level_has_two_categories_and_the_callers_sensitivity() {
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
            reserves: Reserves::BOTH,
        },
        ProcessLabels {
            pid: Pid::from_raw(8),
            pending: None,
            current: Some(context("u:r:unconfined_t:s0-s0:c0.c1023")),
            hidden: false,
            reserves: Reserves::BOTH,
        },
    ];
    assert_eq!(used_categories(&processes), [set("c1,c2")]);
    let mut passed_by = processes.clone();
    passed_by[0].reserves.pending = false;
    assert_eq!(used_categories(&passed_by), []);
    for (level, held) in [
        ("s0:c1,c2", true),
        ("s0:c1.c3", true),
        ("s0:c2", true),
        ("s0:c2,c3", false),
        ("s0", false),
    ] {
        let asked = context(&format!("u:r:svirt_t:{level}"));
        assert_eq!(
            check_no_overlap(&asked, &processes).is_err(),
            held,
            "{level}"
        );
    }
    assert_eq!(
        overlapping_process(&set("c2"), &processes).unwrap().0,
        Pid::from_raw(7)
    );
    assert!(overlapping_process(&set("c5,c6"), &processes).is_none());
}

#[test]
fn a_pair_that_a_guest_and_its_journal_entry_have_was_counted_twice() {
    let twice = [set("c0.c7"), set("c0.c7"), set("c8,c9")];
    let error = draw(&set("c0.c7"), &twice).unwrap_err().to_string();
    assert!(
        error.contains("all 28 pairs of c0.c7 overlap one of the 1 "),
        "{error}"
    );
}

#[test]
fn the_last_pair_of_all_is_found_at_once() {
    // A single category each, and one set of all but two.
    let mut busy: Vec<Categories> = (0..1000).map(|n| set(&format!("c{n}"))).collect();
    busy.push(set("c0.c1021"));
    for high in 1001..1024 {
        busy.push(set(&format!("c1000,c{high}")));
        busy.push(set(&format!("c{},c1023", high - 1)));
    }
    for low in 1001..1022 {
        busy.push(set(&format!("c{low},c1022")));
    }
    let free = FreePairs::new(&Categories::all(), &busy);
    assert_eq!(free.counts().map(|(_, count)| count).sum::<usize>(), 0);
    busy.retain(|one| *one != set("c1022,c1023"));
    let pair = draw(&Categories::all(), &busy).unwrap();
    assert_eq!(pair.to_string(), "c1022,c1023");
}

/// A few categories below a bound, as a model and as what is tested.
fn categories(
    below: u16,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = (BTreeSet<u16>, Categories)> {
    prop::collection::btree_set(0..below, count).prop_map(|model| {
        let mut set = Categories::default();
        for number in &model {
            set.insert(Category::new(*number).unwrap());
        }
        (model, set)
    })
}

fn overlap(a: &BTreeSet<u16>, b: &BTreeSet<u16>) -> bool {
    !a.is_empty() && !b.is_empty() && (a.is_subset(b) || b.is_subset(a))
}

proptest! {
    #[test]
    fn a_drawn_pair_is_two_categories_of_the_range_and_overlaps_nobody(
        (range_model, range) in categories(14, 2..12),
        taken in prop::collection::vec(categories(16, 0..5), 0..40),
    ) {
        let models: Vec<_> = taken.iter().map(|(model, _)| model).collect();
        let sets: Vec<Categories> = taken.iter().map(|(_, set)| *set).collect();
        let numbers: Vec<u16> = range_model.iter().copied().collect();
        let free = |a: u16, b: u16| {
            let pair = BTreeSet::from([a, b]);
            !models.iter().any(|one| overlap(one, &pair))
        };
        let free: BTreeSet<(u16, u16)> = numbers
            .iter()
            .flat_map(|a| numbers.iter().map(move |b| (*a, *b)))
            .filter(|(a, b)| a < b && free(*a, *b))
            .collect();
        // All that can be drawn is all that is free.
        let listing = FreePairs::new(&range, &sets);
        let mut listed = BTreeSet::new();
        for (low, count) in listing.counts() {
            let high: Vec<u16> = listing.partners(low).iter().map(Category::number).collect();
            prop_assert_eq!(high.len(), count);
            listed.extend(high.into_iter().map(|high| (low.number(), high)));
        }
        prop_assert_eq!(&listed, &free);
        match draw(&range, &sets) {
            Ok(pair) => {
                let set = pair.categories();
                let pair: Vec<u16> = set.iter().map(Category::number).collect();
                prop_assert_eq!(pair.len(), 2);
                prop_assert!(free.contains(&(pair[0], pair[1])));
                for one in &sets {
                    prop_assert!(!one.is_subset(&set) || one.is_empty());
                    prop_assert!(!set.is_subset(one));
                }
            }
            Err(PairError::UsedUp { total, used, .. }) => {
                prop_assert!(free.is_empty());
                prop_assert_eq!(total, pair_count(numbers.len()));
                let within: BTreeSet<_> = models
                    .iter()
                    .filter(|one| !one.is_disjoint(&range_model))
                    .collect();
                prop_assert_eq!(used, within.len());
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn the_range_lies_in_the_clearance_and_in_what_was_asked_for(
        (_, cleared) in categories(40, 0..40),
        narrowed in prop::option::of(categories(40, 1..40)),
    ) {
        let own = match cleared.is_empty() {
            true => "u:r:t:s0".to_owned(),
            false => format!("u:r:t:s0-s0:{cleared}"),
        };
        let all = if cleared.is_empty() { Categories::all() } else { cleared };
        let narrowed = narrowed.map(|(_, set)| set);
        let both = narrowed.map_or(all, |narrow| all.intersection(&narrow));
        match range(&context(&own), narrowed) {
            Ok(range) => prop_assert!(range == both && range.len() >= FEWEST),
            Err(error) => prop_assert!(both.len() < FEWEST, "{}", error),
        }
    }
}
