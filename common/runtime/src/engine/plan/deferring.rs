//! Defers events, and writes deferred events back for a later attempt.

use doorstep_event::Timestamp;
use doorstep_store::{
    DeadLetterStatus, DeferReason, DeferredRetry, EntityKey, NewDeferred, Resolution,
};

use super::{
    super::clock::{saturating_add, saturating_sub},
    super::decoded_event::Origin,
    super::working_set::{EventIdentity, Waiting},
    EventInPlan, Plan, Trust,
};
use crate::{
    Role,
    dead_letter::{Cause, reason},
};

impl<R: Role> Plan<'_, R> {
    /// Defers an event until an entity changes, or dead-letters it if it has waited too long.
    pub(super) fn defer_until(&mut self, case: EventInPlan<'_, R::Payload>, entity: EntityKey) {
        let EventInPlan {
            event, prepared, ..
        } = case;
        match &prepared.origin {
            Origin::Delivery(_) => {
                let due = self.next_try(1);
                if let (Some(sequence), Some(slot)) =
                    (event.sequence, self.slots.stream(case.claim))
                {
                    slot.dirty = true;
                    slot.deferred_dirty = true;
                    slot.deferred_ids
                        .insert(sequence, EventIdentity::from_event(event));
                }
                self.changes.counts.deferred += 1;
                self.changes.defer.push(NewDeferred {
                    event: event.clone(),
                    defect: None,
                    reason: DeferReason::WaitingFor(entity),
                    due: Some(due),
                    attempts: 1,
                    since: self.now,
                });
            }
            Origin::Deferred(deferred) => {
                let waited_before =
                    deferred.attempts > 0 && !matches!(deferred.reason, DeferReason::Replay(_));
                let waited_too_long = self.trust == Trust::Full
                    && waited_before
                    && deferred.since <= saturating_sub(self.now, self.limits.max_wait);
                if waited_too_long {
                    let detail = format!(
                        "it waited for {entity} since {}, without the change that it needs",
                        deferred.since
                    );
                    self.dead_letter_event(case, Cause::new(reason::WAIT_EXPIRED, detail));
                } else {
                    let due = self.next_try(deferred.attempts + 1);
                    self.reschedule(case, Some(entity), Some(due));
                }
            }
        }
    }

    /// Writes a deferred event back for a later attempt.
    pub(super) fn reschedule(
        &mut self,
        case: EventInPlan<'_, R::Payload>,
        awaits: Option<EntityKey>,
        due: Option<Timestamp>,
    ) {
        let Origin::Deferred(deferred) = &case.prepared.origin else {
            return;
        };
        // The version has to rise, since another process may be changing the same row.
        let mut has_place = false;
        if let Some(slot) = self.slots.stream(case.claim) {
            slot.dirty = true;
            slot.deferred_dirty = true;
            has_place = true;
        }
        // A replay that waits for another stream is deferred like any other event. Its dead letter still blocks its
        // stream and can be skipped; a dead letter that blocks nothing is resolved here.
        if let (DeferReason::Replay(dead), Some(_)) = (&deferred.reason, &awaits) {
            let fate = if has_place {
                Resolution::Awaiting
            } else {
                Resolution::Gone
            };
            self.changes
                .resolve
                .push((dead.clone(), DeadLetterStatus::Replaying, fate));
        }
        // The wait of a replay starts with its first attempt, however often it was rejected before.
        let is_first = deferred.attempts == 0 || matches!(deferred.reason, DeferReason::Replay(_));
        let waits_from_now = is_first && awaits.is_some();
        let tries = deferred.attempts + u32::from(awaits.is_some());
        self.changes.reschedule.push(DeferredRetry {
            id: deferred.id,
            reason: match (&deferred.reason, awaits) {
                (_, Some(entity)) => DeferReason::WaitingFor(entity),
                (reason, None) => reason.clone(),
            },
            due,
            attempts: tries,
            since: match self.trust {
                _ if waits_from_now => self.now,
                // The clock was ahead when the event was deferred.
                Trust::Full => deferred.since.min(self.now),
                Trust::Limited => deferred.since,
            },
        });
    }

    pub(super) fn next_try(&self, attempts: u32) -> Timestamp {
        saturating_add(self.now, self.limits.retry_backoff(attempts, self.jitter))
    }

    /// Defers the events of this batch that are still not next at its end.
    pub(super) fn defer_remaining(&mut self) {
        for slot in self.slots.streams_mut() {
            for waiting in std::mem::take(&mut slot.waiting).into_values() {
                let Waiting::InBatch(index) = waiting else {
                    continue;
                };
                let decoded = &self.items[index].decoded;
                let Some(event) = decoded.event() else {
                    continue;
                };
                self.changes.counts.deferred += 1;
                self.changes.defer.push(NewDeferred {
                    event: event.clone(),
                    defect: decoded.defect().cloned(),
                    reason: DeferReason::OutOfOrder,
                    due: None,
                    attempts: 0,
                    since: self.now,
                });
            }
        }
    }
}
