//! Decides the ends of tasks: the role hears of each in one commit with the end of its lease.

use doorstep_event::Rejection;
use doorstep_store::{TaskChange, TaskDirective, TaskEnd, TaskFate};

use super::Plan;
use crate::{
    Role,
    dead_letter::{self, Cause, reason},
    engine::{
        command::{CommandResult, PlannedCommand, PreparedCommand},
        tasks::{
            GaveUp,
            finished::{FinishedTask, TaskFinish},
        },
    },
    telemetry,
};

impl<R: Role> Plan<'_, R> {
    /// Decides the end of a task. The end comes first, so that the role may start a task of the same id by it.
    pub(super) fn end_task(
        &mut self,
        index: usize,
        command: &PreparedCommand<R::Command>,
        end: &FinishedTask,
        is_held: bool,
    ) -> PlannedCommand {
        let FinishedTask { lease, finish } = end;
        let ends_it = |change: &TaskChange| matches!(change, TaskChange::End(other) if other.token == lease.token);
        if !is_held || self.changes.tasks.iter().any(ends_it) {
            return PlannedCommand::Decided(CommandResult::LeaseLost);
        }
        let heard = if end.is_told() {
            // A rejection has to rest on present states, too, since the end is for good.
            let claim = self.slots.handles_of_command(index);
            self.slots.require_unchanged(claim);
            Some(self.call_command_handler(index, command))
        } else {
            None
        };
        let (fate, cause) = match finish {
            TaskFinish::Result(_) => {
                if let Some(Err(rejected)) = heard {
                    return PlannedCommand::ResultRejected(rejected);
                }
                (TaskFate::Done, None)
            }
            TaskFinish::Failed { gave_up, detail } => {
                let cause = Cause::new(reason_of(*gave_up), detail.clone());
                (TaskFate::Ended, Some(cause))
            }
            TaskFinish::Poison { .. } => {
                let cause = Cause::new(reason::POISON, end.crashed());
                (TaskFate::Ended, Some(cause))
            }
            TaskFinish::Unknown { error } => {
                let error = error.clone();
                (TaskFate::Unknown { error }, None)
            }
            TaskFinish::Directed(
                TaskDirective::Cancel | TaskDirective::Done | TaskDirective::Failed,
            ) => (TaskFate::Ended, None),
        };
        self.changes.tasks.push(TaskChange::End(TaskEnd {
            id: lease.row.id.clone(),
            token: lease.token,
            fate,
        }));
        if let Some(cause) = cause {
            let source = &command.request.caller;
            let dead = dead_letter::of_task(self.role.name(), source, &lease.row, cause, self.now);
            let copy = dead_letter::copy(self.role.name(), &dead.row);
            self.changes.outbox.push(copy);
            self.changes.counts.dead_letters += 1;
            self.changes.dead_letters.push(dead);
        }
        match heard {
            Some(Ok(outcome)) => {
                self.collect_effects(outcome.effects, lease.row.traceparent.as_ref());
            }
            // A role that does not know the type needs no word of such ends.
            Some(Err(rejected)) if rejected.code != Rejection::BAD_REQUEST => {
                telemetry::outcome_rejected(self.role.name(), &lease.row.id, &rejected);
            }
            Some(Err(_)) | None => {}
        }
        PlannedCommand::Decided(CommandResult::Ended)
    }
}

fn reason_of(gave_up: GaveUp) -> &'static str {
    match gave_up {
        GaveUp::Failed => reason::TASK_FAILED,
        GaveUp::Panicked => reason::TASK_PANICKED,
        GaveUp::Exhausted => reason::TASK_GAVE_UP,
        GaveUp::ResultRejected => reason::RESULT_REJECTED,
    }
}
