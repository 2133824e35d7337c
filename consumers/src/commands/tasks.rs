//! `consumers tasks`: the live tasks of the roles, and decisions about them. Each decision is one transaction on the
//! role's store, whether the role runs or not.

use std::time::Duration;

use doorstep_cli::{
    CliError,
    output::{print, print_json, print_line},
};
use doorstep_event::Timestamp;
use doorstep_runtime::operate::{Attribution, DecideTaskError, TaskDecision, decide_task};
use doorstep_store::{Store, TaskDirective, TaskFilter, TaskId, TaskRow, TaskState};
use doorstep_table::{Column, Table, fields, terminal_width};
use serde::Serialize;
use serde_json::value::RawValue;

use super::dead_letters::{WHEN, combine};
use crate::{
    cli::tasks::{
        Outcome, TaskCancelArgs, TaskResolveArgs, TaskRetryArgs, TaskSelection, TaskShowArgs,
        TasksListArgs,
    },
    format::{age, indented, or_dash, sanitize, shortened, time},
    roles,
    stores::{self, StoreLocation},
};

/// The number of tasks that are read at a time.
const PAGE: usize = 500;
/// The maximum of characters of an error in the table.
const ERROR_CHARS: usize = 60;

/// Lists the live tasks of these roles.
///
/// # Errors
/// A store cannot be read, or there is none.
pub(crate) async fn list(args: TasksListArgs) -> Result<(), CliError> {
    let roles = roles::chosen(&args.roles);
    let now = Timestamp::now();
    let mut table = Table::new([
        Column::text("ROLE"),
        Column::text("ID"),
        Column::text("KIND"),
        Column::text("STATE"),
        Column::number("AGE"),
        Column::number("DONE"),
        Column::number("ATTEMPTS"),
        Column::number("CRASHES").optional(),
        Column::text("NEXT").optional(),
        Column::text("ERROR").optional(),
    ]);
    for role in &roles {
        let Some(store) = stores::open_read_only(&args.store.folder, role.name)? else {
            continue;
        };
        let (mut after, mut listed) = (None, 0);
        'pages: loop {
            let page = store.tasks(args.filter(), after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.number);
            for row in &page {
                if args.json {
                    print_json(&TaskView::new(role.name, row))?;
                } else if listed == args.limit {
                    break 'pages;
                } else {
                    listed += 1;
                    table.add_row(cells(role.name, row, now));
                }
            }
        }
        if listed == args.limit && !args.json {
            let of = store.summary(now).await?.usage.tasks.rows;
            print_line(&format!(
                "{}: the first {listed}; {of} tasks are live in all",
                role.name
            ))?;
        }
    }
    stores::require_any(&roles, &args.store.folder)?;
    if args.json {
        return Ok(());
    }
    print_line(&table.or_text("no task is live"))
}

fn cells(role: &str, row: &TaskRow, now: Timestamp) -> [String; 10] {
    let since = Duration::try_from(now.duration_since(row.since)).unwrap_or_default();
    let is_waiting = row.state == TaskState::Ready && row.due > now;
    [
        role.to_owned(),
        sanitize(row.id.as_str()),
        row.kind.to_string(),
        state(row).to_owned(),
        age(since),
        progress(row),
        row.attempts.to_string(),
        row.crashes.to_string(),
        or_dash(is_waiting.then(|| time(row.due))),
        or_dash(row.error.as_deref().map(|e| shortened(e, ERROR_CHARS))),
    ]
}

fn progress(row: &TaskRow) -> String {
    match (row.done, row.total) {
        (0, 0) => "-".to_owned(),
        (done, 0) => done.to_string(),
        (done, total) => format!("{done}/{total}"),
    }
}

/// Returns the state in one word, with the decision that is about to be carried out.
fn state(row: &TaskRow) -> &'static str {
    match (row.state, row.directive) {
        (_, Some(TaskDirective::Cancel)) => "cancelling",
        (_, Some(TaskDirective::Done | TaskDirective::Failed)) => "resolving",
        (TaskState::Ready, None) => "ready",
        (TaskState::Running, None) => "running",
        (TaskState::Unknown, None) => "unknown",
    }
}

/// A task for programs.
#[derive(Serialize)]
struct TaskView<'a> {
    role: &'a str,
    id: &'a str,
    kind: &'a str,
    subject: &'a str,
    state: &'static str,
    since: Timestamp,
    due: Timestamp,
    attempts: u32,
    crashes: u32,
    done: u64,
    total: u64,
    note: Option<&'a str>,
    error: Option<&'a str>,
    /// The process that runs it: the epoch of its start.
    holder: Option<String>,
    input: Option<&'a RawValue>,
}

impl<'a> TaskView<'a> {
    fn new(role: &'a str, row: &'a TaskRow) -> Self {
        Self {
            role,
            id: row.id.as_str(),
            kind: row.kind.as_str(),
            subject: row.subject.as_str(),
            state: state(row),
            since: row.since,
            due: row.due,
            attempts: row.attempts,
            crashes: row.crashes,
            done: row.done,
            total: row.total,
            note: row.note.as_deref(),
            error: row.error.as_deref(),
            holder: row.lease.map(|lease| lease.holder.to_string()),
            input: serde_json::from_slice(&row.input).ok(),
        }
    }
}

/// Shows one live task.
///
/// # Errors
/// It is not live, or the store cannot be read.
pub(crate) async fn show(args: TaskShowArgs) -> Result<(), CliError> {
    let role = args.place.role.name;
    let store = stores::try_open_read_only(&args.place)?;
    let found = store.read_tasks(vec![args.id.clone()]).await?;
    let Some(row) = found.into_iter().next().flatten() else {
        let error = DecideTaskError::NotLive(args.id);
        return Err(failed(role, &error));
    };
    if args.json {
        return print_json(&TaskView::new(role, &row));
    }
    let mut holder = None;
    if let Some(lease) = row.lease {
        let holders = store.task_holders().await?;
        let of = holders.into_iter().find(|row| row.holder == lease.holder);
        holder = of.map(|of| format!("{}, last heard {}", of.process, time(of.renewed)));
    }
    let members = [
        ("id", row.id.to_string()),
        ("kind", row.kind.to_string()),
        ("subject", row.subject.to_string()),
        ("state", state(&row).to_owned()),
        ("since", time(row.since)),
        ("due", time(row.due)),
        ("attempts", row.attempts.to_string()),
        ("crashes", row.crashes.to_string()),
        ("done", progress(&row)),
        ("note", or_dash(row.note.clone())),
        ("error", or_dash(row.error.clone())),
        ("runs in", or_dash(holder)),
    ];
    let members = members.map(|(name, value)| (name, sanitize(&value)));
    let input = String::from_utf8_lossy(&row.input);
    print(|out| {
        writeln!(out, "{}", fields(&members, terminal_width()))?;
        writeln!(out, "{}", sanitize_lines(&indented(&input)))
    })
}

/// Escapes a text line by line.
fn sanitize_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(sanitize).collect();
    lines.join("\n")
}

/// Cancels tasks.
///
/// # Errors
/// At least one of them could not be cancelled; the others are. Or the store cannot be used.
pub(crate) async fn cancel(by: Attribution, args: TaskCancelArgs) -> Result<(), CliError> {
    decide(by, &args.place, args.ids, TaskDecision::Cancel).await
}

/// Runs tasks now.
///
/// # Errors
/// At least one of them could not be retried; the others are. Or the store cannot be used.
pub(crate) async fn retry(by: Attribution, args: TaskRetryArgs) -> Result<(), CliError> {
    let ids = chosen(&args.place, args.chosen).await?;
    decide(by, &args.place, ids, TaskDecision::Retry).await
}

/// Resolves tasks of unknown effect.
///
/// # Errors
/// At least one of them could not be resolved; the others are. Or the store cannot be used.
pub(crate) async fn resolve(by: Attribution, args: TaskResolveArgs) -> Result<(), CliError> {
    let ids = chosen(&args.place, args.chosen).await?;
    let (decision, word) = match args.outcome {
        Outcome::Done => (TaskDecision::ResolveAsDone, "done"),
        Outcome::Failed => (TaskDecision::ResolveAsFailed, "failed"),
    };
    if args.decision.dry_run {
        for id in &ids {
            print_line(&format!(
                "{} would be resolved as {word}; nothing was written, this is a dry run",
                sanitize(id.as_str())
            ))?;
        }
        return print_line(&format!("{} would be resolved", ids.len()));
    }
    decide(by, &args.place, ids, decision).await
}

/// Returns the selected tasks. The store bounds their number.
async fn chosen(place: &StoreLocation, chosen: TaskSelection) -> Result<Vec<TaskId>, CliError> {
    if !chosen.unknown {
        return Ok(chosen.ids);
    }
    let store = stores::try_open_read_only(place)?;
    let filter = TaskFilter {
        state: Some(TaskState::Unknown),
        kind: chosen.kind,
    };
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = store.tasks(filter.clone(), after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(ids);
        };
        after = Some(last.number);
        ids.extend(page.into_iter().map(|row| row.id));
    }
}

async fn decide(
    by: Attribution,
    place: &StoreLocation,
    ids: Vec<TaskId>,
    decision: TaskDecision,
) -> Result<(), CliError> {
    let store = stores::open_existing(place)?;
    let role = place.role.name;
    if ids.is_empty() {
        return print_line("no task is in that state");
    }
    let mut ended = Vec::new();
    for id in ids {
        match decide_task(&store, &id, decision, by.at(Timestamp::now())).await {
            Ok(_) => print_line(&format!(
                "{} {}: {role} sees it {WHEN}",
                sanitize(id.as_str()),
                done(decision)
            ))?,
            Err(error @ DecideTaskError::Store(_)) => return Err(failed(role, &error)),
            Err(error) => ended.push(Err(failed(role, &error))),
        }
    }
    combine(&ended)
}

fn done(decision: TaskDecision) -> &'static str {
    match decision {
        TaskDecision::Cancel => "is to be cancelled",
        TaskDecision::Retry => "is ready to run now",
        TaskDecision::ResolveAsDone => "is resolved as done",
        TaskDecision::ResolveAsFailed => "is resolved as failed",
    }
}

/// Converts an error to the failure of the program.
fn failed(role: &str, error: &DecideTaskError) -> CliError {
    match error {
        DecideTaskError::NotLive(_) => CliError::missing(format!(
            "{error}; `consumers tasks list {role}` lists those that are, and `consumers dead-letters list {role}` those that have failed"
        )),
        DecideTaskError::Running(_) => CliError::data(error.to_string()),
        DecideTaskError::Decided(_) => CliError::settled(error.to_string()),
        DecideTaskError::Busy(_) => CliError::busy(error.to_string()),
        DecideTaskError::Store(e) => e.clone().into(),
    }
}
