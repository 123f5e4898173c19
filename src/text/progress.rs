//! How far something is: each step with its time, for who asks for it (`-v`), and a word a second for
//! who waits.

use std::fmt;
use std::time::{Duration, Instant};

use crate::text::message::say;

/// How long to work without a word.
const QUIET: Duration = Duration::from_secs(1);

/// Says what each step did and when, with `-v`.
#[derive(Debug)]
pub struct Steps {
    since: Option<Instant>,
}

impl Steps {
    /// Silent ones, unless this is to be verbose.
    pub fn new(verbose: bool) -> Self {
        Self {
            since: verbose.then(Instant::now),
        }
    }

    /// Whether anything is said.
    pub fn are_told(&self) -> bool {
        self.since.is_some()
    }

    /// Says that a step is done.
    pub fn tell(&self, what: fmt::Arguments<'_>) {
        if let Some(since) = self.since {
            say(format_args!(
                "{:6.1} ms  {what}",
                since.elapsed().as_secs_f64() * 1e3
            ));
        }
    }
}

/// When it is time to say how far a long work is.
#[derive(Debug)]
pub struct Pace {
    said: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            said: Instant::now(),
        }
    }
}

impl Pace {
    /// Whether nothing has been said for a while; from now on something has.
    pub fn is_due(&mut self) -> bool {
        let due = self.said.elapsed() >= QUIET;
        if due {
            self.said = Instant::now();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_a_second() {
        let mut pace = Pace::default();
        assert!(!pace.is_due());
        pace.said = Instant::now().checked_sub(QUIET).unwrap();
        assert!(pace.is_due());
        assert!(!pace.is_due());
    }
}
