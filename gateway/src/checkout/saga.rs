//! The flow of an order: a price is asked for, the order is begun, and only then money and kitchen are asked; whatever they say, or do not
//! say in time, is its outcome. It runs to its end also when the customer has gone away meanwhile.

use std::time::Duration;

use doorstep_contracts::{
    CustomerId, InvoiceNo, Label, Money, PaymentMethod, RefusedBy, RestaurantId,
    requests::{AuthorizePayment, ConfirmOrder, OrderQuote, QuoteOrder, RequestedLine},
};
use doorstep_event::{Rejection, RequestId, Timestamp};
use doorstep_messaging::CallError;
use rand::RngExt;
use tokio::time::sleep;
use uuid::Uuid;

use super::idempotency::{self, KeyGuard};
use crate::{
    backends::{Backends, QUERY_TIME, after},
    domain::{
        BeginOrder, EndOrder, Entity, IdempotencyRecord, Order, OrderDecision, OrderNames, label,
    },
    error_mapping,
    http::Problem,
    repository::{GatewayStore, GatewayStoreError},
};

/// What is left of the time for recording the outcome when money and kitchen have had theirs.
const RECORD_MARGIN: Duration = Duration::from_secs(1);
/// The pauses between tries to record an outcome: the first one, and the longest.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// What a customer wants.
#[derive(Debug, Clone)]
pub(crate) struct OrderRequest {
    /// Who.
    pub(crate) customer: CustomerId,
    /// The Idempotency-Key.
    pub(crate) key: String,
    /// Of all that came with it.
    pub(crate) fingerprint: String,
    /// Who is to make it.
    pub(crate) restaurant: RestaurantId,
    /// What.
    pub(crate) lines: Vec<RequestedLine>,
    /// How it is paid for.
    pub(crate) method: PaymentMethod,
    /// Where the order comes from.
    pub(crate) country: Label,
}

/// Places orders.
#[derive(Clone)]
pub(crate) struct CheckoutSaga {
    /// What is kept.
    pub(crate) books: GatewayStore,
    /// Who is asked.
    pub(crate) roles: Backends,
    /// How long money and kitchen may take together.
    pub(crate) answer_within: Duration,
}

impl CheckoutSaga {
    /// The order that this key stands for and that has its outcome, if there is one.
    ///
    /// # Errors
    /// The key came with something else, or its order has no outcome yet, or the store is away.
    pub(crate) async fn replay_idempotent(
        &self,
        wanted: &OrderRequest,
    ) -> Result<Option<(InvoiceNo, Order)>, Problem> {
        let key = IdempotencyRecord::entity(&wanted.customer, &wanted.key);
        let entry = self.books.get(key).await?;
        let Some(intent) = entry.as_ref().and_then(Entity::intent) else {
            return Ok(None);
        };
        if intent.fingerprint != wanted.fingerprint {
            return Err(Problem::new(
                axum::http::StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key came with another order before",
            ));
        }
        let order = self.get_decided(&intent.order).await?;
        Ok(Some((intent.order.clone(), order)))
    }

    /// Places an order, and returns it with its outcome.
    ///
    /// # Errors
    /// It was not begun, or its outcome could not be recorded; then it is abandoned soon.
    pub(crate) async fn place(
        &self,
        wanted: OrderRequest,
        place: KeyGuard,
    ) -> Result<(InvoiceNo, Order), Problem> {
        let quote = QuoteOrder {
            restaurant: wanted.restaurant.clone(),
            lines: wanted.lines.clone(),
        };
        let quote = self.roles.query(&quote).await?;
        can_be_paid(quote.total)?;
        let number = InvoiceNo::new(&Uuid::now_v7().simple().to_string()).map_err(|e| {
            tracing::error!(reason = %e, "a number for an order could not be minted");
            Problem::internal()
        })?;
        let until = after(self.answer_within);
        let deadline = after(self.answer_within + RECORD_MARGIN);
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
        match self.books.execute(&begin).await {
            Ok(_) => {}
            // Another process on this store was faster with the same key.
            Err(GatewayStoreError::Refused(refused)) if refused.code == "key_used" => {
                return self
                    .replay_idempotent(&wanted)
                    .await?
                    .ok_or_else(idempotency::in_progress);
            }
            Err(e) => return Err(e.into()),
        }
        let outcome = self.ask(&number, &wanted, &quote, until).await;
        let end = EndOrder {
            order: number.clone(),
            outcome,
        };
        retry_until(deadline, || self.books.execute(&end)).await?;
        let order = self.get_decided(&number).await;
        drop(place);
        Ok((number, order?))
    }

    /// Asks for the money and then for the kitchen.
    async fn ask(
        &self,
        number: &InvoiceNo,
        wanted: &OrderRequest,
        quote: &OrderQuote,
        until: Timestamp,
    ) -> OrderDecision {
        let authorize = AuthorizePayment {
            order: number.clone(),
            customer: wanted.customer.clone(),
            amount: quote.total,
            method: wanted.method.clone(),
            hold_seconds: None,
        };
        let asked = self
            .call_idempotent(number, "authorize", until, &authorize)
            .await;
        if let Err(e) = asked {
            return refused_or_abandoned(RefusedBy::Payment, "payments", e);
        }
        let confirm = ConfirmOrder {
            order: number.clone(),
            restaurant: wanted.restaurant.clone(),
            pieces: quote.pieces,
        };
        match self
            .call_idempotent(number, "confirm", until, &confirm)
            .await
        {
            Ok(promise) => OrderDecision::Confirmed {
                promised_at: promise.promised_at,
            },
            Err(e) => refused_or_abandoned(RefusedBy::Restaurant, "restaurant", e),
        }
    }

    /// Asks under an id that the order's number leads to, so that the same is never done twice for one order.
    async fn call_idempotent<C: doorstep_event::RequestContract>(
        &self,
        number: &InvoiceNo,
        what: &str,
        until: Timestamp,
        asked: &C,
    ) -> Result<C::Reply, CallError> {
        let id = RequestId::new(format!("{number}/{what}")).map_err(Rejection::from)?;
        self.roles.command(Some(id), until, asked).await
    }

    /// The order, if it has its outcome.
    async fn get_decided(&self, number: &InvoiceNo) -> Result<Order, Problem> {
        let entry = self.books.get(number.order_key()).await?;
        let order = entry.as_ref().and_then(Entity::order);
        order
            .filter(|order| order.stage.is_decided())
            .cloned()
            .ok_or_else(idempotency::in_progress)
    }
}

/// How long an order may take until it is answered where money and kitchen have so much time.
pub(crate) fn longest_order(answer_within: Duration) -> Duration {
    QUERY_TIME + answer_within + RECORD_MARGIN
}

/// What nobody would hold the money for is no order, and leaves none behind.
fn can_be_paid(total: Money) -> Result<(), Problem> {
    let most = AuthorizePayment::MAX_AMOUNT;
    if total > Money::ZERO && total.decimal() <= most.into() {
        return Ok(());
    }
    let detail = format!("an order costs more than 0 and at most {most}, and this one {total}");
    Err(error_mapping::problem(Rejection::new("bad_amount", detail)))
}

/// Tries again what could not be recorded, until the deadline is near: after that somebody else abandons the order, and says so. The outcome
/// is recorded once however often it is tried, since the first one stays.
async fn retry_until<T, F>(
    deadline: Timestamp,
    mut attempt: impl FnMut() -> F,
) -> Result<T, GatewayStoreError>
where
    F: Future<Output = Result<T, GatewayStoreError>>,
{
    let mut pause = INITIAL_BACKOFF;
    loop {
        let error = match attempt().await {
            Err(error) if error.is_transient() => error,
            ended => return ended,
        };
        // Those that wait for the same store do not all come back at once.
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        if after(jittered) >= deadline {
            return Err(error);
        }
        tracing::debug!(reason = %error, "an order's outcome could not be recorded yet");
        sleep(jittered).await;
        pause = (pause * 2).min(MAX_BACKOFF);
    }
}

fn refused_or_abandoned(by: RefusedBy, role: &str, error: CallError) -> OrderDecision {
    match error {
        // What may help later is no answer to the customer who waits now, and neither is a handler that failed or a clock that is wrong.
        CallError::Rejected(refused)
            if ![
                Rejection::NOT_YET,
                Rejection::FAILED,
                Rejection::CLOCK_SKEW,
                Rejection::FORBIDDEN,
            ]
            .contains(&refused.code.as_str()) =>
        {
            OrderDecision::Refused {
                by,
                code: refused.code,
                detail: refused.detail,
            }
        }
        error => {
            tracing::info!(role, reason = %error, "an order is abandoned");
            OrderDecision::Abandoned {
                reason: label(&format!("{role}: {error}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use axum::http::StatusCode;

    use super::*;

    /// What comes of attempts of which the first ones fail, and how many there were.
    async fn tried(
        time: Duration,
        failures: usize,
        error: fn() -> GatewayStoreError,
    ) -> (Result<(), GatewayStoreError>, usize) {
        let attempts = Cell::new(0);
        let ended = retry_until(after(time), || {
            attempts.set(attempts.get() + 1);
            let failed = attempts.get() <= failures;
            async move { if failed { Err(error()) } else { Ok(()) } }
        })
        .await;
        (ended, attempts.get())
    }

    fn overloaded() -> GatewayStoreError {
        GatewayStoreError::Overloaded {
            retry_after: Duration::from_secs(1),
        }
    }

    fn away() -> GatewayStoreError {
        GatewayStoreError::Unavailable("the disk is away".to_owned())
    }

    fn refused() -> GatewayStoreError {
        Rejection::new("unknown_order", "there is no such order").into()
    }

    #[test]
    fn what_cannot_be_paid_is_no_order() {
        let paid = |total: &str| can_be_paid(total.parse().unwrap());
        for good in ["0.000000001", "19.00", "100000"] {
            assert_eq!(paid(good), Ok(()), "{good}");
        }
        for bad in ["0", "-1", "100000.01"] {
            let refused = paid(bad).unwrap_err();
            assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        }
    }

    #[tokio::test]
    async fn an_outcome_is_recorded_as_soon_as_that_can_be_done() {
        let long = Duration::from_secs(600);
        for error in [overloaded, away] {
            let (ended, attempts) = tried(long, 2, error).await;
            assert!(ended.is_ok(), "{ended:?}");
            assert_eq!(attempts, 3);
        }
    }

    #[tokio::test]
    async fn a_refusal_is_for_good_and_the_deadline_is_the_end() {
        let (ended, attempts) = tried(Duration::from_secs(600), 9, refused).await;
        assert!(
            matches!(ended, Err(GatewayStoreError::Refused(_))),
            "{ended:?}"
        );
        assert_eq!(attempts, 1);
        let (ended, attempts) = tried(Duration::ZERO, 9, away).await;
        assert!(
            matches!(ended, Err(GatewayStoreError::Unavailable(_))),
            "{ended:?}"
        );
        assert_eq!(attempts, 1);
        // Long beside the first pause, so that there is a second attempt also on a machine that lets nobody on for a moment.
        let (ended, attempts) = tried(Duration::from_secs(2), usize::MAX, away).await;
        assert!(ended.is_err());
        assert!((2..=11).contains(&attempts), "{attempts}");
    }
}
