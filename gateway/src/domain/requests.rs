//! The commands of the gateway's role. They never leave the process, so their form may change with the program while no
//! order is open.

use doorstep_contracts::{
    CancelledBy, CourierId, CustomerId, EmailAddress, InvoiceNo, Label, Money, NotificationsChosen,
    OrderLine, RestaurantId, SignedLink,
};
use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::entities::{GpsFix, OrderDecision, OrderState, Step, UserName, UserRole, UserStatus};

/// Adds a user who may log in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddUser {
    pub(crate) name: UserName,
    pub(crate) standing: UserRole,
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
    /// Another operator who may log in, if one is known. Without one, the last operator can be neither disabled nor
    /// deleted.
    pub(crate) other_operator: Option<UserName>,
}

/// Sets a new password for a user.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetPassword {
    pub(crate) name: UserName,
    pub(crate) hash: String,
    /// The hash of the password that it replaces, if the old password was required.
    pub(crate) replaces: Option<String>,
}

/// Sets the mail address of a user, to be confirmed by a mailed link.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetEmail {
    pub(crate) name: UserName,
    pub(crate) address: EmailAddress,
    pub(crate) nonce: Label,
    pub(crate) link: SignedLink,
}

/// Confirms the mail address that was set under this nonce.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConfirmEmail {
    pub(crate) name: UserName,
    pub(crate) nonce: Label,
}

/// Removes the mail address of a user.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RemoveEmail {
    pub(crate) name: UserName,
}

/// Stores a user's choice of mails.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ChooseNotifications {
    pub(crate) name: UserName,
    pub(crate) choices: NotificationsChosen,
}

/// Begins an order, before any role is called.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BeginOrder {
    pub(crate) order: InvoiceNo,
    pub(crate) customer: CustomerId,
    pub(crate) key: String,
    /// The fingerprint of the request that came with the key.
    pub(crate) fingerprint: String,
    pub(crate) restaurant: RestaurantId,
    pub(crate) country: Label,
    pub(crate) lines: Vec<OrderLine>,
    pub(crate) total: Money,
    /// The deadline, after which recovery abandons the order.
    pub(crate) deadline: Timestamp,
}

/// Records the outcome of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndOrder {
    pub(crate) order: InvoiceNo,
    pub(crate) outcome: OrderDecision,
}

/// Leaves the open orders of a restored copy to an operator: the copy does not hold what has happened to them since.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeaveOpen {}

/// Records what the role `orders` knows of an order that was left, whose events another copy of the store has
/// published.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdoptOutcome {
    pub(crate) order: InvoiceNo,
    pub(crate) outcome: OrderDecision,
}

/// Cancels a confirmed order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CancelOrder {
    pub(crate) order: InvoiceNo,
    pub(crate) by: CancelledBy,
    pub(crate) reason: Label,
}

/// Assigns a confirmed order to a courier.
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

/// Records a courier's positions, all or nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RecordPositions {
    pub(crate) courier: CourierId,
    pub(crate) fixes: Vec<GpsFix>,
}

/// A reply without content.
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
    SetEmail = "gateway.set_email.v1" -> Ack,
    ConfirmEmail = "gateway.confirm_email.v1" -> Ack,
    RemoveEmail = "gateway.remove_email.v1" -> Ack,
    ChooseNotifications = "gateway.choose_notifications.v1" -> Ack,
    BeginOrder = "gateway.begin_order.v1" -> Ack,
    // The outcome in the reply may be another one: the first outcome stays.
    EndOrder = "gateway.end_order.v1" -> OrderState,
    LeaveOpen = "gateway.leave_open.v1" -> Ack,
    AdoptOutcome = "gateway.adopt_outcome.v1" -> OrderState,
    CancelOrder = "gateway.cancel_order.v1" -> OrderState,
    AssignCourier = "gateway.assign_courier.v1" -> Ack,
    AdvanceDelivery = "gateway.take_step.v1" -> Ack,
    RecordPositions = "gateway.record_positions.v1" -> Ack,
}
