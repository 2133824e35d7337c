//! What the figures say: for each thing that is commonly claimed of the two ways whether they show it, and what to choose when. Pure.

mod advice;
mod findings;
mod seen;
#[cfg(test)]
mod tests;
mod words;

use serde::Serialize;

use super::{scenario::Mode, stats::Sample};
use seen::Seen;

pub(super) use words::time;

/// What the figures say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Verdict {
    pub(super) findings: Vec<Finding>,
    /// What to choose when.
    pub(super) advice: String,
}

/// One claim, held against the figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) way: Mode,
    pub(super) claim: &'static str,
    pub(super) shown: Shown,
    /// The figures that decided.
    pub(super) because: String,
}

/// Whether the figures show a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shown {
    Yes,
    No,
    NotMeasured,
}

impl Shown {
    fn if_so(so: bool) -> Self {
        if so { Self::Yes } else { Self::No }
    }

    /// What it is called for people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Yes => "shown",
            Self::No => "NOT SHOWN",
            Self::NotMeasured => "not measured",
        }
    }
}

impl Verdict {
    /// What these figures say; `None` unless every scenario was measured in both ways.
    pub(super) fn of(cells: &[Sample]) -> Option<Self> {
        let seen = Seen::of(cells)?;
        let findings = vec![
            findings::immediate(&seen),
            findings::waits_with_its_servers(&seen),
            findings::simple(),
            findings::answers_at_once(&seen),
            findings::nothing_lost(&seen),
            findings::levelled(&seen),
            findings::delayed(&seen),
        ];
        let advice = advice::advice(&seen);
        Some(Self { findings, advice })
    }
}
