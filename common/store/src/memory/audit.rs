//! Lists the audit records of operators' actions, and the dead letters and gaps that await a decision, in memory.

use doorstep_event::{Sequence, StreamKey};

use super::data::Data;
use crate::{AuditFilter, AuditId, AuditPage, DeadLetterGroup, DeadLetterStatus};

impl Data {
    pub(super) fn audit(
        &self,
        filter: &AuditFilter,
        before: Option<AuditId>,
        limit: usize,
    ) -> AuditPage {
        let rows = self
            .audit
            .iter()
            .rev()
            .map(|(_, row)| row)
            .filter(|row| before.is_none_or(|before| row.id < before))
            .filter(|row| match filter {
                AuditFilter::All => true,
                AuditFilter::About(about) => row.entry.about == *about,
            })
            .take(limit)
            .cloned()
            .collect();
        AuditPage {
            rows,
            kept: self.counters.audit,
            forgotten: self.counters.audit_forgotten,
        }
    }

    pub(super) fn dead_letter_groups(&self, limit: usize) -> Vec<DeadLetterGroup> {
        let mut groups: Vec<DeadLetterGroup> = Vec::new();
        for (_, row) in self.dead.iter() {
            let open = u64::from(row.status == DeadLetterStatus::Open);
            let known = groups.iter_mut().find(|g| g.fingerprint == row.fingerprint);
            if let Some(group) = known {
                group.count += 1;
                group.open += open;
                group.first = group.first.min(row.since);
                group.last = group.last.max(row.since);
            } else {
                groups.push(DeadLetterGroup {
                    fingerprint: row.fingerprint.clone(),
                    count: 1,
                    open,
                    first: row.since,
                    last: row.since,
                    reason: row.reason.clone(),
                    kind: row.event.as_ref().map(|e| e.event_type.clone()),
                    example: row.id.clone(),
                    detail: row.detail.clone(),
                });
            }
        }
        groups.truncate(limit);
        groups
    }

    pub(super) fn deferred_sequences(
        &self,
        stream: &StreamKey,
        after: u64,
        limit: usize,
    ) -> Vec<Sequence> {
        let first = after.saturating_add(1);
        self.deferred_at
            .range((stream.clone(), first)..=(stream.clone(), u64::MAX))
            .filter_map(|((_, sequence), _)| Sequence::new(*sequence))
            .take(limit)
            .collect()
    }
}
