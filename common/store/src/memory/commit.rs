//! Writes a batch to the store in memory, completely or not at all.

mod audit;
mod crash_counts;
mod dead_letters;
mod deferred;
mod epochs;
mod outbox;
mod replies;
mod rows;
mod seen;
mod source_owners;
mod streamless;
mod tasks;
mod timers;

use std::collections::HashSet;

use doorstep_event::Timestamp;

use super::data::Data;
use crate::{
    Commit, CommitReceipt, EntityChange, StreamChange, TableUsage, WriteSet,
    original_bodies::OriginalBodies,
};

/// A row that the batch has read was changed by another writer.
pub(super) struct Conflict;

impl Data {
    pub(super) fn commit(&mut self, changes: WriteSet) -> Commit {
        let before = self.counters.clone();
        match self.write(changes) {
            Ok(written) => {
                self.accept();
                Commit::Written(written)
            }
            Err(Conflict) => {
                self.undo();
                self.counters = before;
                Commit::Conflict
            }
        }
    }

    pub(super) fn accept(&mut self) {
        self.streams.accept();
        self.entities.accept();
        self.deferred.accept();
        self.scheduled.accept();
        self.deferred_at.accept();
        self.dead.accept();
        self.dead_numbers.accept();
        self.streamless.accept();
        self.seen.accept();
        self.crash_counts.accept();
        self.emitted_sequences.accept();
        self.owners.accept();
        self.replies.accept();
        self.outbox.accept();
        self.own_epochs.accept();
        self.source_epochs.accept();
        self.restored_sources.accept();
        self.audit.accept();
        self.tasks.accept();
        self.task_numbers.accept();
        self.task_holders.accept();
    }

    fn undo(&mut self) {
        self.streams.undo();
        self.entities.undo();
        self.deferred.undo();
        self.scheduled.undo();
        self.deferred_at.undo();
        self.dead.undo();
        self.dead_numbers.undo();
        self.streamless.undo();
        self.overflow_new.clear();
        self.seen.undo();
        self.crash_counts.undo();
        self.emitted_sequences.undo();
        self.owners.undo();
        self.replies.undo();
        self.outbox.undo();
        self.own_epochs.undo();
        self.source_epochs.undo();
        self.restored_sources.undo();
        self.audit.undo();
        self.tasks.undo();
        self.task_numbers.undo();
        self.task_holders.undo();
    }

    /// Writes the parts of a commit in an order that matters where they meet. Releases make room for new deferrals.
    /// After all deferrals, cursors drop the events that they have passed, and waiting events become due.
    fn write(&mut self, changes: WriteSet) -> Result<CommitReceipt, Conflict> {
        if changes.rests_on_pruning() && self.counters.pruned_to != changes.pruned_to {
            return Err(Conflict);
        }
        let now = changes.now;
        let writes = changes.writes();
        let mut written = CommitReceipt::default();
        if let Some(random) = changes.begin_epoch {
            written.epoch = Some(self.begin_epoch(random, now)?);
        }
        if let Some(change) = &changes.restored {
            self.mark_restored(change, now);
        }
        for change in &changes.streams {
            written.streams.push(self.write_stream(change)?);
        }
        written.entities = self.write_entities(&changes.entities)?;
        for change in changes.owners {
            self.own(change)?;
        }
        for id in &changes.release {
            self.release(*id).ok_or(Conflict)?;
        }
        for retry in changes.reschedule {
            self.reschedule(retry)?;
        }
        let mut originals = OriginalBodies::default();
        for (id, expected, fate) in &changes.resolve {
            self.resolve(id, *expected, *fate, &mut originals)?;
        }
        for edit in &changes.edit {
            self.edit(edit)?;
        }
        for new in changes.dead_letters {
            if !self.add_dead(originals.restore(new.row)) {
                return Err(Conflict);
            }
        }
        let mut known = HashSet::new();
        for new in changes.dead_letters_if_absent {
            let id = new.row.id.clone();
            if self.add_dead(originals.restore(new.row)) {
                written.dead_lettered += 1;
                self.counters.tally.dead_letters += 1;
            } else {
                self.counters.tally.duplicates += 1;
                known.insert(id);
            }
        }
        for new in changes.streamless {
            self.add_streamless(new, &changes.streamless_bounds, &mut written, &mut known)?;
        }
        self.change_tasks(&changes.tasks, now)?;
        for new in changes.defer {
            self.defer(new)?;
        }
        self.release_waiting(&changes.streams, &changes.entities, now);
        self.remove_entities(&changes.removed_entities, now)?;
        for learned in changes.learned {
            self.learn(learned, now);
        }
        for change in changes.restored_sources {
            self.change_restored_source(change, &known, now);
        }
        for (source, id, time) in changes.seen {
            self.see(source, id, time)?;
        }
        for change in changes.crash_counts {
            self.set_crash_count(change, now)?;
        }
        for change in changes.emitted_sequences {
            self.number(change)?;
        }
        for new in changes.replies {
            self.add_reply(new)?;
        }
        for new in changes.timers {
            self.schedule(new, now);
        }
        for id in &changes.published {
            self.mark_published(*id);
        }
        for retry in &changes.postponed {
            self.postpone(retry);
        }
        for new in changes.outbox {
            if !new.kind.copies_one_of(&known) {
                self.enqueue(new, now);
            }
        }
        for entry in changes.audit {
            self.record(entry, now, changes.audit_bounds.0);
        }
        self.append_overflow(&changes.streamless_bounds);
        self.counters.commits += u64::from(writes);
        self.counters.tally.add(&changes.counts);
        written.usage = self.counters.usage;
        Ok(written)
    }

    /// Drops the events that cursors have passed, and makes those due that waited for these streams and entities.
    fn release_waiting(
        &mut self,
        streams: &[StreamChange],
        entities: &[EntityChange],
        now: Timestamp,
    ) {
        for change in streams {
            if change.after.is_some() {
                self.advance_cursor(&change.key, now);
            }
        }
        for change in entities {
            if change.after.is_some() {
                self.wake_waiting(&change.key, now);
            }
        }
    }
}

pub(super) fn more(usage: &mut TableUsage, bytes: u64) {
    usage.rows += 1;
    usage.bytes += bytes;
}

pub(super) fn less(usage: &mut TableUsage, bytes: u64) {
    usage.rows = usage.rows.saturating_sub(1);
    usage.bytes = usage.bytes.saturating_sub(bytes);
}
