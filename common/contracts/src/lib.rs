//! Doorstep's published language: every event type, with its rules.
//!
//! Each contract is a Rust type that implements [`doorstep_event::Contract`]; it says what is on the wire, and checks what the form
//! alone cannot say. A version that has been published never changes: `golden/` holds one JSON for each, which the tests read, check
//! and write again byte for byte. What an event is about stands in its subject alone, so data and subject cannot disagree.
//!
//! | type | subject | says |
//! | --- | --- | --- |
//! | [`OrderPlaced`] `order.placed.v1` | `order/INVOICE` | what was ordered, line by line |
//! | [`ReturnRecorded`] `return.recorded.v1` | `return/INVOICE` | what came back, line by line |
//! | [`StockAdjusted`] `stock.adjusted.v1` | `stock/CODE` | by how much a stock changed, and why |
//! | [`DeliveryAssigned`] `delivery.assigned.v1` | `delivery/ORDER` | a courier took the delivery on |
//! | [`DeliveryPositionRecorded`] `delivery.position_recorded.v1` | `delivery/ORDER` | where the courier was |
//! | [`DeliveryPickedUp`] `delivery.picked_up.v1` | `delivery/ORDER` | the courier has the parcel |
//! | [`DeliveryDelivered`] `delivery.delivered.v1` | `delivery/ORDER` | the parcel is where it belongs |
//!
//! [`registry`] lists them all and checks an event of any type; [`ROLES`] says which role takes which subjects.

mod delivery;
mod ids;
mod line;
mod money;
mod order;
mod position;
pub mod registry;
mod returns;
mod roles;
mod stock;

pub use delivery::{
    DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, DeliveryPositionRecorded, TimeWindow,
};
pub use ids::{CourierId, CustomerId, DeliveryId, IdError, InvoiceNo, Label, Sku};
pub use line::Line;
pub use money::{Money, MoneyError};
pub use order::OrderPlaced;
pub use position::{Position, PositionError};
pub use returns::ReturnRecorded;
pub use roles::{ROLES, RoleSpec};
pub use stock::{StockAdjusted, StockReason};
