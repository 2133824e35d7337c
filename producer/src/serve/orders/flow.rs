//! The flow of an order: a price is asked for, the order is begun, and only then money and kitchen are asked; whatever they say, or do not
//! say in time, is its outcome. It runs to its end also when the customer has gone away meanwhile.

use std::time::Duration;

use doorstep_contracts::{
    CustomerId, InvoiceNo, Label, PaymentMethod, RefusedBy, RestaurantId,
    requests::{AuthorizePayment, ConfirmOrder, OrderQuote, QuoteOrder, WantedLine},
};
use doorstep_event::{Refused, RequestId, Timestamp};
use doorstep_messaging::AskError;
use uuid::Uuid;

use super::under_way::{self, Place};
use crate::serve::{
    books::{Books, BooksError},
    http::Problem,
    role::{BeginOrder, EndOrder, Entry, Intent, Order, OrderNames, Outcome, label},
    roles::{Roles, after},
};

/// What is left of the time for recording the outcome when money and kitchen have had theirs.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a customer wants.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Who.
    pub(crate) customer: CustomerId,
    /// The Idempotency-Key.
    pub(crate) key: String,
    /// Of all that came with it.
    pub(crate) fingerprint: String,
    /// Who is to make it.
    pub(crate) restaurant: RestaurantId,
    /// What.
    pub(crate) lines: Vec<WantedLine>,
    /// How it is paid for.
    pub(crate) method: PaymentMethod,
    /// Where the order comes from.
    pub(crate) country: Label,
}

/// Places orders.
#[derive(Clone)]
pub(crate) struct Flow {
    /// What is kept.
    pub(crate) books: Books,
    /// Who is asked.
    pub(crate) roles: Roles,
    /// How long money and kitchen may take together.
    pub(crate) answer_within: Duration,
}

impl Flow {
    /// The order that this key stands for and that has its outcome, if there is one.
    ///
    /// # Errors
    /// The key came with something else, or its order has no outcome yet, or the store is away.
    pub(crate) async fn earlier(
        &self,
        wanted: &Wanted,
    ) -> Result<Option<(InvoiceNo, Order)>, Problem> {
        let key = Intent::entity(&wanted.customer, &wanted.key);
        let entry = self.books.entry(key).await?;
        let Some(intent) = entry.as_ref().and_then(Entry::intent) else {
            return Ok(None);
        };
        if intent.fingerprint != wanted.fingerprint {
            return Err(Problem::new(
                axum::http::StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key came with another order before",
            ));
        }
        let order = self.decided(&intent.order).await?;
        Ok(Some((intent.order.clone(), order)))
    }

    /// Places an order, and returns it with its outcome.
    ///
    /// # Errors
    /// It was not begun, or its outcome could not be recorded; then it is abandoned soon.
    pub(crate) async fn place(
        &self,
        wanted: Wanted,
        place: Place,
    ) -> Result<(InvoiceNo, Order), Problem> {
        let quote = QuoteOrder {
            restaurant: wanted.restaurant.clone(),
            lines: wanted.lines.clone(),
        };
        let quote = self.roles.query(&quote).await?;
        let number = InvoiceNo::new(&Uuid::now_v7().simple().to_string()).map_err(|e| {
            tracing::error!(reason = %e, "a number for an order could not be minted");
            Problem::internal()
        })?;
        let deadline = after(self.answer_within + LAST_WORDS);
        let begin = BeginOrder {
            order: number.clone(),
            customer: wanted.customer.clone(),
            key: wanted.key.clone(),
            fingerprint: wanted.fingerprint.clone(),
            restaurant: wanted.restaurant.clone(),
            country: wanted.country.clone(),
            lines: quote.lines.clone(),
            total: quote.total,
            deadline,
        };
        match self.books.obey(&begin).await {
            Ok(_) => {}
            // Another process on this store was faster with the same key.
            Err(BooksError::Refused(refused)) if refused.code == "key_used" => {
                return self
                    .earlier(&wanted)
                    .await?
                    .ok_or_else(under_way::in_progress);
            }
            Err(e) => return Err(e.into()),
        }
        let outcome = self.ask(&number, &wanted, &quote).await;
        let end = EndOrder {
            order: number.clone(),
            outcome,
        };
        self.books.obey(&end).await?;
        let order = self.decided(&number).await;
        drop(place);
        Ok((number, order?))
    }

    /// Asks for the money and then for the kitchen.
    async fn ask(&self, number: &InvoiceNo, wanted: &Wanted, quote: &OrderQuote) -> Outcome {
        let until = after(self.answer_within);
        let authorize = AuthorizePayment {
            order: number.clone(),
            customer: wanted.customer.clone(),
            amount: quote.total,
            method: wanted.method.clone(),
            hold_seconds: None,
        };
        let asked = self.named(number, "authorize", until, &authorize).await;
        if let Err(e) = asked {
            return refused_or_abandoned(RefusedBy::Payment, "payments", e);
        }
        let confirm = ConfirmOrder {
            order: number.clone(),
            restaurant: wanted.restaurant.clone(),
            pieces: quote.pieces,
        };
        match self.named(number, "confirm", until, &confirm).await {
            Ok(promise) => Outcome::Confirmed {
                promised_at: promise.promised_at,
            },
            Err(e) => refused_or_abandoned(RefusedBy::Restaurant, "restaurant", e),
        }
    }

    /// Asks under an id that the order's number leads to, so that the same is never done twice for one order.
    async fn named<C: doorstep_event::RequestContract>(
        &self,
        number: &InvoiceNo,
        what: &str,
        until: Timestamp,
        asked: &C,
    ) -> Result<C::Reply, AskError> {
        let id = RequestId::new(format!("{number}/{what}")).map_err(Refused::from)?;
        self.roles.command(Some(id), until, asked).await
    }

    /// The order, if it has its outcome.
    async fn decided(&self, number: &InvoiceNo) -> Result<Order, Problem> {
        let entry = self.books.entry(number.order_key()).await?;
        let order = entry.as_ref().and_then(Entry::order);
        order
            .filter(|order| order.stage.is_decided())
            .cloned()
            .ok_or_else(under_way::in_progress)
    }
}

fn refused_or_abandoned(by: RefusedBy, role: &str, error: AskError) -> Outcome {
    match error {
        // What may help later is no answer to the customer who waits now, and neither is a handler that failed or a clock that is wrong.
        AskError::Refused(refused)
            if ![Refused::NOT_YET, Refused::FAILED, Refused::CLOCK_SKEW]
                .contains(&refused.code.as_str()) =>
        {
            Outcome::Refused {
                by,
                code: refused.code,
                detail: refused.detail,
            }
        }
        error => {
            tracing::info!(role, reason = %error, "an order is abandoned");
            Outcome::Abandoned {
                reason: label(&format!("{role}: {error}")),
            }
        }
    }
}
