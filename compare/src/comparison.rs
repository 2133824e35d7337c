//! The comparison: every scenario in both modes, one after the other, and the report.

use std::{fs, sync::Arc};

use doorstep_cli::{
    CliError, ShutdownSignal,
    output::{cannot_write, print},
};
use doorstep_event::Timestamp;
use doorstep_table::terminal_width;

use crate::{
    chart,
    items::WorkItem,
    progress::Progress,
    report::Report,
    run::Run,
    scenario::{Mode, Scenario},
    settings::CompareSettings,
    stats::Sample,
    table,
};

/// Runs the comparison.
///
/// # Errors
/// The broker is unreachable or denies access, the consumers do not start, the chart cannot be written, or the user
/// stops the program. Also if an item was acknowledged and never done, or done twice.
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
    let progress = Progress::new(users as u64);
    progress.note(&format!(
        "on the broker, all names used begin with {}.{run}.",
        settings.broker.namespace
    ));
    let measured = measure(&settings, &run, &loads, &progress, &mut stop).await;
    progress.finish();
    // Empty by now, or reported.
    let _ = fs::remove_dir(std::env::temp_dir().join(format!("doorstep-{run}")));
    let report = Report::new(&settings, measured?);
    // Written before anything is printed, whose reader may be gone.
    if let Some(path) = &settings.args.svg {
        let svg = chart::svg(&report)?;
        fs::write(path, svg)
            .map_err(|e| cannot_write(&format!("the chart {}", path.display()), &e))?;
    }
    print(|out| {
        if settings.args.json {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            return writeln!(out);
        }
        out.write_all(table::text(&report, terminal_width()).as_bytes())
    })?;
    report.broken_promise().map_or(Ok(()), Err)
}

async fn measure(
    settings: &CompareSettings,
    run: &str,
    loads: &[(Scenario, Arc<[WorkItem]>)],
    progress: &Progress,
    stop: &mut ShutdownSignal,
) -> Result<Vec<Sample>, CliError> {
    let total = loads.len() * Mode::ALL.len();
    let mut cells = Vec::with_capacity(total);
    for (scenario, items) in loads {
        for way in Mode::ALL {
            let number = cells.len() + 1;
            progress.step(format!(
                "{number} of {total}: consumers {}, {}, {} users in {:?}",
                scenario.label(),
                way.label(),
                items.len(),
                settings.pace.lasts,
            ));
            let stage = Run::new(settings, run, number, *scenario, way)?;
            cells.push(stage.measure(items, progress, stop).await?);
            progress.part(items.len());
        }
    }
    Ok(cells)
}

fn items(settings: &CompareSettings, scenario: Scenario) -> Result<Arc<[WorkItem]>, CliError> {
    let load = settings.pace.load(scenario);
    WorkItem::draw(settings.args.seed, load, Timestamp::now())
        .map(Arc::from)
        .map_err(|mistake| CliError::internal(format!("cannot make items: {mistake}")))
}
