//! The source of a new store.

use doorstep_event::{AttributeError, Source};
use uuid::Uuid;

/// Returns a source that no other store has: the role, and a UUID that sorts by time.
pub(crate) fn new_source_id(role: &str) -> Result<Source, AttributeError> {
    if role.is_empty() {
        return Err(AttributeError::Empty("role"));
    }
    Source::new(format!("{role}/{}", Uuid::now_v7()))
}
