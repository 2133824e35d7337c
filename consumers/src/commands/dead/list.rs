//! `consumers dead list`: the kinds of dead letters, or each of them.

use std::path::Path;

use comfy_table::Table;
use doorstep_program::{
    Failure,
    output::{print, print_json},
};
use doorstep_store::{DeadFilter, DeadGroup, DeadRow, DeadStatus, Store, UsageOf};
use serde::Serialize;

use super::view::DeadView;
use crate::{
    commands::trouble,
    roles::RoleEntry,
    settings::{Form, dead::Listing},
    stores::{self, RoleStore},
    text::{shortened, table, time},
};

/// How many dead letters are read at a time.
const PAGE: usize = 500;
/// How much of a detail a table shows.
const DETAIL_CHARS: usize = 100;

/// Lists the dead letters of these roles. A role without a store has none.
///
/// # Errors
/// There is no store of any of them, or a store cannot be opened or read.
pub(crate) async fn list(
    roles: &[RoleEntry],
    folder: &Path,
    listing: Listing,
    limit: usize,
    form: Form,
) -> Result<(), Failure> {
    stores::require_any(roles, folder)?;
    match listing {
        Listing::Kinds => kinds(roles, folder, limit, form).await,
        Listing::Each => each(roles, folder, limit, form).await,
    }
}

/// A kind of dead letters as programs see it.
#[derive(Debug, Serialize)]
struct KindView<'a> {
    role: &'a str,
    #[serde(flatten)]
    group: &'a DeadGroup,
}

async fn kinds(
    roles: &[RoleEntry],
    folder: &Path,
    limit: usize,
    form: Form,
) -> Result<(), Failure> {
    let mut table = table(
        &[
            "ROLE", "GROUP", "COUNT", "OPEN", "REASON", "TYPE", "FIRST", "LAST", "EXAMPLE",
            "DETAIL",
        ],
        &[2, 3],
    );
    let mut left_off = Vec::new();
    for role in roles {
        let Some(store) = stores::look(folder, role.name)? else {
            continue;
        };
        let most = match form {
            Form::Json => usize::MAX,
            Form::Text => limit.saturating_add(1),
        };
        let groups = store.dead_groups(most).await;
        let groups = groups.map_err(|e| stores::failed(&e))?;
        let streamless = store.streamless(UsageOf::default(), 0).await;
        let streamless = streamless.map_err(|e| stores::failed(&e))?;
        left_off.extend(trouble::of_overflow(&streamless, folder, role.name));
        for group in &groups {
            match form {
                Form::Json => print_json(&KindView {
                    role: role.name,
                    group,
                })?,
                Form::Text if table.row_count() < limit => {
                    table.add_row(kind_cells(role.name, group));
                }
                Form::Text => {
                    left_off.push(format!("more kinds of {}, see --limit", role.name));
                    break;
                }
            }
        }
    }
    match form {
        Form::Json => Ok(()),
        Form::Text => print_table(&table, &left_off),
    }
}

fn print_table(table: &Table, left_off: &[String]) -> Result<(), Failure> {
    print(|out| {
        if table.is_empty() {
            writeln!(out, "no dead letters")?;
        } else {
            writeln!(out, "{}", table.trim_fmt())?;
        }
        left_off.iter().try_for_each(|line| writeln!(out, "{line}"))
    })
}

fn kind_cells(role: &str, group: &DeadGroup) -> [String; 10] {
    [
        role.to_owned(),
        group.fingerprint.clone(),
        group.count.to_string(),
        group.open.to_string(),
        group.reason.clone(),
        group
            .kind
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        time(group.first),
        time(group.last),
        group.example.0.clone(),
        shortened(&group.detail, DETAIL_CHARS),
    ]
}

async fn each(roles: &[RoleEntry], folder: &Path, limit: usize, form: Form) -> Result<(), Failure> {
    let mut table = table(
        &[
            "ROLE", "ID", "TYPE", "SUBJECT", "SEQUENCE", "REASON", "DETAIL", "ATTEMPTS", "SINCE",
            "STATE",
        ],
        &[4, 7],
    );
    let mut left_off = Vec::new();
    for role in roles {
        let Some(store) = stores::look(folder, role.name)? else {
            continue;
        };
        let most = match form {
            Form::Json => usize::MAX,
            Form::Text => limit,
        };
        let mut shown = 0;
        let mut after = None;
        while shown < most {
            let page = page(&store, after.take(), PAGE.min(most - shown)).await?;
            for row in &page {
                match form {
                    Form::Json => print_json(&DeadView::of(role.name, row))?,
                    Form::Text => {
                        table.add_row(cells(role.name, row));
                    }
                }
            }
            shown += page.len();
            let Some(last) = page.into_iter().next_back() else {
                break;
            };
            after = Some(last.id);
        }
        if form == Form::Text && shown == limit {
            let summary = store
                .summary(doorstep_event::Timestamp::now())
                .await
                .map_err(|e| stores::failed(&e))?;
            let more = summary.usage.dead.rows.saturating_sub(shown as u64);
            if more > 0 {
                left_off.push(format!("{more} more of {}, see --limit", role.name));
            }
        }
    }
    match form {
        Form::Json => Ok(()),
        Form::Text => print_table(&table, &left_off),
    }
}

async fn page(
    store: &RoleStore,
    after: Option<doorstep_store::DeadId>,
    limit: usize,
) -> Result<Vec<DeadRow>, Failure> {
    let read = store.dead(DeadFilter::All, after, limit).await;
    read.map_err(|e| stores::failed(&e))
}

fn cells(role: &str, row: &DeadRow) -> [String; 10] {
    let event = row.event.as_ref();
    let dash = || "-".to_owned();
    [
        role.to_owned(),
        row.id.0.clone(),
        event.map_or_else(dash, |e| e.kind.to_string()),
        event.map_or_else(dash, |e| shortened(e.subject.as_str(), 40)),
        event
            .and_then(|e| e.sequence)
            .map_or_else(dash, |sequence| sequence.to_string()),
        row.reason.clone(),
        shortened(&row.detail, DETAIL_CHARS),
        row.attempts.to_string(),
        time(row.since),
        state(row).to_owned(),
    ]
}

/// What has become of a dead letter, in words.
pub(super) fn state(row: &DeadRow) -> &'static str {
    match (row.status, row.blocks) {
        (DeadStatus::Replaying, _) => "to be tried again",
        (DeadStatus::Awaiting, _) => "waits for another stream",
        (DeadStatus::Open, true) => "blocks its stream",
        (DeadStatus::Open, false) => "blocks nothing",
    }
}
