//! Events that the role has scheduled to itself.

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
        more(&mut self.counters.usage.scheduled, held.bytes());
        self.scheduled.put(id, held);
    }

    /// Takes one out, if it is there.
    pub(super) fn unschedule(&mut self, id: DeferredId) -> Option<Held> {
        let held = self.scheduled.remove(&id)?;
        less(&mut self.counters.usage.scheduled, held.bytes());
        Some(held)
    }

    /// From now on it is held like any other, under the number that it has.
    pub(super) fn hold_scheduled(&mut self, id: DeferredId) -> Option<Held> {
        let held = self.unschedule(id)?;
        more(&mut self.counters.usage.held, held.bytes());
        Some(held)
    }
}
