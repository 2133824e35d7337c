//! Which store a role's queues belong to, recorded at the broker.
//!
//! - `record` is the record as text.
//! - `claim` compares it with the store that starts, and replaces it.

mod claim;
mod record;

pub(crate) use claim::{Claimed, Found, look};
pub use claim::{OwnerClaim, OwnerDecision, OwnerPolicy, take_over};
pub(crate) use record::MARKER;
pub use record::{OwnerRecord, PresentOwner};
