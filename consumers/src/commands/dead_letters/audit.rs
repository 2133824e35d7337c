//! `consumers dead-letters audit`.

use doorstep_cli::{
    CliError,
    output::{print, print_json},
};
use doorstep_store::{AuditFilter, AuditId, AuditPage, AuditRow, Store};
use doorstep_table::{Column, Table};

use super::audit_view::{RecordView, action};
use crate::{
    format::{sanitize, time},
    output_format::OutputFormat,
    stores::{self, StoreLocation},
};

/// The number of records read at a time: each may carry data twice.
const PAGE: usize = 100;

/// Lists the operators' actions, the newest first.
///
/// # Errors
/// There is no store, or it cannot be read.
pub(crate) async fn audit(
    place: &StoreLocation,
    limit: usize,
    form: OutputFormat,
) -> Result<(), CliError> {
    let store = stores::try_open_read_only(place)?;
    let most = match form {
        OutputFormat::Json => usize::MAX,
        OutputFormat::Text => limit,
    };
    let mut table = Table::new([
        Column::text("WHEN"),
        Column::text("WHAT"),
        Column::text("DEAD LETTER"),
        Column::text("WHO").optional(),
        Column::number("SEQUENCE").optional(),
        Column::text("STREAM").optional(),
        Column::prose("REASON").optional(),
    ]);
    let mut shown = 0;
    let mut page = read(&store, None, PAGE.min(most)).await?;
    let (kept, forgotten) = (page.kept.rows, page.forgotten);
    while !page.rows.is_empty() {
        for row in &page.rows {
            match form {
                OutputFormat::Json => print_json(&RecordView::new(row))?,
                OutputFormat::Text => {
                    table.add_row(cells(row));
                }
            }
        }
        shown += page.rows.len();
        let last = page.rows.last().map(|row| row.id);
        page = read(&store, last, PAGE.min(most - shown)).await?;
    }
    if form == OutputFormat::Json {
        if forgotten > 0 {
            eprintln!("{}", gone(forgotten));
        }
        return Ok(());
    }
    print(|out| {
        if shown == 0 {
            writeln!(out, "no operator has changed anything")?;
        } else {
            writeln!(out, "{table}")?;
        }
        let more = kept.saturating_sub(shown as u64);
        if more > 0 {
            writeln!(out, "{more} older ones, see --limit")?;
        }
        if forgotten > 0 {
            writeln!(out, "{}", gone(forgotten))?;
        }
        Ok(())
    })
}

fn gone(forgotten: u64) -> String {
    format!("{forgotten} still older ones had to go: the number of records is bounded")
}

async fn read<S: Store>(
    store: &S,
    before: Option<AuditId>,
    limit: usize,
) -> Result<AuditPage, CliError> {
    let page = store.audit(AuditFilter::All, before, limit).await;
    page.map_err(|e| stores::failed(&e))
}

fn cells(row: &AuditRow) -> [String; 7] {
    let entry = &row.entry;
    let dash = || "-".to_owned();
    let dead = entry.dead.as_ref().map(|id| id.0.clone());
    let stream = entry.stream.as_ref().map(|s| sanitize(&s.to_string()));
    [
        time(row.at),
        action(entry.action).to_owned(),
        match &stream {
            Some(_) => dead.unwrap_or_else(dash),
            None => dead.unwrap_or_else(|| sanitize(&entry.about)),
        },
        sanitize(&entry.operator),
        entry.sequences.map_or_else(dash, |(from, to)| {
            if from == to {
                from.to_string()
            } else {
                format!("{from}..{to}")
            }
        }),
        stream.unwrap_or_else(dash),
        entry.reason.as_deref().map_or_else(dash, sanitize),
    ]
}
