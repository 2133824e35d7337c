//! The steps of one payment.
//!
//! | step | nothing known | awaited | authorized | captured | voided, barred | refunded |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | authorize, same terms | held | held and captured | same reply | same reply | rejected | rejected |
//! | authorize, other terms | held | held and captured | rejected | rejected | rejected | rejected |
//! | capture | rejected | rejected | captured | same reply | rejected | rejected |
//! | void | barred | barred | voided | rejected | same reply | rejected |
//! | refund | rejected | rejected | rejected | refunded | rejected | same reply |
//! | order confirmed | awaited | - | captured | - | - or, once lapsed, a dead letter | - |
//! | order ended | barred | barred | voided | refunded | - | - |
//! | lapse | - | - | voided once its time has come | - | - | - |
//!
//! A dash changes only the known status of the order, and an end is never taken back. Once an order has ended, no money
//! is held for it and the shop keeps none, in any order of the steps.

use doorstep_contracts::{
    InvoiceNo, Label, Money, PaymentAuthorized, PaymentCaptured, PaymentMethod, PaymentRefunded,
    PaymentVoided, ReversalReason,
    requests::{AuthorizePayment, PaidOrder, PaymentAuthorization},
};
use doorstep_event::{Contract, Rejection, Timestamp};
use doorstep_runtime::{Effects, HandlerError, States};
use jiff::SignedDuration;

use super::{
    Book, LapseDue, Payment, PaymentStage, Terms, key,
    ledger::{Account, post},
};

/// The time of the first check for an expired hold, in seconds: nearly every order is decided by then.
const FIRST_CHECK: u32 = 15 * 60;

/// One payment in a step.
pub(super) struct PaymentProcess<'a> {
    states: &'a mut States<Book>,
    order: &'a InvoiceNo,
    now: Timestamp,
    pub(super) effects: Effects,
}

impl<'a> PaymentProcess<'a> {
    pub(super) fn on(states: &'a mut States<Book>, order: &'a InvoiceNo, now: Timestamp) -> Self {
        Self {
            states,
            order,
            now,
            effects: Effects::none(),
        }
    }

    fn known(&self) -> Option<Payment> {
        match self.states.get(&key(self.order)) {
            Some(Book::Payment(payment)) => Some(payment.clone()),
            Some(Book::Account(_)) | None => None,
        }
    }

    fn order_status(&self) -> PaidOrder {
        self.known().map_or(PaidOrder::Open, |p| p.order_status)
    }

    fn put(&mut self, order_status: PaidOrder, payment: PaymentStage) -> Payment {
        let payment = Payment {
            order_status,
            payment,
        };
        self.states
            .put(&key(self.order), Book::Payment(payment.clone()));
        payment
    }

    /// Holds money, and captures it at once if the order is already confirmed.
    pub(super) fn authorize(
        &mut self,
        asked: &AuthorizePayment,
    ) -> Result<PaymentAuthorization, Rejection> {
        let known = self.known();
        match known.map(|p| p.payment) {
            None | Some(PaymentStage::Awaited) => {}
            Some(PaymentStage::Authorized(terms) | PaymentStage::Captured(terms)) => {
                if terms.customer != asked.customer || terms.amount != asked.amount {
                    return Err(self.rejection(
                        "already_authorized",
                        format!("{} of {} is held already", terms.amount, terms.customer),
                    ));
                }
                return Ok(PaymentAuthorization {
                    authorized_until: terms.authorized_until,
                });
            }
            Some(PaymentStage::Barred) if self.order_status() == PaidOrder::Ended => {
                return Err(self.rejection("order_closed", "the order has ended"));
            }
            Some(PaymentStage::Voided(_) | PaymentStage::Barred) => return Err(self.is_voided()),
            Some(PaymentStage::Refunded(_)) => return Err(self.is_refunded()),
        }
        if asked.amount <= Money::ZERO
            || asked.amount.decimal() > AuthorizePayment::MAX_AMOUNT.into()
        {
            let most = AuthorizePayment::MAX_AMOUNT;
            let detail = format!("{} is not above zero and at most {most}", asked.amount);
            return Err(self.rejection("invalid_amount", detail));
        }
        self.card_gateway(&asked.method)?;
        let terms = self.hold(asked)?;
        let authorized_until = terms.authorized_until;
        match self.order_status() {
            PaidOrder::Confirmed => {
                self.take(&terms)?;
                self.put(PaidOrder::Confirmed, PaymentStage::Captured(terms));
            }
            order_status => {
                self.recheck(authorized_until.min(self.after(FIRST_CHECK)?))?;
                self.put(order_status, PaymentStage::Authorized(terms));
            }
        }
        Ok(PaymentAuthorization { authorized_until })
    }

    /// Stands for the card company, with which this role has no contract.
    fn card_gateway(&self, method: &PaymentMethod) -> Result<(), Rejection> {
        match method.as_str().split_once('/') {
            Some(("card", "declined")) => {
                Err(self.rejection("card_declined", "the card is declined"))
            }
            Some(("card", "insufficient_funds")) => {
                Err(self.rejection("insufficient_funds", "the card has insufficient funds"))
            }
            Some(("card", name)) if !name.is_empty() => Ok(()),
            _ => Err(self.rejection(
                "unknown_method",
                format!("{method} is not accepted; pay by card/NAME"),
            )),
        }
    }

    /// Captures the held money.
    pub(super) fn capture(&mut self) -> Result<Payment, Rejection> {
        match self.known() {
            Some(Payment {
                order_status,
                payment: PaymentStage::Authorized(terms),
            }) => {
                self.take(&terms)?;
                Ok(self.put(order_status, PaymentStage::Captured(terms)))
            }
            Some(payment) => match payment.payment {
                PaymentStage::Captured(_) => Ok(payment),
                PaymentStage::Voided(_) | PaymentStage::Barred => Err(self.is_voided()),
                PaymentStage::Refunded(_) => Err(self.is_refunded()),
                PaymentStage::Awaited | PaymentStage::Authorized(_) => {
                    Err(self.is_not_authorized())
                }
            },
            None => Err(self.is_not_authorized()),
        }
    }

    /// Voids the held money. Without any, makes sure that none will be held.
    pub(super) fn void(&mut self, words: Option<&Label>) -> Result<Payment, Rejection> {
        let order_status = self.order_status();
        match self.known().map(|p| p.payment) {
            None | Some(PaymentStage::Awaited) => Ok(self.put(order_status, PaymentStage::Barred)),
            Some(PaymentStage::Authorized(terms)) => {
                self.void_hold(&terms, ReversalReason::Requested, words)?;
                Ok(self.put(order_status, PaymentStage::Voided(terms)))
            }
            Some(stage @ (PaymentStage::Voided(_) | PaymentStage::Barred)) => Ok(Payment {
                order_status,
                payment: stage,
            }),
            Some(PaymentStage::Captured(_)) => {
                Err(self.rejection("captured", "the payment was captured: request a refund"))
            }
            Some(PaymentStage::Refunded(_)) => Err(self.is_refunded()),
        }
    }

    /// Refunds the captured money.
    pub(super) fn refund(&mut self, words: Option<&Label>) -> Result<Payment, Rejection> {
        let order_status = self.order_status();
        match self.known().map(|p| p.payment) {
            None | Some(PaymentStage::Awaited) => Err(self.is_not_authorized()),
            Some(PaymentStage::Authorized(_)) => Err(self.rejection(
                "not_captured",
                "the payment is only authorized: request a void",
            )),
            Some(PaymentStage::Captured(terms)) => {
                self.refund_capture(&terms, ReversalReason::Requested, words)?;
                Ok(self.put(order_status, PaymentStage::Refunded(terms)))
            }
            Some(PaymentStage::Voided(_) | PaymentStage::Barred) => Err(self.is_voided()),
            Some(stage @ PaymentStage::Refunded(_)) => Ok(Payment {
                order_status,
                payment: stage,
            }),
        }
    }

    /// Handles a confirmed order: the shop captures the held money, now or once it is held.
    pub(super) fn order_confirmed(&mut self) -> Result<(), HandlerError> {
        if self.order_status() == PaidOrder::Ended {
            return Ok(());
        }
        let stage = match self.known().map(|p| p.payment) {
            None => PaymentStage::Awaited,
            Some(PaymentStage::Authorized(terms)) => {
                self.take(&terms)?;
                PaymentStage::Captured(terms)
            }
            // The card company was told that the money is free, so an operator has to decide on an order that is not
            // paid.
            Some(PaymentStage::Voided(terms)) if terms.authorized_until <= self.now => {
                return Err(HandlerError::Reject(format!(
                    "order {} is confirmed and was not paid: the hold on its money has lapsed at {}",
                    self.order, terms.authorized_until
                )));
            }
            // Voided money is not held again.
            Some(stage) => stage,
        };
        self.put(PaidOrder::Confirmed, stage);
        Ok(())
    }

    /// Handles an order that ended without success: so does its payment, even one not yet requested.
    pub(super) fn order_closed(&mut self, reason: ReversalReason) -> Result<(), HandlerError> {
        let stage = match self.known().map(|p| p.payment) {
            None | Some(PaymentStage::Awaited) => PaymentStage::Barred,
            Some(PaymentStage::Authorized(terms)) => {
                self.void_hold(&terms, reason, None)?;
                PaymentStage::Voided(terms)
            }
            Some(PaymentStage::Captured(terms)) => {
                self.refund_capture(&terms, reason, None)?;
                PaymentStage::Refunded(terms)
            }
            Some(
                stage
                @ (PaymentStage::Voided(_) | PaymentStage::Barred | PaymentStage::Refunded(_)),
            ) => stage,
        };
        self.put(PaidOrder::Ended, stage);
        Ok(())
    }

    /// Handles a check of the hold. Checks are not cancelled, so mostly the hold no longer exists.
    pub(super) fn expire(&mut self) -> Result<(), HandlerError> {
        if let Some(Payment {
            order_status,
            payment: PaymentStage::Authorized(terms),
        }) = self.known()
        {
            if self.now < terms.authorized_until {
                return self.recheck(terms.authorized_until);
            }
            self.void_hold(&terms, ReversalReason::Lapsed, None)?;
            self.put(order_status, PaymentStage::Voided(terms));
        }
        Ok(())
    }

    /// Scheduled events are bounded, and only undecided orders need one for the whole time of their hold.
    fn recheck(&mut self, at: Timestamp) -> Result<(), HandlerError> {
        let subject = self.order.payment_subject();
        self.effects.schedule(at, &subject, &LapseDue {})
    }

    fn after(&self, seconds: u32) -> Result<Timestamp, HandlerError> {
        self.now
            .checked_add(SignedDuration::from_secs(seconds.into()))
            .map_err(|e| HandlerError::Reject(format!("{} and {seconds} s: {e}", self.now)))
    }

    fn hold(&mut self, asked: &AuthorizePayment) -> Result<Terms, HandlerError> {
        let seconds = asked.hold_seconds.unwrap_or(AuthorizePayment::DEFAULT_HOLD);
        let authorized_until = self.after(seconds)?;
        let terms = Terms {
            customer: asked.customer.clone(),
            amount: asked.amount,
            authorized_until,
        };
        let fact = PaymentAuthorized {
            customer: terms.customer.clone(),
            amount: terms.amount,
            authorized_until,
        };
        self.transfer(Account::Cards, Account::Held, terms.amount, &fact)?;
        Ok(terms)
    }

    fn take(&mut self, terms: &Terms) -> Result<(), HandlerError> {
        let amount = terms.amount;
        let fact = PaymentCaptured { amount };
        self.transfer(Account::Held, Account::Sales, amount, &fact)
    }

    fn void_hold(
        &mut self,
        terms: &Terms,
        reason: ReversalReason,
        words: Option<&Label>,
    ) -> Result<(), HandlerError> {
        let fact = PaymentVoided {
            amount: terms.amount,
            reason,
            detail: words.cloned(),
        };
        self.transfer(Account::Held, Account::Cards, terms.amount, &fact)
    }

    fn refund_capture(
        &mut self,
        terms: &Terms,
        reason: ReversalReason,
        words: Option<&Label>,
    ) -> Result<(), HandlerError> {
        let fact = PaymentRefunded {
            amount: terms.amount,
            reason,
            detail: words.cloned(),
        };
        self.transfer(Account::Sales, Account::Cards, terms.amount, &fact)
    }

    /// Posts an amount, and publishes the fact of it.
    fn transfer(
        &mut self,
        from: Account,
        to: Account,
        amount: Money,
        fact: &impl Contract,
    ) -> Result<(), HandlerError> {
        post(self.states, from, to, amount)?;
        self.effects.publish(&self.order.payment_subject(), fact)
    }

    fn rejection(&self, code: &'static str, why: impl std::fmt::Display) -> Rejection {
        Rejection::new(code, format!("order {}: {why}", self.order))
    }

    fn is_voided(&self) -> Rejection {
        self.rejection("voided", "the payment was voided, or has lapsed")
    }

    fn is_refunded(&self) -> Rejection {
        self.rejection("refunded", "the payment was refunded")
    }

    fn is_not_authorized(&self) -> Rejection {
        self.rejection("not_authorized", "no money is held")
    }
}
