//! A dry run of a dead letter: planned like any batch, on the states as they are now, and never written.

use doorstep_event::{Event, Timestamp, headers::Decoded};
use doorstep_store::{DeadLetter, DeferReason, DeferredId, EntityKey, Result, Store, WriteSet};

use super::{
    Engine, Isolation,
    decoded_event::{DecodedEvent, DeferredItem, Origin},
    plan::Plan,
    source_owners::{is_foreign, is_from_owner},
};
use crate::{
    Role,
    operate::{BlockedPosition, owner_row, place},
};

/// The outcome that a replay of a dead letter would have now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DryRun {
    /// It would be applied, and the events that its handler emits would be published. Now nothing was.
    Applied {
        /// The number of events that would be emitted.
        emitted: usize,
    },
    /// The role would ignore it.
    Ignored,
    /// It would wait for another stream to change this entity.
    Awaits(EntityKey),
    /// It would be rejected again.
    Refused {
        /// The kind of reason, in a few words.
        reason: String,
        /// The reason with its values.
        detail: String,
    },
    /// It would wait for missing predecessors in its stream.
    Behind,
    /// It is no longer the next event of its stream.
    NotNext,
}

/// The plan's id for the row of the deferred event. Real rows are numbered from 1.
const NOT_DEFERRED: DeferredId = DeferredId(0);

impl<R: Role, S: Store> Engine<R, S> {
    /// Plays the replay of a dead letter on the present states, with this event in place of its own. Writes nothing and
    /// may be cancelled.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn dry_run(
        &mut self,
        dead: &DeadLetter,
        event: Event,
        now: Timestamp,
    ) -> Result<DryRun> {
        if is_foreign(dead)
            && let Some(rehearsal) = self.dry_run_foreign(dead, &event).await?
        {
            return Ok(rehearsal);
        }
        let origin = Origin::Deferred(Box::new(DeferredItem {
            id: NOT_DEFERRED,
            reason: DeferReason::Replay(dead.id.clone()),
            since: now,
            attempts: dead.attempts,
        }));
        let items = [DecodedEvent::event(
            &*self.role,
            Decoded::Valid(event.clone()),
            origin,
        )];
        let (slots, _) = self.read(&items, &[], Isolation::Shared).await?;
        let plan = Plan::make(
            &*self.role,
            &self.limits,
            slots,
            &items,
            self.trust,
            now,
            0.5,
        );
        let (changes, _) = self.number(plan).await?;
        Ok(outcome(&changes, &event))
    }
}

impl<R: Role, S: Store> Engine<R, S> {
    /// Returns the reason why an event of another user's source would not reach its handler, if there is one.
    async fn dry_run_foreign(&self, dead: &DeadLetter, event: &Event) -> Result<Option<DryRun>> {
        let row = owner_row(&self.store, &event.source).await?;
        if !is_from_owner(dead, row.owner.as_ref()) {
            return Ok(Some(DryRun::Refused {
                reason: dead.reason.clone(),
                detail: dead.detail.clone(),
            }));
        }
        let Some(sequence) = event.sequence else {
            return Ok(None);
        };
        let BlockedPosition { stream, is_free } = place(&self.store, event, sequence).await?;
        Ok(if !is_free {
            Some(DryRun::NotNext)
        } else if sequence.get() > stream.cursor + 1 {
            Some(DryRun::Behind)
        } else {
            None
        })
    }
}

/// Derives the event's outcome from the changes.
fn outcome(changes: &WriteSet, event: &Event) -> DryRun {
    let is_it = |other: &Event| {
        other.source == event.source
            && other.subject == event.subject
            && other.sequence == event.sequence
            && other.id == event.id
    };
    let mut rejected = changes
        .dead_letters
        .iter()
        .chain(&changes.dead_letters_if_absent);
    if let Some(dead) = rejected.find(|dead| dead.row.event.as_ref().is_some_and(is_it)) {
        return DryRun::Refused {
            reason: dead.row.reason.clone(),
            detail: dead.row.detail.clone(),
        };
    }
    if let Some(retry) = changes
        .reschedule
        .iter()
        .find(|retry| retry.id == NOT_DEFERRED)
    {
        return match &retry.reason {
            DeferReason::WaitingFor(entity) => DryRun::Awaits(entity.clone()),
            DeferReason::OutOfOrder | DeferReason::Replay(_) | DeferReason::Scheduled => {
                DryRun::NotNext
            }
        };
    }
    // All other effects of the batch follow from its being applied.
    match (changes.resolve.is_empty(), changes.counts.replayed) {
        (true, _) => DryRun::NotNext,
        (false, 0) => DryRun::Ignored,
        (false, _) => DryRun::Applied {
            emitted: changes.emitted_sequences.iter().map(described).sum(),
        },
    }
}

fn described(change: &doorstep_store::EmittedSequence) -> usize {
    usize::try_from(change.after.saturating_sub(change.before)).unwrap_or(usize::MAX)
}
