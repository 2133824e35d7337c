//! Reading from the store in memory.

use std::{collections::BTreeMap, ops::Bound};

use doorstep_event::{Source, StreamKey, Timestamp};

use super::data::Data;
use crate::{
    DeadLetter, DeadLetterFilter, DeadLetterId, DeferredEvent, EntityKey, EntityRow, OutboxRow,
    ReadResult, ReadSet, ReplyRow, SequenceGap, SourceRow, StoreUsage, StreamRow, Streamless,
    StreamlessKind, Summary, TableUsage,
    rows::{age_millis, ahead_of, retry_share},
    size::ByteBudget,
    tasks::table::TaskTable,
};

impl Data {
    pub(super) fn load(&self, ask: &ReadSet) -> ReadResult {
        let mut loaded = ReadResult::default();
        let mut bytes = ByteBudget::new(ask.deferred_bytes);
        for key in &ask.streams {
            let row = self.streams.get(key).cloned();
            let row = row.unwrap_or_else(|| StreamRow::absent(key.clone()));
            let first = row.cursor.saturating_add(1);
            let next = (first..)
                .take(ask.deferred_per_stream)
                .map_while(|n| self.deferred_at.get(&(key.clone(), n)))
                .filter_map(|id| self.deferred.get(id))
                .take_while(|deferred| bytes.takes(deferred.bytes()))
                .map(|deferred| deferred.row.clone());
            loaded.deferred.extend(next);
            loaded.streams.push(row);
        }
        for (key, sequence) in &ask.deferred_at {
            let id = self.deferred_at.get(&(key.clone(), sequence.get()));
            let deferred = id.and_then(|id| self.deferred.get(id));
            loaded.deferred_at.push(
                deferred.map(|deferred| (deferred.row.event.id.clone(), deferred.row.event.epoch)),
            );
        }
        loaded.entities = self.read_entities(&ask.entities);
        for key in &ask.seen {
            loaded.seen.push(self.seen.get(key).is_some());
        }
        for key in &ask.crash_counts {
            let count = self.crash_counts.get(key).map_or(0, |(count, _)| *count);
            loaded.crash_counts.push(count);
        }
        for subject in &ask.emitted_sequences {
            let last = self.emitted_sequences.get(subject).copied();
            loaded.emitted_sequences.push(last.unwrap_or(0));
        }
        for source in &ask.epochs {
            let epochs = self.source_epochs.get(source).cloned();
            loaded.epochs.push(epochs.unwrap_or_default());
        }
        for source in &ask.owners {
            let row = self.owners.get(source).cloned();
            loaded.owners.push(row.unwrap_or_default());
        }
        for key in &ask.replies {
            let reply = self.replies.get(key).map(|reply| ReplyRow {
                hash: reply.hash,
                reply: reply.reply.clone(),
            });
            loaded.replies.push(reply);
        }
        for (id, token) in &ask.leases {
            let Ok(row) = self.find(id);
            let is_held = row.is_some_and(|row| row.is_leased_under(*token));
            loaded.leases.push(is_held);
        }
        if !ask.seen.is_empty() || !ask.replies.is_empty() {
            loaded.pruned_to = self.counters.pruned_to;
        }
        loaded
    }

    pub(super) fn read_entities(&self, keys: &[EntityKey]) -> Vec<EntityRow> {
        let absent = |key: &EntityKey| EntityRow::absent(key.clone());
        keys.iter()
            .map(|key| {
                self.entities
                    .get(key)
                    .cloned()
                    .unwrap_or_else(|| absent(key))
            })
            .collect()
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize, max_bytes: u64) -> Vec<DeferredEvent> {
        let mut due: Vec<_> = self
            .deferred
            .iter()
            .chain(self.scheduled.iter())
            .filter_map(|(id, deferred)| Some((deferred.due?, *id, deferred)))
            .filter(|(due, ..)| *due <= now)
            .collect();
        due.sort_by_key(|(due, id, _)| (*due, *id));
        let mut bytes = ByteBudget::new(max_bytes);
        due.into_iter()
            .take(limit)
            .enumerate()
            .take_while(|(index, (_, _, deferred))| bytes.takes(deferred.bytes()) || *index == 0)
            .map(|(_, (_, _, deferred))| deferred.row.clone())
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let all = self.deferred.iter().chain(self.scheduled.iter());
        all.filter_map(|(_, deferred)| deferred.due).min()
    }

    pub(super) fn outbox(&self, now: Timestamp, limit: usize) -> Vec<OutboxRow> {
        let due = || self.outbox.iter();
        let mut retried: Vec<_> = due()
            .filter(|(_, pending)| pending.due.is_some_and(|due| due <= now))
            .take(limit)
            .collect();
        let mut untried: Vec<_> = due()
            .filter(|(_, pending)| pending.due.is_none())
            .take(limit)
            .collect();
        retried.truncate(retry_share(limit, retried.len(), untried.len()));
        untried.truncate(limit - retried.len());
        untried.extend(retried);
        untried.sort_by_key(|(id, _)| **id);
        untried
            .into_iter()
            .map(|(_, pending)| pending.row.clone())
            .collect()
    }

    pub(super) fn sources(&self, after: Option<Source>, limit: usize) -> Vec<SourceRow> {
        let mut rows: BTreeMap<&Source, SourceRow> = BTreeMap::new();
        let known = self.owners.iter().map(|(source, row)| (source, Some(row)));
        let streams = self.streams.iter().map(|(key, _)| (&key.source, None));
        for (source, owned) in known.chain(streams) {
            let row = rows.entry(source).or_insert_with(|| SourceRow {
                source: source.clone(),
                owner: None,
                streams: 0,
            });
            match owned {
                Some(owned) => row.owner.clone_from(&owned.owner),
                None => row.streams += 1,
            }
        }
        rows.into_values()
            .filter(|row| after.as_ref().is_none_or(|after| row.source > *after))
            .take(limit)
            .collect()
    }

    pub(super) fn streamless(&self, least: TableUsage, limit: usize) -> Streamless {
        let mut kinds: Vec<_> = self
            .counters
            .kinds
            .iter()
            .filter(|(_, usage)| usage.rows >= least.rows || usage.bytes >= least.bytes)
            .map(|(fingerprint, usage)| StreamlessKind {
                fingerprint: fingerprint.clone(),
                reason: self
                    .dead
                    .iter()
                    .find(|(_, row)| row.fingerprint == *fingerprint)
                    .map(|(_, row)| row.reason.clone())
                    .unwrap_or_default(),
                usage: *usage,
            })
            .collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.usage.rows));
        kinds.truncate(limit);
        Streamless {
            usage: self.counters.streamless,
            overflowed: self.counters.overflowed,
            dropped: self.counters.dropped,
            kinds,
        }
    }

    pub(super) fn usage(&self) -> StoreUsage {
        self.counters.usage
    }

    pub(super) fn entities(&self, after: Option<EntityKey>, limit: usize) -> Vec<EntityRow> {
        self.entities
            .range((
                after.map_or(Bound::Unbounded, Bound::Excluded),
                Bound::Unbounded,
            ))
            .filter(|(_, entity)| entity.state.is_some())
            .take(limit)
            .map(|(_, entity)| entity.clone())
            .collect()
    }

    pub(super) fn dead(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&DeadLetterId>,
        limit: usize,
    ) -> Vec<DeadLetter> {
        let after = after.and_then(|id| self.dead_numbers.get(id)).copied();
        self.dead
            .range((
                after.map_or(Bound::Unbounded, Bound::Excluded),
                Bound::Unbounded,
            ))
            .map(|(_, row)| row)
            .filter(|row| match filter {
                DeadLetterFilter::All => true,
                DeadLetterFilter::Id(id) => row.id == *id,
                DeadLetterFilter::Fingerprint(fingerprint) => row.fingerprint == *fingerprint,
                DeadLetterFilter::Letter(letter) => row
                    .id
                    .0
                    .rsplit_once('-')
                    .is_some_and(|(of, _)| of == letter),
            })
            .take(limit)
            .cloned()
            .collect()
    }

    /// Returns the gaps whose age the filter accepts, those of the oldest streams first.
    pub(super) fn gaps(
        &self,
        is_old: impl Fn(Timestamp) -> bool,
        limit: usize,
    ) -> Vec<SequenceGap> {
        let mut gaps: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.blocked.is_none() && stream.deferred > 0)
            .filter_map(|(key, stream)| Some((stream.row?.0, self.gap(key, stream)?)))
            .filter(|(_, gap)| is_old(gap.since))
            .collect();
        gaps.sort_by_key(|(row, _)| *row);
        gaps.into_iter().take(limit).map(|(_, gap)| gap).collect()
    }

    fn gap(&self, key: &StreamKey, stream: &StreamRow) -> Option<SequenceGap> {
        let from = stream.cursor.checked_add(1)?;
        let deferred = || {
            self.deferred_at
                .range((key.clone(), from)..=(key.clone(), u64::MAX))
        };
        let (first, _) = deferred().next()?;
        if first.1 == from {
            return None;
        }
        let since = deferred().filter_map(|(_, id)| Some(self.deferred.get(id)?.row.since));
        Some(SequenceGap {
            stream: key.clone(),
            from,
            to: first.1 - 1,
            deferred: stream.deferred,
            since: since.min()?,
        })
    }

    pub(super) fn summary(&self, now: Timestamp) -> Summary {
        let oldest_outbox = self
            .outbox
            .iter()
            .map(|(_, pending)| pending.row.since)
            .next();
        let oldest_held = self
            .deferred
            .iter()
            .map(|(_, deferred)| deferred.row.since)
            .min();
        let oldest_dead = self.dead.iter().map(|(_, dead)| dead.since).next();
        let ahead = ahead_of(now);
        let held_ahead = self.deferred.iter().filter(|(_, h)| h.row.since > ahead);
        let blocked = self.streams.iter().filter(|(_, s)| s.blocked.is_some());
        Summary {
            entities: self.counters.entities_with_state,
            streams: self.streams.len() as u64,
            blocked: blocked.count() as u64,
            gaps: self.gaps(|_| true, usize::MAX).len() as u64,
            held_due: self
                .deferred
                .iter()
                .filter(|(_, h)| h.due.is_some())
                .count() as u64,
            scheduled_due: self
                .scheduled
                .iter()
                .filter(|(_, s)| s.due.is_some_and(|due| due <= now))
                .count() as u64,
            usage: self.counters.usage,
            tally: self.counters.tally,
            commits: self.counters.commits,
            tasks: self.task_kinds(now),
            oldest_outbox_ms: oldest_outbox.map(|since| age_millis(since, now)),
            oldest_held_ms: oldest_held.map(|since| age_millis(since, now)),
            oldest_dead_ms: oldest_dead.map(|since| age_millis(since, now)),
            restored: self.counters.restored.clone(),
            oldest_outbox,
            oldest_deferred: oldest_held,
            oldest_dead,
            dated_ahead: held_ahead.count() as u64
                + u64::from(oldest_outbox.is_some_and(|since| since > ahead)),
            log_bytes: None,
            restored_sources: self.restored_sources(),
        }
    }

    pub(super) fn streams(&self, after: Option<StreamKey>, limit: usize) -> Vec<StreamRow> {
        self.streams
            .range((
                after.map_or(Bound::Unbounded, Bound::Excluded),
                Bound::Unbounded,
            ))
            .take(limit)
            .map(|(_, stream)| stream.clone())
            .collect()
    }
}
