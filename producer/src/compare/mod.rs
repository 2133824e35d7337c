//! `compare`: the same checkouts and the same tracking updates done synchronously and asynchronously by the same consumers, measured
//! while these are well, slow, overloaded and down.
//!
//! - [`args`] is what can be typed.
//! - [`items`] is what users want, and when; [`load`] lets them want it; [`scenario`] is what is compared.
//! - [`work`] is the two roles, [`worker`] the process that runs them, and [`consumer_process`] starts and kills it.
//! - [`stage`] is where one part is measured, and [`completions`] what the roles' stores say of it.
//! - [`figures`] and [`verdict`] are pure; [`report`], [`table`] and [`picture`] show them.
//!
//! All of it happens in a namespace of its own and in a temporary folder, and both are deleted in the end. The broker is only used.

mod args;
mod chart;
mod completions;
mod consumer_process;
mod items;
mod load;
mod progress;
mod report;
mod run;
mod scenario;
mod stats;
mod table;
mod verdict;
mod work;
mod worker;

use std::{fs, path::PathBuf, sync::Arc};

use doorstep_event::Timestamp;
use doorstep_messaging::BrokerSettings;
use doorstep_program::{
    CliError, ExitReason, ShutdownSignal,
    args::BrokerVariables,
    output::{cannot_write, print},
};
use doorstep_table::terminal_width;

pub(crate) use args::{COMPARE_HELP, CompareArgs, CompareWorkArgs, WORK_COMMAND};
pub(crate) use worker::{WorkSettings, work};

use items::WorkItem;
use progress::Progress;
use report::Report;
use run::Run;
use scenario::{LoadProfile, Mode, Scenario};
use stats::Sample;

/// What to compare, and how to show it.
#[derive(Debug)]
pub(crate) struct CompareSettings {
    /// The same seed offers the same.
    pub(crate) seed: u64,
    /// How much is offered.
    pace: LoadProfile,
    /// What is written to standard output.
    pub(crate) form: Form,
    /// Where to put a picture.
    pub(crate) svg: Option<PathBuf>,
    /// The broker; the comparison's own namespaces begin with this one.
    pub(crate) broker: BrokerSettings,
    /// The way to reach it, for the process of the consumers.
    pub(crate) variables: BrokerVariables,
}

/// What is written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tables and a verdict.
    Text,
    /// All figures, in JSON.
    Json,
}

/// Compares.
///
/// # Errors
/// The broker cannot be reached or does not let us, the consumers do not start, the picture cannot be written, or the user wants to stop.
/// Also where an item was answered well and never done, or done twice.
pub(crate) async fn run(
    settings: CompareSettings,
    mut stop: ShutdownSignal,
) -> Result<(), CliError> {
    let run = format!("compare-{:08x}", rand::random::<u32>());
    let loads = Scenario::ALL
        .map(|scenario| items(&settings, scenario).map(|items| (scenario, items)))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let users: usize = loads
        .iter()
        .map(|(_, items)| items.len() * Mode::ALL.len())
        .sum();
    let told = Progress::new(users as u64);
    told.note(&format!(
        "on the broker, all that is used begins with {}.{run}.",
        settings.broker.namespace
    ));
    let measured = measure(&settings, &run, &loads, &told, &mut stop).await;
    told.finish();
    // Empty by now, or told of.
    let _ = fs::remove_dir(std::env::temp_dir().join(format!("doorstep-{run}")));
    let report = Report::of(&settings, measured?);
    // Before anything is printed, whose reader may be gone.
    if let Some(path) = &settings.svg {
        let svg = chart::svg(&report)?;
        fs::write(path, svg)
            .map_err(|e| cannot_write(&format!("the picture {}", path.display()), &e))?;
    }
    match settings.form {
        Form::Text => {
            let text = table::text(&report, terminal_width());
            print(|out| out.write_all(text.as_bytes()))?;
        }
        Form::Json => {
            let json = report.json()?;
            print(|out| writeln!(out, "{json}"))?;
        }
    }
    report.broken_promise().map_or(Ok(()), Err)
}

async fn measure(
    settings: &CompareSettings,
    run: &str,
    loads: &[(Scenario, Arc<[WorkItem]>)],
    told: &Progress,
    stop: &mut ShutdownSignal,
) -> Result<Vec<Sample>, CliError> {
    let total = loads.len() * Mode::ALL.len();
    let mut cells = Vec::with_capacity(total);
    for (scenario, items) in loads {
        for way in Mode::ALL {
            let number = cells.len() + 1;
            told.step(format!(
                "{number} of {total}: consumers {}, {}, {} users in {:?}",
                scenario.words(),
                way.words(),
                items.len(),
                settings.pace.lasts,
            ));
            let stage = Run::new(settings, run, number, *scenario, way)?;
            cells.push(stage.measure(items, told, stop).await?);
            told.part(items.len());
        }
    }
    Ok(cells)
}

fn items(settings: &CompareSettings, scenario: Scenario) -> Result<Arc<[WorkItem]>, CliError> {
    let load = settings.pace.load(scenario);
    WorkItem::draw(settings.seed, load, Timestamp::now())
        .map(Arc::from)
        .map_err(|mistake| CliError::new(ExitReason::Internal, format!("no items: {mistake}")))
}
