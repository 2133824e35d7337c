//! Minting the id of a store.

use doorstep_event::{AttributeError, Source};
use uuid::Uuid;

/// A source that no other store has: the role, and a UUID that sorts by the time of its minting.
pub(crate) fn source(role: &str) -> Result<Source, AttributeError> {
    if role.is_empty() {
        return Err(AttributeError::Empty("role"));
    }
    Source::new(format!("{role}/{}", Uuid::now_v7()))
}
