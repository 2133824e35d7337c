//! Doorstep's published language: every event type with its rules.
//!
//! Each contract is a Rust type that implements [`doorstep_event::Contract`]. It defines the wire format, and checks rules beyond the
//! format. A published version never changes: `golden/` contains one JSON document for each, which tests parse, check and serialize byte
//! for byte. The subject alone says what an event is about, so data and subject cannot contradict each other.
//!
//! | type | subject | meaning |
//! | --- | --- | --- |
//! | [`OrderPlaced`] `order.placed.v1` | `order/INVOICE` | an order with its lines |
//! | [`OrderConfirmed`] `order.confirmed.v1` | `order/INVOICE` | the payment is authorized, and the restaurant makes it |
//! | [`OrderRefused`] `order.refused.v1` | `order/INVOICE` | payment or restaurant rejected it |
//! | [`OrderAbandoned`] `order.abandoned.v1` | `order/INVOICE` | payment or restaurant did not reply in time |
//! | [`OrderCancelled`] `order.cancelled.v1` | `order/INVOICE` | the confirmed order was cancelled |
//! | [`ReturnRecorded`] `return.recorded.v1` | `return/INVOICE` | returned goods, by line |
//! | [`PaymentAuthorized`] `payment.authorized.v1` | `payment/INVOICE` | the amount is held |
//! | [`PaymentCaptured`] `payment.captured.v1` | `payment/INVOICE` | the shop has received the held amount |
//! | [`PaymentVoided`] `payment.voided.v1` | `payment/INVOICE` | the held amount is free again |
//! | [`PaymentRefunded`] `payment.refunded.v1` | `payment/INVOICE` | the captured amount was returned |
//! | [`StockAdjusted`] `stock.adjusted.v1` | `stock/CODE` | the change of a stock, with its reason |
//! | [`StockReserved`] `stock.reserved.v1` | `stock/CODE` | pieces are reserved for an unconfirmed order |
//! | [`StockReleased`] `stock.released.v1` | `stock/CODE` | the reservation ended: the pieces are sold, or the order failed |
//! | [`DeliveryAssigned`] `delivery.assigned.v1` | `delivery/ORDER` | a courier accepted the delivery |
//! | [`DeliveryPositionRecorded`] `delivery.position_recorded.v1` | `delivery/ORDER` | a position of the courier |
//! | [`DeliveryPickedUp`] `delivery.picked_up.v1` | `delivery/ORDER` | the courier has the parcel |
//! | [`DeliveryDelivered`] `delivery.delivered.v1` | `delivery/ORDER` | the parcel has arrived |
//! | [`ReportReady`] `report.ready.v1` | `report/ID` | the files of a report can be fetched |
//! | [`ReportFailed`] `report.failed.v1` | `report/ID` | the report could not be made |
//! | [`RequestServed`] `request.served.v1` | `request/INSTANCE` | the gateway, or the server of an imported log, answered a request |
//! | [`RequestsDropped`] `request.dropped.v1` | `request/INSTANCE` | the number of requests that a full buffer dropped |
//! | [`AddressSet`] `user.address_set.v1` | `user/NAME` | the user has set an address, which a mailed link is to confirm |
//! | [`AddressConfirmed`] `user.address_confirmed.v1` | `user/NAME` | the user has confirmed the address |
//! | [`AddressRemoved`] `user.address_removed.v1` | `user/NAME` | the user has no address any more |
//! | [`NotificationsChosen`] `user.notifications_chosen.v1` | `user/NAME` | the user has chosen which mails to get |
//!
//! [`requests`] contains the RPC requests, with their replies and error codes.
//!
//! [`registry`] lists all contracts and checks events of any type. [`ROLES`] maps roles to subjects.

mod access;
mod delivery;
mod email;
mod ids;
mod link;
mod money;
mod opening_hours;
mod order;
mod order_line;
mod order_outcome;
mod payment;
mod position;
pub mod registry;
mod report;
pub mod requests;
mod reservation;
mod returns;
mod roles;
mod stock;
mod text;
mod user;

pub use access::{
    MAX_HEADER_BYTES, MAX_PATH_BYTES, OTHER_ENDPOINT, Printable, RequestServed, RequestsDropped,
    printable,
};
pub use delivery::{
    DeliveryAssigned, DeliveryDelivered, DeliveryPickedUp, DeliveryPositionRecorded, TimeWindow,
};
pub use email::{EmailAddress, EmailAddressError};
pub use ids::{
    CourierId, CustomerId, DeliveryId, IdError, InvoiceNo, Label, PaymentMethod, ReportId,
    ReportIdError, RestaurantId, Sku,
};
pub use link::{LinkPath, LinkPathError, SignedLink};
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
pub use report::{ReportFailed, ReportKind, ReportReady};
pub use reservation::{StockReleased, StockReserved};
pub use returns::ReturnRecorded;
pub use roles::{FAMILIES, PUBLISHERS, PublisherSpec, ROLES, RoleSpec};
pub use stock::{StockAdjusted, StockReason};
pub use text::{TextError, check_text, replace_invalid};
pub use user::{
    AddressConfirmed, AddressRemovalReason, AddressRemoved, AddressSet, NotificationsChosen,
};
