//! The owner of a role's queues: the store that they belong to, recorded at the broker.
//!
//! - `record`: the record as text.
//! - `claim`: compares the record with the starting store, and replaces it.

mod claim;
mod record;

pub(crate) use claim::{Claimed, Found, read_owner};
pub use claim::{OwnerClaim, OwnerDecision, OwnerPolicy, take_over};
pub(crate) use record::MARKER;
pub use record::{OwnerRecord, PresentOwner};
