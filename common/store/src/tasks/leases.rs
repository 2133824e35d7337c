//! The rules of tasks: starts and ends in a commit, claims, heartbeats and take-overs.

use std::collections::HashSet;

use doorstep_event::Timestamp;

use super::{
    Beat, Candidates, ClaimTasks, Claimed, IfLive, LeasedTask, MAX_DIRECTED_TASKS, TaskChange,
    TaskFate, TaskHolder, TaskProgress, TaskRow,
    table::{Holder, TaskTable},
    transitions::lease,
};

/// Applies the changes of a commit in their order. Returns false if one of them is a conflict.
pub(crate) fn change_tasks<T: TaskTable>(
    table: &mut T,
    changes: &[TaskChange],
    now: Timestamp,
) -> Result<bool, T::Error> {
    for change in changes {
        let id = match change {
            TaskChange::Start(new) => &new.id,
            TaskChange::Cancel(id) | TaskChange::Decide { id, .. } => id,
            TaskChange::End(end) => &end.id,
        };
        let found = table.find(id)?;
        match (change, found) {
            (TaskChange::Start(new), None) => {
                let row = TaskRow::start(table.next_number(), new.clone(), now);
                table.insert(row)?;
            }
            (TaskChange::Start(new), Some(_)) if new.if_live == IfLive::Keep => {}
            (TaskChange::Cancel(_), None) => {}
            (TaskChange::Cancel(_), Some(before)) => {
                let mut row = before.clone();
                if row.cancel() {
                    table.update(&before, &row)?;
                }
            }
            (TaskChange::End(end), Some(before)) if before.is_leased_under(end.token) => {
                let mut row = before.clone();
                if row.end(&end.fate, now) {
                    table.update(&before, &row)?;
                } else {
                    table.remove(&before)?;
                }
                if end.fate == TaskFate::Done {
                    table.count_done();
                }
            }
            (
                TaskChange::Decide {
                    expected,
                    directive,
                    ..
                },
                Some(before),
            ) if before.state == *expected => {
                let mut row = before.clone();
                row.decide(*directive, now);
                table.update(&before, &row)?;
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Leases tasks to a holder. Changes nothing if there is none for it.
pub(crate) fn claim<T: TaskTable>(table: &mut T, ask: &ClaimTasks) -> Result<Claimed, T::Error> {
    let mut claimed = Claimed::default();
    if table.is_restored()? {
        return Ok(claimed);
    }
    let held: HashSet<_> = ask.held.iter().collect();
    for leased in table.leased_to(ask.holder)? {
        if !held.contains(&leased.id)
            && let Some(row) = table.read(leased.number)?
            && let Some(lease) = row.lease
        {
            claimed.tasks.push(LeasedTask {
                row,
                token: lease.token,
            });
        }
    }
    let room = ask.room.saturating_sub(claimed.tasks.len());
    let recovered = !claimed.tasks.is_empty();
    let recovered_candidate = claimed.tasks.iter().any(|task| task.row.crashes > 0);
    for number in table.directed(MAX_DIRECTED_TASKS)? {
        claimed.tasks.extend(lease_to(table, number, ask)?);
    }
    let candidate = match ask.candidates {
        Candidates::One if room > 0 && !recovered => next_due(table, ask, true, 1)?,
        _ => Vec::new(),
    };
    let chosen = match candidate.is_empty() {
        true if recovered_candidate => Vec::new(),
        true => next_due(table, ask, false, room)?,
        false => candidate,
    };
    for number in chosen {
        claimed.tasks.extend(lease_to(table, number, ask)?);
    }
    for (kind, _) in &ask.kinds {
        claimed.candidates_due += table.candidates_due(kind, ask.now)?;
    }
    if !claimed.tasks.is_empty() {
        let holder = Holder {
            beat: next_beat(table),
            renewed: ask.now,
            process: ask.process.clone(),
        };
        table.put_holder(ask.holder, holder)?;
    }
    Ok(claimed)
}

/// Returns the tasks due longest, of all kinds that have not reached their maximum.
fn next_due<T: TaskTable>(
    table: &T,
    ask: &ClaimTasks,
    candidates: bool,
    limit: usize,
) -> Result<Vec<u64>, T::Error> {
    let mut due = Vec::new();
    for (kind, max_running) in &ask.kinds {
        let free = u64::from(*max_running).saturating_sub(table.running(kind)?);
        let free = usize::try_from(free).unwrap_or(usize::MAX).min(limit);
        if free > 0 {
            due.extend(table.due(kind, candidates, ask.now, free)?);
        }
    }
    due.sort_unstable();
    due.truncate(limit);
    Ok(due.into_iter().map(|(_, number)| number).collect())
}

fn lease_to<T: TaskTable>(
    table: &mut T,
    number: u64,
    ask: &ClaimTasks,
) -> Result<Option<LeasedTask>, T::Error> {
    let Some(before) = table.read(number)? else {
        return Ok(None);
    };
    let lease = lease(table.next_token(), ask.holder, ask.now);
    let mut row = before.clone();
    row.claim(lease);
    table.update(&before, &row)?;
    let token = lease.token;
    Ok(Some(LeasedTask { row, token }))
}

fn next_beat<T: TaskTable>(table: &mut T) -> u64 {
    table.next_token().unsigned_abs()
}

/// Records a heartbeat with the progress of running tasks.
pub(crate) fn beat<T: TaskTable>(
    table: &mut T,
    holder: TaskHolder,
    progress: &[TaskProgress],
    now: Timestamp,
) -> Result<Beat, T::Error> {
    let mut beat = Beat::default();
    let Some(row) = table.holder(holder)? else {
        beat.lost = progress.iter().map(|of| of.id.clone()).collect();
        return Ok(beat);
    };
    beat.alive = true;
    let row = Holder {
        beat: next_beat(table),
        renewed: now,
        ..row
    };
    table.put_holder(holder, row)?;
    for of in progress {
        match table.find(&of.id)? {
            Some(before) if before.is_leased_under(of.token) => {
                let mut row = before.clone();
                row.report(of);
                table.update(&before, &row)?;
            }
            _ => beat.lost.push(of.id.clone()),
        }
    }
    let leased = table.leased_to(holder)?.into_iter();
    let cancelled = leased.filter(|task| task.is_directed);
    beat.cancelled = cancelled.map(|task| task.id).collect();
    Ok(beat)
}

/// Takes the tasks of a holder over, unless it has beaten since. Returns their number.
pub(crate) fn take_over<T: TaskTable>(
    table: &mut T,
    holder: TaskHolder,
    seen: u64,
    now: Timestamp,
) -> Result<Option<u64>, T::Error> {
    match table.holder(holder)? {
        Some(row) if row.beat == seen => {}
        _ => return Ok(None),
    }
    let taken = take_back(table, holder, now, true)?;
    table.remove_holder(holder)?;
    Ok(Some(taken))
}

/// Releases the tasks of a holder that stops. Returns false if it has no row, and therefore no task.
pub(crate) fn end_holder<T: TaskTable>(
    table: &mut T,
    holder: TaskHolder,
    now: Timestamp,
) -> Result<bool, T::Error> {
    if table.holder(holder)?.is_none() {
        return Ok(false);
    }
    take_back(table, holder, now, false)?;
    table.remove_holder(holder)?;
    Ok(true)
}

fn take_back<T: TaskTable>(
    table: &mut T,
    holder: TaskHolder,
    now: Timestamp,
    crashed: bool,
) -> Result<u64, T::Error> {
    let mut taken = 0;
    for leased in table.leased_to(holder)? {
        if let Some(before) = table.find(&leased.id)? {
            let mut row = before.clone();
            row.take_back(now, crashed);
            table.update(&before, &row)?;
            taken += 1;
        }
    }
    Ok(taken)
}

/// Makes every live task of a restored store wait for an operator: it may have run since the backup.
pub(crate) fn make_all_unknown<T: TaskTable>(table: &mut T) -> Result<(), T::Error> {
    for id in table.all()? {
        if let Some(before) = table.find(&id)?
            && before.state != super::TaskState::Unknown
        {
            let mut row = before.clone();
            row.make_unknown(
                "the store was restored from a backup or copied: the task may have run since",
            );
            table.update(&before, &row)?;
        }
    }
    table.remove_all_holders()
}
