//! The verdict: whether the figures show each common claim about the two modes, and which mode to choose. Pure.

mod advice;
mod both_modes;
mod findings;
mod format;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::{scenario::Mode, stats::Sample};
use both_modes::BothModes;

pub(crate) use format::time;

/// The verdict on a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) findings: Vec<Finding>,
    /// The advice on which mode to choose.
    pub(crate) advice: String,
}

/// One claim, checked against the figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    pub(crate) way: Mode,
    pub(crate) claim: &'static str,
    pub(crate) shown: Shown,
    /// The figures that decided it.
    pub(crate) because: String,
}

/// The result of checking a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shown {
    Yes,
    No,
    NotMeasured,
}

impl Shown {
    fn if_so(so: bool) -> Self {
        if so { Self::Yes } else { Self::No }
    }

    /// The name of the result for people.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Yes => "shown",
            Self::No => "NOT SHOWN",
            Self::NotMeasured => "not measured",
        }
    }
}

impl Verdict {
    /// Computes the verdict, `None` unless every scenario was measured in both modes.
    pub(crate) fn from_samples(cells: &[Sample]) -> Option<Self> {
        let seen = BothModes::from_samples(cells)?;
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
