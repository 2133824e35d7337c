//! Mapping of rejections by roles to problem documents.

use std::time::Duration;

use axum::http::StatusCode;
use doorstep_event::Rejection;

use crate::http::Problem;

/// The `Retry-After` of a request for which a role is not ready.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The `Retry-After` of a limit over 24 hours.
const HOUR: Duration = Duration::from_hours(1);

/// Maps a rejection to a problem: its code stays, and decides the status.
pub(crate) fn problem(rejected: Rejection) -> Problem {
    let Rejection { code, detail } = rejected;
    let status = match code.as_str() {
        "card_declined" | "insufficient_funds" | "unknown_method" => StatusCode::PAYMENT_REQUIRED,
        "unknown_sku"
        | "invalid_quantity"
        | "invalid_amount"
        | "period_too_long"
        | "period_reversed"
        | Rejection::BAD_REQUEST
        | Rejection::ID_REUSED
        | Rejection::TOO_OLD => StatusCode::UNPROCESSABLE_ENTITY,
        "unknown_restaurant" | "unknown_order" | "unknown_delivery" | "unknown_user"
        | "unknown_payment" | "unknown_report" => StatusCode::NOT_FOUND,
        "too_many_reports" => {
            return Problem::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
                .retry_after(RETRY_AFTER);
        }
        "too_many_confirmations" => {
            return Problem::new(StatusCode::TOO_MANY_REQUESTS, code, detail).retry_after(HOUR);
        }
        "link_outdated" => StatusCode::GONE,
        Rejection::NOT_YET | "overloaded" => {
            return Problem::unavailable(code, detail, RETRY_AFTER);
        }
        Rejection::FAILED | Rejection::CLOCK_SKEW | Rejection::FORBIDDEN => {
            tracing::error!(detail, "a role failed on a request");
            return Problem::internal();
        }
        // All other rejections come from the present state of the role.
        _ => StatusCode::CONFLICT,
    };
    Problem::new(status, code, detail)
}

/// Returns the problem that a customer gets for an order that payment or restaurant rejected.
pub(crate) fn of_order(code: String, detail: String) -> Problem {
    let status = match code.as_str() {
        "card_declined" | "insufficient_funds" | "unknown_method" | "invalid_amount" => {
            StatusCode::PAYMENT_REQUIRED
        }
        _ => StatusCode::CONFLICT,
    };
    Problem::new(status, code, detail)
}

/// Returns the problem that a customer gets for an abandoned order.
pub(crate) fn abandoned(reason: &str) -> Problem {
    Problem::unavailable(
        "order_abandoned",
        format!(
            "the order got no outcome in time ({reason}); nothing is charged; place it again with another Idempotency-Key"
        ),
        RETRY_AFTER,
    )
}
