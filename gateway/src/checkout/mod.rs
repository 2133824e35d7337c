//! Checkout: begins orders, calls payment and restaurant, and records the outcome. Orders without an outcome are
//! recovered.

mod idempotency;
mod recovery;
mod saga;

pub(crate) use idempotency::InFlightKeys;
pub(crate) use recovery::{LeftOrders, abandon_expired, leave_open};
pub(crate) use saga::{CheckoutSaga, OrderRequest, longest_order};
