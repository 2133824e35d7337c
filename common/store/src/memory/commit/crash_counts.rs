//! Crash counts of poison candidates.

use doorstep_event::Timestamp;

use super::Conflict;
use crate::{CrashCountChange, memory::data::Data};

impl Data {
    pub(super) fn set_crash_count(
        &mut self,
        change: CrashCountChange,
        now: Timestamp,
    ) -> Result<(), Conflict> {
        let key = (change.source, change.id);
        if self.crash_counts.get(&key).map_or(0, |(count, _)| *count) != change.before {
            return Err(Conflict);
        }
        if change.after == 0 {
            self.crash_counts.remove(&key);
        } else {
            self.crash_counts.put(key, (change.after, now));
        }
        Ok(())
    }

    /// Prunes crash counts that were last raised too long ago. Returns their number.
    pub(in crate::memory) fn prune_crash_counts(
        &mut self,
        older_than: Timestamp,
        limit: usize,
    ) -> u64 {
        let mut old: Vec<_> = self
            .crash_counts
            .iter()
            .filter(|(_, (_, time))| *time < older_than)
            .map(|(key, (_, time))| (*time, key.clone()))
            .collect();
        old.sort();
        old.truncate(limit);
        for (_, key) in &old {
            self.crash_counts.remove(key);
        }
        self.counters.commits += u64::from(!old.is_empty());
        self.accept();
        old.len() as u64
    }
}
