//! The checkout saga: gets a price, begins the order, then calls payment and restaurant. Their replies, or a missing
//! reply, decide the outcome. The saga runs to its end even if the customer disconnects.

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

/// The time that is left to record the outcome after payment and restaurant have had theirs.
const RECORD_MARGIN: Duration = Duration::from_secs(1);
/// The first and the longest backoff between attempts to record an outcome.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// An order that a customer requests.
#[derive(Debug, Clone)]
pub(crate) struct OrderRequest {
    pub(crate) customer: CustomerId,
    pub(crate) key: String,
    /// The fingerprint of the request's content.
    pub(crate) fingerprint: String,
    /// The restaurant that makes it.
    pub(crate) restaurant: RestaurantId,
    pub(crate) lines: Vec<RequestedLine>,
    pub(crate) method: PaymentMethod,
    /// The country that the order comes from.
    pub(crate) country: Label,
}

/// Runs checkouts of customers' orders.
#[derive(Clone)]
pub(crate) struct CheckoutSaga {
    pub(crate) store: GatewayStore,
    /// The RPC client of the roles.
    pub(crate) roles: Backends,
    /// The time that payment and restaurant have together to reply.
    pub(crate) answer_within: Duration,
}

impl CheckoutSaga {
    /// Returns the order of this key if it has its outcome.
    ///
    /// # Errors
    /// The key belongs to another request, its order has no outcome yet, or the store is unavailable.
    pub(crate) async fn replay_idempotent(
        &self,
        wanted: &OrderRequest,
    ) -> Result<Option<(InvoiceNo, Order)>, Problem> {
        let key = IdempotencyRecord::entity(&wanted.customer, &wanted.key);
        let entry = self.store.get(key).await?;
        let Some(intent) = entry.as_ref().and_then(Entity::intent) else {
            return Ok(None);
        };
        if intent.fingerprint != wanted.fingerprint {
            return Err(Problem::new(
                axum::http::StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key was used for another order",
            ));
        }
        let order = self.get_decided(&intent.order).await?;
        Ok(Some((intent.order.clone(), order)))
    }

    /// Places an order, and returns it with its outcome.
    ///
    /// # Errors
    /// The order was not begun, or its outcome could not be recorded; in the latter case recovery abandons it soon.
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
            tracing::error!(error = %e, "cannot create an order number");
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
        match self.store.execute(&begin).await {
            Ok(_) => {}
            // Another process on this store was first with this key.
            Err(GatewayStoreError::Refused(rejected))
                if rejected.code == "idempotency_key_in_use" =>
            {
                return self
                    .replay_idempotent(&wanted)
                    .await?
                    .ok_or_else(idempotency::in_progress);
            }
            Err(e) => return Err(e.into()),
        }
        let outcome = self
            .authorize_and_confirm(&number, &wanted, &quote, until)
            .await;
        let end = EndOrder {
            order: number.clone(),
            outcome,
        };
        retry_until(deadline, || self.store.execute(&end)).await?;
        let order = self.get_decided(&number).await;
        drop(place);
        Ok((number, order?))
    }

    /// Calls payment, then the restaurant.
    async fn authorize_and_confirm(
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

    /// Sends a command under an id derived from the order's number, so that it is executed at most once for each order.
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

    /// Returns the order if it has its outcome.
    async fn get_decided(&self, number: &InvoiceNo) -> Result<Order, Problem> {
        let entry = self.store.get(number.order_key()).await?;
        let order = entry.as_ref().and_then(Entity::order);
        order
            .filter(|order| order.stage.is_decided())
            .cloned()
            .ok_or_else(idempotency::in_progress)
    }
}

/// Returns the longest time of a checkout if payment and restaurant have `answer_within`.
pub(crate) fn longest_order(answer_within: Duration) -> Duration {
    QUERY_TIME + answer_within + RECORD_MARGIN
}

/// Rejects a total that cannot be authorized, before the order begins.
fn can_be_paid(total: Money) -> Result<(), Problem> {
    let most = AuthorizePayment::MAX_AMOUNT;
    if total > Money::ZERO && total.decimal() <= most.into() {
        return Ok(());
    }
    let detail = format!("the total {total} is not above 0 and at most {most}");
    Err(error_mapping::problem(Rejection::new(
        "invalid_amount",
        detail,
    )))
}

/// Retries to record an outcome until shortly before the deadline; then recovery abandons the order. The first outcome
/// stays, so it is recorded once however often this retries.
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
        // The jitter keeps sagas that wait for one store from retrying all at once.
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        if after(jittered) >= deadline {
            return Err(error);
        }
        tracing::debug!(error = %error, "cannot record an order's outcome yet");
        sleep(jittered).await;
        pause = (pause * 2).min(MAX_BACKOFF);
    }
}

fn refused_or_abandoned(by: RefusedBy, role: &str, error: CallError) -> OrderDecision {
    match error {
        // An error that may pass, a failed handler and a wrong clock give no reply to the customer who waits now.
        CallError::Rejected(rejected)
            if ![
                Rejection::NOT_YET,
                Rejection::FAILED,
                Rejection::CLOCK_SKEW,
                Rejection::FORBIDDEN,
            ]
            .contains(&rejected.code.as_str()) =>
        {
            OrderDecision::Refused {
                by,
                code: rejected.code,
                detail: rejected.detail,
            }
        }
        error => {
            tracing::info!(role, error = %error, "abandoned an order");
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

    /// Returns the result of attempts of which the first ones fail, and their number.
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

    fn rejected() -> GatewayStoreError {
        Rejection::new("unknown_order", "there is no such order").into()
    }

    #[test]
    fn an_unpayable_order_is_rejected() {
        let paid = |total: &str| can_be_paid(total.parse().unwrap());
        for good in ["0.000000001", "19.00", "100000"] {
            assert_eq!(paid(good), Ok(()), "{good}");
        }
        for bad in ["0", "-1", "100000.01"] {
            let rejected = paid(bad).unwrap_err();
            assert_eq!(rejected.status(), StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        }
    }

    #[tokio::test]
    async fn outcome_is_recorded_at_first_chance() {
        let long = Duration::from_secs(600);
        for error in [overloaded, away] {
            let (ended, attempts) = tried(long, 2, error).await;
            assert!(ended.is_ok(), "{ended:?}");
            assert_eq!(attempts, 3);
        }
    }

    #[tokio::test]
    async fn rejection_is_final_and_deadline_ends_retries() {
        let (ended, attempts) = tried(Duration::from_secs(600), 9, rejected).await;
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
        // Much longer than the first backoff, so that even a stalled machine makes a second attempt.
        let (ended, attempts) = tried(Duration::from_secs(2), usize::MAX, away).await;
        assert!(ended.is_err());
        assert!((2..=11).contains(&attempts), "{attempts}");
    }
}
