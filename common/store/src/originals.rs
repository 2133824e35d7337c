//! What edited dead letters first carried, handed on to those that follow them in the same changes: one rule for every store.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{DeadId, DeadRow};

/// The bodies of edited dead letters that are gone with the changes that are being written, by [`DeadId::letter`].
#[derive(Debug, Default)]
pub(crate) struct Originals(HashMap<String, Bytes>);

impl Originals {
    /// Keeps the body of an edited dead letter that goes.
    pub(crate) fn keep(&mut self, id: &DeadId, body: Bytes) {
        self.0.insert(id.letter().to_owned(), body);
    }

    /// The body that a dead letter takes over, if it follows one that was edited.
    pub(crate) fn of(&self, id: &DeadId) -> Option<&Bytes> {
        self.0.get(id.letter())
    }

    /// The dead letter with the body that first came.
    pub(crate) fn put_back(&self, row: DeadRow) -> DeadRow {
        match self.of(&row.id) {
            Some(body) => DeadRow {
                body: body.clone(),
                ..row
            },
            None => row,
        }
    }
}
