//! Placing orders: begun, asked about, ended; and ended by somebody else where whoever began did not come to it.

mod idempotency;
mod recovery;
mod saga;

pub(crate) use idempotency::InFlightKeys;
pub(crate) use recovery::{LeftOrders, abandon_expired, leave_open};
pub(crate) use saga::{CheckoutSaga, OrderRequest, longest_order};
