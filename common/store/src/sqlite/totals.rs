//! The single row of counts, which each commit reads first and writes last.

use doorstep_event::Epoch;
use rusqlite::{Connection, Result, params};

use super::{
    columns::{optional_epoch, optional_time, signed, table_usage, unsigned},
    error::SqliteError,
};
use crate::{EventCounts, PrunedTo, StoreUsage};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Totals {
    /// Incremented when a new source is minted.
    pub(super) generation: i64,
    /// The latest epoch of the store.
    pub(super) epoch: Option<Epoch>,
    pub(super) commits: u64,
    pub(super) last_stream: i64,
    pub(super) last_entity: i64,
    pub(super) last_deferred: i64,
    pub(super) last_outbox: i64,
    pub(super) last_task: u64,
    /// The last token or heartbeat.
    pub(super) last_token: i64,
    pub(super) streams: u64,
    /// Entities with a state.
    pub(super) entities: u64,
    /// Deferred events that wait for an entity. While there are none, a change of an entity needs no search.
    pub(super) awaiting: u64,
    pub(super) usage: StoreUsage,
    pub(super) tally: EventCounts,
    pub(super) pruned_to: PrunedTo,
}

impl Totals {
    pub(super) fn read(conn: &Connection) -> Result<Self> {
        conn.prepare_cached(
            "SELECT generation, commits, last_stream, last_entity, last_held, last_outbox, streams, entities, awaiting, held_rows,
                    held_bytes, dead_rows, dead_bytes, seen_rows, seen_bytes, outbox_rows, outbox_bytes, applied, ignored,
                    duplicates, held, dead, replayed, skipped, replies_rows, replies_bytes, scheduled_rows, scheduled_bytes, obeyed,
                    epoch, epoch_random, seen_pruned_to, replies_pruned_to, last_task, last_token, tasks_rows, tasks_bytes, tasks_done
             FROM totals, store",
        )?
        .query_row([], |row| {
            let of = |first| table_usage(row, first);
            Ok(Self {
                generation: row.get(0)?,
                epoch: optional_epoch(row, 29)?,
                commits: unsigned(row, 1)?,
                last_stream: row.get(2)?,
                last_entity: row.get(3)?,
                last_deferred: row.get(4)?,
                last_outbox: row.get(5)?,
                last_task: unsigned(row, 33)?,
                last_token: row.get(34)?,
                streams: unsigned(row, 6)?,
                entities: unsigned(row, 7)?,
                awaiting: unsigned(row, 8)?,
                usage: StoreUsage {
                    deferred: of(9)?,
                    dead_letters: of(11)?,
                    seen: of(13)?,
                    outbox: of(15)?,
                    replies: of(24)?,
                    timers: of(26)?,
                    tasks: of(35)?,
                },
                tally: EventCounts {
                    applied: unsigned(row, 17)?,
                    ignored: unsigned(row, 18)?,
                    duplicates: unsigned(row, 19)?,
                    deferred: unsigned(row, 20)?,
                    dead_letters: unsigned(row, 21)?,
                    replayed: unsigned(row, 22)?,
                    skipped: unsigned(row, 23)?,
                    executed: unsigned(row, 28)?,
                    tasks_done: unsigned(row, 37)?,
                },
                pruned_to: PrunedTo {
                    seen: optional_time(row, 31)?,
                    replies: optional_time(row, 32)?,
                },
            })
        })
    }

    /// Checks that the store has not been given a new source since it was opened.
    pub(super) fn check_generation(&self, opened: i64) -> std::result::Result<(), SqliteError> {
        if self.generation == opened {
            return Ok(());
        }
        Err(SqliteError::Unusable(
            "it was given a new source since it was opened; start again".to_owned(),
        ))
    }

    pub(super) fn write(&self, conn: &Connection) -> Result<()> {
        let StoreUsage {
            deferred,
            dead_letters: dead,
            seen,
            outbox,
            replies,
            timers: scheduled,
            tasks,
        } = self.usage;
        conn.prepare_cached(
            "UPDATE totals SET commits = ?1, last_stream = ?2, last_entity = ?3, last_held = ?4, last_outbox = ?5, streams = ?6,
                    entities = ?7, awaiting = ?8, held_rows = ?9, held_bytes = ?10, dead_rows = ?11, dead_bytes = ?12,
                    seen_rows = ?13, seen_bytes = ?14, outbox_rows = ?15, outbox_bytes = ?16, applied = ?17, ignored = ?18,
                    duplicates = ?19, held = ?20, dead = ?21, replayed = ?22, skipped = ?23, replies_rows = ?24,
                    replies_bytes = ?25, scheduled_rows = ?26, scheduled_bytes = ?27, obeyed = ?28,
                    last_task = ?29, last_token = ?30, tasks_rows = ?31, tasks_bytes = ?32, tasks_done = ?33
             WHERE one = 1",
        )?
        .execute(params![
            signed(self.commits),
            self.last_stream,
            self.last_entity,
            self.last_deferred,
            self.last_outbox,
            signed(self.streams),
            signed(self.entities),
            signed(self.awaiting),
            signed(deferred.rows),
            signed(deferred.bytes),
            signed(dead.rows),
            signed(dead.bytes),
            signed(seen.rows),
            signed(seen.bytes),
            signed(outbox.rows),
            signed(outbox.bytes),
            signed(self.tally.applied),
            signed(self.tally.ignored),
            signed(self.tally.duplicates),
            signed(self.tally.deferred),
            signed(self.tally.dead_letters),
            signed(self.tally.replayed),
            signed(self.tally.skipped),
            signed(replies.rows),
            signed(replies.bytes),
            signed(scheduled.rows),
            signed(scheduled.bytes),
            signed(self.tally.executed),
            signed(self.last_task),
            self.last_token,
            signed(tasks.rows),
            signed(tasks.bytes),
            signed(self.tally.tasks_done),
        ])?;
        Ok(())
    }
}
