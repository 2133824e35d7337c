//! The commands of the gateway's role. They never travel: their forms may change with the program, as long as no open order is left
//! behind.

use doorstep_contracts::{
    CancelledBy, CourierId, CustomerId, InvoiceNo, Label, Money, OrderLine, RestaurantId,
};
use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::entities::{Fix, OrderDecision, OrderState, Step, UserName, UserRole, UserStatus};

/// Lets somebody log in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddUser {
    pub(crate) name: UserName,
    pub(crate) standing: UserRole,
    /// The password's hash.
    pub(crate) hash: String,
}

/// Ends all sessions of a user.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RevokeTokens {
    pub(crate) name: UserName,
}

/// Enables, disables or deletes a user.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetUserStatus {
    pub(crate) name: UserName,
    pub(crate) status: UserStatus,
    /// Another operator who may log in, where one is known; without one, the last operator can be neither disabled nor deleted.
    pub(crate) other_operator: Option<UserName>,
}

/// Sets another password.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetPassword {
    pub(crate) name: UserName,
    /// The new password's hash.
    pub(crate) hash: String,
    /// The hash of the password that it is to replace, where that was asked for.
    pub(crate) replaces: Option<String>,
}

/// Records that an order is meant, before anybody else is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BeginOrder {
    pub(crate) order: InvoiceNo,
    pub(crate) customer: CustomerId,
    /// The customer's Idempotency-Key.
    pub(crate) key: String,
    /// Of what came with that key.
    pub(crate) fingerprint: String,
    pub(crate) restaurant: RestaurantId,
    pub(crate) country: Label,
    pub(crate) lines: Vec<OrderLine>,
    pub(crate) total: Money,
    /// After this it is abandoned, whoever is still at it.
    pub(crate) deadline: Timestamp,
}

/// Records what has become of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndOrder {
    pub(crate) order: InvoiceNo,
    pub(crate) outcome: OrderDecision,
}

/// Leaves the orders that are open in a copy of the store to an operator: what has become of them since is not in the copy.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeaveOpen {}

/// Records what the role `orders` knows of an order that was left, whose events another copy of the store has published.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdoptOutcome {
    pub(crate) order: InvoiceNo,
    pub(crate) outcome: OrderDecision,
}

/// Calls a confirmed order off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CancelOrder {
    pub(crate) order: InvoiceNo,
    pub(crate) by: CancelledBy,
    pub(crate) reason: Label,
}

/// Gives a confirmed order to a courier.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AssignCourier {
    pub(crate) order: InvoiceNo,
    pub(crate) courier: CourierId,
}

/// Records that a courier has picked a parcel up, or delivered it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AdvanceDelivery {
    pub(crate) order: InvoiceNo,
    pub(crate) courier: CourierId,
    pub(crate) step: Step,
    pub(crate) at: Timestamp,
}

/// Records where a courier was, all or nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RecordPositions {
    pub(crate) courier: CourierId,
    pub(crate) fixes: Vec<Fix>,
}

/// Done, and nothing to say about it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ack {}

macro_rules! commands {
    ($($name:ident = $kind:literal -> $reply:ty),+ $(,)?) => {
        $(impl RequestContract for $name {
            const TYPE: &'static str = $kind;
            const ACT: RequestKind = RequestKind::Command;
            type Reply = $reply;
        })+
    };
}

commands! {
    AddUser = "gateway.add_user.v1" -> Ack,
    RevokeTokens = "gateway.revoke_tokens.v1" -> Ack,
    SetUserStatus = "gateway.set_user_status.v1" -> Ack,
    SetPassword = "gateway.set_password.v1" -> Ack,
    BeginOrder = "gateway.begin_order.v1" -> Ack,
    // What has become of it may be another outcome: the first one stays.
    EndOrder = "gateway.end_order.v1" -> OrderState,
    LeaveOpen = "gateway.leave_open.v1" -> Ack,
    AdoptOutcome = "gateway.adopt_outcome.v1" -> OrderState,
    CancelOrder = "gateway.cancel_order.v1" -> OrderState,
    AssignCourier = "gateway.assign_courier.v1" -> Ack,
    AdvanceDelivery = "gateway.take_step.v1" -> Ack,
    RecordPositions = "gateway.record_positions.v1" -> Ack,
}
