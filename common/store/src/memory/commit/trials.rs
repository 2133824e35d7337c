//! Trials of events that a process may have died of.

use doorstep_event::Timestamp;

use super::Conflict;
use crate::{CrashCountChange, memory::data::Data};

impl Data {
    pub(super) fn try_event(
        &mut self,
        change: CrashCountChange,
        now: Timestamp,
    ) -> Result<(), Conflict> {
        let key = (change.source, change.id);
        if self.trials.get(&key).map_or(0, |(count, _)| *count) != change.before {
            return Err(Conflict);
        }
        if change.after == 0 {
            self.trials.remove(&key);
        } else {
            self.trials.put(key, (change.after, now));
        }
        Ok(())
    }

    /// Forgets trials that were last counted too long ago. Returns how many.
    pub(in crate::memory) fn prune_trials(&mut self, older_than: Timestamp, limit: usize) -> u64 {
        let mut old: Vec<_> = self
            .trials
            .iter()
            .filter(|(_, (_, time))| *time < older_than)
            .map(|(key, (_, time))| (*time, key.clone()))
            .collect();
        old.sort();
        old.truncate(limit);
        for (_, key) in &old {
            self.trials.remove(key);
        }
        self.counters.commits += u64::from(!old.is_empty());
        self.accept();
        old.len() as u64
    }
}
