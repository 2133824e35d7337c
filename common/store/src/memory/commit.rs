//! Writing to the store in memory.

use bytes::Bytes;
use doorstep_event::{StreamKey, Timestamp};

use super::data::{Data, Entity, Held, Owed, Stream};
use crate::{
    Changes, Commit, DeadFate, DeadRow, DeadStatus, EntityChange, EntityKey, Expect, HeldId,
    HeldReason, HeldRow, NewHeld, OutboxId, OutboxRow, RowRef, StreamChange, UsageOf, Written,
    size,
};

/// Somebody else was there first.
struct Conflict;

impl Data {
    pub(super) fn commit(&mut self, changes: Changes) -> Commit {
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

    fn accept(&mut self) {
        self.streams.accept();
        self.entities.accept();
        self.held.accept();
        self.places.accept();
        self.dead.accept();
        self.dead_numbers.accept();
        self.seen.accept();
        self.outgoing.accept();
        self.outbox.accept();
    }

    fn undo(&mut self) {
        self.streams.undo();
        self.entities.undo();
        self.held.undo();
        self.places.undo();
        self.dead.undo();
        self.dead_numbers.undo();
        self.seen.undo();
        self.outgoing.undo();
        self.outbox.undo();
    }

    /// The order matters where the parts of one commit meet: what is released makes room for what is held, and only when all is
    /// held is it decided what loses its place and what is woken.
    fn write(&mut self, changes: Changes) -> Result<Written, Conflict> {
        let now = changes.now;
        let writes = changes.writes();
        let mut written = Written::default();
        for change in &changes.streams {
            written.streams.push(self.write_stream(change)?);
        }
        for change in &changes.entities {
            written.entities.push(self.write_entity(change)?);
        }
        for id in &changes.release {
            self.release(*id).ok_or(Conflict)?;
        }
        for retry in changes.put_off {
            let mut held = self.held.get(&retry.id).ok_or(Conflict)?.clone();
            held.row.reason = retry.reason;
            held.row.attempts = retry.attempts;
            held.row.since = retry.since;
            held.due = retry.due;
            self.held.put(retry.id, held);
        }
        for (id, expected, fate) in &changes.settle {
            let number = *self.dead_numbers.get(id).ok_or(Conflict)?;
            let mut row = self.dead.get(&number).ok_or(Conflict)?.clone();
            if row.status != *expected {
                return Err(Conflict);
            }
            match fate {
                DeadFate::Replaying => {
                    row.status = DeadStatus::Replaying;
                    self.dead.put(number, row);
                }
                DeadFate::Gone => {
                    sub(&mut self.counters.usage.dead, size::dead(&row));
                    self.dead.remove(&number);
                    self.dead_numbers.remove(id);
                }
            }
        }
        for new in changes.dead {
            if !self.add_dead(new.row) {
                return Err(Conflict);
            }
        }
        for new in changes.dead_if_absent {
            // Whether it was there already does not matter.
            self.add_dead(new.row);
        }
        for new in changes.hold {
            self.hold(new)?;
        }
        for change in &changes.streams {
            if change.after.is_some() {
                self.move_on(&change.key, now);
            }
        }
        for change in &changes.entities {
            if change.after.is_some() {
                self.wake(&change.key, now);
            }
        }
        for (source, id, time) in changes.seen {
            let bytes = size::seen(&source, &id);
            if !self.seen.insert((source, id), time) {
                return Err(Conflict);
            }
            add(&mut self.counters.usage.seen, bytes);
        }
        for change in changes.outgoing {
            if self.outgoing.get(&change.subject).copied().unwrap_or(0) != change.before {
                return Err(Conflict);
            }
            self.outgoing.put(change.subject, change.after);
        }
        for id in &changes.paid {
            if let Some(owed) = self.outbox.remove(id) {
                sub(
                    &mut self.counters.usage.outbox,
                    size::outbox(&owed.row.kind),
                );
            }
        }
        for retry in &changes.unpaid {
            if let Some(mut owed) = self.outbox.get(&retry.id).cloned() {
                owed.row.attempts = owed.row.attempts.saturating_add(1);
                owed.due = Some(retry.due);
                self.outbox.put(retry.id, owed);
            }
        }
        for new in changes.outbox {
            self.counters.last_outbox += 1;
            let id = OutboxId(self.counters.last_outbox);
            add(&mut self.counters.usage.outbox, size::outbox(&new.kind));
            let row = OutboxRow {
                id,
                kind: new.kind,
                attempts: 0,
                since: now,
            };
            self.outbox.put(id, Owed { row, due: None });
        }
        self.counters.commits += u64::from(writes);
        self.counters.tally.add(&changes.tally);
        written.usage = self.counters.usage;
        Ok(written)
    }

    /// Adds a dead letter unless it is there already. Returns whether it was added.
    fn add_dead(&mut self, row: DeadRow) -> bool {
        let number = self.counters.last_dead + 1;
        if !self.dead_numbers.insert(row.id.clone(), number) {
            return false;
        }
        self.counters.last_dead = number;
        add(&mut self.counters.usage.dead, size::dead(&row));
        self.dead.put(number, row);
        true
    }

    fn write_stream(&mut self, change: &StreamChange) -> Result<Expect, Conflict> {
        let mut stream = match (change.expect.row, self.streams.get(&change.key)) {
            (None, None) => {
                self.counters.last_stream += 1;
                Stream::new(RowRef(self.counters.last_stream))
            }
            (Some(row), Some(stream))
                if stream.row == row && stream.version == change.expect.version =>
            {
                let mut stream = stream.clone();
                if change.after.is_some() {
                    stream.version += 1;
                }
                stream
            }
            _ => return Err(Conflict),
        };
        if let Some(after) = &change.after {
            if after.cursor < stream.cursor {
                return Err(Conflict);
            }
            stream.cursor = after.cursor;
            stream.last_id.clone_from(&after.last_id);
            stream.blocked.clone_from(&after.blocked);
        }
        let now = Expect {
            row: Some(stream.row),
            version: stream.version,
        };
        self.streams.put(change.key.clone(), stream);
        Ok(now)
    }

    fn write_entity(&mut self, change: &EntityChange) -> Result<Expect, Conflict> {
        let mut entity = match (change.expect.row, self.entities.get(&change.key)) {
            (None, None) => {
                self.counters.last_entity += 1;
                Entity {
                    row: RowRef(self.counters.last_entity),
                    version: 1,
                    state: None,
                }
            }
            (Some(row), Some(entity))
                if entity.row == row && entity.version == change.expect.version =>
            {
                entity.clone()
            }
            _ => return Err(Conflict),
        };
        if let Some(state) = &change.after {
            if entity.state.is_none() {
                self.counters.entities_with_state += 1;
            }
            entity.version += 1;
            entity.state = Some(Bytes::copy_from_slice(state));
        }
        let now = Expect {
            row: Some(entity.row),
            version: entity.version,
        };
        self.entities.put(change.key.clone(), entity);
        Ok(now)
    }

    fn hold(&mut self, new: NewHeld) -> Result<(), Conflict> {
        self.counters.last_held += 1;
        let id = HeldId(self.counters.last_held);
        add(
            &mut self.counters.usage.held,
            size::held(&new.event, new.defect.as_deref()),
        );
        let held = Held {
            row: HeldRow {
                id,
                event: new.event,
                defect: new.defect,
                reason: new.reason,
                since: new.since,
                attempts: new.attempts,
            },
            due: new.due,
        };
        if let Some(place) = held.place() {
            let mut stream = self.streams.get(&place.0).cloned().unwrap_or_else(|| {
                self.counters.last_stream += 1;
                Stream::new(RowRef(self.counters.last_stream))
            });
            stream.held += 1;
            self.streams.put(place.0.clone(), stream);
            if !self.places.insert(place, id) {
                return Err(Conflict);
            }
        }
        self.held.put(id, held);
        Ok(())
    }

    fn release(&mut self, id: HeldId) -> Option<()> {
        let held = self.held.remove(&id)?;
        sub(
            &mut self.counters.usage.held,
            size::held(&held.row.event, held.row.defect.as_deref()),
        );
        if let Some(place) = held.place() {
            self.places.remove(&place);
            if let Some(mut stream) = self.streams.get(&place.0).cloned() {
                stream.held = stream.held.saturating_sub(1);
                self.streams.put(place.0, stream);
            }
        }
        Some(())
    }

    /// Drops what is held at or below the cursor, and makes due what is held right above it.
    fn move_on(&mut self, key: &StreamKey, now: Timestamp) {
        let Some(stream) = self.streams.get(key).cloned() else {
            return;
        };
        if stream.held == 0 {
            return;
        }
        let passed: Vec<HeldId> = self
            .places
            .range((key.clone(), 0)..=(key.clone(), stream.cursor))
            .map(|(_, id)| *id)
            .collect();
        for id in passed {
            self.release(id);
        }
        if stream.blocked.is_none() {
            self.make_next_due(key, stream.cursor, now);
        }
    }

    /// Makes due what is held right above the cursor, unless it has a due time already. Returns whether there was such.
    pub(super) fn make_next_due(&mut self, key: &StreamKey, cursor: u64, now: Timestamp) -> bool {
        let Some(next) = cursor.checked_add(1) else {
            return false;
        };
        let Some(id) = self.places.get(&(key.clone(), next)).copied() else {
            return false;
        };
        let Some(held) = self.held.get(&id).filter(|h| h.due.is_none()) else {
            return false;
        };
        let due = Some(now);
        let held = Held {
            due,
            ..held.clone()
        };
        self.held.put(id, held);
        true
    }

    fn wake(&mut self, entity: &EntityKey, now: Timestamp) {
        let waiting: Vec<HeldId> = self
            .held
            .iter()
            .filter(|(_, held)| {
                matches!(&held.row.reason, HeldReason::Awaits(key) if key == entity)
                    && held.due.is_none_or(|due| due > now)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if let Some(held) = self.held.get(&id).cloned() {
                let due = Some(now);
                self.held.put(id, Held { due, ..held });
            }
        }
    }

    pub(super) fn sweep(&mut self, now: Timestamp) -> u64 {
        let streams: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.blocked.is_none() && stream.held > 0)
            .map(|(key, stream)| (key.clone(), stream.cursor))
            .collect();
        let mut made_due = 0;
        for (key, cursor) in streams {
            made_due += u64::from(self.make_next_due(&key, cursor, now));
        }
        self.counters.commits += u64::from(made_due > 0);
        self.accept();
        made_due
    }

    pub(super) fn prune_seen(&mut self, older_than: Timestamp, limit: usize) -> u64 {
        let mut old: Vec<_> = self
            .seen
            .iter()
            .filter(|(_, time)| **time < older_than)
            .map(|(key, time)| (*time, key.clone()))
            .collect();
        old.sort();
        old.truncate(limit);
        for (_, key) in &old {
            self.seen.remove(key);
            sub(&mut self.counters.usage.seen, size::seen(&key.0, &key.1));
        }
        self.counters.commits += u64::from(!old.is_empty());
        self.accept();
        old.len() as u64
    }
}

impl Stream {
    fn new(row: RowRef) -> Self {
        Self {
            row,
            version: 1,
            cursor: 0,
            last_id: None,
            blocked: None,
            held: 0,
        }
    }
}

fn add(usage: &mut UsageOf, bytes: u64) {
    usage.rows += 1;
    usage.bytes += bytes;
}

fn sub(usage: &mut UsageOf, bytes: u64) {
    usage.rows = usage.rows.saturating_sub(1);
    usage.bytes = usage.bytes.saturating_sub(bytes);
}
