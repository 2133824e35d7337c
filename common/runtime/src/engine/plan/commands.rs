//! Decides the outcome of the commands of a batch, after its events.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use doorstep_event::{Idempotency, Rejection, RequestId, RequestResult, Source};
use doorstep_store::{NewReply, ReplyRow, RequestHash};

use super::Plan;
use crate::{
    CommandOutcome, Role,
    engine::{
        clock::{Clock, saturating_add, saturating_sub},
        command::{CommandResult, PlannedCommand, PreparedCommand, panicked},
    },
    limits::MAX_CLOCK_SKEW,
};

/// The store's knowledge of the commands and the ends of tasks of a batch, each in their order.
#[derive(Default)]
pub(in crate::engine) struct Known {
    /// The stored reply to each.
    pub(in crate::engine) replies: Vec<Option<ReplyRow>>,
    /// The crash count of each.
    pub(in crate::engine) crash_counts: Vec<u32>,
    /// For each end of a task, true if its lease is held.
    pub(in crate::engine) leases: Vec<bool>,
}

/// The choice between one command by itself and a command among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Alone {
    Yes,
    No,
}

impl<R: Role> Plan<'_, R> {
    /// Decides these commands in order. A rejected command leaves no trace; one whose deadline passed while it waited
    /// here is not started.
    pub(in crate::engine) fn execute_all(
        &mut self,
        commands: &[PreparedCommand<R::Command>],
        known: Known,
        alone: Alone,
        clock: Clock,
    ) -> Vec<PlannedCommand> {
        // The same command may come twice in a batch: the second gets the reply of the first.
        let mut replied: HashMap<(&Source, &RequestId), (RequestHash, bytes::Bytes)> =
            HashMap::new();
        let mut outcomes = Vec::with_capacity(commands.len());
        let mut replies = known.replies.into_iter();
        let mut crash_counts = known.crash_counts.into_iter();
        let mut leases = known.leases.into_iter();
        for (index, command) in commands.iter().enumerate() {
            if let Some(end) = &command.end {
                let is_held = leases.next().unwrap_or_default();
                outcomes.push(self.end_task(index, command, end, is_held));
                continue;
            }
            let stored = replies.next().flatten();
            let crash_counts = crash_counts.next().unwrap_or_default();
            let request = &command.request;
            let name = (&request.caller, &request.id);
            if request.deadline <= clock.time(self.now) {
                outcomes.push(PlannedCommand::Decided(CommandResult::Expired));
                continue;
            }
            let stored = stored
                .map(|row| (row.hash, row.reply))
                .or_else(|| replied.get(&name).cloned());
            if let Some((hash, reply)) = stored {
                let answer = if hash == command.hash {
                    Ok(reply)
                } else {
                    Err(id_reused(&request.id))
                };
                outcomes.push(PlannedCommand::Decided(CommandResult::Answer(answer)));
                continue;
            }
            if crash_counts > 0 && alone == Alone::No {
                outcomes.push(PlannedCommand::Candidate);
                continue;
            }
            let answer = self.execute(index, command);
            if let Ok(reply) = &answer {
                replied.insert(name, (command.hash, reply.clone()));
            }
            outcomes.push(PlannedCommand::Decided(CommandResult::Answer(answer)));
        }
        outcomes
    }

    fn execute(&mut self, index: usize, command: &PreparedCommand<R::Command>) -> RequestResult {
        let request = &command.request;
        let oldest = saturating_sub(self.now, self.limits.reply_retention);
        if request.time < oldest {
            let detail = format!(
                "it is from {}, and replies are kept for {} h: it may have been executed before",
                request.time,
                self.limits.reply_retention.as_secs() / 3600
            );
            return Err(Rejection::new(Rejection::TOO_OLD, detail));
        }
        if let Some(pruned_to) = self.slots.pruned_to.replies
            && request.time <= pruned_to
        {
            let detail = format!(
                "it is from {}, and replies may be pruned up to {pruned_to}, since a clock was wrong: whether it was executed before cannot \
                 be told",
                request.time
            );
            return Err(Rejection::new(Rejection::TOO_OLD, detail));
        }
        if request.time > saturating_add(self.now, MAX_CLOCK_SKEW) {
            let detail = format!(
                "it is from {}, which has not come yet: set the clock of {}",
                request.time, request.caller
            );
            return Err(Rejection::new(Rejection::BAD_REQUEST, detail));
        }
        let CommandOutcome { reply, effects } = self.call_command_handler(index, command)?;
        let claim = self.slots.handles_of_command(index);
        self.slots.require_unchanged(claim);
        self.collect_effects(effects, request.traceparent.as_ref());
        let reply = bytes::Bytes::from(reply);
        self.changes.counts.executed += 1;
        self.changes.replies.push(NewReply {
            caller: request.caller.clone(),
            id: request.id.clone(),
            hash: command.hash,
            reply: reply.clone(),
            time: match request.idempotency {
                // The reply is kept at least until the command would be rejected as too old.
                Idempotency::Retryable => request.time.max(self.now),
                // Kept for [`MAX_CLOCK_SKEW`], so that a retry after a commit of unknown outcome finds the reply.
                Idempotency::OneShot => saturating_sub(self.now, self.limits.reply_retention),
            },
        });
        Ok(reply)
    }

    /// Calls the handler on copies of the states. They are kept only if it succeeds.
    pub(super) fn call_command_handler(
        &mut self,
        index: usize,
        command: &PreparedCommand<R::Command>,
    ) -> Result<CommandOutcome, Rejection> {
        let (understood, keys) = match &command.understood {
            Some(Ok(understood)) => (&understood.0, &understood.1),
            Some(Err(rejected)) => return Err(rejected.clone()),
            None => return Err(Rejection::new(Rejection::FAILED, "it was not read")),
        };
        let claim = self.slots.handles_of_command(index);
        let slots = &self.slots;
        let states = &mut self.states;
        states.fill(keys, slots.entities(claim).map(|slot| &slot.state));
        let answer = catch_unwind(AssertUnwindSafe(|| {
            self.role
                .execute(states, &command.request, understood, self.now)
        }));
        let outcome = answer.unwrap_or_else(|panic| Err(panicked(panic.as_ref())))?;
        self.take_changed_states(claim);
        Ok(outcome)
    }
}

fn id_reused(id: &RequestId) -> Rejection {
    Rejection::new(
        Rejection::ID_REUSED,
        format!("another command was executed under the id {id}: use a new id"),
    )
}
