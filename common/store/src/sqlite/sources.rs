//! Sources by number: a source is long and occurs in many rows.

use std::collections::HashMap;

use doorstep_event::Source;
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::columns::attribute;

/// The capacity of the cache, more sources than any role has; above it, sources are read again.
const REMEMBERED: usize = 10_000;

/// The sources that a connection has cached. A committed number never changes.
#[derive(Debug, Default)]
pub(super) struct Sources {
    numbers: HashMap<Source, i64>,
    names: HashMap<i64, Source>,
    /// Numbered in the open transaction: dropped from the cache if it does not commit.
    fresh: Vec<Source>,
}

impl Sources {
    pub(super) fn find(&mut self, conn: &Connection, source: &Source) -> Result<Option<i64>> {
        if let Some(id) = self.numbers.get(source) {
            return Ok(Some(*id));
        }
        let id = conn
            .prepare_cached("SELECT id FROM sources WHERE source = ?1")?
            .query_row([source.as_str()], |row| row.get(0))
            .optional()?;
        if let Some(id) = id {
            self.remember(source, id);
        }
        Ok(id)
    }

    pub(super) fn find_or_add(&mut self, conn: &Connection, source: &Source) -> Result<i64> {
        if let Some(id) = self.find(conn, source)? {
            return Ok(id);
        }
        conn.prepare_cached("INSERT INTO sources(source) VALUES (?1)")?
            .execute(params![source.as_str()])?;
        let id = conn.last_insert_rowid();
        self.fresh.push(source.clone());
        self.remember(source, id);
        Ok(id)
    }

    pub(super) fn name(&mut self, conn: &Connection, id: i64) -> Result<Source> {
        if let Some(source) = self.names.get(&id) {
            return Ok(source.clone());
        }
        let source = conn
            .prepare_cached("SELECT source FROM sources WHERE id = ?1")?
            .query_row([id], |row| attribute(row, 0, Source::new))?;
        self.remember(&source, id);
        Ok(source)
    }

    fn remember(&mut self, source: &Source, id: i64) {
        // Sources of the open transaction are kept, so that its end can tell them from the others.
        if self.numbers.len() >= REMEMBERED && self.fresh.is_empty() {
            self.numbers.clear();
            self.names.clear();
        }
        self.numbers.insert(source.clone(), id);
        self.names.insert(id, source.clone());
    }

    pub(super) fn committed(&mut self) {
        self.fresh.clear();
    }

    pub(super) fn rolled_back(&mut self) {
        for source in self.fresh.drain(..) {
            if let Some(id) = self.numbers.remove(&source) {
                self.names.remove(&id);
            }
        }
    }
}
