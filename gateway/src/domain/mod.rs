//! The gateway's own role: users, orders and deliveries.
//!
//! It is a pure function like any other role, but without a queue. It executes only commands of its own process. Its
//! events leave by its outbox, whether the broker is available or not.
//!
//! | entity | content |
//! | --- | --- |
//! | `user/NAME` | a user's role, password hash and status |
//! | `intent/CUSTOMER/KEY` | the order that an Idempotency-Key stands for |
//! | `order/NUMBER` | an order, from the moment at which it is begun |
//! | `open/DIGIT` | the orders without an outcome, in sixteen parts; those of a restored copy apart |
//! | `delivery/NUMBER` | the courier of an order |

mod delivery;
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
    Delivery, GpsFix, IdempotencyRecord, OpenOrders, Order, OrderDecision, OrderNames, OrderState,
    Step, User, UserName, UserRole, UserStatus, part_keys,
};
pub(crate) use order::label;
pub(crate) use requests::{
    AddUser, AdoptOutcome, AdvanceDelivery, AssignCourier, BeginOrder, CancelOrder, EndOrder,
    LeaveOpen, RecordPositions, RevokeTokens, SetPassword, SetUserStatus,
};

/// The role's name, also of its store and its source.
pub(crate) const NAME: &str = "gateway";

pub(crate) struct GatewayRole;

/// A decoded and validated command.
pub(crate) enum Command {
    AddUser(AddUser),
    RevokeTokens(RevokeTokens),
    SetUserStatus(SetUserStatus),
    SetPassword(SetPassword),
    Begin(Box<BeginOrder>),
    End(EndOrder),
    Leave(LeaveOpen),
    Adopt(AdoptOutcome),
    Cancel(CancelOrder),
    Assign(AssignCourier),
    Step(AdvanceDelivery),
    Positions(RecordPositions),
}

/// The state of one entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Entity {
    User(User),
    Intent(IdempotencyRecord),
    Order(Box<Order>),
    Open(OpenOrders),
    Delivery(Delivery),
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
    type Command = Command;
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

    fn read_command(&self, request: &Request) -> Result<Command, ContractError> {
        Ok(match request.kind.as_str() {
            AddUser::TYPE => Command::AddUser(AddUser::read(request)?),
            RevokeTokens::TYPE => Command::RevokeTokens(RevokeTokens::read(request)?),
            SetUserStatus::TYPE => Command::SetUserStatus(SetUserStatus::read(request)?),
            SetPassword::TYPE => Command::SetPassword(SetPassword::read(request)?),
            BeginOrder::TYPE => Command::Begin(BeginOrder::read(request)?.into()),
            EndOrder::TYPE => Command::End(EndOrder::read(request)?),
            LeaveOpen::TYPE => Command::Leave(LeaveOpen::read(request)?),
            AdoptOutcome::TYPE => Command::Adopt(AdoptOutcome::read(request)?),
            CancelOrder::TYPE => Command::Cancel(CancelOrder::read(request)?),
            AssignCourier::TYPE => Command::Assign(AssignCourier::read(request)?),
            AdvanceDelivery::TYPE => Command::Step(AdvanceDelivery::read(request)?),
            RecordPositions::TYPE => Command::Positions(RecordPositions::read(request)?),
            other => return Err(ContractError::UnknownType(other.to_owned())),
        })
    }

    fn command_keys(&self, _request: &Request, command: &Command) -> Vec<EntityKey> {
        match command {
            Command::AddUser(asked) => vec![asked.name.entity()],
            Command::RevokeTokens(asked) => vec![asked.name.entity()],
            Command::SetUserStatus(asked) => user::status_keys(asked),
            Command::SetPassword(asked) => vec![asked.name.entity()],
            Command::Begin(asked) => order::begin_keys(asked),
            Command::End(asked) => order::end_keys(asked),
            Command::Leave(LeaveOpen {}) => part_keys(),
            Command::Adopt(asked) => order::adopt_keys(asked),
            Command::Cancel(asked) => order::cancel_keys(asked),
            Command::Assign(asked) => delivery::assign_keys(asked),
            Command::Step(asked) => delivery::step_keys(asked),
            Command::Positions(asked) => delivery::positions_keys(asked),
        }
    }

    fn execute(
        &self,
        states: &mut States<Entity>,
        _request: &Request,
        command: &Command,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        match command {
            Command::AddUser(asked) => user::add(states, asked, now),
            Command::RevokeTokens(asked) => user::revoke(states, asked),
            Command::SetUserStatus(asked) => user::set_status(states, asked),
            Command::SetPassword(asked) => user::set_password(states, asked),
            Command::Begin(asked) => order::begin(states, asked, now),
            Command::End(asked) => order::end(states, asked),
            Command::Leave(asked) => order::leave(states, asked),
            Command::Adopt(asked) => order::adopt(states, asked),
            Command::Cancel(asked) => order::cancel(states, asked),
            Command::Assign(asked) => delivery::assign(states, asked, now),
            Command::Step(asked) => delivery::step(states, asked),
            Command::Positions(asked) => delivery::positions(states, asked),
        }
    }
}

fn rejected(code: &'static str, detail: impl Into<String>) -> Rejection {
    Rejection::new(code, detail)
}
