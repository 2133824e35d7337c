//! Timers: events that the role schedules for itself.

use doorstep_event::Timestamp;

use super::{less, more};
use crate::{
    DeferredId, NewTimer,
    memory::data::{Data, DeferredRow},
};

impl Data {
    pub(super) fn schedule(&mut self, new: NewTimer, now: Timestamp) {
        self.counters.last_deferred += 1;
        let id = DeferredId(self.counters.last_deferred);
        let deferred = DeferredRow {
            due: Some(new.due),
            row: new.into_row(id, now),
        };
        more(&mut self.counters.usage.timers, deferred.bytes());
        self.scheduled.put(id, deferred);
    }

    /// Removes a timer if it exists.
    pub(super) fn remove_timer(&mut self, id: DeferredId) -> Option<DeferredRow> {
        let deferred = self.scheduled.remove(&id)?;
        less(&mut self.counters.usage.timers, deferred.bytes());
        Some(deferred)
    }

    /// Turns a timer into a deferred event under the same number.
    pub(super) fn defer_timer(&mut self, id: DeferredId) -> Option<DeferredRow> {
        let deferred = self.remove_timer(id)?;
        more(&mut self.counters.usage.deferred, deferred.bytes());
        Some(deferred)
    }
}
