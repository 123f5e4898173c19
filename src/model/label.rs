//! SELinux contexts as values: user, role, type, and MCS/MLS levels.
//!
//! Pure code. A [`CategoryPair`] cannot hold two equal categories, and two [`Categories`] can be asked
//! whether one contains the other. So the mistake behind CVE-2021-3631 (a "pair" of one category, which is
//! a subset of other guests' pairs) cannot be written down.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Categories that a policy can define: c0 to c1023 (refpolicy and Fedora, `MCS_CATS`).
pub const CATEGORY_COUNT: u16 = 1024;

/// Why a text is no context, level or category.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LabelError {
    /// Fewer than three fields.
    #[error("'{0}' is no SELinux context (user:role:type:level)")]
    NoContext(String),
    /// Not `sN` or `sN:categories`.
    #[error("'{0}' is no level (s0:c1,c2)")]
    NoLevel(String),
    /// Not `cN`, or a number above 1023.
    #[error("'{0}' is no category (c0 to c1023)")]
    NoCategory(String),
}

/// One MCS category, 0 to 1023.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Category(u16);

impl Category {
    /// Returns the category with this number, if a policy can define it.
    pub fn new(number: u16) -> Option<Self> {
        (number < CATEGORY_COUNT).then_some(Self(number))
    }

    /// Returns its number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl FromStr for Category {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let bad = || LabelError::NoCategory(text.to_owned());
        let digits = text.strip_prefix('c').ok_or_else(bad)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        digits.parse().ok().and_then(Self::new).ok_or_else(bad)
    }
}

/// Two different categories, the smaller first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CategoryPair {
    low: Category,
    high: Category,
}

impl CategoryPair {
    /// Returns the pair of two categories, in either order. None if they are equal (CVE-2021-3631).
    pub fn new(a: Category, b: Category) -> Option<Self> {
        (a != b).then(|| Self {
            low: a.min(b),
            high: a.max(b),
        })
    }

    /// Returns both as a set.
    pub fn categories(self) -> Categories {
        let mut set = Categories::default();
        set.insert(self.low);
        set.insert(self.high);
        set
    }
}

impl fmt::Display for CategoryPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.low, self.high)
    }
}

/// A set of categories.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Categories([u64; 16]);

impl Categories {
    /// Returns every category that a policy can define.
    pub fn all() -> Self {
        Self([u64::MAX; 16])
    }

    /// Adds a category.
    pub fn insert(&mut self, category: Category) {
        let number = usize::from(category.0);
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Returns every category from a number on.
    fn from(first: usize) -> Self {
        let mut set = Self::default();
        for (word, start) in set.0.iter_mut().zip((0..).step_by(64)) {
            let before = u32::try_from(first.saturating_sub(start)).unwrap_or(u32::MAX);
            *word = u64::MAX.checked_shl(before).unwrap_or(0);
        }
        set
    }

    /// Returns those with a higher number than `category`.
    pub fn above(&self, category: Category) -> Self {
        self.intersection(&Self::from(usize::from(category.0).saturating_add(1)))
    }

    /// Tells whether a category is in it.
    pub fn contains(&self, category: Category) -> bool {
        let number = usize::from(category.0);
        self.0
            .get(number / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Tells whether every category of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a & !b == 0)
    }

    /// Tells whether one of two sets contains the other: a process with one may then use what carries the
    /// other. An empty set overlaps none.
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.is_empty() && !other.is_empty() && (self.is_subset(other) || other.is_subset(self))
    }

    /// Returns what is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// Returns what is in either.
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// Returns what is in this one and not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    fn combine(mut self, other: &Self, words: impl Fn(u64, u64) -> u64) -> Self {
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a = words(*a, *b);
        }
        self
    }

    /// Returns the first number from `from` on that is in it, or that is not.
    fn next(&self, from: usize, is_in: bool) -> Option<usize> {
        let mut words = self.0.iter().zip(Self::from(from).0).zip((0..).step_by(64));
        words.find_map(|((word, mask), start): (_, usize)| {
            let word = mask & if is_in { *word } else { !*word };
            (word != 0).then(|| start.saturating_add(word.trailing_zeros() as usize))
        })
    }

    /// Returns the first and the last number of each run.
    fn runs(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        let number = |number: usize| u16::try_from(number).unwrap_or(CATEGORY_COUNT);
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = self.next(from, true)?;
            let end = self.next(first, false).unwrap_or(CATEGORY_COUNT.into());
            from = end;
            Some((number(first), number(end.saturating_sub(1))))
        })
    }

    /// Returns them in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Category> + '_ {
        self.runs()
            .flat_map(|(first, last)| (first..=last).map(Category))
    }
}

impl fmt::Display for Categories {
    /// Prints them as the kernel does: runs of three and more as `c0.c5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (start, end)) in self.runs().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let (first, last) = (Category(start), Category(end));
            match end.saturating_sub(start) {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}.{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Categories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromStr for Categories {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let mut set = Self::default();
        for part in text.split(',') {
            let (start, end) = match part.split_once('.') {
                Some((start, end)) => (start.parse()?, end.parse()?),
                None => {
                    let one: Category = part.parse()?;
                    (one, one)
                }
            };
            if start > end {
                return Err(LabelError::NoCategory(part.to_owned()));
            }
            let after = Self::from(usize::from(end.0).saturating_add(1));
            set = set.union(&Self::from(start.0.into()).difference(&after));
        }
        Ok(set)
    }
}

/// A sensitivity with categories.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Level {
    /// `s0`; more than one only in MLS policies.
    pub sensitivity: String,
    /// The categories.
    pub categories: Categories,
}

impl Level {
    /// Returns the level without categories.
    pub fn bare(sensitivity: &str) -> Self {
        Self {
            sensitivity: sensitivity.to_owned(),
            categories: Categories::default(),
        }
    }

    /// Returns the level with a pair.
    pub fn with_pair(sensitivity: &str, pair: CategoryPair) -> Self {
        Self {
            sensitivity: sensitivity.to_owned(),
            categories: pair.categories(),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sensitivity)?;
        if !self.categories.is_empty() {
            write!(f, ":{}", self.categories)?;
        }
        Ok(())
    }
}

impl FromStr for Level {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let (sensitivity, categories) = match text.split_once(':') {
            Some((sensitivity, categories)) => (sensitivity, categories.parse()?),
            None => (text, Categories::default()),
        };
        let numbered = sensitivity
            .strip_prefix('s')
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if !numbered {
            return Err(LabelError::NoLevel(text.to_owned()));
        }
        Ok(Self {
            sensitivity: sensitivity.to_owned(),
            categories,
        })
    }
}

/// From a low level to a clearance. Only the low level confines: a login shell at `s0-s0:c0.c1023` is cleared
/// for every category and confined to none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The level that the process works at.
    pub low: Level,
    /// The clearance, if it differs from the low level.
    pub high: Option<Level>,
}

impl Range {
    /// Returns the range of one level.
    pub fn single(level: Level) -> Self {
        Self {
            low: level,
            high: None,
        }
    }

    /// Returns the upper end.
    pub fn clearance(&self) -> &Level {
        self.high.as_ref().unwrap_or(&self.low)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.low)?;
        match &self.high {
            Some(high) => write!(f, "-{high}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Range {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        Ok(match text.split_once('-') {
            Some((low, high)) => Self {
                low: low.parse()?,
                high: Some(high.parse()?),
            },
            None => Self::single(text.parse()?),
        })
    }
}

/// A whole context, of a process or of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// SELinux user.
    pub user: String,
    /// Role; `object_r` for files.
    pub role: String,
    /// Type; the domain, for processes.
    pub type_: String,
    /// Level or range. None in a policy without MLS and MCS.
    pub range: Option<Range>,
}

impl Context {
    /// Returns the same context with another type.
    pub fn with_type(&self, type_: &str) -> Self {
        Self {
            type_: type_.to_owned(),
            ..self.clone()
        }
    }

    /// Returns the same context at another level.
    pub fn at(&self, level: Level) -> Self {
        Self {
            range: Some(Range::single(level)),
            ..self.clone()
        }
    }

    /// Returns the same context without categories.
    pub fn bare(&self) -> Self {
        self.at(Level::bare(self.sensitivity()))
    }

    /// Returns the low level, at which a process runs and an object is.
    pub fn level(&self) -> Level {
        Level {
            sensitivity: self.sensitivity().to_owned(),
            categories: self.categories(),
        }
    }

    /// Returns the categories of the low level: those that confine a process, or bind an object to one.
    pub fn categories(&self) -> Categories {
        self.range
            .as_ref()
            .map(|range| range.low.categories)
            .unwrap_or_default()
    }

    /// Returns the sensitivity of the low level.
    pub fn sensitivity(&self) -> &str {
        self.range
            .as_ref()
            .map_or("s0", |range| range.low.sensitivity.as_str())
    }

    /// Returns type and level: what a person needs of a context in a message.
    pub fn short(&self) -> String {
        match &self.range {
            Some(range) => format!("{}:{range}", self.type_),
            None => self.type_.clone(),
        }
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.role, self.type_)?;
        match &self.range {
            Some(range) => write!(f, ":{range}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Context {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        // The kernel ends some of them with a NUL, files with a newline.
        let text = text.trim_end_matches(['\0', '\n']);
        let bad = || LabelError::NoContext(text.to_owned());
        let mut fields = text.splitn(4, ':');
        let mut field = || {
            fields
                .next()
                .filter(|field| !field.is_empty())
                .ok_or_else(bad)
        };
        let (user, role, type_) = (field()?, field()?, field()?);
        Ok(Self {
            user: user.to_owned(),
            role: role.to_owned(),
            type_: type_.to_owned(),
            range: fields.next().map(Range::from_str).transpose()?,
        })
    }
}

#[cfg(test)]
#[path = "label_tests.rs"]
mod tests;
