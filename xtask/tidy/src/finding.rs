//! A place in the sources that counts for a measure.

/// A place that a measure counts, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// The line, counted from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
    /// The order among findings: the greatest comes first.
    pub(crate) weight: usize,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            line,
            text: text.to_owned(),
            weight: 0,
        }
    }

    pub(crate) fn with_weight(self, weight: usize) -> Self {
        Self { weight, ..self }
    }
}
