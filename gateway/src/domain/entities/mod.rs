//! The entities of the gateway's role.

mod delivery;
mod email;
mod order;
mod user;

pub(crate) use delivery::{Delivery, GpsFix, Step};
pub(crate) use email::{ConfirmedAddress, MailedLinks, PendingAddress, UserEmail};
pub(crate) use order::{
    IdempotencyRecord, OpenOrders, Order, OrderDecision, OrderNames, OrderState, part_keys,
};
pub(crate) use user::{User, UserName, UserRole, UserStatus};
