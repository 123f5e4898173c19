//! Samples of what is too much for every run.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

/// Returns the number that decides what is taken: of `SVIRT_SEED`, or drawn once for this run and printed.
fn seed() -> usize {
    static SEED: OnceLock<usize> = OnceLock::new();
    *SEED.get_or_init(|| {
        let stated = std::env::var("SVIRT_SEED").ok();
        let drawn = || usize::try_from(RandomState::new().build_hasher().finish() % 1000).unwrap();
        stated.map_or_else(drawn, |seed| seed.parse().unwrap())
    })
}

/// Tells of the `index`th of several whether one in `every` that is taken is this one.
pub fn is_taken(index: usize, every: usize) -> bool {
    (index + seed()).is_multiple_of(every)
}

/// Says what a run of a test has taken, so that it can be repeated.
pub fn say_sample(of: &str) {
    println!("SVIRT_SEED={} takes these {of}", seed());
}
