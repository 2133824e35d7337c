//! `import`: publishes a file as events.
//!
//! The file is read twice. The first pass checks the whole file, and compares its rows with earlier imports, which
//! gives the events' sources. It publishes nothing. The second pass makes the events. Both keep in memory only the open
//! units and a digest of each row, never the file.
//!
//! An event's content, id and number follow from the rows alone. So an import may be killed and run again, or run
//! twice: the same events arrive again and change nothing.

use doorstep_cli::{CliError, ShutdownSignal};

mod access_log;
mod first_pass;
mod format;
mod history;
mod input;
mod mapping;
mod packing;
mod pickups;
mod rejects;
mod retail;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use tokio::task::{JoinError, spawn_blocking};

pub(crate) use self::{
    access_log::{AccessLogSettings, run as run_access_log},
    format::{Dates, Decimal, Format},
    input::plain,
    mapping::RowMapper,
    packing::open as open_packed,
    pickups::{Calendar, Pickups},
    rejects::default_path as default_refused_path,
    retail::{Reading, Retail},
    table::Layout,
};
use self::{
    first_pass::{FirstPass, Part, Terms, first_pass},
    history::History,
    input::Input,
    rejects::RejectFile,
    table::Table,
};
use crate::{
    chunk::BatchSender,
    output::Target,
    progress::{Progress, Unit},
    stop::nothing_sent,
};

/// The settings of an import, except for the kind of file.
#[derive(Debug)]
pub(crate) struct ImportSettings {
    pub(crate) file: PathBuf,
    /// The delimiter and the names of columns, if they are not the usual ones.
    pub(crate) layout: Layout,
    /// The name of a data set that grows, if it is one.
    pub(crate) dataset: Option<String>,
    /// The percentage of rows that may be rejected.
    pub(crate) max_refused_percent: f64,
    /// The path of the list of rejected rows.
    pub(crate) rejected: PathBuf,
    /// The folder of the history; `None` records nothing.
    pub(crate) history: Option<PathBuf>,
}

/// Imports a file: returns once every event has arrived, and prints a summary on standard output.
///
/// # Errors
/// The file is invalid, contradicts an earlier import, or changes while it is read; the events cannot be published; a
/// list cannot be written; the user stops the program. The import can be run again after each of them.
pub(crate) async fn run<M: RowMapper>(
    mapping: M,
    settings: ImportSettings,
    output: Target,
    mut stop: ShutdownSignal,
) -> Result<(), CliError> {
    let ImportSettings {
        file,
        layout,
        dataset,
        max_refused_percent,
        rejected,
        history,
    } = settings;
    let reading = spawn_blocking(move || {
        let input = Input::open(&file)?;
        let dataset = dataset.as_deref();
        let mut history = history
            .map(|folder| History::open::<M>(&folder, dataset))
            .transpose()?;
        let terms = Terms {
            dataset,
            max_refused_percent,
        };
        let first = first_pass(&mapping, &input, &layout, history.as_mut(), &terms)?;
        Ok::<_, CliError>((input, layout, history, first))
    });
    let (input, layout, mut history, first) = stop
        .or_cancelled(reading)
        .await
        .ok_or_else(nothing_sent)?
        .map_err(broken)??;
    let rows = first.rows;
    let notes = notes(&first, history.as_ref());
    let sources: Vec<_> = first
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::Sent { source, .. } => Some(source.clone()),
            Part::Kept { .. } => None,
        })
        .collect();
    let output = stop
        .or_cancelled(output.open())
        .await
        .ok_or_else(nothing_sent)??;

    let rejected = RejectFile::new(rejected);
    let (chunks, receiver) = BatchSender::channel();
    let reading = spawn_blocking(move || second_pass(&input, &layout, first, rejected, chunks));
    let mut progress = Progress::new("importing", Unit::Rows, Some(rows));
    let tally = output.take(receiver, &mut progress, stop).await;
    let elapsed = progress.finish();
    // If both ends failed, the publishing one failed first: the other only finds its channel closed.
    let (tally, voice) = tally?;
    let (rejected, kept) = reading.await.map_err(broken)??;

    let imported = tally.arrived.count_of(M::ROW_EVENT);
    let refused_rows = rejected.count + tally.rejected.count_of(M::ROW_EVENT);
    if rows != imported + refused_rows + kept {
        return Err(CliError::failed(format!(
            "{rows} rows were read, but {imported} imported, {refused_rows} refused and {kept} known: this is a bug in Doorstep, please report it"
        )));
    }
    let unpublished = tally.rejected.total();
    if let Some(history) = history.as_mut().filter(|_| unpublished == 0) {
        for source in &sources {
            history.done(source)?;
        }
    }
    let list = rejected.finish()?;
    let known = match kept {
        0 => String::new(),
        kept => format!(" + {kept} known"),
    };
    voice.println(&format!(
        "{rows} read = {imported} imported + {refused_rows} refused{known}"
    ));
    voice.print_arrived(&tally, elapsed);
    for note in notes {
        voice.println(&note);
    }
    if let Some(list) = list {
        voice.println(&format!("refused rows are listed in {}", list.display()));
    }
    if unpublished > 0 {
        return Err(events_rejected(unpublished));
    }
    if imported + kept == 0 && rows > 0 {
        return Err(CliError::data("every row was refused: see the list"));
    }
    Ok(())
}

fn events_rejected(count: u64) -> CliError {
    CliError::data(format!(
        "the broker refuses {count} events, see above: grant the user the permission, or correct the events, and run the import again; events that arrived already change nothing"
    ))
}

/// Describes each source for the user.
fn notes<M>(first_pass: &FirstPass<M>, history: Option<&History>) -> Vec<String> {
    let mut rows = vec![0_u64; first_pass.parts.len()];
    for part in first_pass.part_of.values() {
        rows[*part] += 1;
    }
    let parts = first_pass
        .parts
        .iter()
        .zip(rows)
        .filter(|(_, units)| *units > 0);
    let mut notes: Vec<_> = parts
        .map(|(part, _)| match part {
            Part::Sent {
                source,
                is_known: false,
                ..
            } => format!("source {source}"),
            Part::Sent { source, .. } => {
                format!("source {source}, imported before: sending it again changes nothing")
            }
            Part::Kept { source } => {
                format!("source {source}, imported before with more rows than this file has: nothing of it was sent again")
            }
        })
        .collect();
    let runs = history.map_or(&[][..], |history| &history.runs);
    let unfinished = runs.iter().filter(|run| {
        let is_here = first_pass.parts.iter().any(|part| match part {
            Part::Sent { source, .. } => *source == run.source,
            Part::Kept { .. } => false,
        });
        !run.is_done && !is_here
    });
    notes.extend(unfinished.map(|run| {
        format!(
            "the import of {} was begun and never finished: run it again",
            run.file
        )
    }));
    notes
}

/// Runs the second pass. Returns the rejected rows once every event has been sent to the publisher, and the number of
/// rows that were imported before among others that the file lacks, so that they are not published again.
fn second_pass<M: RowMapper>(
    input: &Input,
    layout: &Layout,
    mut first_pass: FirstPass<M>,
    mut rejected: RejectFile,
    mut chunks: BatchSender,
) -> Result<(RejectFile, u64), CliError> {
    let mut table = Table::open(input, M::COLUMNS, layout)?;
    let mut events = Vec::new();
    let mut kept = 0;
    while let Some(row) = table.next()? {
        match first_pass.part_mut(&row) {
            Err(reason) => rejected.add(&row, &reason)?,
            Ok(Part::Kept { .. }) => kept += 1,
            Ok(Part::Sent {
                source, mapping, ..
            }) => {
                if let Err(reason) = mapping.events(source, &row, &mut events) {
                    rejected.add(&row, &reason)?;
                }
            }
        }
        if chunks.add(row.line, &mut events).is_err() {
            return Ok((rejected, kept));
        }
    }
    if table.fingerprint() != first_pass.fingerprint {
        return Err(changed(&input.path));
    }
    let waiting = first_pass.parts.iter().map(|part| match part {
        Part::Sent { mapping, .. } => mapping.pending(),
        Part::Kept { .. } => 0,
    });
    let waiting: usize = waiting.sum();
    if waiting > 0 {
        return Err(CliError::failed(format!(
            "{waiting} invoices were never completed: this is a bug in Doorstep, please report it"
        )));
    }
    // The last batch is only left if the other end has failed, which reports the reason.
    let _ = chunks.flush();
    Ok((rejected, kept))
}

fn changed(path: &Path) -> CliError {
    CliError::data(format!(
        "{} changed while it was read, and events of its former content were sent: import that content again from a copy that does not change",
        path.display()
    ))
}

fn broken(error: JoinError) -> CliError {
    CliError::failed(format!("reading failed: {error}"))
}
