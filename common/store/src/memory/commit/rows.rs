//! Streams and entities, under their versions.

use bytes::Bytes;
use doorstep_event::{StreamKey, Timestamp};

use super::Conflict;
use crate::{
    EntityChange, EntityKey, EntityRow, ExpectedVersion, RowRef, StreamChange, StreamRow,
    memory::data::Data,
};

impl Data {
    /// Creates the row of a stream before its first event.
    pub(super) fn new_stream(&mut self, key: &StreamKey) -> StreamRow {
        self.counters.last_stream += 1;
        StreamRow {
            row: Some(RowRef(self.counters.last_stream)),
            version: 1,
            ..StreamRow::absent(key.clone())
        }
    }

    pub(super) fn write_stream(
        &mut self,
        change: &StreamChange,
    ) -> Result<ExpectedVersion, Conflict> {
        let mut stream = match (change.expect.row, self.streams.get(&change.key)) {
            (None, None) => self.new_stream(&change.key),
            (Some(row), Some(stream))
                if stream.row == Some(row) && stream.version == change.expect.version =>
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
            stream.epoch = after.epoch;
        }
        let now = ExpectedVersion {
            row: stream.row,
            version: stream.version,
        };
        self.streams.put(change.key.clone(), stream);
        Ok(now)
    }

    pub(super) fn write_entities(
        &mut self,
        changes: &[EntityChange],
    ) -> Result<Vec<ExpectedVersion>, Conflict> {
        let changes = changes.iter();
        changes.map(|change| self.write_entity(change)).collect()
    }

    fn write_entity(&mut self, change: &EntityChange) -> Result<ExpectedVersion, Conflict> {
        let mut entity = match (change.expect.row, self.entities.get(&change.key)) {
            (None, None) => {
                self.counters.last_entity += 1;
                EntityRow {
                    row: Some(RowRef(self.counters.last_entity)),
                    version: 1,
                    ..EntityRow::absent(change.key.clone())
                }
            }
            (Some(row), Some(entity))
                if entity.row == Some(row) && entity.version == change.expect.version =>
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
        let now = ExpectedVersion {
            row: entity.row,
            version: entity.version,
        };
        self.entities.put(change.key.clone(), entity);
        Ok(now)
    }

    pub(super) fn remove_entities(
        &mut self,
        removed: &[(EntityKey, ExpectedVersion)],
        now: Timestamp,
    ) -> Result<(), Conflict> {
        for (key, expect) in removed {
            let entity = self.entities.remove(key).ok_or(Conflict)?;
            if (entity.row, entity.version) != (expect.row, expect.version) {
                return Err(Conflict);
            }
            self.counters.entities_with_state -= u64::from(entity.state.is_some());
            self.wake_waiting(key, now);
        }
        Ok(())
    }
}
