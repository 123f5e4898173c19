//! The labels of a journal's records as contexts.

use crate::model::label::{Context, LabelError};
use crate::restore::entry::Record;

/// The labels of a record.
#[derive(Clone, Copy)]
pub struct RecordLabels<'a> {
    /// The label that was given.
    pub given: &'a Context,
    /// The label that was there before.
    pub original: &'a Context,
}

/// The labels of the record that was looked at last: those of the next are often the same.
#[derive(Default)]
pub struct ParsedLabels {
    texts: (String, String),
    labels: Option<(Context, Context)>,
}

impl ParsedLabels {
    /// Returns the labels of a record.
    ///
    /// # Errors
    /// A label that is none.
    pub fn of(&mut self, record: &Record) -> Result<RecordLabels<'_>, LabelError> {
        let texts = (&record.label, &record.original);
        if self.labels.is_none() || texts != (&self.texts.0, &self.texts.1) {
            self.labels = None;
            self.texts = (texts.0.clone(), texts.1.clone());
        }
        let (given, original) = match &mut self.labels {
            Some(labels) => labels,
            none => none.insert((record.label.parse()?, record.original.parse()?)),
        };
        Ok(RecordLabels { given, original })
    }
}
