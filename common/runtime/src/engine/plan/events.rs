//! Decides an event by its position in its stream, or by its id if it has no sequence.

use doorstep_event::{Event, Sequence};
use doorstep_store::{DeferReason, stream_epoch};

use super::{
    super::clock::saturating_sub,
    super::decoded_event::Origin,
    super::working_set::{EventIdentity, Waiting},
    EventInPlan, Plan, Verdict,
};
use crate::{
    Role,
    dead_letter::{self, Cause, reason},
};

impl<R: Role> Plan<'_, R> {
    /// Plans an event with a sequence by its position in its stream: duplicate, next, early or blocked.
    pub(super) fn plan_sequenced(
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
                Some(deferred) if deferred.is_of(event) => self.changes.counts.duplicates += 1,
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
                    slot.deferred_ids
                        .insert(sequence, EventIdentity::from_event(event));
                    slot.waiting.insert(sequence, Waiting::InBatch(index));
                    self.learn(event, false);
                }
                None => {
                    self.learn(event, false);
                    self.advance(case, sequence);
                }
            },
            // The commit that raised the cursor above a deferred event has deleted that event, too.
            Origin::Deferred(_) if sequence.get() < next => {}
            Origin::Deferred(deferred) => {
                // If a blocked stream defers its very next event, that is the replay of the blocking dead letter, even
                // once it waits for another stream: a delivery of that event counts as a duplicate and is never
                // deferred.
                let may_go = sequence.get() == next
                    && match (&slot.after.blocked, &deferred.reason) {
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
    pub(super) fn advance(&mut self, first: EventInPlan<'_, R::Payload>, sequence: Sequence) {
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
            let Some(event) = prepared.decoded.event() else {
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
    pub(super) fn apply(&mut self, case: EventInPlan<'_, R::Payload>, sequence: Sequence) -> bool {
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
            Verdict::Defer(entity) => {
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
    pub(super) fn plan_unsequenced(&mut self, case: EventInPlan<'_, R::Payload>) {
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
            Verdict::Defer(entity) => self.defer_until(case, entity),
            Verdict::Dead(cause) => self.dead_letter_event(case, cause),
        }
    }

    /// Keeps the epoch of an event that is applied or deferred; `forks` if it proves another lineage of its source.
    pub(super) fn learn(&mut self, event: &Event, forks: bool) {
        if let Some(epoch) = event.epoch
            && let Some(learned) = self.slots.epochs.learn(&event.source, epoch, forks)
        {
            self.changes.learned.push(learned);
        }
    }
}
