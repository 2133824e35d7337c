//! Decides the outcome of every event and command of a batch. Pure: rows in, changes out.

pub(super) mod commands;
mod dead_letters;
mod deferring;
mod events;
mod handler;
mod tasks;

use std::collections::HashMap;

use doorstep_event::{Event, Sequence, Source, Subject, Timestamp, headers::Decoded};
use doorstep_store::{
    EmittedSequence, EntityKey, NewOutbox, NewTimer, OutboxKind, Result, StoreError, WriteSet,
};

use super::{
    decoded_event::{DecodedEvent, Origin, unreadable_source},
    source_owners::{self, judge},
    working_set::{RowHandles, WorkingSet},
};
use crate::{
    Effects, Limits, NewEvent, Role, Scheduled,
    dead_letter::{self, Cause, reason},
    role::States,
};

/// A handler's decision on an event.
enum Verdict {
    Applied(Effects),
    Ignored,
    Defer(EntityKey),
    Dead(Cause),
}

/// An event that is being planned.
struct EventInPlan<'c, F> {
    event: &'c Event,
    prepared: &'c DecodedEvent<F>,
    claim: RowHandles,
}

impl<F> Clone for EventInPlan<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for EventInPlan<'_, F> {}

/// The changes of a batch, as they are being decided.
pub(super) struct Plan<'a, R: Role> {
    role: &'a R,
    limits: &'a Limits,
    items: &'a [DecodedEvent<R::Payload>],
    slots: WorkingSet<R>,
    changes: WriteSet,
    emitted: Vec<(NewEvent, Option<String>)>,
    scheduled: Vec<(Scheduled, Option<String>)>,
    /// The states given to a handler; reused for each call.
    states: States<R::State>,
    met_unread: bool,
    trust: Trust,
    now: Timestamp,
    jitter: f64,
}

/// The trust in the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Deferred events may expire.
    Full,
    /// The clock may be wrong, so no deferred event expires.
    Limited,
}

impl<'a, R: Role> Plan<'a, R> {
    pub(super) fn make(
        role: &'a R,
        limits: &'a Limits,
        slots: WorkingSet<R>,
        items: &'a [DecodedEvent<R::Payload>],
        trust: Trust,
        now: Timestamp,
        jitter: f64,
    ) -> Self {
        let mut plan = Self {
            role,
            limits,
            items,
            slots,
            changes: WriteSet {
                streamless_bounds: limits.streamless(),
                ..WriteSet::at(now)
            },
            emitted: Vec::new(),
            scheduled: Vec::new(),
            states: States::new(Vec::new()),
            met_unread: false,
            trust,
            now,
            jitter,
        };
        for index in 0..items.len() {
            plan.plan_item(index);
        }
        plan.defer_remaining();
        plan
    }

    /// Returns whether the handler would have to see an event that the role did not decode. Another process has then
    /// changed the event's position in its stream, and this plan must not be committed.
    pub(super) fn needs_replan(&self) -> bool {
        self.met_unread
    }

    fn plan_item(&mut self, index: usize) {
        let items = self.items;
        let prepared = &items[index];
        match &prepared.decoded {
            Decoded::Undecodable { body, defect } => {
                let Some(id) = &prepared.id else { return };
                if self.slots.see(&(unreadable_source(), id.clone())) {
                    self.changes.counts.duplicates += 1;
                    return;
                }
                let seen = (unreadable_source(), id.clone(), self.now);
                let cause = Cause::new(reason::UNREADABLE, defect.clone());
                let dead = dead_letter::of_body(
                    self.role.name(),
                    id,
                    body.clone(),
                    &prepared.headers,
                    cause,
                    self.now,
                );
                self.push_streamless(dead, Some(seen));
            }
            Decoded::Valid(event) | Decoded::Invalid(event, _) => {
                let case = EventInPlan {
                    event,
                    prepared,
                    claim: self.slots.handles_of(index),
                };
                if let Some(cause) = self.reject_sender(case) {
                    // It takes no position in its stream, even if it has a sequence.
                    self.push_dead_letter_beside(case, cause);
                    return;
                }
                match event.sequence {
                    Some(sequence) => self.plan_sequenced(index, case, sequence),
                    None => self.plan_unsequenced(case),
                }
            }
        }
    }

    /// Decides whether a delivery may come from its sender. The first user of a source becomes its owner.
    fn reject_sender(&mut self, case: EventInPlan<'_, R::Payload>) -> Option<Cause> {
        let Origin::Delivery(sender) = &case.prepared.origin else {
            return None;
        };
        let grace = self.limits.former_owner_grace;
        let slot = self.slots.owner(case.claim);
        let owner = slot.as_ref().and_then(|slot| slot.owner());
        match judge(owner, sender, self.now, grace) {
            source_owners::Verdict::Accepted => None,
            source_owners::Verdict::Recorded(owner) => {
                if let Some(slot) = slot {
                    slot.record(owner);
                }
                None
            }
            source_owners::Verdict::Late => {
                let cause = source_owners::foreign(case.event, owner, sender);
                let sequence = case.event.sequence?;
                // A copy of an event that was accepted in time changes nothing and is only a duplicate.
                let is_copy = self
                    .slots
                    .stream(case.claim)
                    .is_some_and(|stream| sequence.get() < stream.next());
                (!is_copy).then_some(cause)
            }
            source_owners::Verdict::Foreign => {
                Some(source_owners::foreign(case.event, owner, sender))
            }
            source_owners::Verdict::Bypass => Some(source_owners::bypass(sender)),
        }
    }

    /// Returns the subjects of the events that the handlers emit, each once.
    pub(super) fn emitted_subjects(&self) -> Vec<Subject> {
        let mut subjects: Vec<_> = self
            .emitted
            .iter()
            .map(|(emit, _)| emit.subject.clone())
            .collect();
        subjects.sort_unstable();
        subjects.dedup();
        subjects
    }

    /// Assigns sequences to the emitted events and returns all changes together with the rows.
    ///
    /// # Errors
    /// A state cannot be serialized as JSON.
    pub(super) fn finish(
        mut self,
        source: &Source,
        subjects: Vec<Subject>,
        last: Vec<u64>,
    ) -> Result<(WriteSet, WorkingSet<R>)> {
        let before: HashMap<Subject, u64> = subjects.into_iter().zip(last).collect();
        let mut given = before.clone();
        let mut events = Vec::with_capacity(self.emitted.len());
        for (emit, traceparent) in self.emitted {
            let last = given.entry(emit.subject.clone()).or_default();
            *last += 1;
            let sequence = Sequence::new(*last);
            let id = sequence.and_then(|sequence| Event::id_for(&emit.subject, sequence).ok());
            let Some(id) = id else {
                return Err(StoreError::Unusable {
                    store: source.to_string(),
                    detail: format!("subject {} cannot be numbered beyond {last}", emit.subject),
                });
            };
            events.push(NewOutbox {
                kind: OutboxKind::Event(Event {
                    id,
                    source: source.clone(),
                    event_type: emit.kind,
                    subject: emit.subject,
                    time: Some(self.now),
                    sequence,
                    epoch: None,
                    traceparent,
                    data: emit.data.into(),
                }),
            });
        }
        events.append(&mut self.changes.outbox);
        self.changes.outbox = events;
        let scheduled = self.scheduled.into_iter();
        self.changes.timers = scheduled
            .map(|(Scheduled { due, event }, traceparent)| NewTimer {
                due,
                source: source.clone(),
                kind: event.kind,
                subject: event.subject,
                traceparent,
                data: event.data.into(),
            })
            .collect();
        self.changes.emitted_sequences = given
            .into_iter()
            .map(|(subject, after)| EmittedSequence {
                before: before.get(&subject).copied().unwrap_or_default(),
                subject,
                after,
            })
            .collect();
        self.changes.pruned_to = self.slots.pruned_to;
        (self.changes.streams, self.changes.entities) = self.slots.changes()?;
        self.changes.removed_entities = self.slots.removed_entities();
        self.changes.owners = self.slots.owner_changes();
        Ok((self.changes, self.slots))
    }
}
