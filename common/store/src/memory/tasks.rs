//! Tasks and their holders in memory.

use std::{convert::Infallible, ops::Bound};

use doorstep_event::{EventType, Timestamp};

use super::{
    commit::{less, more},
    data::Data,
};
use crate::{
    HolderRow, TableUsage, TaskFilter, TaskHolder, TaskId, TaskKindCount, TaskRow, TaskState,
    rows::age_millis,
    size,
    tasks::table::{Holder, Leased, TaskTable},
};

impl Data {
    /// Accepts the changes of a transaction, and counts it as a commit if there are any.
    pub(super) fn accept_tasks(&mut self, has_changed: bool) {
        self.counters.commits += u64::from(has_changed);
        self.accept();
    }

    pub(super) fn holders(&self) -> Vec<HolderRow> {
        let rows = self.task_holders.iter().map(|(holder, row)| HolderRow {
            holder: *holder,
            beat: row.beat,
            running: self.leased(*holder).count() as u64,
            process: row.process.clone(),
            renewed: row.renewed,
        });
        rows.collect()
    }

    pub(super) fn read_tasks(&self, ids: &[TaskId]) -> Vec<Option<TaskRow>> {
        ids.iter().map(|id| self.task(id).cloned()).collect()
    }

    pub(super) fn list_tasks(
        &self,
        filter: &TaskFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Vec<TaskRow> {
        self.tasks
            .range((
                after.map_or(Bound::Unbounded, Bound::Excluded),
                Bound::Unbounded,
            ))
            .map(|(_, row)| row)
            .filter(|row| filter.state.is_none_or(|state| row.state == state))
            .filter(|row| filter.kind.as_ref().is_none_or(|kind| row.kind == *kind))
            .take(limit)
            .cloned()
            .collect()
    }

    pub(super) fn task_kinds(&self, now: Timestamp) -> Vec<TaskKindCount> {
        let mut kinds: Vec<TaskKindCount> = Vec::new();
        for (_, row) in self.tasks.iter() {
            let at = kinds.binary_search_by(|of| of.kind.cmp(&row.kind));
            let at = at.unwrap_or_else(|at| {
                kinds.insert(
                    at,
                    TaskKindCount {
                        kind: row.kind.clone(),
                        ready: 0,
                        running: 0,
                        unknown: 0,
                        oldest_ready_ms: None,
                    },
                );
                at
            });
            let of = &mut kinds[at];
            match row.state {
                TaskState::Ready => of.ready += 1,
                TaskState::Running => of.running += 1,
                TaskState::Unknown => of.unknown += 1,
            }
            if row.state == TaskState::Ready {
                let age = Some(age_millis(row.since, now));
                of.oldest_ready_ms = of.oldest_ready_ms.max(age);
            }
        }
        kinds
    }

    /// Makes the tasks due after `beyond` due. Returns their number.
    pub(super) fn clamp_tasks(&mut self, now: Timestamp, beyond: Timestamp) -> u64 {
        let rows = self.tasks.iter().map(|(_, row)| row);
        let late = rows.filter(|row| is_waiting(row) && row.due > beyond);
        let late: Vec<TaskRow> = late.cloned().collect();
        let clamped = late.len() as u64;
        for row in late {
            self.tasks.put(row.number, TaskRow { due: now, ..row });
        }
        clamped
    }

    fn task(&self, id: &TaskId) -> Option<&TaskRow> {
        let number = self.task_numbers.get(id)?;
        self.tasks.get(number)
    }

    fn leased(&self, holder: TaskHolder) -> impl Iterator<Item = &TaskRow> {
        let rows = self.tasks.iter().map(|(_, row)| row);
        rows.filter(move |row| row.lease.is_some_and(|lease| lease.holder == holder))
    }

    fn due_of<'a>(
        &'a self,
        kind: &'a EventType,
        candidates: bool,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a TaskRow> {
        let rows = self.tasks.iter().map(|(_, row)| row);
        rows.filter(move |row| {
            is_waiting(row)
                && row.kind == *kind
                && (row.crashes > 0) == candidates
                && row.due <= now
        })
    }
}

/// Returns true if the task waits for its due time.
fn is_waiting(row: &TaskRow) -> bool {
    row.state == TaskState::Ready && row.directive.is_none()
}

impl TaskTable for Data {
    type Error = Infallible;

    fn next_number(&mut self) -> u64 {
        self.counters.last_task += 1;
        self.counters.last_task
    }

    fn next_token(&mut self) -> i64 {
        self.counters.last_token += 1;
        self.counters.last_token
    }

    fn count_done(&mut self) {
        self.counters.tally.tasks_done += 1;
    }

    fn is_restored(&self) -> Result<bool, Infallible> {
        Ok(self.counters.restored.is_some())
    }

    fn find(&self, id: &TaskId) -> Result<Option<TaskRow>, Infallible> {
        Ok(self.task(id).cloned())
    }

    fn read(&self, number: u64) -> Result<Option<TaskRow>, Infallible> {
        Ok(self.tasks.get(&number).cloned())
    }

    fn insert(&mut self, row: TaskRow) -> Result<(), Infallible> {
        more(&mut self.counters.usage.tasks, size::task(&row));
        self.task_numbers.put(row.id.clone(), row.number);
        self.tasks.put(row.number, row);
        Ok(())
    }

    fn update(&mut self, before: &TaskRow, after: &TaskRow) -> Result<(), Infallible> {
        let TableUsage { bytes, .. } = &mut self.counters.usage.tasks;
        *bytes = (*bytes + size::task(after)).saturating_sub(size::task(before));
        self.tasks.put(after.number, after.clone());
        Ok(())
    }

    fn remove(&mut self, row: &TaskRow) -> Result<(), Infallible> {
        less(&mut self.counters.usage.tasks, size::task(row));
        self.task_numbers.remove(&row.id);
        self.tasks.remove(&row.number);
        Ok(())
    }

    fn all(&self) -> Result<Vec<TaskId>, Infallible> {
        Ok(self.tasks.iter().map(|(_, row)| row.id.clone()).collect())
    }

    fn leased_to(&self, holder: TaskHolder) -> Result<Vec<Leased>, Infallible> {
        let leased = self.leased(holder).map(|row| Leased {
            number: row.number,
            id: row.id.clone(),
            is_directed: row.directive.is_some(),
        });
        Ok(leased.collect())
    }

    fn directed(&self, limit: usize) -> Result<Vec<u64>, Infallible> {
        let rows = self.tasks.iter().map(|(_, row)| row);
        let directed = rows.filter(|row| row.state == TaskState::Ready && row.directive.is_some());
        Ok(directed.map(|row| row.number).take(limit).collect())
    }

    fn running(&self, kind: &EventType) -> Result<u64, Infallible> {
        let rows = self.tasks.iter();
        let running = rows.filter(|(_, row)| row.state == TaskState::Running && row.kind == *kind);
        Ok(running.count() as u64)
    }

    fn due(
        &self,
        kind: &EventType,
        candidates: bool,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, u64)>, Infallible> {
        let due = self.due_of(kind, candidates, now);
        let mut due: Vec<_> = due.map(|row| (row.due, row.number)).collect();
        due.sort_unstable();
        due.truncate(limit);
        Ok(due)
    }

    fn candidates_due(&self, kind: &EventType, now: Timestamp) -> Result<u64, Infallible> {
        Ok(self.due_of(kind, true, now).count() as u64)
    }

    fn holder(&self, holder: TaskHolder) -> Result<Option<Holder>, Infallible> {
        Ok(self.task_holders.get(&holder).cloned())
    }

    fn put_holder(&mut self, holder: TaskHolder, row: Holder) -> Result<(), Infallible> {
        self.task_holders.put(holder, row);
        Ok(())
    }

    fn remove_holder(&mut self, holder: TaskHolder) -> Result<(), Infallible> {
        self.task_holders.remove(&holder);
        Ok(())
    }

    fn remove_all_holders(&mut self) -> Result<(), Infallible> {
        let holders = self.task_holders.iter().map(|(holder, _)| *holder);
        for holder in holders.collect::<Vec<_>>() {
            self.task_holders.remove(&holder);
        }
        Ok(())
    }
}
