//! `consumers dead-letters list`: the kinds of dead letters, or each of them.

use doorstep_cli::{
    CliError,
    output::{print, print_json},
};
use doorstep_event::Timestamp;
use doorstep_store::{
    DeadLetter, DeadLetterFilter, DeadLetterGroup, DeadLetterStatus, Store, TableUsage,
};
use doorstep_table::{Column, Table, terminal_width, wrapped};
use serde::Serialize;

use super::view::DeadLetterView;
use crate::{
    cli::dead_letters::ListArgs,
    commands::attention,
    format::{or_dash, sanitize, time},
    roles::{self, RoleEntry},
    stores,
};

/// The number of dead letters read at a time.
const PAGE: usize = 500;

/// Lists the dead letters of these roles. A role without a store has none.
///
/// # Errors
/// None of them has a store, or a store cannot be opened or read.
pub(crate) async fn list(args: ListArgs) -> Result<(), CliError> {
    let roles = roles::chosen(args.role.as_slice());
    stores::require_any(&roles, &args.store.folder)?;
    let mut left_off = Vec::new();
    let table = if args.by_kind {
        kinds(&roles, &args, &mut left_off).await?
    } else {
        each(&roles, &args, &mut left_off).await?
    };
    if args.json {
        return Ok(());
    }
    print(|out| {
        writeln!(out, "{}", table.or_text("no dead letters"))?;
        left_off
            .iter()
            .try_for_each(|line| writeln!(out, "{}", wrapped(line, terminal_width(), "")))
    })
}

/// A kind of dead letters as programs see it.
#[derive(Debug, Serialize)]
struct KindView<'a> {
    role: &'a str,
    #[serde(flatten)]
    group: &'a DeadLetterGroup,
}

/// Returns the table of kinds; as JSON, they are printed at once.
async fn kinds(
    roles: &[RoleEntry],
    args: &ListArgs,
    left_off: &mut Vec<String>,
) -> Result<Table, CliError> {
    let mut table = kind_table();
    let (folder, limit) = (&args.store.folder, args.limit);
    let most = if args.json {
        usize::MAX
    } else {
        limit.saturating_add(1)
    };
    for role in roles {
        let Some(store) = stores::open_read_only(folder, role.name)? else {
            continue;
        };
        let groups = store.dead_letter_groups(most).await?;
        let streamless = store.streamless(TableUsage::default(), 0).await?;
        left_off.extend(attention::of_overflow(&streamless, folder, role.name));
        for group in &groups {
            if args.json {
                print_json(&KindView {
                    role: role.name,
                    group,
                })?;
            } else if table.len() < limit {
                table.add_row(kind_cells(role.name, group));
            } else {
                left_off.push(format!("more kinds of {}, see --limit", role.name));
                break;
            }
        }
    }
    Ok(table)
}

fn kind_table() -> Table {
    Table::new([
        Column::text("ROLE"),
        Column::text("FINGERPRINT"),
        Column::number("COUNT"),
        Column::number("OPEN"),
        Column::text("REASON"),
        Column::text("EXAMPLE").optional(),
        Column::text("TYPE").optional(),
        Column::text("LAST").optional(),
        Column::text("FIRST").optional(),
        Column::prose("DETAIL").optional(),
    ])
}

fn kind_cells(role: &str, group: &DeadLetterGroup) -> [String; 10] {
    [
        role.to_owned(),
        group.fingerprint.clone(),
        group.count.to_string(),
        group.open.to_string(),
        group.reason.clone(),
        group.example.0.clone(),
        or_dash(group.kind.as_ref()),
        time(group.last),
        time(group.first),
        sanitize(&group.detail),
    ]
}

/// Returns the table of all; as JSON, they are printed at once.
async fn each(
    roles: &[RoleEntry],
    args: &ListArgs,
    left_off: &mut Vec<String>,
) -> Result<Table, CliError> {
    let mut table = each_table();
    let most = if args.json { usize::MAX } else { args.limit };
    for role in roles {
        let Some(store) = stores::open_read_only(&args.store.folder, role.name)? else {
            continue;
        };
        let mut shown = 0;
        let mut after = None;
        while shown < most {
            let page = store
                .dead_letters(DeadLetterFilter::All, after, PAGE.min(most - shown))
                .await?;
            for row in &page {
                if args.json {
                    print_json(&DeadLetterView::new(role.name, row))?;
                } else {
                    table.add_row(cells(role.name, row));
                }
            }
            shown += page.len();
            let Some(last) = page.into_iter().next_back() else {
                break;
            };
            after = Some(last.id);
        }
        if !args.json && shown == args.limit {
            let summary = store.summary(Timestamp::now()).await?;
            let more = summary.usage.dead_letters.rows.saturating_sub(shown as u64);
            if more > 0 {
                left_off.push(format!("{more} more of {}, see --limit", role.name));
            }
        }
    }
    Ok(table)
}

fn each_table() -> Table {
    Table::new([
        Column::text("ROLE"),
        Column::text("ID"),
        Column::text("REASON"),
        Column::text("SUBJECT").optional(),
        Column::number("SEQUENCE").optional(),
        Column::text("STATE").optional(),
        Column::text("TYPE").optional(),
        Column::text("SINCE").optional(),
        Column::number("ATTEMPTS").optional(),
        Column::prose("DETAIL").optional(),
    ])
}

fn cells(role: &str, row: &DeadLetter) -> [String; 10] {
    let event = row.event.as_ref();
    [
        role.to_owned(),
        row.id.0.clone(),
        row.reason.clone(),
        or_dash(event.map(|e| sanitize(e.subject.as_str()))),
        or_dash(event.and_then(|e| e.sequence)),
        state(row).to_owned(),
        or_dash(event.map(|e| &e.event_type)),
        time(row.since),
        row.attempts.to_string(),
        sanitize(&row.detail),
    ]
}

/// Describes the status of a dead letter.
pub(super) fn state(row: &DeadLetter) -> &'static str {
    match (row.status, row.blocks) {
        (DeadLetterStatus::Replaying, _) => "to be tried again",
        (DeadLetterStatus::Awaiting, _) => "waits for another stream",
        (DeadLetterStatus::Open, true) => "blocks its stream",
        (DeadLetterStatus::Open, false) => "blocks nothing",
    }
}

#[cfg(test)]
mod tests {
    use doorstep_contracts::{StockAdjusted, StockReason};
    use doorstep_store::DeadLetterId;

    use super::*;
    use crate::roles::testing::event;

    const ID: &str = "9c0e51b7d8463f2a-4925";
    const DETAIL: &str =
        "a sale cannot add 25904 pieces to stock/0199f2c4-7b1e-7f2a-9c0e-51b7d8460001";

    /// Asserts that every word of these cells is shown whole or not at all, and that no line is too wide.
    #[track_caller]
    fn are_whole(table: &Table, cells: &[String], must: &[&str]) {
        for width in [80, 120, 200] {
            let text = table.fitted(Some(width));
            let row = text.lines().nth(1).unwrap();
            assert!(row.chars().count() <= width, "{width}: {row}");
            for word in row.split_whitespace().filter(|word| *word != "…") {
                let is_part = |cell: &String| cell.split_whitespace().any(|part| part == word);
                assert!(cells.iter().any(is_part), "{word:?} at {width}: {text}");
            }
            for must in must {
                assert!(row.contains(must), "{must} at {width}: {text}");
            }
        }
    }

    #[test]
    fn ids_and_numbers_are_whole_at_every_width() {
        let since = "2026-11-23T09:00:01Z".parse().unwrap();
        let group = DeadLetterGroup {
            fingerprint: "5206b5616521ecaa".to_owned(),
            reason: "numbering conflict".to_owned(),
            kind: "stock.adjusted.v1".parse().ok(),
            count: 25_904,
            open: 25_904,
            first: since,
            last: since,
            example: DeadLetterId(ID.into()),
            detail: DETAIL.to_owned(),
        };
        let cells_of_group = kind_cells("restaurant", &group);
        let mut kinds = kind_table();
        kinds.add_row(cells_of_group.clone());
        are_whole(&kinds, &cells_of_group, &["5206b5616521ecaa", "25904"]);

        let fact = StockAdjusted {
            delta: -25_904,
            reason: StockReason::Sale,
            reference: "order/1".parse().unwrap(),
        };
        let event = event("stock/0199f2c4-7b1e-7f2a-9c0e-51b7d8460001", 41, &fact);
        let row = DeadLetter {
            id: DeadLetterId(ID.into()),
            body: event.data.clone(),
            event: Some(event),
            blocks: true,
            reason: "numbering conflict".into(),
            detail: DETAIL.into(),
            fingerprint: "77".into(),
            attempts: 1,
            since,
            status: DeadLetterStatus::Open,
            defect: None,
            task: None,
        };
        let cells_of_row = cells("restaurant", &row);
        let mut each = each_table();
        each.add_row(cells_of_row.clone());
        are_whole(&each, &cells_of_row, &[ID]);
    }
}
