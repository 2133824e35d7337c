//! `import`: a file becomes events.
//!
//! The file is read twice. The first reading checks that it is what it should be, to its very end, counts its rows and hashes its content,
//! after which the events' source is named; nothing has been sent by then. The second makes the events. Both hold only what is open
//! between rows, never the file. Everything that an event says, its id and its number follow from the content alone, so an import may be
//! killed and run again, or run twice: the same events arrive again and change nothing.

use doorstep_program::{Failure, Reason, Stop};

mod input;
mod mapping;
mod pickups;
mod refused;
mod retail;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use doorstep_event::Source;
use tokio::task::{JoinError, spawn_blocking};

pub(crate) use self::{
    input::plain,
    pickups::{Calendar, Pickups},
    refused::default_path as default_refused_path,
    retail::Retail,
};
use self::{
    input::{Fingerprint, Input},
    mapping::Mapping,
    refused::RefusedRows,
    table::Table,
};
use crate::{
    chunk::Chunks,
    output::Output,
    progress::{Progress, Unit},
    stop::nothing_sent,
    tally::per_second,
};

/// After how many rows the progress of the first reading is told.
const ROWS_PER_TICK: u64 = 4096;

/// What an import needs to know besides the kind of file.
#[derive(Debug)]
pub(crate) struct ImportSettings {
    /// The file.
    pub(crate) file: PathBuf,
    /// The name of a data set that grows, if it is one.
    pub(crate) dataset: Option<String>,
    /// Where the list of refused rows goes.
    pub(crate) refused: PathBuf,
}

/// What the first reading found out.
struct Survey {
    rows: u64,
    fingerprint: Fingerprint,
}

/// Imports a file: returns when every event has arrived, and says so on standard output.
///
/// # Errors
/// The file is not what it should be, or changes while it is read; the events do not get through; a list cannot be written; the user
/// wants to stop. The import can be run again after each of them.
pub(crate) async fn run<M: Mapping>(
    mut mapping: M,
    settings: ImportSettings,
    output: Output,
    mut stop: Stop,
) -> Result<(), Failure> {
    let path = settings.file.clone();
    let survey = spawn_blocking(move || {
        let input = Input::open(&path)?;
        let survey = look_ahead(&mut mapping, &input)?;
        Ok::<_, Failure>((mapping, input, survey))
    });
    let (mapping, input, survey) = stop
        .unless_wanted(survey)
        .await
        .ok_or_else(nothing_sent)?
        .map_err(broken)??;
    let source = source::of(&mapping, settings.dataset.as_deref(), survey.fingerprint)
        .map_err(|e| Failure::new(Reason::Settings, format!("--dataset: {e}")))?;
    let rows = survey.rows;
    let output = stop
        .unless_wanted(output.open())
        .await
        .ok_or_else(nothing_sent)??;

    let refused = RefusedRows::new(settings.refused);
    let (chunks, receiver) = Chunks::channel();
    let reading = spawn_blocking({
        let source = source.clone();
        move || make_events(mapping, &input, &survey, &source, refused, chunks)
    });
    let mut progress = Progress::new("importing", Unit::Rows, Some(rows));
    let tally = output.take(receiver, &mut progress, stop).await;
    let elapsed = progress.finish();
    // If both ends failed, the one that sends has failed first: the other then only finds that nobody takes its events.
    let (tally, voice) = tally?;
    let refused = reading.await.map_err(broken)??;

    let imported = tally.of(M::ONE_PER_ROW);
    let refused_rows = refused.count();
    if rows != imported + refused_rows {
        return Err(Failure::new(
            Reason::Failed,
            format!(
                "{rows} rows were read, but {imported} imported and {refused_rows} refused: this is a mistake in Doorstep, please report it"
            ),
        ));
    }
    let list = refused.finish()?;
    voice.say(&format!(
        "{rows} read = {imported} imported + {refused_rows} refused"
    ));
    if tally.total() > 0 {
        voice.say(&format!(
            "{} events {} in {:.1} s ({}/s): {tally}",
            tally.total(),
            voice.arrived(),
            elapsed.as_secs_f64(),
            per_second(tally.total(), elapsed)
        ));
    }
    voice.say(&format!("source {source}"));
    if let Some(list) = list {
        voice.say(&format!("refused rows are listed in {}", list.display()));
    }
    Ok(())
}

/// The first reading.
fn look_ahead<M: Mapping>(mapping: &mut M, input: &Input) -> Result<Survey, Failure> {
    let mut progress = Progress::new("checking", Unit::Bytes, Some(input.bytes()));
    let mut table = Table::open(input, M::COLUMNS)?;
    let mut rows = 0;
    while let Some(row) = table.next()? {
        mapping.look_ahead(&row);
        rows += 1;
        if rows % ROWS_PER_TICK == 0 {
            progress.set(table.position());
        }
    }
    progress.finish();
    Ok(Survey {
        rows,
        fingerprint: table.fingerprint(),
    })
}

/// The second reading. Returns the refused rows once every event has been handed over.
fn make_events<M: Mapping>(
    mut mapping: M,
    input: &Input,
    survey: &Survey,
    source: &Source,
    mut refused: RefusedRows,
    mut chunks: Chunks,
) -> Result<RefusedRows, Failure> {
    let mut table = Table::open(input, M::COLUMNS)?;
    let mut events = Vec::new();
    while let Some(row) = table.next()? {
        if let Err(reason) = mapping.events(source, &row, &mut events) {
            refused.add(&row, &reason)?;
        }
        if chunks.add(&mut events).is_err() {
            return Ok(refused);
        }
    }
    if table.fingerprint() != survey.fingerprint {
        return Err(changed(input.path()));
    }
    if mapping.waiting() > 0 {
        return Err(Failure::new(
            Reason::Failed,
            format!(
                "{} invoices were never completed: this is a mistake in Doorstep, please report it",
                mapping.waiting()
            ),
        ));
    }
    // Nobody takes the last chunk only if the other end has failed, and it says why.
    let _ = chunks.hand_over();
    Ok(refused)
}

fn changed(path: &Path) -> Failure {
    Failure::new(
        Reason::Data,
        format!(
            "{} changed while it was read, and events of its former content were sent: import that content again from a copy that rests",
            path.display()
        ),
    )
}

fn broken(error: JoinError) -> Failure {
    Failure::new(Reason::Failed, format!("reading broke off: {error}"))
}
