//! A customer who retries an order until it gets a final answer.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::{plan::Plan, shop::Shop};
use crate::HttpResponse;

/// The maximum number of attempts of a customer, and the pauses between them.
const MAX_ATTEMPTS: usize = 600;
const PAUSE: Duration = Duration::from_millis(100);

/// The final answer that a customer got.
#[derive(Debug, Clone)]
pub(super) struct CustomerView {
    pub(super) pieces: Vec<(&'static str, i64)>,
    outcome: Outcome,
    /// The number of orders abandoned before this one.
    pub(super) abandoned: usize,
    /// The number of repeated requests.
    pub(super) again: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Confirmed(Receipt),
    Cancelled(Receipt),
    Refused {
        /// True if an order was begun, so that the roles have a record of it.
        begun: bool,
    },
}

/// The confirmation of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) order: String,
    pub(super) total: String,
}

impl CustomerView {
    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self.outcome, Outcome::Confirmed(_))
    }

    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self.outcome, Outcome::Cancelled(_))
    }

    pub(super) fn is_rejected(&self) -> bool {
        matches!(self.outcome, Outcome::Refused { .. })
    }

    /// Returns true if an order was begun and rejected.
    pub(super) fn is_refused_order(&self) -> bool {
        self.outcome == Outcome::Refused { begun: true }
    }

    /// Returns the customer's confirmation, if any.
    pub(super) fn receipt(&self) -> Option<&Receipt> {
        match &self.outcome {
            Outcome::Confirmed(receipt) | Outcome::Cancelled(receipt) => Some(receipt),
            Outcome::Refused { .. } => None,
        }
    }
}

/// Places the planned order.
///
/// # Panics
/// If an answer is not understood, or none arrives.
pub(super) async fn order(shop: &Shop, customer: usize, plan: &Plan) -> CustomerView {
    let mut view = CustomerView {
        pieces: plan.pieces.clone(),
        outcome: Outcome::Refused { begun: false },
        abandoned: 0,
        again: 0,
    };
    let mut key = Uuid::new_v4().to_string();
    let response = loop {
        let response = retry_order(
            shop,
            customer,
            "/v1/orders",
            Some(&key),
            plan,
            &mut view.again,
        )
        .await;
        if response.status != 503 {
            break response;
        }
        // Decided: nothing is charged, and this key will never order anything.
        view.abandoned += 1;
        key = Uuid::new_v4().to_string();
    };
    match response.status {
        201 => {}
        402 | 409 | 422 => {
            let begun = !is_refused_before(&response);
            view.outcome = Outcome::Refused { begun };
            if plan.asks_twice {
                view.again += 1;
                let again = retry_order(
                    shop,
                    customer,
                    "/v1/orders",
                    Some(&key),
                    plan,
                    &mut view.again,
                )
                .await;
                assert_eq!(
                    (again.status, code(&again)),
                    (response.status, code(&response)),
                    "first {response:?}, then {again:?}"
                );
            }
            return view;
        }
        other => panic!("{other} for {:?}: {}", plan.order, response.text),
    }
    let receipt = receipt(&response);
    if plan.asks_twice {
        view.again += 1;
        let again = retry_order(
            shop,
            customer,
            "/v1/orders",
            Some(&key),
            plan,
            &mut view.again,
        )
        .await;
        assert_eq!(again.status, 201, "{}", again.text);
        assert_eq!(self::receipt(&again), receipt);
    }
    view.outcome = if plan.cancels {
        let path = format!("/v1/orders/{}/cancellation", receipt.order);
        let response = retry_order(shop, customer, &path, None, plan, &mut view.again).await;
        assert!((200..300).contains(&response.status), "{}", response.text);
        Outcome::Cancelled(receipt)
    } else {
        Outcome::Confirmed(receipt)
    };
    view
}

fn receipt(response: &HttpResponse) -> Receipt {
    let body = response.json();
    let text = |name: &str| {
        let value = body[name].as_str();
        value
            .unwrap_or_else(|| panic!("no {name} in {body}"))
            .to_owned()
    };
    Receipt {
        order: text("order"),
        total: text("total"),
    }
}

/// Retries until there is a final answer; an abandoned order counts as one.
async fn retry_order(
    shop: &Shop,
    customer: usize,
    path: &str,
    key: Option<&str>,
    plan: &Plan,
    again: &mut usize,
) -> HttpResponse {
    let headers: Vec<_> = key.iter().map(|key| ("Idempotency-Key", *key)).collect();
    let body = match key {
        Some(_) => plan.order.clone(),
        None => json!({"reason": "changed my mind"}),
    };
    for _ in 0..MAX_ATTEMPTS {
        let client = shop.customer(customer).await;
        let ask = || client.try_ask("POST", path, &headers, &body);
        let response = if plan.is_impatient && key.is_some() {
            *again += 1;
            let (first, second) = tokio::join!(ask(), ask());
            first.filter(is_for_good).or(second)
        } else {
            ask().await
        };
        match response {
            Some(response) if is_for_good(&response) => return response,
            _ => {
                *again += 1;
                sleep(PAUSE).await;
            }
        }
    }
    panic!("no final answer to {path} with {body}");
}

/// Returns the code of a problem document, empty if there is none.
fn code(response: &HttpResponse) -> String {
    let problem = serde_json::from_str::<Value>(&response.text).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

/// Returns true if the price was unavailable, which is requested before an order is begun.
fn is_refused_before(response: &HttpResponse) -> bool {
    matches!(code(response).as_str(), "restaurant_closed" | "unknown_sku")
}

/// Returns true if a retry would not change the answer.
fn is_for_good(response: &HttpResponse) -> bool {
    match (response.status, code(response).as_str()) {
        (503, code) => code == "order_abandoned",
        (409, code) => code != "in_progress",
        (429 | 504, _) => false,
        _ => true,
    }
}
