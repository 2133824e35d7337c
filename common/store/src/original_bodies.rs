//! Original bodies of edited dead letters, handed on to their successors in the same changes: one rule for every store.

use std::collections::HashMap;

use bytes::Bytes;

use crate::{DeadLetter, DeadLetterId};

/// The bodies of edited dead letters that the current changes delete, by [`DeadLetterId::event_digest`].
#[derive(Debug, Default)]
pub(crate) struct OriginalBodies(HashMap<String, Bytes>);

impl OriginalBodies {
    /// Remembers the body of an edited dead letter that is deleted.
    pub(crate) fn remember(&mut self, id: &DeadLetterId, body: Bytes) {
        self.0.insert(id.event_digest().to_owned(), body);
    }

    /// Returns the body that a dead letter takes over if its predecessor was edited.
    pub(crate) fn get(&self, id: &DeadLetterId) -> Option<&Bytes> {
        self.0.get(id.event_digest())
    }

    /// Returns the dead letter with the body first received.
    pub(crate) fn restore(&self, row: DeadLetter) -> DeadLetter {
        match self.get(&row.id) {
            Some(body) => DeadLetter {
                body: body.clone(),
                ..row
            },
            None => row,
        }
    }
}
