//! A record of all commits: an operator who crashes does not know his own results, this record does.

use std::collections::{BTreeMap, BTreeSet};

use doorstep_event::{Event, EventId, StreamKey};
use doorstep_store::{
    Commit, DeadLetter, DeadLetterId, DeadLetterStatus, DeferReason, EventCounts, IfLive,
    NewDeadLetter, ReadResult, Resolution, TaskChange, TaskDirective, TaskFate, TaskRow, WriteSet,
};

#[derive(Debug, Default)]
pub struct History {
    /// Events with a sequence that an operator has skipped, alone or in a gap.
    pub skipped: BTreeSet<(StreamKey, u64)>,
    /// The ids of dead letters' events that an operator has skipped, with or without a position.
    pub skipped_ids: BTreeSet<(String, EventId)>,
    /// The events of those dead letters.
    pub skipped_events: Vec<Event>,
    /// Every dead letter ever made, with the number of times.
    pub dead: BTreeMap<DeadLetterId, (DeadLetter, usize)>,
    /// The sum of the tallies of all commits.
    pub tally: EventCounts,
    /// The violations of invariants.
    pub violations: Vec<String>,
    pub tasks: TaskHistory,
    /// The occurrences of each situation that schedules must cause.
    pub counts: BTreeMap<String, usize>,
}

/// A record of all starts and ends of tasks, as rows of the store have come and gone.
#[derive(Debug, Default)]
pub struct TaskHistory {
    /// The id of each task that was ever started, by its number.
    pub started: BTreeMap<u64, String>,
    pub ended: Vec<EndedTask>,
    /// The ids of tasks whose effect became unknown, each time.
    pub unknown: Vec<String>,
    /// The tokens of poison tasks that end without the role.
    pub untold: BTreeSet<i64>,
    /// The ids of tasks whose crash count was raised although their process was alive.
    pub blameless: BTreeSet<String>,
    /// The number of starts by events and commands, dropped ones included.
    pub causes: usize,
}

#[derive(Debug)]
pub struct EndedTask {
    pub number: u64,
    /// The token under which it has ended.
    pub token: i64,
    pub ending: TaskEnding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEnding {
    Done,
    /// A dead letter of which the role has heard.
    Failed,
    /// A dead letter of which the role has not heard.
    Untold,
    Cancelled,
    Settled,
}

impl TaskHistory {
    /// Records the changes of a written commit, with the rows of their tasks before and after it. Returns the situations
    /// that it makes.
    pub fn committed(
        &mut self,
        changes: &[TaskChange],
        dead: &[NewDeadLetter],
        before: &[Option<TaskRow>],
        after: &[Option<TaskRow>],
    ) -> Vec<&'static str> {
        let mut seen = Vec::new();
        for (place, change) in changes.iter().enumerate() {
            let number = |rows: &[Option<TaskRow>]| rows[place].as_ref().map(|row| row.number);
            let (was, is) = (number(before), number(after));
            match change {
                TaskChange::Start(new) => {
                    let again = |other: &TaskChange| matches!(other, TaskChange::End(end) if end.id == new.id);
                    let by_result = changes[..place].iter().any(again);
                    self.causes += usize::from(new.if_live == IfLive::Keep && !by_result);
                    if let Some(number) = is.filter(|is| Some(*is) != was) {
                        self.started.insert(number, new.id.to_string());
                    }
                    if new.if_live == IfLive::Conflict {
                        seen.push("replayed task");
                    }
                }
                TaskChange::End(end) => {
                    let directive = before[place].as_ref().and_then(|row| row.directive);
                    let of_it = dead
                        .iter()
                        .find(|new| new.row.task.as_ref() == Some(&end.id));
                    let ending = match (&end.fate, directive, of_it) {
                        (TaskFate::Release, ..) => {
                            seen.push("released");
                            continue;
                        }
                        (TaskFate::Retry { .. }, ..) => {
                            seen.push("retried");
                            continue;
                        }
                        (TaskFate::Unknown { .. }, ..) => {
                            seen.push("unknown");
                            self.unknown.push(end.id.to_string());
                            continue;
                        }
                        (TaskFate::Done, directive, _) => {
                            if directive == Some(TaskDirective::Cancel) {
                                seen.push("result after cancel");
                            }
                            TaskEnding::Done
                        }
                        (TaskFate::Ended, _, Some(new)) => {
                            if new.row.reason == "poison" {
                                seen.push("poison task");
                            }
                            if self.untold.contains(&end.token.0) {
                                TaskEnding::Untold
                            } else {
                                TaskEnding::Failed
                            }
                        }
                        (
                            TaskFate::Ended,
                            Some(TaskDirective::Done | TaskDirective::Failed),
                            None,
                        ) => {
                            seen.push("settled");
                            TaskEnding::Settled
                        }
                        (TaskFate::Ended, _, None) => {
                            seen.push("cancelled");
                            TaskEnding::Cancelled
                        }
                    };
                    if let Some(number) = was.filter(|was| Some(*was) != is) {
                        self.ended.push(EndedTask {
                            number,
                            token: end.token.0,
                            ending,
                        });
                    }
                }
                TaskChange::Cancel(_) | TaskChange::Decide { .. } => {}
            }
        }
        seen
    }
}

impl History {
    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Records a commit.
    pub fn committed(
        &mut self,
        changes: &WriteSet,
        before: &ReadResult,
        settled: Vec<(DeadLetter, Resolution)>,
        commit: &Commit,
    ) {
        if *commit == Commit::Conflict {
            self.count("conflict");
            return;
        }
        for (dead, fate) in settled {
            // Only an operator resolves an open dead letter, and only an operator counts one as skipped.
            let by_operator = dead.status == DeadLetterStatus::Open || changes.counts.skipped > 0;
            if fate == Resolution::Gone && by_operator {
                self.count("skip");
                self.stepped_over(&dead);
            }
        }
        if changes.counts.skipped > 0 && changes.resolve.is_empty() {
            self.count("gap skipped");
            for (change, row) in changes.streams.iter().zip(&before.streams) {
                let to = change.after.as_ref().map_or(0, |after| after.cursor);
                self.skipped
                    .extend((row.cursor + 1..=to).map(|n| (change.key.clone(), n)));
            }
        }
        self.count_all(changes);
        for new in &changes.dead_letters {
            let made = self.dead.entry(new.row.id.clone());
            made.or_insert_with(|| (new.row.clone(), 0)).1 += 1;
        }
        for new in &changes.dead_letters_if_absent {
            let made = self.dead.entry(new.row.id.clone());
            made.or_insert_with(|| (new.row.clone(), 1));
        }
        for new in &changes.streamless {
            let made = self.dead.entry(new.row.id.clone());
            made.or_insert_with(|| (new.row.clone(), 1));
        }
        for _ in &changes.replies {
            let beside = changes.counts.applied > 0;
            self.count(if beside {
                "executed beside events"
            } else {
                "executed"
            });
        }
        for _ in &changes.timers {
            self.count("scheduled");
        }
        self.tally.applied += changes.counts.applied;
        self.tally.executed += changes.counts.executed;
        self.tally.skipped += changes.counts.skipped;
        self.tally.replayed += changes.counts.replayed;
    }

    /// Counts the situations that schedules must cause, so that a test can check that they occur.
    fn count_all(&mut self, changes: &WriteSet) {
        for (_, _, fate) in &changes.resolve {
            if *fate == Resolution::Awaiting {
                self.count("replay put off");
            }
        }
        for retry in &changes.reschedule {
            match retry.reason {
                DeferReason::WaitingFor(_) => self.count("await put off"),
                DeferReason::Replay(_) | DeferReason::OutOfOrder | DeferReason::Scheduled => {
                    self.count("put off behind its predecessor");
                }
            }
        }
        for held in &changes.defer {
            if held.event.sequence.is_none() {
                self.count("held without a sequence");
            }
        }
        let dead = changes
            .dead_letters
            .iter()
            .chain(&changes.dead_letters_if_absent);
        let streamless = changes.streamless.iter().map(|new| &new.row);
        for row in dead.map(|new| &new.row).chain(streamless) {
            self.count(&row.reason);
        }
    }

    fn stepped_over(&mut self, dead: &DeadLetter) {
        let Some(event) = &dead.event else {
            return;
        };
        self.skipped_events.push(event.clone());
        self.skipped_ids
            .insert((event.source.to_string(), event.id.clone()));
        if let (true, Some(sequence)) = (dead.blocks, event.sequence) {
            self.skipped.insert((event.stream(), sequence.get()));
        }
    }
}
