//! Replies to commands.

use doorstep_event::Timestamp;

use super::{Conflict, less, more};
use crate::{NewReply, memory::data::Data, size};

impl Data {
    pub(super) fn add_reply(&mut self, new: NewReply) -> Result<(), Conflict> {
        let bytes = size::reply(&new);
        let key = (new.caller.clone(), new.id.clone());
        if !self.replies.insert(key, new) {
            return Err(Conflict);
        }
        more(&mut self.counters.usage.replies, bytes);
        Ok(())
    }

    /// Prunes replies whose retention has ended. Returns their number.
    pub(in crate::memory) fn prune_replies(&mut self, older_than: Timestamp, limit: usize) -> u64 {
        let mut old: Vec<_> = self
            .replies
            .iter()
            .filter(|(_, reply)| reply.time < older_than)
            .map(|(key, reply)| (reply.time, key.clone()))
            .collect();
        old.sort();
        old.truncate(limit);
        let latest = old.last().map(|(time, _)| *time);
        self.counters.pruned_to.replies = self.counters.pruned_to.replies.max(latest);
        for (_, key) in &old {
            if let Some(reply) = self.replies.remove(key) {
                less(&mut self.counters.usage.replies, size::reply(&reply));
            }
        }
        self.counters.commits += u64::from(!old.is_empty());
        self.accept();
        old.len() as u64
    }
}
