//! Timers: events that the role schedules for itself.

use doorstep_event::Timestamp;

use super::{less, more};
use crate::{
    DeferredId, NewTimer,
    memory::data::{Data, Held},
};

impl Data {
    pub(super) fn schedule(&mut self, new: NewTimer, now: Timestamp) {
        self.counters.last_held += 1;
        let id = DeferredId(self.counters.last_held);
        let held = Held {
            due: Some(new.due),
            row: new.into_row(id, now),
        };
        more(&mut self.counters.usage.timers, held.bytes());
        self.scheduled.put(id, held);
    }

    /// Removes a timer if it exists.
    pub(super) fn remove_timer(&mut self, id: DeferredId) -> Option<Held> {
        let held = self.scheduled.remove(&id)?;
        less(&mut self.counters.usage.timers, held.bytes());
        Some(held)
    }

    /// Turns a timer into a deferred event under the same number.
    pub(super) fn defer_timer(&mut self, id: DeferredId) -> Option<Held> {
        let held = self.remove_timer(id)?;
        more(&mut self.counters.usage.deferred, held.bytes());
        Some(held)
    }
}
