//! What edited dead letters first carried, handed on to those that follow them in the same changes: one rule for every store.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{DeadLetter, DeadLetterId};

/// The bodies of edited dead letters that are gone with the changes that are being written, by [`DeadLetterId::event_digest`].
#[derive(Debug, Default)]
pub(crate) struct OriginalBodies(HashMap<String, Bytes>);

impl OriginalBodies {
    /// Keeps the body of an edited dead letter that goes.
    pub(crate) fn remember(&mut self, id: &DeadLetterId, body: Bytes) {
        self.0.insert(id.event_digest().to_owned(), body);
    }

    /// The body that a dead letter takes over, if it follows one that was edited.
    pub(crate) fn of(&self, id: &DeadLetterId) -> Option<&Bytes> {
        self.0.get(id.event_digest())
    }

    /// The dead letter with the body that first came.
    pub(crate) fn restore(&self, row: DeadLetter) -> DeadLetter {
        match self.of(&row.id) {
            Some(body) => DeadLetter {
                body: body.clone(),
                ..row
            },
            None => row,
        }
    }
}
