//! All measurements, in a form for programs.

use doorstep_cli::CliError;
use serde::Serialize;

use crate::{
    items::{LoadPlan, UPDATES_FOR_A_CHECKOUT},
    scenario::Scenario,
    settings::CompareSettings,
    stats::Sample,
    verdict::Verdict,
};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    seed: u64,
    seconds: u64,
    delay_ms: f64,
    deadline_ms: f64,
    /// The load that each scenario offered.
    loads: Vec<Offered>,
    pub(crate) cells: Vec<Sample>,
    pub(crate) verdict: Option<Verdict>,
}

#[derive(Debug, Serialize)]
struct Offered {
    scenario: Scenario,
    checkouts_a_second: f64,
    updates_a_second: f64,
}

impl Report {
    pub(crate) fn new(settings: &CompareSettings, cells: Vec<Sample>) -> Self {
        let loads = Scenario::ALL.map(|scenario| {
            let LoadPlan {
                checkouts_a_second, ..
            } = settings.pace.load(scenario);
            Offered {
                scenario,
                checkouts_a_second,
                updates_a_second: checkouts_a_second * f64::from(UPDATES_FOR_A_CHECKOUT),
            }
        });
        Self {
            seed: settings.args.seed,
            seconds: settings.pace.lasts.as_secs(),
            delay_ms: settings.pace.delay.as_secs_f64() * 1000.0,
            deadline_ms: crate::load::DEADLINE.as_secs_f64() * 1000.0,
            loads: loads.into(),
            verdict: Verdict::from_samples(&cells),
            cells,
        }
    }

    /// Returns the error of a broken promise: an item that was acknowledged and is missing after all work is done, or
    /// that was done twice.
    pub(crate) fn broken_promise(&self) -> Option<CliError> {
        let worked = self.cells.iter().filter(|cell| cell.drained);
        let lost: u64 = worked.map(|cell| cell.all.lost).sum();
        let twice: u64 = self.cells.iter().map(|cell| cell.all.twice).sum();
        (lost + twice > 0).then(|| {
            CliError::failed(format!(
                    "{lost} items got a success and were never done, and {twice} were done twice: please report this with the output of --json"
                ))
        })
    }
}
