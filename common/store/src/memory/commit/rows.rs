//! Streams and entities, under their versions.

use bytes::Bytes;

use super::Conflict;
use crate::{
    EntityChange, ExpectedVersion, RowRef, StreamChange,
    memory::data::{Data, Entity, Stream},
};

impl Data {
    pub(super) fn write_stream(
        &mut self,
        change: &StreamChange,
    ) -> Result<ExpectedVersion, Conflict> {
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
            stream.epoch = after.epoch;
        }
        let now = ExpectedVersion {
            row: Some(stream.row),
            version: stream.version,
        };
        self.streams.put(change.key.clone(), stream);
        Ok(now)
    }

    pub(super) fn write_entity(
        &mut self,
        change: &EntityChange,
    ) -> Result<ExpectedVersion, Conflict> {
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
        let now = ExpectedVersion {
            row: Some(entity.row),
            version: entity.version,
        };
        self.entities.put(change.key.clone(), entity);
        Ok(now)
    }
}

impl Stream {
    /// A stream before its first event.
    pub(super) fn new(row: RowRef) -> Self {
        Self {
            row,
            version: 1,
            cursor: 0,
            last_id: None,
            blocked: None,
            deferred: 0,
            epoch: None,
        }
    }
}
