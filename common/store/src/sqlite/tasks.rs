//! Tasks and their holders: the tables, the lists, and the transactions of those that run tasks.

use doorstep_event::{Epoch, EventType, Subject, Timestamp};
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::{
    columns::{
        attribute, bytes, nanos, optional, optional_bytes, optional_text, optional_time, signed,
        small, text, time, unsigned,
    },
    db::{Db, TxEnd},
    epochs,
    error::SqliteError,
    totals::Totals,
};
use crate::{
    Beat, ClaimTasks, Claimed, HolderRow, TaskDirective, TaskFilter, TaskHolder, TaskId,
    TaskKindCount, TaskLease, TaskProgress, TaskRow, TaskState, TaskToken,
    rows::age_millis,
    size,
    tasks::{
        leases,
        table::{Holder, Leased, TaskTable},
    },
};

/// The columns that [`task_row`] reads, without the input. A macro, so that each statement is one constant.
macro_rules! task_columns {
    () => {
        "t.number, t.id, t.kind, t.subject, t.traceparent, t.since, t.state, t.directive, t.due, t.attempts, t.crashes, t.dead, t.token,
         t.holder, t.claimed, t.done, t.total, t.reached, t.note, t.error, t.checkpoint"
    };
}

/// The columns of a task with its input.
macro_rules! select_with_input {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            task_columns!(),
            ", i.input FROM tasks t CROSS JOIN task_inputs i ON i.number = t.number WHERE ",
            $condition
        )
    };
}

fn state_column(state: TaskState) -> i64 {
    match state {
        TaskState::Ready => 0,
        TaskState::Running => 1,
        TaskState::Unknown => 2,
    }
}

fn directive_column(directive: Option<TaskDirective>) -> i64 {
    match directive {
        None => 0,
        Some(TaskDirective::Cancel) => 1,
        Some(TaskDirective::Done) => 2,
        Some(TaskDirective::Failed) => 3,
    }
}

/// Reads all columns but the input.
fn task_row(row: &Row<'_>) -> Result<TaskRow> {
    let lease = || {
        Ok(TaskLease {
            token: TaskToken(row.get(12)?),
            holder: holder(row, 13)?,
            claimed: time(row, 14)?,
        })
    };
    Ok(TaskRow {
        number: unsigned(row, 0)?,
        id: task_id(row, 1)?,
        kind: attribute(row, 2, EventType::new)?,
        subject: attribute(row, 3, Subject::new)?,
        traceparent: optional_text(row, 4)?,
        input: bytes::Bytes::new(),
        since: time(row, 5)?,
        state: match row.get(6)? {
            0_i64 => TaskState::Ready,
            1 => TaskState::Running,
            _ => TaskState::Unknown,
        },
        lease: optional(row, 12, lease)?,
        directive: match row.get(7)? {
            0_i64 => None,
            1 => Some(TaskDirective::Cancel),
            2 => Some(TaskDirective::Done),
            _ => Some(TaskDirective::Failed),
        },
        due: time(row, 8)?,
        attempts: small(row, 9)?,
        crashes: small(row, 10)?,
        dead: small(row, 11)?,
        done: unsigned(row, 15)?,
        total: unsigned(row, 16)?,
        reached: unsigned(row, 17)?,
        note: optional_text(row, 18)?,
        checkpoint: optional_bytes(row, 20)?,
        error: optional_text(row, 19)?,
    })
}

/// Reads a task with its input.
fn whole_row(row: &Row<'_>) -> Result<TaskRow> {
    Ok(TaskRow {
        input: bytes(row, 21)?,
        ..task_row(row)?
    })
}

pub(super) fn task_id(row: &Row<'_>, column: usize) -> Result<TaskId> {
    attribute(row, column, TaskId::new)
}

fn holder(row: &Row<'_>, column: usize) -> Result<TaskHolder> {
    attribute(row, column, |text| text.parse::<Epoch>()).map(TaskHolder)
}

/// The tables within a transaction.
pub(super) struct SqliteTasks<'a> {
    pub(super) conn: &'a Connection,
    pub(super) totals: &'a mut Totals,
}

impl TaskTable for SqliteTasks<'_> {
    type Error = rusqlite::Error;

    fn next_number(&mut self) -> u64 {
        self.totals.last_task += 1;
        self.totals.last_task
    }

    fn next_token(&mut self) -> i64 {
        self.totals.last_token += 1;
        self.totals.last_token
    }

    fn count_done(&mut self) {
        self.totals.tally.tasks_done += 1;
    }

    fn is_restored(&self) -> Result<bool> {
        Ok(epochs::restored(self.conn)?.is_some())
    }

    fn find(&self, id: &TaskId) -> Result<Option<TaskRow>> {
        self.conn
            .prepare_cached(concat!(
                "SELECT ",
                task_columns!(),
                " FROM tasks t WHERE t.id = ?1"
            ))?
            .query_row([id.as_str()], task_row)
            .optional()
    }

    fn read(&self, number: u64) -> Result<Option<TaskRow>> {
        self.conn
            .prepare_cached(select_with_input!("t.number = ?1"))?
            .query_row([signed(number)], whole_row)
            .optional()
    }

    fn insert(&mut self, row: TaskRow) -> Result<()> {
        let bytes = size::task(&row);
        self.conn
            .prepare_cached(
                "INSERT INTO tasks(number, id, kind, subject, traceparent, since, bytes, state, directive, due, attempts, crashes, dead,
                                   done, total, reached)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            )?
            .execute(params![
                signed(row.number),
                row.id.as_str(),
                row.kind.as_str(),
                row.subject.as_str(),
                row.traceparent,
                nanos(row.since),
                signed(bytes),
                state_column(row.state),
                directive_column(row.directive),
                nanos(row.due),
                row.attempts,
                row.crashes,
                row.dead,
                signed(row.done),
                signed(row.total),
                signed(row.reached),
            ])?;
        self.conn
            .prepare_cached("INSERT INTO task_inputs(number, input) VALUES (?1, ?2)")?
            .execute(params![signed(row.number), &row.input[..]])?;
        let usage = &mut self.totals.usage.tasks;
        usage.rows += 1;
        usage.bytes += bytes;
        Ok(())
    }

    fn update(&mut self, before: &TaskRow, after: &TaskRow) -> Result<()> {
        let (less, more) = (size::task_progress(before), size::task_progress(after));
        self.conn
            .prepare_cached(
                "UPDATE tasks SET state = ?2, directive = ?3, due = ?4, attempts = ?5, crashes = ?6, token = ?7, holder = ?8, claimed = ?9,
                                  done = ?10, total = ?11, reached = ?12, note = ?13, error = ?14, checkpoint = ?15,
                                  bytes = bytes + ?16
                 WHERE number = ?1",
            )?
            .execute(params![
                signed(after.number),
                state_column(after.state),
                directive_column(after.directive),
                nanos(after.due),
                after.attempts,
                after.crashes,
                after.lease.map(|lease| lease.token.0),
                after.lease.map(|lease| lease.holder.to_string()),
                after.lease.map(|lease| nanos(lease.claimed)),
                signed(after.done),
                signed(after.total),
                signed(after.reached),
                after.note,
                after.error,
                after.checkpoint.as_deref(),
                signed(more) - signed(less),
            ])?;
        let bytes = &mut self.totals.usage.tasks.bytes;
        *bytes = (*bytes + more).saturating_sub(less);
        Ok(())
    }

    fn remove(&mut self, row: &TaskRow) -> Result<()> {
        let bytes = self
            .conn
            .prepare_cached("DELETE FROM tasks WHERE number = ?1 RETURNING bytes")?
            .query_row([signed(row.number)], |row| unsigned(row, 0))?;
        self.conn
            .prepare_cached("DELETE FROM task_inputs WHERE number = ?1")?
            .execute([signed(row.number)])?;
        let usage = &mut self.totals.usage.tasks;
        usage.rows = usage.rows.saturating_sub(1);
        usage.bytes = usage.bytes.saturating_sub(bytes);
        Ok(())
    }

    fn all(&self) -> Result<Vec<TaskId>> {
        self.conn
            .prepare_cached("SELECT id FROM tasks ORDER BY number")?
            .query_map([], |row| task_id(row, 0))?
            .collect()
    }

    fn leased_to(&self, holder: TaskHolder) -> Result<Vec<Leased>> {
        self.conn
            .prepare_cached(
                "SELECT number, id, directive FROM tasks INDEXED BY tasks_holder WHERE state = 1 AND holder = ?1 ORDER BY number",
            )?
            .query_map([holder.to_string()], |row| {
                Ok(Leased {
                    number: unsigned(row, 0)?,
                    id: task_id(row, 1)?,
                    is_directed: row.get::<_, i64>(2)? > 0,
                })
            })?
            .collect()
    }

    fn directed(&self, limit: usize) -> Result<Vec<u64>> {
        self.conn
            .prepare_cached(
                "SELECT number FROM tasks INDEXED BY tasks_directed WHERE state = 0 AND directive > 0 ORDER BY number LIMIT ?1",
            )?
            .query_map([signed(limit as u64)], |row| unsigned(row, 0))?
            .collect()
    }

    fn running(&self, kind: &EventType) -> Result<u64> {
        self.conn
            .prepare_cached(
                "SELECT count(*) FROM tasks INDEXED BY tasks_kind WHERE kind = ?1 AND state = 1",
            )?
            .query_row([kind.as_str()], |row| unsigned(row, 0))
    }

    fn due(
        &self,
        kind: &EventType,
        candidates: bool,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, u64)>> {
        let due = if candidates {
            "SELECT due, number FROM tasks INDEXED BY tasks_candidates
             WHERE state = 0 AND directive = 0 AND crashes > 0 AND kind = ?1 AND due <= ?2 ORDER BY due, number LIMIT ?3"
        } else {
            "SELECT due, number FROM tasks INDEXED BY tasks_fresh
             WHERE state = 0 AND directive = 0 AND crashes = 0 AND kind = ?1 AND due <= ?2 ORDER BY due, number LIMIT ?3"
        };
        self.conn
            .prepare_cached(due)?
            .query_map(
                params![kind.as_str(), nanos(now), signed(limit as u64)],
                |row| Ok((time(row, 0)?, unsigned(row, 1)?)),
            )?
            .collect()
    }

    fn candidates_due(&self, kind: &EventType, now: Timestamp) -> Result<u64> {
        self.conn
            .prepare_cached(
                "SELECT count(*) FROM tasks INDEXED BY tasks_candidates
                 WHERE state = 0 AND directive = 0 AND crashes > 0 AND kind = ?1 AND due <= ?2",
            )?
            .query_row(params![kind.as_str(), nanos(now)], |row| unsigned(row, 0))
    }

    fn holder(&self, holder: TaskHolder) -> Result<Option<Holder>> {
        self.conn
            .prepare_cached("SELECT beat, renewed, process FROM task_holders WHERE holder = ?1")?
            .query_row([holder.to_string()], |row| {
                Ok(Holder {
                    beat: unsigned(row, 0)?,
                    renewed: time(row, 1)?,
                    process: text(row, 2)?.to_owned(),
                })
            })
            .optional()
    }

    fn put_holder(&mut self, holder: TaskHolder, row: Holder) -> Result<()> {
        self.conn
            .prepare_cached(
                "INSERT INTO task_holders(holder, beat, renewed, process) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET beat = excluded.beat, renewed = excluded.renewed, process = excluded.process",
            )?
            .execute(params![
                holder.to_string(),
                signed(row.beat),
                nanos(row.renewed),
                row.process
            ])
            .map(drop)
    }

    fn remove_holder(&mut self, holder: TaskHolder) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM task_holders WHERE holder = ?1")?
            .execute([holder.to_string()])
            .map(drop)
    }

    fn remove_all_holders(&mut self) -> Result<()> {
        self.conn.execute("DELETE FROM task_holders", []).map(drop)
    }
}

/// Runs a transaction of a process that runs tasks. It is rolled back if it has changed nothing.
fn write<T>(
    db: &mut Db,
    body: impl FnOnce(&mut SqliteTasks<'_>) -> Result<(T, bool)>,
) -> Result<T, SqliteError> {
    let generation = db.generation;
    db.write(|tx, _| {
        let mut totals = Totals::read(tx)?;
        totals.check_generation(generation)?;
        let (value, has_changed) = body(&mut SqliteTasks {
            conn: tx,
            totals: &mut totals,
        })?;
        if !has_changed {
            return Ok(TxEnd::Rollback(value));
        }
        totals.commits += 1;
        totals.write(tx)?;
        Ok(TxEnd::Commit(value))
    })
}

pub(super) fn claim(db: &mut Db, ask: &ClaimTasks) -> Result<Claimed, SqliteError> {
    write(db, |table| {
        let claimed = leases::claim(table, ask)?;
        let has_changed = !claimed.tasks.is_empty();
        Ok((claimed, has_changed))
    })
}

pub(super) fn beat(
    db: &mut Db,
    holder: TaskHolder,
    progress: &[TaskProgress],
    now: Timestamp,
) -> Result<Beat, SqliteError> {
    write(db, |table| {
        let beat = leases::beat(table, holder, progress, now)?;
        let has_changed = beat.alive;
        Ok((beat, has_changed))
    })
}

pub(super) fn take_over(
    db: &mut Db,
    holder: TaskHolder,
    seen: u64,
    now: Timestamp,
) -> Result<Option<u64>, SqliteError> {
    write(db, |table| {
        let taken = leases::take_over(table, holder, seen, now)?;
        Ok((taken, taken.is_some()))
    })
}

pub(super) fn end_holder(
    db: &mut Db,
    holder: TaskHolder,
    now: Timestamp,
) -> Result<(), SqliteError> {
    write(db, |table| {
        Ok(((), leases::end_holder(table, holder, now)?))
    })
}

pub(super) fn holders(db: &mut Db) -> Result<Vec<HolderRow>, SqliteError> {
    let mut found = db.conn.prepare_cached(
        "SELECT h.holder, h.beat, h.renewed, h.process,
                (SELECT count(*) FROM tasks t INDEXED BY tasks_holder WHERE t.state = 1 AND t.holder = h.holder)
         FROM task_holders h",
    )?;
    let rows = found.query_map([], |row| {
        Ok(HolderRow {
            holder: holder(row, 0)?,
            beat: unsigned(row, 1)?,
            renewed: time(row, 2)?,
            process: text(row, 3)?.to_owned(),
            running: unsigned(row, 4)?,
        })
    })?;
    let mut rows = rows.collect::<Result<Vec<_>>>()?;
    // Their text does not have the order of their counters.
    rows.sort_unstable_by_key(|row| row.holder);
    Ok(rows)
}

/// Returns true if the task is running under this token.
pub(super) fn is_leased(conn: &Connection, id: &TaskId, token: TaskToken) -> Result<bool> {
    conn.prepare_cached("SELECT 1 FROM tasks WHERE id = ?1 AND token = ?2")?
        .exists(params![id.as_str(), token.0])
}

/// Reads tasks in one transaction.
pub(super) fn read(db: &mut Db, ids: &[TaskId]) -> Result<Vec<Option<TaskRow>>, SqliteError> {
    db.read(|conn, _| {
        let mut found = conn.prepare_cached(select_with_input!("t.id = ?1"))?;
        let rows = ids
            .iter()
            .map(|id| found.query_row([id.as_str()], whole_row).optional());
        Ok(rows.collect::<Result<_>>()?)
    })
}

pub(super) fn list(
    db: &mut Db,
    filter: &TaskFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<TaskRow>, SqliteError> {
    let mut page = db.conn.prepare_cached(select_with_input!(
        "t.number > ?1 AND (?2 IS NULL OR t.state = ?2) AND (?3 IS NULL OR t.kind = ?3) ORDER BY t.number LIMIT ?4"
    ))?;
    let rows = page.query_map(
        params![
            signed(after.unwrap_or(0)),
            filter.state.map(state_column),
            filter.kind.as_ref().map(EventType::as_str),
            signed(limit as u64),
        ],
        whole_row,
    )?;
    Ok(rows.collect::<Result<_>>()?)
}

/// Counts the live tasks by kind.
pub(super) fn kinds(conn: &Connection, now: Timestamp) -> Result<Vec<TaskKindCount>> {
    conn.prepare_cached(
        "SELECT kind, sum(state = 0), sum(state = 1), sum(state = 2), min(CASE WHEN state = 0 THEN since END)
         FROM tasks INDEXED BY tasks_kind GROUP BY kind ORDER BY kind",
    )?
    .query_map([], |row| {
        Ok(TaskKindCount {
            kind: attribute(row, 0, EventType::new)?,
            ready: unsigned(row, 1)?,
            running: unsigned(row, 2)?,
            unknown: unsigned(row, 3)?,
            oldest_ready_ms: optional_time(row, 4)?.map(|since| age_millis(since, now)),
        })
    })?
    .collect()
}

/// Makes the tasks due after `beyond` due, kind by kind: each is a range of an index.
pub(super) fn clamp_due_times(
    db: &mut Db,
    now: Timestamp,
    beyond: Timestamp,
) -> Result<u64, SqliteError> {
    write(db, |table| {
        let mut clamped = 0;
        let mut after = String::new();
        while let Some(kind) = table
            .conn
            .prepare_cached("SELECT min(kind) FROM tasks INDEXED BY tasks_kind WHERE kind > ?1")?
            .query_row([&after], |row| row.get::<_, Option<String>>(0))?
        {
            for late in [
                "UPDATE tasks INDEXED BY tasks_fresh SET due = ?2
                 WHERE state = 0 AND directive = 0 AND crashes = 0 AND kind = ?1 AND due > ?3",
                "UPDATE tasks INDEXED BY tasks_candidates SET due = ?2
                 WHERE state = 0 AND directive = 0 AND crashes > 0 AND kind = ?1 AND due > ?3",
            ] {
                clamped += table.conn.prepare_cached(late)?.execute(params![
                    kind,
                    nanos(now),
                    nanos(beyond)
                ])? as u64;
            }
            after = kind;
        }
        Ok((clamped, clamped > 0))
    })
}
