//! Writes a batch, completely or not at all.

mod audit;
mod crash_counts;
mod dead_letters;
mod deferred;
mod entities;
mod epochs;
mod outbox;
mod replies;
mod source_owners;
mod streamless;
mod streams;
mod tasks;
mod timers;

use std::collections::{HashMap, HashSet};

use doorstep_event::{EventId, Source, Timestamp};
use rusqlite::{Params, Row, Transaction, params};

use super::{
    OldOutbox,
    columns::{nanos, signed},
    db::{Db, TxEnd},
    error::SqliteError,
    overflow::OverflowFile,
    sources::Sources,
    totals::Totals,
};
use crate::{
    Commit, CommitReceipt, DeadLetterId, EmittedSequence, TableUsage, WriteSet,
    original_bodies::OriginalBodies, size,
};

pub(super) fn commit(db: &mut Db, changes: &WriteSet) -> Result<Commit, SqliteError> {
    changes.check().map_err(SqliteError::Unusable)?;
    let generation = db.generation;
    let overflow = OverflowFile::beside(&db.place.file);
    let written = db.write(|tx, sources| {
        let totals = Totals::read(tx)?;
        totals.check_generation(generation)?;
        if changes.rests_on_pruning() && totals.pruned_to != changes.pruned_to {
            return Err(SqliteError::Conflict);
        }
        let mut writer = Writer {
            tx,
            sources,
            totals,
            now: changes.now,
            deferred_more: HashMap::new(),
            originals: OriginalBodies::default(),
            known_dead_letters: HashSet::new(),
            overflowed: 0,
        };
        let written = writer.write(changes, &overflow)?;
        if changes.writes() {
            writer.totals.commits += 1;
            writer.totals.write(tx)?;
        }
        Ok(TxEnd::Commit(written))
    });
    match written {
        Ok(written) => Ok(Commit::Written(written)),
        Err(SqliteError::Conflict) => Ok(Commit::Conflict),
        Err(stop) => Err(stop),
    }
}

/// Gives the store a new source and writes the audit records of `changes` in the same transaction.
pub(super) fn mint(
    db: &mut Db,
    source: &Source,
    outbox: OldOutbox,
    changes: &WriteSet,
) -> Result<(), SqliteError> {
    let overflow = OverflowFile::beside(&db.place.file);
    db.write(|tx, sources| {
        let totals = Totals::read(tx)?;
        let rows = totals.usage.outbox.rows;
        if rows > 0 && outbox == OldOutbox::MustBeEmpty {
            return Err(SqliteError::Unusable(format!(
                "its outbox has {rows} rows under the old source; repeat the command with --keep-outbox, and the role publishes them \
                 unchanged before any others: consumers drop duplicates"
            )));
        }
        let mut writer = Writer {
            tx,
            sources,
            totals,
            now: changes.now,
            deferred_more: HashMap::new(),
            originals: OriginalBodies::default(),
            known_dead_letters: HashSet::new(),
            overflowed: 0,
        };
        writer.write(changes, &overflow)?;
        writer.totals.commits += 1;
        writer.totals.write(tx)?;
        tx.execute(
            "UPDATE store SET source = ?1, generation = generation + 1",
            [source.as_str()],
        )?;
        tx.execute("DELETE FROM outgoing", [])?;
        Ok(TxEnd::Commit(()))
    })
}

struct Writer<'a> {
    tx: &'a Transaction<'a>,
    sources: &'a mut Sources,
    /// The totals after the batch.
    totals: Totals,
    now: Timestamp,
    /// The change in the number of deferred events of each stream.
    deferred_more: HashMap<i64, i64>,
    originals: OriginalBodies,
    /// Dead letters of the batch that existed already.
    known_dead_letters: HashSet<DeadLetterId>,
    /// The number of dead letters of the batch that go to the overflow file.
    overflowed: u64,
}

impl Writer<'_> {
    /// Writes the parts of a batch in an order that matters where they meet. Streams exist before events are deferred
    /// in them, and releases make room for new deferrals. After all deferrals, cursors drop the events that they have
    /// passed, and waiting events become due.
    fn write(
        &mut self,
        changes: &WriteSet,
        overflow: &OverflowFile,
    ) -> Result<CommitReceipt, SqliteError> {
        let epoch = match changes.begin_epoch {
            Some(random) => Some(self.begin_epoch(random)?),
            None => None,
        };
        if let Some(change) = &changes.restored {
            self.mark_restored(change)?;
        }
        let ids = self.create_streams(&changes.streams)?;
        let entities = self.write_entities(&changes.entities)?;
        self.remove_entities(&changes.removed_entities)?;
        for change in &changes.owners {
            self.own(change)?;
        }
        self.release(&changes.release)?;
        self.reschedule(&changes.reschedule)?;
        self.resolve(&changes.resolve)?;
        self.edit(&changes.edit)?;
        self.add_dead(&changes.dead_letters)?;
        let mut dead_lettered = self.add_dead_if_absent(&changes.dead_letters_if_absent)?;
        let mut streamless =
            self.add_streamless(&changes.streamless, &changes.streamless_bounds)?;
        dead_lettered += streamless.kept;
        self.change_tasks(&changes.tasks)?;
        self.defer(&changes.defer, &changes.streams, &ids)?;
        let streams = self.write_streams(&changes.streams, &ids)?;
        self.wake(changes)?;
        for learned in &changes.learned {
            self.learn(learned)?;
        }
        for change in &changes.restored_sources {
            self.change_restored_source(change)?;
        }
        for (source, id, time) in &changes.seen {
            self.see(source, id, *time)?;
        }
        for change in &changes.crash_counts {
            self.set_crash_count(change)?;
        }
        for change in &changes.emitted_sequences {
            self.number(change)?;
        }
        for new in &changes.replies {
            self.add_reply(new)?;
        }
        for new in &changes.timers {
            self.schedule(new)?;
        }
        self.mark_published(&changes.published)?;
        self.postpone(&changes.postponed)?;
        self.enqueue(&changes.outbox)?;
        self.record(&changes.audit, changes.audit_bounds.0)?;
        self.totals.tally.add(&changes.counts);
        // Last, since no later step can be a conflict.
        self.append(&mut streamless, overflow, &changes.streamless_bounds)?;
        Ok(CommitReceipt {
            streams,
            entities,
            usage: self.totals.usage,
            dead_lettered,
            overflowed: self.overflowed,
            epoch,
        })
    }

    /// Executes a statement, and returns the number of rows that it changed.
    fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.tx.prepare_cached(sql)?.execute(params)
    }

    /// Executes a statement that changes exactly one row; anything else is a conflict.
    fn execute_one(&self, sql: &str, params: impl Params) -> Result<(), SqliteError> {
        one_or_conflict(self.execute(sql, params)?)
    }

    /// Returns whether the query finds a row.
    fn exists(&self, sql: &str, params: impl Params) -> rusqlite::Result<bool> {
        self.tx.prepare_cached(sql)?.exists(params)
    }

    /// Reads the only row of a query.
    fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.tx.prepare_cached(sql)?.query_row(params, read)
    }

    fn see(&mut self, source: &Source, id: &EventId, time: Timestamp) -> Result<(), SqliteError> {
        let number = self.sources.find_or_add(self.tx, source)?;
        self.execute_one(
            "INSERT INTO seen(source_id, event_id, time) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![number, id.as_str(), nanos(time)],
        )?;
        more(&mut self.totals.usage.seen, size::seen(source, id));
        Ok(())
    }

    /// Records the last sequence emitted on a subject.
    fn number(&mut self, change: &EmittedSequence) -> Result<(), SqliteError> {
        let subject = change.subject.as_str();
        let (before, after) = (signed(change.before), signed(change.after));
        let moved = if change.before == 0 {
            self.execute(
                "INSERT INTO outgoing(subject, last) VALUES (?1, ?2)
                     ON CONFLICT(subject) DO UPDATE SET last = excluded.last WHERE last = 0",
                params![subject, after],
            )?
        } else {
            self.execute(
                "UPDATE outgoing SET last = ?3 WHERE subject = ?1 AND last = ?2",
                params![subject, before, after],
            )?
        };
        one_or_conflict(moved)
    }
}

/// Returns a conflict unless one row was changed: another writer has changed the row or its version.
fn one_or_conflict(rows: usize) -> Result<(), SqliteError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(SqliteError::Conflict)
    }
}

fn more(usage: &mut TableUsage, bytes: u64) {
    usage.rows += 1;
    usage.bytes += bytes;
}

fn less(usage: &mut TableUsage, rows: u64, bytes: u64) {
    usage.rows = usage.rows.saturating_sub(rows);
    usage.bytes = usage.bytes.saturating_sub(bytes);
}
