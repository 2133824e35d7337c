//! The gateway's own role: users, orders and deliveries.
//!
//! It is a pure function like any other role, but without a queue. It executes only commands of its own process. Its
//! events leave by its outbox, whether the broker is available or not.
//!
//! | entity | content |
//! | --- | --- |
//! | `user/NAME` | a user's role, password hash, status and mail address |
//! | `address/SHA256` | the times at which links to confirm this address were mailed |
//! | `intent/CUSTOMER/KEY` | the order that an Idempotency-Key stands for |
//! | `order/NUMBER` | an order, from the moment at which it is begun |
//! | `open/DIGIT` | the orders without an outcome, in sixteen parts; those of a restored copy apart |
//! | `delivery/NUMBER` | the courier of an order |

mod delivery;
mod email;
mod entities;
mod order;
mod requests;
#[cfg(test)]
mod tests;
mod user;

use doorstep_event::{ContractError, Event, Rejection, Request, RequestContract, Timestamp};
use doorstep_runtime::{CommandOutcome, Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

pub(crate) use entities::{
    Delivery, GpsFix, IdempotencyRecord, MailedLinks, OpenOrders, Order, OrderDecision, OrderNames,
    OrderState, Step, User, UserEmail, UserName, UserRole, UserStatus, part_keys,
};
pub(crate) use order::label;
pub(crate) use requests::{
    AddUser, AdoptOutcome, AdvanceDelivery, AssignCourier, BeginOrder, CancelOrder,
    ChooseNotifications, ConfirmEmail, EndOrder, LeaveOpen, RecordPositions, RemoveEmail,
    RevokeTokens, SetEmail, SetPassword, SetUserStatus,
};

/// The role's name, also of its store and its source.
pub(crate) const NAME: &str = "gateway";

pub(crate) struct GatewayRole;

/// A decoded and validated command.
pub(crate) trait Command: Send + Sync {
    /// Returns the entities that the command touches.
    fn keys(&self) -> Vec<EntityKey>;

    fn execute(&self, states: &mut States<Entity>, now: Timestamp) -> Executed;
}

/// The reply to a command with its effects, or its rejection.
type Executed = Result<CommandOutcome, Rejection>;

/// The state of one entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Entity {
    User(User),
    Intent(IdempotencyRecord),
    Order(Box<Order>),
    Open(OpenOrders),
    Delivery(Delivery),
    Address(MailedLinks),
}

macro_rules! entries {
    ($($read:ident: $variant:ident($type:ty)),+ $(,)?) => {
        impl Entity {
            $(pub(crate) fn $read(&self) -> Option<&$type> {
                match self {
                    Self::$variant(it) => Some(it),
                    _ => None,
                }
            })+
        }
    };
}

entries! {
    user: User(User),
    intent: Intent(IdempotencyRecord),
    order: Order(Order),
    open: Open(OpenOrders),
    delivery: Delivery(Delivery),
}

impl Role for GatewayRole {
    type Payload = ();
    type Command = Box<dyn Command>;
    type Query = Unsupported;
    type State = Entity;

    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, _event: &Event) -> Result<Reading<()>, ContractError> {
        Ok(Reading::Ignored)
    }

    fn keys(&self, event: &Event, (): &()) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        _states: &mut States<Entity>,
        _event: &Event,
        (): &(),
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        Ok(Effects::none())
    }

    fn read_command(&self, request: &Request) -> Result<Box<dyn Command>, ContractError> {
        match request.kind.as_str() {
            AddUser::TYPE => read::<AddUser>(request),
            RevokeTokens::TYPE => read::<RevokeTokens>(request),
            SetUserStatus::TYPE => read::<SetUserStatus>(request),
            SetPassword::TYPE => read::<SetPassword>(request),
            SetEmail::TYPE => read::<SetEmail>(request),
            ConfirmEmail::TYPE => read::<ConfirmEmail>(request),
            RemoveEmail::TYPE => read::<RemoveEmail>(request),
            ChooseNotifications::TYPE => read::<ChooseNotifications>(request),
            BeginOrder::TYPE => read::<BeginOrder>(request),
            EndOrder::TYPE => read::<EndOrder>(request),
            LeaveOpen::TYPE => read::<LeaveOpen>(request),
            AdoptOutcome::TYPE => read::<AdoptOutcome>(request),
            CancelOrder::TYPE => read::<CancelOrder>(request),
            AssignCourier::TYPE => read::<AssignCourier>(request),
            AdvanceDelivery::TYPE => read::<AdvanceDelivery>(request),
            RecordPositions::TYPE => read::<RecordPositions>(request),
            other => Err(ContractError::UnknownType(other.to_owned())),
        }
    }

    fn command_keys(&self, _request: &Request, command: &Box<dyn Command>) -> Vec<EntityKey> {
        command.keys()
    }

    fn execute(
        &self,
        states: &mut States<Entity>,
        _request: &Request,
        command: &Box<dyn Command>,
        now: Timestamp,
    ) -> Executed {
        command.execute(states, now)
    }
}

fn read<C: RequestContract + Command + 'static>(
    request: &Request,
) -> Result<Box<dyn Command>, ContractError> {
    Ok(Box::new(C::read(request)?))
}

fn rejected(code: &'static str, detail: impl Into<String>) -> Rejection {
    Rejection::new(code, detail)
}
