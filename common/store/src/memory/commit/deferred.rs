//! Defers and releases events, and makes them due.

use doorstep_event::{StreamKey, Timestamp};

use super::{Conflict, less, more};
use crate::{
    DeferReason, DeferredEvent, DeferredId, DeferredRetry, EntityKey, NewDeferred, OutboxId,
    memory::data::{Data, DeferredRow, PendingMessage},
    size,
};

impl Data {
    pub(super) fn defer(&mut self, new: NewDeferred) -> Result<(), Conflict> {
        self.counters.last_deferred += 1;
        let id = DeferredId(self.counters.last_deferred);
        more(
            &mut self.counters.usage.deferred,
            size::deferred(&new.event, new.defect.as_deref()),
        );
        let deferred = DeferredRow {
            row: DeferredEvent {
                id,
                event: new.event,
                defect: new.defect,
                reason: new.reason,
                since: new.since,
                attempts: new.attempts,
            },
            due: new.due,
        };
        if let Some(place) = deferred.place() {
            let stream = self.streams.get(&place.0).cloned();
            let mut stream = stream.unwrap_or_else(|| self.new_stream(&place.0));
            stream.deferred += 1;
            self.streams.put(place.0.clone(), stream);
            if !self.deferred_at.insert(place, id) {
                return Err(Conflict);
            }
        }
        self.deferred.put(id, deferred);
        Ok(())
    }

    pub(super) fn release(&mut self, id: DeferredId) -> Option<()> {
        let Some(deferred) = self.deferred.remove(&id) else {
            return self.remove_timer(id).map(drop);
        };
        less(
            &mut self.counters.usage.deferred,
            size::deferred(&deferred.row.event, deferred.row.defect.as_deref()),
        );
        if let Some(place) = deferred.place() {
            self.deferred_at.remove(&place);
            if let Some(mut stream) = self.streams.get(&place.0).cloned() {
                stream.deferred = stream.deferred.saturating_sub(1);
                self.streams.put(place.0, stream);
            }
        }
        Some(())
    }

    pub(super) fn reschedule(&mut self, retry: DeferredRetry) -> Result<(), Conflict> {
        let mut deferred = match self.deferred.get(&retry.id) {
            Some(deferred) => deferred.clone(),
            None => self.defer_timer(retry.id).ok_or(Conflict)?,
        };
        deferred.row.reason = retry.reason;
        deferred.row.attempts = retry.attempts;
        deferred.row.since = retry.since;
        deferred.due = retry.due;
        self.deferred.put(retry.id, deferred);
        Ok(())
    }

    /// Drops the events deferred at or below the cursor and makes the next one due.
    pub(super) fn advance_cursor(&mut self, key: &StreamKey, now: Timestamp) {
        let Some(stream) = self.streams.get(key).cloned() else {
            return;
        };
        if stream.deferred == 0 {
            return;
        }
        let passed: Vec<DeferredId> = self
            .deferred_at
            .range((key.clone(), 0)..=(key.clone(), stream.cursor))
            .map(|(_, id)| *id)
            .collect();
        for id in passed {
            self.release(id);
        }
        if stream.blocked.is_none() {
            self.release_next(key, stream.cursor, now);
        }
    }

    /// Makes the event right above the cursor due, unless it has a due time already. Returns true if it did.
    fn release_next(&mut self, key: &StreamKey, cursor: u64, now: Timestamp) -> bool {
        let Some(next) = cursor.checked_add(1) else {
            return false;
        };
        let Some(id) = self.deferred_at.get(&(key.clone(), next)).copied() else {
            return false;
        };
        let Some(deferred) = self.deferred.get(&id).filter(|h| h.due.is_none()) else {
            return false;
        };
        let due = Some(now);
        let deferred = DeferredRow {
            due,
            ..deferred.clone()
        };
        self.deferred.put(id, deferred);
        true
    }

    /// Makes due the events that wait for an entity that has changed.
    pub(super) fn wake_waiting(&mut self, entity: &EntityKey, now: Timestamp) {
        let waiting: Vec<DeferredId> = self
            .deferred
            .iter()
            .filter(|(_, deferred)| {
                matches!(&deferred.row.reason, DeferReason::WaitingFor(key) if key == entity)
                    && deferred.due.is_none_or(|due| due > now)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if let Some(deferred) = self.deferred.get(&id).cloned() {
                let due = Some(now);
                self.deferred.put(id, DeferredRow { due, ..deferred });
            }
        }
    }

    /// Makes due the deferred events and outbox rows due after `beyond`. Returns their number.
    pub(in crate::memory) fn clamp_due_times(&mut self, now: Timestamp, beyond: Timestamp) -> u64 {
        let late: Vec<DeferredId> = self
            .deferred
            .iter()
            .filter(|(_, deferred)| deferred.due.is_some_and(|due| due > beyond))
            .map(|(id, _)| *id)
            .collect();
        for id in &late {
            if let Some(deferred) = self.deferred.get(id).cloned() {
                let due = Some(now);
                self.deferred.put(*id, DeferredRow { due, ..deferred });
            }
        }
        let mut brought = late.len() as u64;
        let late: Vec<OutboxId> = self
            .outbox
            .iter()
            .filter(|(_, row)| row.due.is_some_and(|due| due > beyond))
            .map(|(id, _)| *id)
            .collect();
        brought += late.len() as u64;
        for id in late {
            if let Some(row) = self.outbox.get(&id).cloned() {
                let due = Some(now);
                self.outbox.put(id, PendingMessage { due, ..row });
            }
        }
        self.counters.commits += u64::from(brought > 0);
        self.accept();
        brought
    }

    /// Makes due the events that should have been due already. Returns their number.
    pub(in crate::memory) fn repair_due(&mut self, now: Timestamp) -> u64 {
        let streams: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.blocked.is_none() && stream.deferred > 0)
            .map(|(key, stream)| (key.clone(), stream.cursor))
            .collect();
        let mut made_due = 0;
        for (key, cursor) in streams {
            made_due += u64::from(self.release_next(&key, cursor, now));
        }
        self.counters.commits += u64::from(made_due > 0);
        self.accept();
        made_due
    }
}
