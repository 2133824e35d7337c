//! Makes dead letters, and resolves those that were replayed.

use doorstep_event::{EventId, Source, Timestamp};
use doorstep_store::{
    DeadLetterStatus, DeferReason, NewDeadLetter, NewStreamless, Resolution, RestoredSourceChange,
};

use super::{
    super::decoded_event::{DecodedEvent, Origin},
    EventInPlan, Plan,
};
use crate::{
    Role,
    dead_letter::{self, Blocking, Cause, reason},
};

impl<R: Role> Plan<'_, R> {
    /// Makes an event a dead letter. If the event has a position in a stream, the dead letter blocks that stream.
    pub(super) fn dead_letter_event(&mut self, case: EventInPlan<'_, R::Payload>, cause: Cause) {
        let blocks = if case.event.sequence.is_some() {
            Blocking::Stream
        } else {
            Blocking::Nothing
        };
        let dead = dead_letter::of_event(
            self.role.name(),
            case.event,
            case.prepared.decoded.defect().cloned(),
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

    /// Records that another event has this one's sequence, as a dead letter that blocks nothing. Its id is derived from
    /// its content, so a redelivery of the same message is the same dead letter.
    pub(super) fn numbering_conflict(&mut self, case: EventInPlan<'_, R::Payload>) {
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
    pub(super) fn push_dead_letter_beside(
        &mut self,
        case: EventInPlan<'_, R::Payload>,
        cause: Cause,
    ) {
        let is_conflict = cause.reason == reason::CONFLICT;
        let dead = dead_letter::of_event(
            self.role.name(),
            case.event,
            case.prepared.decoded.defect().cloned(),
            cause,
            1,
            Blocking::Nothing,
            self.now,
        );
        // The same message may come twice in one batch.
        let dead_letters = &self.changes.dead_letters_if_absent;
        if dead_letters.iter().any(|other| other.row.id == dead.row.id) {
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
    pub(super) fn push_dead_letter(&mut self, dead: NewDeadLetter) {
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
    pub(super) fn push_streamless(
        &mut self,
        dead: NewDeadLetter,
        seen: Option<(Source, EventId, Timestamp)>,
    ) {
        self.changes
            .outbox
            .push(dead_letter::copy(self.role.name(), &dead.row));
        self.changes.streamless.push(NewStreamless {
            row: dead.row,
            seen,
        });
    }

    /// Resolves the dead letter that a replay was made from, once the replay has an outcome.
    pub(super) fn resolve_replay(&mut self, case: EventInPlan<'_, R::Payload>) -> bool {
        let Origin::Deferred(deferred) = &case.prepared.origin else {
            return false;
        };
        let (dead, status) = match &deferred.reason {
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
    pub(super) fn release(&mut self, prepared: &DecodedEvent<R::Payload>) {
        if let Origin::Deferred(deferred) = &prepared.origin {
            self.changes.release.push(deferred.id);
        }
    }
}
