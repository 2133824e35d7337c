//! Adds, deletes and postpones outbox rows.

use doorstep_event::Timestamp;

use super::{less, more};
use crate::{
    NewOutbox, OutboxId, OutboxKind, OutboxRetry, OutboxRow,
    memory::data::{Data, PendingMessage},
    size,
};

impl Data {
    /// A missing row was published by another relay.
    pub(super) fn mark_published(&mut self, id: OutboxId) {
        if let Some(pending) = self.outbox.remove(&id) {
            let bytes = size::outbox(&pending.row.kind);
            less(&mut self.counters.usage.outbox, bytes);
        }
    }

    pub(super) fn postpone(&mut self, retry: &OutboxRetry) {
        if let Some(mut pending) = self.outbox.get(&retry.id).cloned() {
            pending.row.attempts = pending.row.attempts.saturating_add(1);
            pending.due = Some(retry.due);
            self.outbox.put(retry.id, pending);
        }
    }

    pub(super) fn enqueue(&mut self, mut new: NewOutbox, now: Timestamp) {
        if let OutboxKind::Event(event) = &mut new.kind
            && event.epoch.is_none()
        {
            event.epoch = event.sequence.and(self.counters.epoch);
        }
        self.counters.last_outbox += 1;
        let id = OutboxId(self.counters.last_outbox);
        more(&mut self.counters.usage.outbox, size::outbox(&new.kind));
        let row = OutboxRow {
            id,
            kind: new.kind,
            attempts: 0,
            since: now,
        };
        self.outbox.put(id, PendingMessage { row, due: None });
    }
}
