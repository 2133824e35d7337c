//! Decides the outcome of every event and command of a batch. Pure: rows in, changes out.

pub(super) mod commands;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use doorstep_event::{Event, EventId, Sequence, Source, Subject, Timestamp};
use doorstep_store::{
    DeadLetterStatus, DeferReason, DeferredRetry, EmittedSequence, EntityKey, NewDeadLetter,
    NewDeferred, NewOutbox, NewStreamless, NewTimer, OutboxKind, Resolution, RestoredSourceChange,
    StoreError, WriteSet, stream_epoch,
};

use super::{
    clock::{saturating_add, saturating_sub},
    decoded_event::{DecodedEvent, Interpretation, Item, Origin, panic_text, unreadable_source},
    owners::{self, judge},
    working_set::{Place, RowHandles, Waiting, WorkingSet},
};
use crate::{
    Effects, HandlerError, Limits, NewEvent, Role, Scheduled,
    dead_letter::{self, Blocking, Cause, reason},
    role::States,
};

/// A handler's decision on an event.
enum Verdict {
    Applied(Effects),
    Ignored,
    NotYet(EntityKey),
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
        match &prepared.item {
            Item::Unreadable {
                body,
                headers,
                defect,
                id,
            } => {
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
                    headers,
                    cause,
                    self.now,
                );
                self.push_streamless(dead, Some(seen));
            }
            Item::Event { event, .. } => {
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
            owners::Verdict::Accepted => None,
            owners::Verdict::Recorded(owner) => {
                if let Some(slot) = slot {
                    slot.record(owner);
                }
                None
            }
            owners::Verdict::Late => {
                let cause = owners::foreign(case.event, owner, sender);
                let sequence = case.event.sequence?;
                // A copy of an event that was accepted in time changes nothing and is only a duplicate.
                let is_copy = self
                    .slots
                    .stream(case.claim)
                    .is_some_and(|stream| sequence.get() < stream.next());
                (!is_copy).then_some(cause)
            }
            owners::Verdict::Foreign => Some(owners::foreign(case.event, owner, sender)),
            owners::Verdict::Bypass => Some(owners::bypass(sender)),
        }
    }

    /// Plans an event with a sequence by its position in its stream: duplicate, next, early or blocked.
    fn plan_sequenced(
        &mut self,
        index: usize,
        case: EventInPlan<'_, R::Payload>,
        sequence: Sequence,
    ) {
        let EventInPlan {
            event, prepared, ..
        } = case;
        let Some(slot) = self.slots.stream(case.claim) else {
            return;
        };
        let next = slot.next();
        match &prepared.origin {
            Origin::Delivery(_) if sequence.get() < next => {
                let last = slot.after.last_id.as_ref();
                let at_cursor = sequence.get() == slot.after.cursor;
                let is_other = at_cursor && last.is_some_and(|last| *last != event.id);
                if is_other || !self.slots.is_same(case.claim, event, sequence) {
                    self.numbering_conflict(case);
                } else {
                    self.changes.counts.duplicates += 1;
                }
            }
            Origin::Delivery(_) => match slot.deferred_at(sequence) {
                Some(held) if held.is_of(event) => self.changes.counts.duplicates += 1,
                Some(_) => self.numbering_conflict(case),
                None if sequence.get() == next
                    && let Some(blocker) = &slot.after.blocked =>
                {
                    if dead_letter::is_of(blocker, event) {
                        self.changes.counts.duplicates += 1;
                    } else {
                        self.numbering_conflict(case);
                    }
                }
                None if slot.after.blocked.is_some() || sequence.get() > next => {
                    slot.dirty = true;
                    slot.deferred_dirty = true;
                    slot.deferred_ids.insert(sequence, Place::of(event));
                    slot.waiting.insert(sequence, Waiting::InBatch(index));
                    self.learn(event, false);
                }
                None => {
                    self.learn(event, false);
                    self.advance(case, sequence);
                }
            },
            // The commit that raised the cursor above a deferred event has deleted that event, too.
            Origin::Held(_) if sequence.get() < next => {}
            Origin::Held(held) => {
                // If a blocked stream defers its very next event, that is the replay of the blocking dead letter, even
                // once it waits for another stream: a delivery of that event counts as a duplicate and is never
                // deferred.
                let may_go = sequence.get() == next
                    && match (&slot.after.blocked, &held.reason) {
                        (None, _) | (Some(_), DeferReason::WaitingFor(_)) => true,
                        (Some(blocker), DeferReason::Replay(dead)) => dead == blocker,
                        (Some(_), DeferReason::OutOfOrder | DeferReason::Scheduled) => false,
                    };
                if may_go {
                    slot.waiting.remove(&sequence);
                    self.advance(case, sequence);
                } else {
                    // The event fell due before its turn: its predecessor will make it due again.
                    self.reschedule(case, None, None);
                }
            }
        }
    }

    /// Applies the next event of a stream, then the deferred events that become next by that.
    fn advance(&mut self, first: EventInPlan<'_, R::Payload>, sequence: Sequence) {
        if !self.apply(first, sequence) {
            return;
        }
        let items = self.items;
        loop {
            let Some(slot) = self.slots.stream(first.claim) else {
                return;
            };
            // The usual case: nothing waits, so the lookups below are saved.
            if slot.waiting.is_empty() {
                return;
            }
            let Some(next) = Sequence::new(slot.next()) else {
                return;
            };
            let Some(waiting) = slot.waiting.remove(&next) else {
                return;
            };
            let (prepared, claim) = match &waiting {
                Waiting::Loaded(loaded) => (&loaded.0, loaded.1),
                Waiting::InBatch(index) => (&items[*index], self.slots.handles_of(*index)),
            };
            let Item::Event { event, .. } = &prepared.item else {
                return;
            };
            let case = EventInPlan {
                event,
                prepared,
                claim,
            };
            if !self.apply(case, next) {
                return;
            }
        }
    }

    /// Calls the handler for the next event of a stream. Returns whether the cursor has moved.
    fn apply(&mut self, case: EventInPlan<'_, R::Payload>, sequence: Sequence) -> bool {
        let event = case.event;
        let verdict = self.call_handler(case);
        match verdict {
            Verdict::Applied(_) | Verdict::Ignored => {
                let replayed = self.resolve_replay(case);
                let tally = &mut self.changes.counts;
                if let Verdict::Applied(effects) = verdict {
                    tally.applied += 1;
                    tally.replayed += u64::from(replayed);
                    self.collect_effects(effects, event.traceparent.as_ref());
                } else {
                    tally.ignored += 1;
                }
                let mut went_back = false;
                if let Some(slot) = self.slots.stream(case.claim) {
                    slot.dirty = true;
                    slot.deferred_dirty |= case.prepared.is_deferred();
                    let before = slot.after.epoch;
                    let (cursor, last) = (slot.after.cursor, slot.after.last_id.as_ref());
                    slot.after.epoch = stream_epoch(before, cursor, last, event.epoch);
                    went_back = before
                        .zip(event.epoch)
                        .is_some_and(|(before, now)| now.counter() < before.epoch.counter());
                    slot.after.cursor = sequence.get();
                    slot.after.last_id = Some(event.id.clone());
                    slot.after.blocked = None;
                }
                if went_back {
                    self.learn(event, true);
                }
                true
            }
            Verdict::NotYet(entity) => {
                self.defer_until(case, entity);
                false
            }
            Verdict::Dead(cause) => {
                self.dead_letter_event(case, cause);
                false
            }
        }
    }

    /// Plans an event without a sequence: its id tells duplicates, and arrival is its order.
    fn plan_unsequenced(&mut self, case: EventInPlan<'_, R::Payload>) {
        let EventInPlan {
            event, prepared, ..
        } = case;
        if let Some(id) = prepared.seen_id() {
            if self.slots.see(&id) {
                self.changes.counts.duplicates += 1;
                return;
            }
            let oldest = saturating_sub(self.now, self.limits.dedup_retention);
            let pruned_to = self.slots.pruned_to.seen;
            let known_since = event
                .time
                .filter(|time| *time >= oldest && pruned_to.is_none_or(|to| *time > to));
            // The id is kept under the event's own time, so it outlives the age at which the event would be rejected as
            // too old.
            self.changes.seen.push((
                id.0,
                id.1,
                known_since.map_or(self.now, |time| time.max(self.now)),
            ));
            if known_since.is_none() {
                let detail = match event.time {
                    None => "it has neither a sequence nor a time, so a duplicate could not be recognised".to_owned(),
                    Some(time) if time >= oldest => format!(
                        "it has no sequence and its time is {time}, and ids may be pruned up to {}, since a clock was wrong",
                        pruned_to.unwrap_or(time)
                    ),
                    Some(time) => format!(
                        "it has no sequence and its time {time} is beyond the {} h for which ids are kept",
                        self.limits.dedup_retention.as_secs() / 3600
                    ),
                };
                self.dead_letter_event(case, Cause::new(reason::TOO_OLD, detail));
                return;
            }
        }
        match self.call_handler(case) {
            Verdict::Applied(effects) => {
                let replayed = self.resolve_replay(case);
                self.changes.counts.applied += 1;
                self.changes.counts.replayed += u64::from(replayed);
                self.collect_effects(effects, event.traceparent.as_ref());
                self.release(prepared);
            }
            Verdict::Ignored => {
                self.resolve_replay(case);
                self.changes.counts.ignored += 1;
                self.release(prepared);
            }
            Verdict::NotYet(entity) => self.defer_until(case, entity),
            Verdict::Dead(cause) => self.dead_letter_event(case, cause),
        }
    }

    /// Calls the handler on copies of the states. They are kept only if it succeeds.
    fn call_handler(&mut self, case: EventInPlan<'_, R::Payload>) -> Verdict {
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
                    Verdict::NotYet(entity)
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
    fn take_changed_states(&mut self, claim: RowHandles) -> Option<EntityKey> {
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
    fn collect_effects(&mut self, effects: Effects, trace: Option<&String>) {
        let events = effects.events.into_iter();
        self.emitted
            .extend(events.map(|emit| (emit, trace.cloned())));
        let scheduled = effects.scheduled.into_iter();
        self.scheduled
            .extend(scheduled.map(|scheduled| (scheduled, trace.cloned())));
    }

    /// Defers an event until an entity changes, or dead-letters it if it has waited too long.
    fn defer_until(&mut self, case: EventInPlan<'_, R::Payload>, entity: EntityKey) {
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
                    slot.deferred_ids.insert(sequence, Place::of(event));
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
            Origin::Held(held) => {
                let waited_before =
                    held.attempts > 0 && !matches!(held.reason, DeferReason::Replay(_));
                let waited_too_long = self.trust == Trust::Full
                    && waited_before
                    && held.since <= saturating_sub(self.now, self.limits.max_wait);
                if waited_too_long {
                    let detail = format!(
                        "it waited for {entity} since {}, without the change that it needs",
                        held.since
                    );
                    self.dead_letter_event(case, Cause::new(reason::WAIT_EXPIRED, detail));
                } else {
                    let due = self.next_try(held.attempts + 1);
                    self.reschedule(case, Some(entity), Some(due));
                }
            }
        }
    }

    /// Writes a deferred event back for a later attempt.
    fn reschedule(
        &mut self,
        case: EventInPlan<'_, R::Payload>,
        awaits: Option<EntityKey>,
        due: Option<Timestamp>,
    ) {
        let Origin::Held(held) = &case.prepared.origin else {
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
        if let (DeferReason::Replay(dead), Some(_)) = (&held.reason, &awaits) {
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
        let is_first = held.attempts == 0 || matches!(held.reason, DeferReason::Replay(_));
        let waits_from_now = is_first && awaits.is_some();
        let tries = held.attempts + u32::from(awaits.is_some());
        self.changes.reschedule.push(DeferredRetry {
            id: held.id,
            reason: match (&held.reason, awaits) {
                (_, Some(entity)) => DeferReason::WaitingFor(entity),
                (reason, None) => reason.clone(),
            },
            due,
            attempts: tries,
            since: match self.trust {
                _ if waits_from_now => self.now,
                // The clock was ahead when the event was deferred.
                Trust::Full => held.since.min(self.now),
                Trust::Limited => held.since,
            },
        });
    }

    fn next_try(&self, attempts: u32) -> Timestamp {
        saturating_add(self.now, self.limits.retry_backoff(attempts, self.jitter))
    }

    /// Makes an event a dead letter. If the event has a position in a stream, the dead letter blocks that stream.
    fn dead_letter_event(&mut self, case: EventInPlan<'_, R::Payload>, cause: Cause) {
        let blocks = if case.event.sequence.is_some() {
            Blocking::Stream
        } else {
            Blocking::Nothing
        };
        let dead = dead_letter::of_event(
            self.role.name(),
            case.event,
            case.prepared.defect().cloned(),
            cause,
            case.prepared.attempts() + 1,
            blocks,
            self.now,
        );
        self.resolve_replay(case);
        self.release(case.prepared);
        if let Some(slot) = self.slots.stream(case.claim) {
            slot.dirty = true;
            slot.deferred_dirty |= case.prepared.is_deferred();
            slot.after.blocked = Some(dead.row.id.clone());
        }
        // An event that an operator replayed is always kept.
        if blocks == Blocking::Nothing && !case.prepared.is_deferred() {
            let event = case.event;
            let is_seen = |seen: &mut (Source, EventId, Timestamp)| {
                (&seen.0, &seen.1) == (&event.source, &event.id)
            };
            let seen = self.changes.seen.pop_if(is_seen);
            self.push_streamless(dead, seen);
        } else {
            self.push_dead_letter(dead);
        }
    }

    /// Keeps the epoch of an event that is applied or deferred; `forks` if it proves another lineage of its source.
    fn learn(&mut self, event: &Event, forks: bool) {
        if let Some(epoch) = event.epoch
            && let Some(learned) = self.slots.epochs.learn(&event.source, epoch, forks)
        {
            self.changes.learned.push(learned);
        }
    }

    /// Records that another event has this one's sequence, as a dead letter that blocks nothing. Its id is derived from
    /// its content, so a redelivery of the same message is the same dead letter.
    fn numbering_conflict(&mut self, case: EventInPlan<'_, R::Payload>) {
        let cause = Cause::new(
            reason::CONFLICT,
            match case.event.epoch {
                None => format!(
                    "another event of {} has its number: two programs number under one source, or a store was restored without \
                     minting its source anew",
                    case.event.source
                ),
                // Quoted, so that all conflicts share one fingerprint, whichever the epoch.
                Some(epoch) => format!(
                    "another event of {} has its number, which this one was given in epoch \"{epoch}\": the source's store was restored \
                     from a backup or copied, and numbers anew; give it a new source by `store restored`",
                    case.event.source
                ),
            },
        );
        self.push_dead_letter_beside(case, cause);
    }

    /// Adds a dead letter for an event that has no position in its stream.
    fn push_dead_letter_beside(&mut self, case: EventInPlan<'_, R::Payload>, cause: Cause) {
        let is_conflict = cause.reason == reason::CONFLICT;
        let dead = dead_letter::of_event(
            self.role.name(),
            case.event,
            case.prepared.defect().cloned(),
            cause,
            1,
            Blocking::Nothing,
            self.now,
        );
        // The same message may come twice in one batch.
        let buried = &self.changes.dead_letters_if_absent;
        if buried.iter().any(|other| other.row.id == dead.row.id) {
            self.changes.counts.duplicates += 1;
            return;
        }
        // A forgery proves nothing about the source's store.
        if is_conflict && let Some(epoch) = case.event.epoch {
            self.changes
                .restored_sources
                .push(RestoredSourceChange::Found {
                    source: case.event.source.clone(),
                    epoch,
                    dead: dead.row.id.clone(),
                });
        }
        self.push_dead_letter(dead);
    }

    /// Adds a dead letter and the outbox row that publishes its copy.
    fn push_dead_letter(&mut self, dead: NewDeadLetter) {
        self.changes
            .outbox
            .push(dead_letter::copy(self.role.name(), &dead.row));
        if dead.row.blocks {
            self.changes.counts.dead_letters += 1;
            self.changes.dead_letters.push(dead);
        } else {
            // A dead letter without a position in a stream may already exist, if its message came again after its id
            // was pruned. Only the store can tell whether it counts and whether its copy has to be published.
            self.changes.dead_letters_if_absent.push(dead);
        }
    }

    /// Adds a dead letter that belongs to no stream, within the bound of its kind, as [`Plan::push_dead_letter`] does
    /// otherwise. `seen` is stored with it. A dead letter that goes to the overflow file stores no id: otherwise a
    /// flood would fill one table instead of another.
    fn push_streamless(&mut self, dead: NewDeadLetter, seen: Option<(Source, EventId, Timestamp)>) {
        self.changes
            .outbox
            .push(dead_letter::copy(self.role.name(), &dead.row));
        self.changes.streamless.push(NewStreamless {
            row: dead.row,
            seen,
        });
    }

    /// Resolves the dead letter that a replay was made from, once the replay has an outcome.
    fn resolve_replay(&mut self, case: EventInPlan<'_, R::Payload>) -> bool {
        let Origin::Held(held) = &case.prepared.origin else {
            return false;
        };
        let (dead, status) = match &held.reason {
            DeferReason::Replay(dead) => (dead.clone(), DeadLetterStatus::Replaying),
            DeferReason::WaitingFor(_) => {
                let slot = self.slots.stream(case.claim);
                let Some(blocker) = slot.and_then(|slot| slot.after.blocked.clone()) else {
                    return false;
                };
                (blocker, DeadLetterStatus::Awaiting)
            }
            DeferReason::OutOfOrder | DeferReason::Scheduled => return false,
        };
        self.changes.resolve.push((dead, status, Resolution::Gone));
        true
    }

    /// Deletes the row of a deferred event. If a cursor rises, the store does that by itself.
    fn release(&mut self, prepared: &DecodedEvent<R::Payload>) {
        if let Origin::Held(held) = &prepared.origin {
            self.changes.release.push(held.id);
        }
    }

    /// Defers the events of this batch that are still not next at its end.
    fn defer_remaining(&mut self) {
        for slot in self.slots.streams_mut() {
            for waiting in std::mem::take(&mut slot.waiting).into_values() {
                let Waiting::InBatch(index) = waiting else {
                    continue;
                };
                let Item::Event { event, defect } = &self.items[index].item else {
                    continue;
                };
                self.changes.counts.deferred += 1;
                self.changes.defer.push(NewDeferred {
                    event: event.clone(),
                    defect: defect.clone(),
                    reason: DeferReason::OutOfOrder,
                    due: None,
                    attempts: 0,
                    since: self.now,
                });
            }
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
    ) -> Result<(WriteSet, WorkingSet<R>), StoreError> {
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
        self.changes.owners = self.slots.owner_changes();
        Ok((self.changes, self.slots))
    }
}
