//! How far long work is: each step with its time (`-v`), and a line a second for whoever waits.

use std::fmt;
use std::time::{Duration, Instant};

use crate::text::message::say;

/// How long work goes on before a line is printed.
const QUIET: Duration = Duration::from_secs(1);

/// Prints what each step did and when, with `-v`.
#[derive(Debug)]
pub struct Steps {
    since: Option<Instant>,
}

impl Steps {
    /// Prints nothing unless `verbose`.
    pub fn new(verbose: bool) -> Self {
        Self {
            since: verbose.then(Instant::now),
        }
    }

    /// Tells whether steps are printed.
    pub fn are_told(&self) -> bool {
        self.since.is_some()
    }

    /// Prints that a step is done.
    pub fn tell(&self, what: fmt::Arguments<'_>) {
        if let Some(since) = self.since {
            say(format_args!(
                "{:6.1} ms  {what}",
                since.elapsed().as_secs_f64() * 1e3
            ));
        }
    }
}

/// Measures when to print how far long work is.
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
    /// Tells whether nothing has been printed for a second, and counts from now on.
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
