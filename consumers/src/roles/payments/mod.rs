//! Payments: money held for an order, captured, voided and refunded, on a double-entry ledger.
//!
//! Events of an order and requests about its payment come by different ways and in any order, so nothing waits here:
//! every step is stored, and a later one builds on it. An order that ended without a payment leaves a voided payment,
//! which rejects any authorization. An order confirmed before its money is held is captured as soon as it is. Every
//! step may be repeated and then changes nothing. `process.rs` lists all steps.
//!
//! A scheduled event releases held money, unless it was captured by then.

mod ledger;
mod process;
#[cfg(test)]
mod tests;

use doorstep_contracts::{
    CustomerId, InvoiceNo, Money, OrderAbandoned, OrderCancelled, OrderConfirmed, OrderRefused,
    ReversalReason,
    requests::{
        AuthorizePayment, CapturePayment, PaidOrder, PaymentStatus, PaymentView, ReadPayment,
        RefundPayment, VoidPayment,
    },
};
use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, Timestamp,
};
use doorstep_runtime::{CommandOutcome, Effects, HandlerError, Reading, Role, States, reply};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use self::{
    ledger::{Account, Balance},
    process::PaymentProcess,
};
use super::{not_handled, order_of};

pub(crate) struct Payments;

/// An event that the role handles: a change that concerns the payment of an order.
pub(crate) struct Fact {
    order: InvoiceNo,
    what: What,
}

/// The kind of change.
enum What {
    /// The order is confirmed.
    Confirmed,
    /// The order was rejected, abandoned or cancelled.
    Ended(ReversalReason),
    /// The hold on the money has expired.
    LapseDue,
}

/// The commands that the role executes.
pub(crate) enum Command {
    Authorize(AuthorizePayment),
    Capture(CapturePayment),
    Void(VoidPayment),
    Refund(RefundPayment),
}

/// `payment.lapse_due.v1`, from this role to itself: the hold on the money may have expired. It is never published.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LapseDue {}

impl Contract for LapseDue {
    const TYPE: &'static str = "payment.lapse_due.v1";
    const REQUIRES_SEQUENCE: bool = false;
}

/// The states of the role, each under its own kind of key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Book {
    /// On `payment/ORDER`.
    Payment(Payment),
    /// On `account/NAME`.
    Account(Balance),
}

/// The payment of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payment {
    /// The known status of the order.
    order_status: PaidOrder,
    /// The stage of the payment.
    payment: PaymentStage,
}

/// The stage of a payment, with its terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum PaymentStage {
    /// The order is confirmed, and nothing was authorized for it.
    Awaited,
    Authorized(Terms),
    /// The shop has the money.
    Captured(Terms),
    /// The held money is free again.
    Voided(Terms),
    /// No money was held, and none will be.
    Barred,
    /// The shop had the money and gave it back.
    Refunded(Terms),
}

/// The terms on which the money is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    customer: CustomerId,
    amount: Money,
    authorized_until: Timestamp,
}

impl Role for Payments {
    type Payload = Fact;
    type Command = Command;
    type Query = ReadPayment;
    type State = Book;

    fn name(&self) -> &'static str {
        "payments"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let what =
            match event.event_type.as_str() {
                OrderConfirmed::TYPE => OrderConfirmed::read(event).map(|_| What::Confirmed)?,
                OrderRefused::TYPE => {
                    OrderRefused::read(event).map(|_| What::Ended(ReversalReason::OrderRefused))?
                }
                OrderAbandoned::TYPE => OrderAbandoned::read(event)
                    .map(|_| What::Ended(ReversalReason::OrderAbandoned))?,
                OrderCancelled::TYPE => OrderCancelled::read(event)
                    .map(|_| What::Ended(ReversalReason::OrderCancelled))?,
                LapseDue::TYPE => LapseDue::read(event).map(|_| What::LapseDue)?,
                _ => return not_handled(event),
            };
        let order = order_of(event)?;
        Ok(Reading::Handled(Fact { order, what }))
    }

    fn keys(&self, _event: &Event, fact: &Fact) -> Vec<EntityKey> {
        touched(&fact.order)
    }

    fn handle(
        &self,
        states: &mut States<Book>,
        _event: &Event,
        fact: &Fact,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let mut work = PaymentProcess::on(states, &fact.order, now);
        match fact.what {
            What::Confirmed => work.order_confirmed()?,
            What::Ended(reason) => work.order_closed(reason)?,
            What::LapseDue => work.expire()?,
        }
        Ok(work.effects)
    }

    fn read_command(&self, request: &Request) -> Result<Command, ContractError> {
        Ok(match request.kind.as_str() {
            AuthorizePayment::TYPE => Command::Authorize(AuthorizePayment::read(request)?),
            CapturePayment::TYPE => Command::Capture(CapturePayment::read(request)?),
            VoidPayment::TYPE => Command::Void(VoidPayment::read(request)?),
            RefundPayment::TYPE => Command::Refund(RefundPayment::read(request)?),
            unknown => return Err(ContractError::UnknownType(unknown.to_owned())),
        })
    }

    fn command_keys(&self, _request: &Request, command: &Command) -> Vec<EntityKey> {
        touched(command.order())
    }

    fn execute(
        &self,
        states: &mut States<Book>,
        _request: &Request,
        command: &Command,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        let order = command.order();
        let mut work = PaymentProcess::on(states, order, now);
        match command {
            Command::Authorize(asked) => {
                let authorization = work.authorize(asked)?;
                CommandOutcome::new::<AuthorizePayment>(&authorization, work.effects)
            }
            Command::Capture(_) => {
                let payment = work.capture()?;
                CommandOutcome::new::<CapturePayment>(&payment.view(order), work.effects)
            }
            Command::Void(asked) => {
                let payment = work.void(asked.reason.as_ref())?;
                CommandOutcome::new::<VoidPayment>(&payment.view(order), work.effects)
            }
            Command::Refund(asked) => {
                let payment = work.refund(asked.reason.as_ref())?;
                CommandOutcome::new::<RefundPayment>(&payment.view(order), work.effects)
            }
        }
    }

    fn read_query(&self, request: &Request) -> Result<ReadPayment, ContractError> {
        match request.kind.as_str() {
            ReadPayment::TYPE => ReadPayment::read(request),
            unknown => Err(ContractError::UnknownType(unknown.to_owned())),
        }
    }

    fn query_keys(&self, _request: &Request, query: &ReadPayment) -> Vec<EntityKey> {
        vec![key(&query.order)]
    }

    fn query(
        &self,
        states: &States<Book>,
        _request: &Request,
        query: &ReadPayment,
        _now: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        let ReadPayment { order } = query;
        match states.get(&key(order)) {
            Some(Book::Payment(payment)) => reply::<ReadPayment>(&payment.view(order)),
            Some(Book::Account(_)) | None => Err(Rejection::new(
                "unknown_payment",
                format!("nothing is known of a payment for order {order}"),
            )),
        }
    }
}

impl Command {
    fn order(&self) -> &InvoiceNo {
        match self {
            Self::Authorize(AuthorizePayment { order, .. })
            | Self::Capture(CapturePayment { order })
            | Self::Void(VoidPayment { order, .. })
            | Self::Refund(RefundPayment { order, .. }) => order,
        }
    }
}

impl Payment {
    fn view(&self, order: &InvoiceNo) -> PaymentView {
        let (status, terms) = match &self.payment {
            PaymentStage::Awaited => (PaymentStatus::Awaited, None),
            PaymentStage::Authorized(terms) => (PaymentStatus::Authorized, Some(terms)),
            PaymentStage::Captured(terms) => (PaymentStatus::Captured, Some(terms)),
            PaymentStage::Voided(terms) => (PaymentStatus::Voided, Some(terms)),
            PaymentStage::Barred => (PaymentStatus::Voided, None),
            PaymentStage::Refunded(terms) => (PaymentStatus::Refunded, Some(terms)),
        };
        PaymentView {
            order: order.clone(),
            status,
            order_status: self.order_status,
            customer: terms.map(|t| t.customer.clone()),
            amount: terms.map(|t| t.amount),
            authorized_until: terms.map(|t| t.authorized_until),
        }
    }
}

fn key(order: &InvoiceNo) -> EntityKey {
    EntityKey::from(&order.payment_subject())
}

/// Returns the entities that any step of a payment may touch.
fn touched(order: &InvoiceNo) -> Vec<EntityKey> {
    let accounts = Account::ALL.iter().map(|account| account.key());
    std::iter::once(key(order)).chain(accounts).collect()
}
