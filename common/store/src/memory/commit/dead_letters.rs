//! Writes and resolves dead letters.

use super::{Conflict, less, more};
use crate::{
    DeadLetter, DeadLetterEdit, DeadLetterId, DeadLetterStatus, Resolution, memory::data::Data,
    original_bodies::OriginalBodies, size,
};

impl Data {
    pub(super) fn resolve(
        &mut self,
        id: &DeadLetterId,
        expected: DeadLetterStatus,
        fate: Resolution,
        originals: &mut OriginalBodies,
    ) -> Result<(), Conflict> {
        let number = *self.dead_numbers.get(id).ok_or(Conflict)?;
        let mut row = self.dead.get(&number).ok_or(Conflict)?.clone();
        if row.status != expected {
            return Err(Conflict);
        }
        match fate {
            Resolution::Replaying => {
                row.status = DeadLetterStatus::Replaying;
                self.dead.put(number, row);
            }
            Resolution::Awaiting => {
                row.status = DeadLetterStatus::Awaiting;
                self.dead.put(number, row);
            }
            Resolution::Gone => {
                if row.is_edited() {
                    originals.remember(id, row.body.clone());
                }
                less(
                    &mut self.counters.usage.dead_letters,
                    size::dead_letter(&row),
                );
                self.dead.remove(&number);
                self.dead_numbers.remove(id);
                self.forget_streamless(id);
            }
        }
        Ok(())
    }

    pub(super) fn edit(&mut self, edit: &DeadLetterEdit) -> Result<(), Conflict> {
        let number = *self.dead_numbers.get(&edit.id).ok_or(Conflict)?;
        let mut row = self.dead.get(&number).ok_or(Conflict)?.clone();
        less(
            &mut self.counters.usage.dead_letters,
            size::dead_letter(&row),
        );
        let event = row.event.as_mut().ok_or(Conflict)?;
        if row.status != DeadLetterStatus::Open || event.data != edit.before {
            return Err(Conflict);
        }
        event.data = edit.after.clone();
        row.defect = None;
        more(
            &mut self.counters.usage.dead_letters,
            size::dead_letter(&row),
        );
        self.dead.put(number, row);
        Ok(())
    }

    /// Adds a dead letter unless it exists already. Returns true if it was added.
    pub(super) fn add_dead(&mut self, row: DeadLetter) -> bool {
        let number = self.counters.last_dead + 1;
        if !self.dead_numbers.insert(row.id.clone(), number) {
            return false;
        }
        self.counters.last_dead = number;
        more(
            &mut self.counters.usage.dead_letters,
            size::dead_letter(&row),
        );
        self.dead.put(number, row);
        true
    }
}
