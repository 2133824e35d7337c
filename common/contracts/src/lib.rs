//! Doorstep's published language: every event type, with its rules.
//!
//! Each contract is a Rust type that implements [`doorstep_event::Contract`]; it says what is on the wire, and checks what the form
//! alone cannot say. A version that has been published never changes: `golden/` holds one JSON for each, which the tests read, check
//! and write again byte for byte. What an event is about stands in its subject alone, so data and subject cannot disagree.
//!
//! | type | subject | says |
//! | --- | --- | --- |
//! | [`OrderPlaced`] `order.placed.v1` | `order/INVOICE` | what was ordered, line by line |
//! | [`OrderConfirmed`] `order.confirmed.v1` | `order/INVOICE` | it is paid for, and the restaurant makes it |
//! | [`OrderRefused`] `order.refused.v1` | `order/INVOICE` | payment or restaurant said no |
//! | [`OrderAbandoned`] `order.abandoned.v1` | `order/INVOICE` | nobody could be asked in time |
//! | [`OrderCancelled`] `order.cancelled.v1` | `order/INVOICE` | it was confirmed, and somebody called it off |
//! | [`ReturnRecorded`] `return.recorded.v1` | `return/INVOICE` | what came back, line by line |
//! | [`PaymentAuthorized`] `payment.authorized.v1` | `payment/INVOICE` | money is held |
//! | [`PaymentCaptured`] `payment.captured.v1` | `payment/INVOICE` | what was held is the shop's |
//! | [`PaymentVoided`] `payment.voided.v1` | `payment/INVOICE` | what was held is free again |
//! | [`PaymentRefunded`] `payment.refunded.v1` | `payment/INVOICE` | what was captured went back |
//! | [`StockAdjusted`] `stock.adjusted.v1` | `stock/CODE` | by how much a stock changed, and why |
//! | [`StockReserved`] `stock.reserved.v1` | `stock/CODE` | pieces are kept for an order that is not confirmed yet |
//! | [`StockReleased`] `stock.released.v1` | `stock/CODE` | they are not kept any more: sold, or the order has come to nothing |
//! | [`DeliveryAssigned`] `delivery.assigned.v1` | `delivery/ORDER` | a courier took the delivery on |
//! | [`DeliveryPositionRecorded`] `delivery.position_recorded.v1` | `delivery/ORDER` | where the courier was |
//! | [`DeliveryPickedUp`] `delivery.picked_up.v1` | `delivery/ORDER` | the courier has the parcel |
//! | [`DeliveryDelivered`] `delivery.delivered.v1` | `delivery/ORDER` | the parcel is where it belongs |
//!
//! What is asked at once, over RPC, is in [`requests`], with its replies and its refusals.
//!
//! [`registry`] lists them all and checks an event of any type; [`ROLES`] says which role takes which subjects.

mod delivery;
mod ids;
mod money;
mod opening_hours;
mod order;
mod order_line;
mod order_outcome;
mod payment;
mod position;
pub mod registry;
pub mod requests;
mod reservation;
mod returns;
mod roles;
mod stock;
mod text;

pub use delivery::{
    DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, DeliveryPositionRecorded, TimeWindow,
};
pub use ids::{
    CourierId, CustomerId, DeliveryId, IdError, InvoiceNo, Label, PaymentMethod, RestaurantId, Sku,
};
pub use money::{Money, MoneyError};
pub use opening_hours::{HourMinute, OpeningError, OpeningHours, Weekday, ZoneName, is_open};
pub use order::OrderPlaced;
pub use order_line::OrderLine;
pub use order_outcome::{
    CancelledBy, OrderAbandoned, OrderCancelled, OrderConfirmed, OrderRefused, RefusedBy,
};
pub use payment::{
    PaymentAuthorized, PaymentCaptured, PaymentRefunded, PaymentVoided, ReversalReason,
};
pub use position::{Position, PositionError};
pub use reservation::{StockReleased, StockReserved};
pub use returns::ReturnRecorded;
pub use roles::{FAMILIES, PUBLISHERS, PublisherSpec, ROLES, RoleSpec};
pub use stock::{StockAdjusted, StockReason};
pub use text::{TextError, check_text};
