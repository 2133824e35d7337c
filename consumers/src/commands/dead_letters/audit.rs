//! `consumers dead-letters audit`.

use doorstep_cli::{
    CliError,
    output::{print, print_json},
};
use doorstep_store::{AuditFilter, AuditRow, Store};
use doorstep_table::{Column, Table};

use super::audit_view::{RecordView, action};
use crate::{
    cli::dead_letters::AuditArgs,
    format::{or_dash, range, sanitize, time},
    stores,
};

/// The number of records read at a time: each may carry data twice.
const PAGE: usize = 100;

/// Lists the operators' actions, the newest first.
///
/// # Errors
/// There is no store, or it cannot be read.
pub(crate) async fn audit(args: AuditArgs) -> Result<(), CliError> {
    let store = stores::try_open_read_only(&args.place)?;
    let most = if args.json { usize::MAX } else { args.limit };
    let read = |before, limit| store.audit(AuditFilter::All, before, limit);
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
    let mut page = read(None, PAGE.min(most)).await?;
    let (kept, forgotten) = (page.kept.rows, page.forgotten);
    while !page.rows.is_empty() {
        for row in &page.rows {
            if args.json {
                print_json(&RecordView::new(row))?;
            } else {
                table.add_row(cells(row));
            }
        }
        shown += page.rows.len();
        let last = page.rows.last().map(|row| row.id);
        page = read(last, PAGE.min(most - shown)).await?;
    }
    if args.json {
        if forgotten > 0 {
            eprintln!("{}", gone(forgotten));
        }
        return Ok(());
    }
    print(|out| {
        writeln!(out, "{}", table.or_text("no operator has changed anything"))?;
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

fn cells(row: &AuditRow) -> [String; 7] {
    let entry = &row.entry;
    let dead = entry.dead.as_ref().map(|id| id.0.clone());
    let stream = entry.stream.as_ref().map(|s| sanitize(&s.to_string()));
    [
        time(row.at),
        action(entry.action).to_owned(),
        match &stream {
            Some(_) => or_dash(dead),
            None => dead.unwrap_or_else(|| sanitize(&entry.about)),
        },
        sanitize(&entry.operator),
        or_dash(entry.sequences.map(range)),
        or_dash(stream),
        or_dash(entry.reason.as_deref().map(sanitize)),
    ]
}
