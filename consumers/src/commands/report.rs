//! `consumers report`: the figures of a period from the store of the role `reports`, as a page, CSV or JSON.

use std::{
    io::{self, Write},
    path::Path,
};

use doorstep_cli::{
    CliError,
    output::{cannot_write, print_json},
};
use doorstep_store::Store;

use super::output_file::OutputFile;
use crate::{
    cli::report::{ReportArgs, ReportForm, ReportKind},
    roles::reports::{
        figures::{DeliveryReport, SalesReport, Uncountable},
        period::Scope,
        report::{CsvError, DayEntity, Report, ReportError},
    },
    stores,
};

/// The role whose store has the figures.
const ROLE: &str = "reports";
/// The number of entities read at a time: a busy day of a large country has some 100 KiB.
const PAGE: usize = 100;

/// Writes the report.
///
/// # Errors
/// There is no store or nothing in the period, the store cannot be read, or the output cannot be written.
pub(crate) async fn report(scope: Scope, args: ReportArgs) -> Result<(), CliError> {
    let store = stores::require_read_only(&args.store.folder, ROLE)?;
    match args.kind {
        ReportKind::Sales => write::<SalesReport, _>(&store, scope, &args.form).await,
        ReportKind::Deliveries => write::<DeliveryReport, _>(&store, scope, &args.form).await,
    }
}

async fn write<R: Report, S: Store>(
    store: &S,
    scope: Scope,
    form: &ReportForm,
) -> Result<(), CliError> {
    if let Some(path) = &form.csv {
        return write_csv::<R, S>(store, &scope, path).await;
    }
    let mut report = R::new(scope.clone());
    read_days(store, R::ENTITIES, &scope, |entity| {
        report.add(&entity).map_err(|e| cannot_add(&entity.key, e))
    })
    .await?;
    let figures = report.finish().map_err(uncountable)?;
    let Some(path) = &form.html else {
        return print_json(&figures);
    };
    let page = R::page(&figures);
    let page = page.map_err(|e| CliError::internal(format!("cannot render the page: {e}")))?;
    let mut file = OutputFile::create(path)?;
    file.write_all(page.as_bytes())
        .map_err(|e| cannot_write(&path.display().to_string(), &e))?;
    file.complete()
}

/// Writes the lines of each entity as it is read: a long period has too many to hold.
async fn write_csv<R: Report, S: Store>(
    store: &S,
    scope: &Scope,
    path: &Path,
) -> Result<(), CliError> {
    let failed = |e: io::Error| cannot_write(&path.display().to_string(), &e);
    let mut file = OutputFile::create(path)?;
    let mut csv = csv::Writer::from_writer(&mut file);
    let head = csv.write_record(R::csv_head());
    head.map_err(|e| failed(e.into()))?;
    read_days(store, R::ENTITIES, scope, |entity| {
        R::write_csv(&mut csv, &entity).map_err(|e| match e {
            CsvError::Entity(e) => cannot_add(&entity.key, e),
            CsvError::Output(e) => failed(e.into()),
        })
    })
    .await?;
    csv.flush().map_err(failed)?;
    drop(csv);
    file.complete()
}

/// Reads the entities of the period's days, in the order of their keys. Each is of some moment of the reading.
async fn read_days<S: Store>(
    store: &S,
    kind: &str,
    scope: &Scope,
    mut each: impl FnMut(DayEntity) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut has_any = false;
    let mut after = DayEntity::key_before(kind, scope.period);
    loop {
        let page = store.entities(Some(after.into()), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.key.as_str().to_owned();
        for row in &page {
            match DayEntity::read(row, kind).ok_or_else(|| damaged(row.key.as_str()))? {
                Some(entity) if entity.is_in(scope) => {
                    has_any = true;
                    each(entity)?;
                }
                Some(entity) if entity.day <= scope.period.to() => {}
                // Keys are sorted by day.
                _ => return checked(store, kind, scope, has_any).await,
            }
        }
    }
    checked(store, kind, scope, has_any).await
}

/// Checks that the period has anything: an empty report would look like that of a shop without customers.
async fn checked<S: Store>(
    store: &S,
    kind: &str,
    scope: &Scope,
    has_any: bool,
) -> Result<(), CliError> {
    if has_any {
        return Ok(());
    }
    let first = store.entities(Some(format!("{kind}/").into()), 1).await?;
    let first = first.first().and_then(|row| DayEntity::read(row, kind)?);
    let known = match first {
        Some(entity) => format!("the first day with any is {}", entity.day),
        None => format!("{ROLE} has not applied any yet"),
    };
    let (from, to) = (scope.period.from(), scope.period.to());
    let place = scope.country.as_ref();
    let place = place.map_or(String::new(), |country| format!(" in {country}"));
    Err(CliError::missing(format!(
        "there are no {kind}{place} from {from} to {to}: {known}"
    )))
}

fn cannot_add(key: &str, error: ReportError) -> CliError {
    match error {
        ReportError::WrongKind => damaged(key),
        ReportError::Uncountable(e) => uncountable(e),
    }
}

fn damaged(key: &str) -> CliError {
    CliError::io(format!(
        "entity {key:?} is damaged: restore a backup of the store"
    ))
}

fn uncountable(error: Uncountable) -> CliError {
    CliError::failed(error.to_string())
}
