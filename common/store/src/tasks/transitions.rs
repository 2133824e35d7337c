//! The transitions of a task between its states.

use doorstep_event::Timestamp;

use super::{
    NewTask, TaskDirective, TaskFate, TaskHolder, TaskLease, TaskProgress, TaskRow, TaskState,
    TaskToken,
};

/// The largest number that every store can write.
const MAX_UNITS: u64 = i64::MAX as u64;

impl TaskRow {
    pub(super) fn start(number: u64, new: NewTask, now: Timestamp) -> Self {
        Self {
            number,
            id: new.id,
            kind: new.kind,
            subject: new.subject,
            traceparent: new.traceparent,
            input: new.input,
            since: now,
            state: TaskState::Ready,
            lease: None,
            directive: None,
            due: now,
            attempts: 0,
            crashes: 0,
            dead: new.dead,
            done: 0,
            total: 0,
            reached: 0,
            note: None,
            checkpoint: None,
            error: None,
        }
    }

    /// Returns true if the task is running under this token.
    pub(crate) fn is_leased_under(&self, token: TaskToken) -> bool {
        self.lease.is_some_and(|lease| lease.token == token)
    }

    pub(super) fn claim(&mut self, lease: TaskLease) {
        self.state = TaskState::Running;
        self.lease = Some(lease);
    }

    /// Ends the lease. Returns true if the task stays.
    pub(super) fn end(&mut self, fate: &TaskFate, now: Timestamp) -> bool {
        match fate {
            TaskFate::Done | TaskFate::Ended => return false,
            TaskFate::Unknown { error } => {
                self.attempts = self.attempts.saturating_add(1);
                self.crashes = 0;
                self.make_unknown(error);
            }
            TaskFate::Retry { due, error } => {
                self.attempts = self.attempts.saturating_add(1);
                self.crashes = 0;
                self.error = Some(error.clone());
                self.make_ready(*due);
            }
            TaskFate::Release => self.make_ready(now),
        }
        true
    }

    /// Gives the task back after its holder's end.
    pub(super) fn take_back(&mut self, now: Timestamp, crashed: bool) {
        self.crashes = self.crashes.saturating_add(u32::from(crashed));
        self.make_ready(now);
    }

    /// Makes the task wait for an operator. A directive was given without knowledge of this, so it ends.
    pub(super) fn make_unknown(&mut self, error: &str) {
        self.state = TaskState::Unknown;
        self.lease = None;
        self.directive = None;
        self.error = Some(error.to_owned());
    }

    fn make_ready(&mut self, due: Timestamp) {
        self.state = TaskState::Ready;
        self.lease = None;
        self.due = due;
    }

    /// Returns true if the task is to be cancelled and was not before.
    pub(super) fn cancel(&mut self) -> bool {
        if self.state == TaskState::Unknown || self.directive.is_some() {
            return false;
        }
        self.directive = Some(TaskDirective::Cancel);
        true
    }

    /// Carries out an operator's decision.
    pub(super) fn decide(&mut self, directive: Option<TaskDirective>, now: Timestamp) {
        let state = self.state;
        if state != TaskState::Running {
            self.make_ready(now);
        }
        match directive {
            Some(directive) => self.directive = Some(directive),
            None if state == TaskState::Unknown => {
                self.crashes = 0;
                self.checkpoint = None;
                (self.done, self.total, self.reached) = (0, 0, 0);
                self.note = None;
            }
            None => {}
        }
    }

    /// Records the progress of a running task.
    pub(super) fn report(&mut self, progress: &TaskProgress) {
        self.done = progress.done.min(MAX_UNITS);
        self.total = progress.total.min(MAX_UNITS);
        self.note.clone_from(&progress.note);
        if progress.checkpoint.is_some() {
            self.checkpoint.clone_from(&progress.checkpoint);
        }
        if self.done > self.reached {
            self.reached = self.done;
            self.crashes = 0;
        }
    }
}

/// The lease of a holder under a new token.
pub(super) fn lease(token: i64, holder: TaskHolder, now: Timestamp) -> TaskLease {
    TaskLease {
        token: TaskToken(token),
        holder,
        claimed: now,
    }
}
