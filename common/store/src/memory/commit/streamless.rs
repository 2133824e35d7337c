//! Dead letters that belong to no stream, within their bounds.

use std::collections::HashSet;

use super::{Conflict, less, more};
use crate::{
    CommitReceipt, DeadLetterId, NewStreamless, StreamlessBounds, memory::data::Data, overflow,
    size,
};

impl Data {
    pub(super) fn add_streamless(
        &mut self,
        new: NewStreamless,
        bounds: &StreamlessBounds,
        written: &mut CommitReceipt,
        known: &mut HashSet<DeadLetterId>,
    ) -> Result<(), Conflict> {
        let NewStreamless { row, seen } = new;
        let (id, kind, bytes) = (
            row.id.clone(),
            row.fingerprint.clone(),
            size::dead_letter(&row),
        );
        if self.dead_numbers.get(&id).is_some() {
            self.counters.tally.duplicates += 1;
            known.insert(id);
        } else {
            let of_kind = self.counters.kinds.get(&kind).copied().unwrap_or_default();
            if !bounds.has_room(of_kind, self.counters.streamless, bytes) {
                self.counters.overflowed += 1;
                written.overflowed += 1;
                // A value without a JSON form cannot come from a message.
                if let Ok(line) = overflow::line(self.counters.overflowed, &row) {
                    self.overflow_new.push(line);
                }
                known.insert(id);
                return Ok(());
            }
            self.add_dead(row);
            written.dead_lettered += 1;
            self.counters.tally.dead_letters += 1;
            more(&mut self.counters.streamless, bytes);
            more(self.counters.kinds.entry(kind.clone()).or_default(), bytes);
            self.streamless.put(id, (kind, bytes));
        }
        match seen {
            Some((source, id, time)) => self.see(source, id, time),
            None => Ok(()),
        }
    }

    pub(super) fn forget_streamless(&mut self, id: &DeadLetterId) {
        let Some((kind, bytes)) = self.streamless.remove(id) else {
            return;
        };
        less(&mut self.counters.streamless, bytes);
        if let Some(of_kind) = self.counters.kinds.get_mut(&kind) {
            less(of_kind, bytes);
            if of_kind.rows == 0 {
                self.counters.kinds.remove(&kind);
            }
        }
    }

    /// Appends the lines of the commit and drops the oldest beyond the bound.
    pub(super) fn append_overflow(&mut self, bounds: &StreamlessBounds) {
        let most = bounds.file_bytes.saturating_mul(u64::from(bounds.files));
        for line in self.overflow_new.drain(..) {
            self.overflow_bytes += line.len() as u64;
            self.overflow.push_back(line);
        }
        while self.overflow_bytes > most && self.overflow.len() > 1 {
            if let Some(line) = self.overflow.pop_front() {
                self.overflow_bytes -= line.len() as u64;
                self.counters.dropped += 1;
            }
        }
    }
}
