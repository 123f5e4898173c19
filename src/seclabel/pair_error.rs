//! Why a guest gets no pair, or not the level that the caller chose.

use std::fmt;
use std::io;

use nix::unistd::Pid;
use thiserror::Error;

use crate::text::message::Message;

/// Fewest categories a range may have, as in libvirt.
pub(in crate::seclabel) const FEWEST: usize = 8;

/// Claims made before giving up while the range still has free pairs. Each failure means that another
/// launcher claimed the same pair at that moment.
pub(in crate::seclabel) const ATTEMPTS: usize = 64;

/// Why there is no pair.
#[derive(Debug, Error)]
pub enum PairError {
    /// The range, and how many categories it has: too few to choose from.
    TooFew(String, usize),
    /// Every pair overlaps one in use.
    UsedUp {
        /// The range.
        range: String,
        /// How many pairs it has.
        total: usize,
        /// How many sets of categories in use on this host overlap it.
        used: usize,
    },
    /// Others were always faster.
    Contended,
    /// The level that the caller chose cannot be had.
    Level(#[from] LevelError),
    /// The kernel or the policy did not accept the claim.
    Claim {
        /// The context.
        context: String,
        /// Why.
        source: io::Error,
    },
    /// /proc could not be read.
    Scan(#[source] io::Error),
    /// Some process may have been missed, and there is no range to be lost in; how many pairs are free.
    Unsettled(usize),
    /// There are no random bytes.
    Random(#[source] io::Error),
}

impl PairError {
    /// Returns what is wrong, and what to do.
    pub fn message(&self) -> Message {
        match self {
            Self::TooFew(range, count) => Message::new(
                format!(
                    "cannot choose a category pair: {range} has {count} categories, at least {FEWEST} are \
                     needed"
                ),
                "give a wider --mcs-range, or start from a login with a wider clearance",
            ),
            Self::UsedUp { range, total, used } => Message::new(
                format!(
                    "cannot choose a category pair: all {total} pairs of {range} overlap one of the \
                     {used} that are in use"
                ),
                "stop a guest or give a wider --mcs-range",
            ),
            Self::Contended => Message::new(
                format!(
                    "cannot claim a category pair: {ATTEMPTS} times another launcher claimed the same one"
                ),
                "try again, or give a wider --mcs-range",
            ),
            Self::Claim { context, source } => {
                format!("cannot ask the kernel for '{context}' at the next execve: {source}").into()
            }
            Self::Scan(error) => {
                format!("cannot read which categories are in use from /proc: {error}").into()
            }
            Self::Random(error) => format!("cannot read random bytes: {error}").into(),
            Self::Level(error) => error.message(),
            Self::Unsettled(free) => Message::new(
                format!(
                    "cannot choose a category pair: some process may have been missed, and only {free} pairs \
                     are left"
                ),
                "processes start and end faster than they can be looked at: stop what starts them, or give a \
                 wider --mcs-range and no --level",
            ),
        }
    }
}

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

/// Why a level that the caller chose cannot be had.
#[derive(Debug, Error)]
pub enum LevelError {
    /// Somebody has overlapping categories with the level that the caller asked for.
    Held {
        /// The level asked for.
        level: String,
        /// The process that has them.
        pid: Pid,
        /// Its label.
        label: String,
    },
    /// A level with fewer than two categories.
    TooOpen(String),
    /// A level with more than two, which overlaps many pairs.
    TooWide(String),
    /// A level of another sensitivity than the caller's.
    Sensitivity {
        /// The level asked for.
        level: String,
        /// The caller's low sensitivity.
        own: String,
    },
    /// A range, instead of one level.
    Ranged(String),
}

impl LevelError {
    /// Returns what is wrong, and what to do.
    pub fn message(&self) -> Message {
        match self {
            Self::Held { level, pid, label } => Message::new(
                format!(
                    "cannot use level {level}: process {pid} ({label}) has overlapping MCS categories"
                ),
                "give another level, or --share-level where both may use each other's files",
            ),
            Self::TooOpen(level) => Message::new(
                format!("cannot use level {level}: a guest needs two categories at least"),
                "with fewer, what it writes is open to other guests (CVE-2021-3631)",
            ),
            Self::TooWide(level) => Message::new(
                format!(
                    "cannot use level {level}: it has more than two categories, and so overlaps the pairs \
                     of many guests"
                ),
                "give a level with two, or --share-level as well",
            ),
            Self::Sensitivity { level, own } => Message::new(
                format!(
                    "cannot use level {level}: its sensitivity is not that of this login, {own}, which \
                     guests keep"
                ),
                format!(
                    "write {own} in its place, or start from a login at that level (newrole -l)"
                ),
            ),
            Self::Ranged(range) => Message::new(
                format!("cannot use '{range}': a guest is at one level, not in a range"),
                "leave out what follows the dash",
            ),
        }
    }
}

impl fmt::Display for LevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}
