//! Calls the role's handler, and takes over the states and effects that it leaves.

use std::panic::{AssertUnwindSafe, catch_unwind};

use doorstep_store::{IfLive, NewTask, TaskChange};

use super::{
    super::decoded_event::{Interpretation, panic_text},
    super::working_set::RowHandles,
    EventInPlan, Plan, Verdict,
};
use crate::{
    Effects, HandlerError, Role,
    dead_letter::{Cause, reason},
    task::TaskEffect,
};

impl<R: Role> Plan<'_, R> {
    /// Calls the handler on copies of the states. They are kept only if it succeeds.
    pub(super) fn call_handler(&mut self, case: EventInPlan<'_, R::Payload>) -> Verdict {
        let (fact, keys) = match &case.prepared.understood {
            Interpretation::Undecoded => {
                self.met_unread = true;
                return Verdict::Ignored;
            }
            Interpretation::Ignored => return Verdict::Ignored,
            Interpretation::Refused(cause) => return Verdict::Dead(cause.clone()),
            Interpretation::Handled(fact, keys) => (fact, keys),
        };
        let slots = &self.slots;
        let states = &mut self.states;
        states.fill(keys, slots.entities(case.claim).map(|slot| &slot.state));
        let answer = catch_unwind(AssertUnwindSafe(|| {
            self.role.handle(states, case.event, fact, self.now)
        }));
        match answer {
            Ok(Ok(effects)) => {
                self.take_changed_states(case.claim);
                Verdict::Applied(effects)
            }
            Ok(Err(HandlerError::Retry(entity))) => {
                // This commit has to check the version of the awaited entity, or its change could be missed.
                if keys.contains(&entity) {
                    Verdict::Defer(entity)
                } else {
                    let detail = format!("the handler awaits {entity}, which keys() does not name");
                    Verdict::Dead(Cause::new(reason::PANIC, detail))
                }
            }
            Ok(Err(HandlerError::Reject(detail))) => {
                Verdict::Dead(Cause::new(reason::REJECTED, detail))
            }
            Err(panic) => Verdict::Dead(Cause::new(reason::PANIC, panic_text(panic.as_ref()))),
        }
    }

    /// Takes over the states that a handler has left.
    pub(super) fn take_changed_states(&mut self, claim: RowHandles) {
        for (number, entry) in self.states.drain().enumerate() {
            if entry.written
                && let Some(slot) = self.slots.entity(claim, number)
            {
                slot.state = entry.state;
                slot.written = true;
            }
        }
    }

    /// Collects the effects of a handler. They continue the trace of the message that caused them.
    pub(super) fn collect_effects(&mut self, effects: Effects, trace: Option<&String>) {
        let events = effects.events.into_iter();
        self.emitted
            .extend(events.map(|emit| (emit, trace.cloned())));
        let tasks = effects.tasks.into_iter().map(|effect| match effect {
            TaskEffect::Cancel(id) => TaskChange::Cancel(id),
            TaskEffect::Start {
                id,
                kind,
                subject,
                input,
            } => TaskChange::Start(NewTask {
                id,
                kind,
                subject,
                traceparent: trace.cloned(),
                input: input.into(),
                dead: 0,
                if_live: IfLive::Keep,
            }),
        });
        self.changes.tasks.extend(tasks);
        let scheduled = effects.scheduled.into_iter();
        self.scheduled
            .extend(scheduled.map(|scheduled| (scheduled, trace.cloned())));
    }
}
