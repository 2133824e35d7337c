//! Calls the role's handler, and takes over the states and effects that it leaves.

use std::panic::{AssertUnwindSafe, catch_unwind};

use doorstep_store::EntityKey;

use super::{
    super::decoded_event::{Interpretation, panic_text},
    super::working_set::RowHandles,
    EventInPlan, Plan, Verdict,
};
use crate::{
    Effects, HandlerError, Role,
    dead_letter::{Cause, reason},
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
                if let Some(removed) = self.take_changed_states(case.claim) {
                    let detail = format!("the handler removes the state of {removed}");
                    return Verdict::Dead(Cause::new(reason::PANIC, detail));
                }
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

    /// Takes over the states that a handler has left. If the handler removed a state, takes none and returns that
    /// entity: no store deletes a state, and the cache must not differ from the store.
    pub(super) fn take_changed_states(&mut self, claim: RowHandles) -> Option<EntityKey> {
        let entries = self.states.entries().iter();
        let removed = entries
            .zip(self.slots.entities(claim))
            .find(|(entry, slot)| entry.written && entry.state.is_none() && slot.state.is_some())
            .map(|(entry, _)| entry.key.clone());
        if removed.is_some() {
            return removed;
        }
        for (number, entry) in self.states.drain().enumerate() {
            if entry.written
                && let Some(slot) = self.slots.entity(claim, number)
            {
                slot.state = entry.state;
                slot.written = true;
            }
        }
        None
    }

    /// Collects the effects of a handler. They continue the trace of the message that caused them.
    pub(super) fn collect_effects(&mut self, effects: Effects, trace: Option<&String>) {
        let events = effects.events.into_iter();
        self.emitted
            .extend(events.map(|emit| (emit, trace.cloned())));
        let scheduled = effects.scheduled.into_iter();
        self.scheduled
            .extend(scheduled.map(|scheduled| (scheduled, trace.cloned())));
    }
}
