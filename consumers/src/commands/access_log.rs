//! `consumers show access_log`: requests, errors and response times by hour and endpoint.

use std::io;

use doorstep_cli::{
    CliError,
    output::{print, print_line},
};
use doorstep_store::Store;
use doorstep_table::{Column, Table};
use serde::Serialize;

use crate::{
    format::sanitize,
    roles::{EndpointHour, HourlyReport},
    stores::{self, StoreLocation},
};

/// The number of entities read at a time.
const PAGE: usize = 1_000;

/// The last line in JSON.
#[derive(Serialize)]
struct Totals {
    requests: u64,
    dropped: u64,
}

/// Shows the hours in their order, and of each the endpoints with the most requests first. Holds one hour in memory.
///
/// # Errors
/// There is no store, it cannot be read, or an entity is damaged.
pub(crate) async fn report(place: &StoreLocation, is_json: bool) -> Result<(), CliError> {
    let store = stores::try_open_read_only(place)?;
    let mut report = HourlyReport::default();
    let mut after = None;
    loop {
        let page = store.entities(after.take(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        for row in &page {
            let state = row.state.as_deref().unwrap_or(b"null");
            let hour = report.add(row.key.as_str(), state);
            let hour =
                hour.map_err(|e| CliError::io(format!("{e}: restore a backup of the store")))?;
            print_hour(&hour, is_json)?;
        }
    }
    print_hour(&report.finish_hour(), is_json)?;
    let totals = Totals {
        requests: report.requests(),
        dropped: report.dropped(),
    };
    if is_json {
        return print(|out| write_json(out, &totals));
    }
    print_line(&format!(
        "{} requests, and {} dropped by full buffers",
        totals.requests, totals.dropped
    ))
}

fn print_hour(rows: &[EndpointHour], is_json: bool) -> Result<(), CliError> {
    let Some(first) = rows.first() else {
        return Ok(());
    };
    if is_json {
        return print(|out| rows.iter().try_for_each(|row| write_json(out, row)));
    }
    print_line(&format!("{}\n{}\n", sanitize(&first.hour), table(rows)))
}

fn write_json(out: &mut dyn io::Write, row: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    out.write_all(b"\n")
}

fn table(rows: &[EndpointHour]) -> Table {
    let mut table = Table::new([
        Column::text("ENDPOINT"),
        Column::number("REQUESTS"),
        Column::number("4XX"),
        Column::number("5XX"),
        Column::number("P50 MS").optional(),
        Column::number("P99 MS"),
    ]);
    for row in rows {
        let duration = |us: Option<u64>| {
            us.map_or_else(
                || "-".to_owned(),
                |us| format!("{:.2}", us as f64 / 1_000.0),
            )
        };
        table.add_row([
            sanitize(&row.endpoint),
            row.requests.to_string(),
            row.client_errors.to_string(),
            row.server_errors.to_string(),
            duration(row.p50_us),
            duration(row.p99_us),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_shows_response_times_and_hides_terminal_codes() {
        let row = |endpoint: &str, p50_us, p99_us| EndpointHour {
            hour: "2026-11-30T10:00Z".to_owned(),
            endpoint: endpoint.to_owned(),
            requests: 120,
            client_errors: 2,
            server_errors: 1,
            bytes: 0,
            p50_us,
            p99_us,
        };
        let rows = [
            row("GET /menu", Some(1_850), Some(2_500_000)),
            row("\u{1b}[31m", None, None),
        ];
        let text = table(&rows).to_string();
        let cells: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            cells[0],
            [
                "ENDPOINT", "REQUESTS", "4XX", "5XX", "P50", "MS", "P99", "MS"
            ]
        );
        assert_eq!(
            cells[1],
            ["GET", "/menu", "120", "2", "1", "1.85", "2500.00"]
        );
        assert_eq!(cells[2], ["\\u{1b}[31m", "120", "2", "1", "-", "-"]);
    }
}
