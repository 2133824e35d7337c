//! The figures that a verdict uses: each mode in every scenario, checkouts and updates together.

use super::format::p99;
use crate::{
    scenario::{Mode, Scenario},
    stats::{Figures, Sample},
};

/// The figures of all samples, checkouts and updates together.
pub(super) struct BothModes<'a> {
    pub(super) sync: Row<'a>,
    pub(super) asynchronous: Row<'a>,
}

/// One mode in all scenarios.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) well: &'a Figures,
    pub(super) slow: &'a Figures,
    pub(super) overloaded: &'a Figures,
    pub(super) down: &'a Figures,
}

impl<'a> Row<'a> {
    fn from_samples(cells: &'a [Sample], way: Mode) -> Option<Self> {
        let find = |scenario| {
            let cell = cells
                .iter()
                .find(|cell| cell.scenario == scenario && cell.way == way)?;
            Some(&cell.all)
        };
        Some(Self {
            well: find(Scenario::Healthy)?,
            slow: find(Scenario::Slow)?,
            overloaded: find(Scenario::Overloaded)?,
            down: find(Scenario::Down)?,
        })
    }

    pub(super) fn all(self) -> [&'a Figures; 4] {
        [self.well, self.slow, self.overloaded, self.down]
    }

    pub(super) fn sum(self, of: impl Fn(&Figures) -> u64) -> u64 {
        self.all().into_iter().map(of).sum()
    }

    /// Returns the highest 99th percentile of response times of all scenarios.
    pub(super) fn worst_p99(self) -> f64 {
        self.all()
            .into_iter()
            .map(|f| p99(f.response))
            .fold(0.0, f64::max)
    }
}

impl<'a> BothModes<'a> {
    pub(super) fn from_samples(cells: &'a [Sample]) -> Option<Self> {
        Some(Self {
            sync: Row::from_samples(cells, Mode::Sync)?,
            asynchronous: Row::from_samples(cells, Mode::Async)?,
        })
    }
}
