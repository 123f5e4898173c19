//! Tests of `label`: texts, and sets against the sets of the standard library.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn set(text: &str) -> Categories {
    text.parse().unwrap()
}

#[test]
fn contexts_print_as_they_were_read() {
    for text in [
        "system_u:system_r:svirt_t:s0:c344,c902",
        "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023",
        "system_u:object_r:svirt_image_t:s0",
        "u:r:t:s2:c1,c3.c5-s15:c0.c1023",
        "system_u:object_r:unlabeled_t",
    ] {
        assert_eq!(text.parse::<Context>().unwrap().to_string(), text);
    }
}

#[test]
fn what_is_no_context_is_refused() {
    for text in [
        "",
        "a:b",
        "a::c:s0",
        "a:b:c:x",
        "a:b:c:s0:c1024",
        "a:b:c:s0:c5.c2",
        "a:b:c:s",
    ] {
        assert!(text.parse::<Context>().is_err(), "{text}");
    }
}

#[test]
fn equal_categories_make_no_pair_cve_2021_3631() {
    let five = Category::new(5).unwrap();
    assert_eq!(CategoryPair::new(five, five), None);
    let pair = CategoryPair::new(Category::new(9).unwrap(), five).unwrap();
    assert_eq!(pair.to_string(), "c5,c9");
}

#[test]
fn a_set_within_another_overlaps_it_in_both_directions() {
    assert!(set("c5").overlaps(&set("c5,c7")));
    assert!(set("c5,c7").overlaps(&set("c5")));
    assert!(set("c1,c2").overlaps(&set("c1,c2")));
    assert!(set("c1,c2").overlaps(&set("c1,c2,c3")));
    assert!(!set("c1,c2").overlaps(&set("c2,c3")));
    assert!(!Categories::default().overlaps(&set("c1,c2")));
}

#[test]
fn a_clearance_confines_nothing() {
    let shell: Context = "u:r:unconfined_t:s0-s0:c0.c1023".parse().unwrap();
    assert!(shell.categories().is_empty());
    assert_eq!(shell.range.unwrap().clearance().categories.len(), 1024);
}

/// Some categories as a model, and as text with single ones, runs, repeats and any order.
fn categories() -> impl Strategy<Value = (BTreeSet<u16>, String)> {
    let run = (0..CATEGORY_COUNT, 0..40_u16)
        .prop_map(|(from, more)| (from, from.saturating_add(more).min(CATEGORY_COUNT - 1)));
    prop::collection::vec(run, 1..6).prop_map(|runs| {
        let text: Vec<String> = runs
            .iter()
            .map(|(from, to)| match from == to {
                true => format!("c{from}"),
                false => format!("c{from}.c{to}"),
            })
            .collect();
        let model = runs.iter().flat_map(|(from, to)| *from..=*to).collect();
        (model, text.join(","))
    })
}

fn numbers(set: &Categories) -> BTreeSet<u16> {
    set.iter().map(Category::number).collect()
}

proptest! {
    #[test]
    fn sets_are_what_their_text_says_and_print_as_the_kernel_would((model, text) in categories()) {
        let read = set(&text);
        prop_assert_eq!(numbers(&read), model.clone());
        prop_assert_eq!(read.len(), model.len());
        let printed = read.to_string();
        prop_assert_eq!(set(&printed), read);
        // mls_compute_context_len and mls_sid_to_context of the kernel: two in a row have a comma.
        for part in printed.split(',') {
            if let Some((from, to)) = part.split_once('.') {
                let number = |text: &str| text.parse::<Category>().unwrap().number();
                prop_assert!(number(to) > number(from).saturating_add(1), "{}", printed);
            }
        }
    }

    #[test]
    fn sets_relate_as_sets_do((a_model, a) in categories(), (b_model, b) in categories()) {
        let (a, b) = (set(&a), set(&b));
        let both = numbers(&a.intersection(&b));
        prop_assert!(both.iter().eq(a_model.intersection(&b_model)));
        prop_assert!(numbers(&a.union(&b)).iter().eq(a_model.union(&b_model)));
        prop_assert!(numbers(&a.difference(&b)).iter().eq(a_model.difference(&b_model)));
        prop_assert_eq!(a.is_subset(&b), a_model.is_subset(&b_model));
        for than in [0, 1, 62, 63, 64, 65, 511, 1022, 1023].into_iter().chain(b_model) {
            let above = a.above(Category::new(than).unwrap());
            prop_assert!(numbers(&above).iter().eq(a_model.iter().filter(|one| **one > than)));
        }
        // Two that contain each other or not, and ones made to.
        for (one, other) in [(a, b), (a, a.union(&b)), (a, a.difference(&b)), (b, b)] {
            let contained = numbers(&one).is_subset(&numbers(&other))
                || numbers(&other).is_subset(&numbers(&one));
            let neither_is_empty = !one.is_empty() && !other.is_empty();
            prop_assert_eq!(one.overlaps(&other), contained && neither_is_empty);
            prop_assert_eq!(other.overlaps(&one), contained && neither_is_empty);
        }
    }

    #[test]
    fn a_pair_is_two_categories_the_smaller_first(a in 0..2_000_u16, b in 0..2_000_u16) {
        let pair = Category::new(a)
            .zip(Category::new(b))
            .and_then(|(a, b)| CategoryPair::new(a, b));
        let valid = a < CATEGORY_COUNT && b < CATEGORY_COUNT && a != b;
        prop_assert_eq!(pair.is_some(), valid);
        if let Some(pair) = pair {
            prop_assert_eq!(pair.to_string(), format!("c{},c{}", a.min(b), a.max(b)));
            prop_assert_eq!(pair.categories().len(), 2);
            let level = Level::with_pair("s0", pair);
            prop_assert_eq!(level.to_string().parse::<Level>().unwrap(), level);
        }
    }

    #[test]
    fn contexts_of_any_policy_print_as_what_they_are(
        words in prop::array::uniform3("[a-z][a-z0-9_]{0,12}"),
        low in 0..16_u8,
        high in prop::option::of(0..16_u8),
        low_set in prop::option::of(categories()),
        cleared in prop::option::of(categories()),
    ) {
        let level = |sensitivity: u8, categories: &Option<(BTreeSet<u16>, String)>| {
            let categories = categories.as_ref().map(|(_, text)| format!(":{text}"));
            format!("s{sensitivity}{}", categories.unwrap_or_default())
        };
        let mut text = format!("{}:{}", words.join(":"), level(low, &low_set));
        if let Some(high) = high {
            text = format!("{text}-{}", level(high, &cleared));
        }
        let context: Context = text.parse().unwrap();
        prop_assert_eq!(context.to_string().parse::<Context>().unwrap(), context.clone());
        prop_assert_eq!(context.sensitivity(), format!("s{low}"));
        // What it is cleared for never counts.
        let model = low_set.map(|(model, _)| model).unwrap_or_default();
        prop_assert_eq!(numbers(&context.categories()), model);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[cs0-9:,.\\-a-z\\PC]{0,40}") {
        if let Ok(set) = text.parse::<Categories>() {
            prop_assert_eq!(set.to_string().parse::<Categories>().unwrap(), set);
        }
        if let Ok(range) = text.parse::<Range>() {
            prop_assert_eq!(range.to_string().parse::<Range>().unwrap(), range);
        }
        if let Ok(context) = text.parse::<Context>() {
            prop_assert_eq!(context.to_string().parse::<Context>().unwrap(), context);
        }
    }
}
