//! Dead letters: made and settled.

use super::{Conflict, less, more};
use crate::{DeadFate, DeadId, DeadRow, DeadStatus, memory::data::Data, size};

impl Data {
    pub(super) fn settle(
        &mut self,
        id: &DeadId,
        expected: DeadStatus,
        fate: DeadFate,
    ) -> Result<(), Conflict> {
        let number = *self.dead_numbers.get(id).ok_or(Conflict)?;
        let mut row = self.dead.get(&number).ok_or(Conflict)?.clone();
        if row.status != expected {
            return Err(Conflict);
        }
        match fate {
            DeadFate::Replaying => {
                row.status = DeadStatus::Replaying;
                self.dead.put(number, row);
            }
            DeadFate::Gone => {
                less(&mut self.counters.usage.dead, size::dead(&row));
                self.dead.remove(&number);
                self.dead_numbers.remove(id);
            }
        }
        Ok(())
    }

    /// Adds a dead letter unless it is there already. Returns whether it was added.
    pub(super) fn add_dead(&mut self, row: DeadRow) -> bool {
        let number = self.counters.last_dead + 1;
        if !self.dead_numbers.insert(row.id.clone(), number) {
            return false;
        }
        self.counters.last_dead = number;
        more(&mut self.counters.usage.dead, size::dead(&row));
        self.dead.put(number, row);
        true
    }
}
