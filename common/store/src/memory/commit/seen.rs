//! Seen ids and emitted sequences.

use doorstep_event::{EventId, Source, Timestamp};

use super::{Conflict, less, more};
use crate::{EmittedSequence, memory::data::Data, size};

impl Data {
    pub(super) fn see(
        &mut self,
        source: Source,
        id: EventId,
        time: Timestamp,
    ) -> Result<(), Conflict> {
        let bytes = size::seen(&source, &id);
        if !self.seen.insert((source, id), time) {
            return Err(Conflict);
        }
        more(&mut self.counters.usage.seen, bytes);
        Ok(())
    }

    /// Records the last sequence emitted on a subject.
    pub(super) fn number(&mut self, change: EmittedSequence) -> Result<(), Conflict> {
        if self
            .emitted_sequences
            .get(&change.subject)
            .copied()
            .unwrap_or(0)
            != change.before
        {
            return Err(Conflict);
        }
        self.emitted_sequences.put(change.subject, change.after);
        Ok(())
    }

    /// Prunes ids whose retention has ended. Returns their number.
    pub(in crate::memory) fn prune_seen(&mut self, older_than: Timestamp, limit: usize) -> u64 {
        let mut old: Vec<_> = self
            .seen
            .iter()
            .filter(|(_, time)| **time < older_than)
            .map(|(key, time)| (*time, key.clone()))
            .collect();
        old.sort();
        old.truncate(limit);
        let latest = old.last().map(|(time, _)| *time);
        self.counters.pruned_to.seen = self.counters.pruned_to.seen.max(latest);
        for (_, key) in &old {
            self.seen.remove(key);
            less(&mut self.counters.usage.seen, size::seen(&key.0, &key.1));
        }
        self.counters.commits += u64::from(!old.is_empty());
        self.accept();
        old.len() as u64
    }
}
