//! Orders: placing, following and cancelling them.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use doorstep_contracts::{
    CancelledBy, CustomerId, InvoiceNo, Label, Money, PaymentMethod, RestaurantId, Sku,
    requests::{
        HistoryEntry, HistoryKind, OrderStatus, OrderView, PaymentStatus, QuoteOrder, ReadOrder,
        RequestedLine,
    },
};
use doorstep_event::Timestamp;
use doorstep_messaging::CallError;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::health::json;
use crate::{
    app::AppState,
    auth::AuthenticatedUser,
    checkout::OrderRequest,
    domain::{CancelOrder, Entity, Order, OrderNames, OrderState, UserRole, label},
    error_mapping,
    http::{PathParam, Problem, Unread, bounded_str, bounded_str_opt, known, whole_number},
};

/// The header with the key by which a retry is recognised.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The limit of characters of such a key.
const MAX_KEY: usize = 100;

/// An order to place.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOrder {
    /// The restaurant that makes it.
    #[serde(deserialize_with = "known")]
    #[schema(value_type = String, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "luigi")]
    restaurant: RestaurantId,
    /// The dishes to order.
    #[schema(min_items = 1, max_items = 100)]
    lines: Vec<NewLine>,
    /// The payment method, such as `card/visa`; `card/declined` is always declined.
    #[serde(deserialize_with = "card")]
    #[schema(value_type = String, min_length = 6, max_length = 50, pattern = "^card/[^\\u0000-\\u001f\\u007f]+$", example = "card/visa")]
    method: PaymentMethod,
    /// The country that the order comes from.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded_str_opt"
    )]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "Italy")]
    country: Option<Label>,
}

/// A line of an order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLine {
    /// The stock code of the dish.
    #[serde(deserialize_with = "known")]
    #[schema(value_type = String, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "MARGHERITA")]
    sku: Sku,
    /// The number of pieces to order.
    #[serde(deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 1000, example = 2)]
    quantity: i64,
}

/// An order that was confirmed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlacedOrder {
    /// The number of the order.
    #[schema(value_type = String)]
    order: InvoiceNo,
    /// The status, which is always `confirmed`.
    #[schema(value_type = String, example = "confirmed")]
    status: &'static str,
    /// The restaurant that makes it.
    #[schema(value_type = String)]
    restaurant: RestaurantId,
    /// The total price of the order.
    #[schema(value_type = String, example = "12.50")]
    total: Money,
    /// The time at which it was placed.
    #[schema(value_type = String, format = DateTime)]
    placed_at: Timestamp,
    /// The time at which it will be ready.
    #[schema(value_type = String, format = DateTime)]
    promised_at: Timestamp,
}

/// An order and its history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderBody {
    /// The number of the order.
    #[schema(value_type = String)]
    order: InvoiceNo,
    /// The status: placed, confirmed, refused, abandoned or cancelled.
    #[schema(value_type = String, example = "confirmed")]
    status: OrderStatus,
    /// The customer who placed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    customer: Option<CustomerId>,
    /// The restaurant that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    restaurant: Option<RestaurantId>,
    /// The total price of the order.
    #[schema(value_type = String, example = "12.50")]
    total: Money,
    /// The time at which it was placed.
    #[schema(value_type = String, format = DateTime)]
    placed_at: Timestamp,
    /// The time at which it will be ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    promised_at: Option<Timestamp>,
    /// The status of its payment: awaited, authorized, captured, voided or refunded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "captured")]
    payment: Option<PaymentStatus>,
    /// The history, oldest entry first. Changes of the last moments may be missing.
    history: Vec<HistoryBody>,
}

/// An entry of an order's history.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct HistoryBody {
    /// The number of the entry, from 1.
    #[schema(minimum = 1)]
    pub(crate) number: u64,
    /// The time of the change.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The kind of the change.
    #[schema(value_type = String, example = "confirmed")]
    what: HistoryKind,
    /// Details for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// The cancellation of an order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancellation {
    /// The reason, in the caller's words.
    #[serde(deserialize_with = "bounded_str")]
    #[schema(value_type = String, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "changed my mind")]
    reason: Label,
}

/// Reads a payment method; only cards are accepted.
fn card<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PaymentMethod, D::Error> {
    let method: PaymentMethod = bounded_str(deserializer)?;
    let name = method.as_str().strip_prefix("card/");
    if name.is_none_or(str::is_empty) {
        return Err(D::Error::custom("a payment method is card/NAME"));
    }
    Ok(method)
}

impl From<HistoryEntry> for HistoryBody {
    fn from(entry: HistoryEntry) -> Self {
        Self {
            number: entry.number,
            at: entry.at,
            what: entry.what,
            detail: entry.detail,
        }
    }
}

/// Place an order, and wait for its outcome.
///
/// The response comes once payment has authorized the total and the restaurant has accepted. A key orders once: as soon
/// as the order is begun, the same key with the same body gets the same response. A rejection before that is not
/// stored, and the key may be used again: an invalid body, an unknown or closed restaurant, an unknown dish, a total
/// that cannot be paid, an unavailable role or store.
#[utoipa::path(post, operation_id = "place_order", path = "/v1/orders", tag = "orders", security(("token" = [])), request_body = NewOrder,
    params(("Idempotency-Key" = String, Header, description = "The customer's own key of this order, such as a UUID.",
        min_length = 1, max_length = 100, pattern = "^[!-~]+$")),
    responses(
    (status = 201, description = "The order is confirmed.", body = PlacedOrder, headers(("Location" = String, description = "The order."))),
    (status = 400, description = "The body is not JSON; or `idempotency_key_missing`, or the key has an invalid form."),
    (status = 402, description = "The payment is rejected; the code says why. Nothing is charged."),
    (status = 404, description = "The restaurant does not exist."),
    (status = 409, description = "The restaurant rejects the order; the code says why; or `in_progress`: the same key is in flight."),
    (status = 422, description = "The body has an invalid form; or a line cannot be ordered; or `invalid_amount`: the total cannot be paid; or `idempotency_key_reused`: the key came with another body."),
    (status = 503, description = "`order_abandoned`: an order was begun and got no outcome in time, nothing is charged, and a new one needs a new key; or no role was available, and nothing was begun. Retry-After says when to retry."),
))]
pub(super) async fn place(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Problem> {
    let customer = caller.customer()?;
    let key = idempotency_key(&headers)?;
    let order: NewOrder = body.json().await?;
    check(&order)?;
    let wanted = OrderRequest {
        fingerprint: fingerprint(&order),
        customer,
        key,
        restaurant: order.restaurant,
        lines: order
            .lines
            .into_iter()
            .map(|line| RequestedLine {
                sku: line.sku,
                quantity: line.quantity,
            })
            .collect(),
        method: order.method,
        country: order.country.unwrap_or_else(|| label("unspecified")),
    };
    let place = app.in_flight_keys.insert(&wanted.customer, &wanted.key)?;
    if let Some((number, order)) = app.checkout.replay_idempotent(&wanted).await? {
        return placed(number, order);
    }
    // A task of its own: it goes on if the customer disconnects, and counts as the customer's request until it is done.
    let flow = app.checkout.clone();
    let flow = async move {
        let placed = flow.place(wanted, place).await;
        drop(caller);
        placed
    };
    let (number, order) = tokio::spawn(flow)
        .await
        .map_err(|_| Problem::internal())??;
    placed(number, order)
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    optional_key(headers)?.ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "idempotency_key_missing",
            "name the order by a key of your own, such as a UUID, in the header Idempotency-Key",
        )
    })
}

/// Returns the Idempotency-Key, if there is one.
///
/// # Errors
/// It has an invalid form.
pub(super) fn optional_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    if !(1..=MAX_KEY).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Problem::malformed(format!(
            "an Idempotency-Key has 1 to {MAX_KEY} characters of ASCII without spaces"
        )));
    }
    Ok(Some(text.to_owned()))
}

/// Checks the parts of an order that need no call of a role.
fn check(order: &NewOrder) -> Result<(), Problem> {
    let lines = order.lines.len();
    if !(1..=QuoteOrder::MAX_LINES).contains(&lines) {
        let most = QuoteOrder::MAX_LINES;
        return Err(Problem::invalid(format!(
            "an order has 1 to {most} lines, and this one {lines}"
        )));
    }
    let most = QuoteOrder::MAX_QUANTITY;
    match order
        .lines
        .iter()
        .find(|l| !(1..=most).contains(&l.quantity))
    {
        None => Ok(()),
        Some(line) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_quantity",
            format!(
                "a line has 1 to {most} pieces, and one has {}",
                line.quantity
            ),
        )),
    }
}

/// Returns the fingerprint of the decoded order, so that white space and the order of members do not matter.
fn fingerprint(order: &NewOrder) -> String {
    // It was decoded from JSON, so it has a form in it.
    let text = serde_json::to_vec(order).unwrap_or_default();
    hex::encode(Sha256::digest(text))
}

/// Returns the response to an order, which is the same for every repetition.
fn placed(number: InvoiceNo, order: Order) -> Result<Response, Problem> {
    let promised_at = match order.stage {
        OrderState::Confirmed { promised_at } | OrderState::Cancelled { promised_at, .. } => {
            promised_at
        }
        OrderState::Refused { code, detail, .. } => {
            return Err(error_mapping::of_order(code, detail));
        }
        OrderState::Abandoned { reason } => return Err(error_mapping::abandoned(reason.as_str())),
        OrderState::Open => return Err(Problem::internal()),
    };
    let location = HeaderValue::from_str(&format!("/v1/orders/{number}"));
    let body = PlacedOrder {
        order: number,
        status: "confirmed",
        restaurant: order.restaurant,
        total: order.total,
        placed_at: order.placed_at,
        promised_at,
    };
    let mut response = json(StatusCode::CREATED, &body);
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Get an order with its history.
///
/// For its customer, its restaurant, its courier and operators.
#[utoipa::path(get, operation_id = "show_order", path = "/v1/orders/{order}", tag = "orders", security(("token" = [])),
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 200, description = "The order.", body = OrderBody),
    (status = 404, description = "The order does not exist, or is another user's."),
))]
pub(super) async fn show(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(number): PathParam<InvoiceNo>,
) -> Result<Response, Problem> {
    let own = seen(&app, &caller, &number).await?;
    let body = read(&app, number, own).await?;
    Ok(json(StatusCode::OK, &body))
}

/// Cancel a confirmed order, before its courier has it.
///
/// For its customer, its restaurant and operators. A repeated cancellation has no effect. Operators also abandon an
/// order whose outcome a restored gateway does not know.
#[utoipa::path(post, operation_id = "cancel_order", path = "/v1/orders/{order}/cancellation", tag = "orders", security(("token" = [])), request_body = Cancellation,
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 200, description = "The order is cancelled; the payment is refunded.", body = CancelledOrder),
    (status = 404, description = "The order does not exist, or is another user's."),
    (status = 409, description = "The order is not confirmed, or on its way already."),
))]
pub(super) async fn cancel(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(order): PathParam<InvoiceNo>,
    body: Unread,
) -> Result<Response, Problem> {
    let own = seen(&app, &caller, &order).await?;
    let by = match caller.standing {
        UserRole::Customer => CancelledBy::Customer,
        UserRole::Restaurant { .. } => CancelledBy::Restaurant,
        UserRole::Operator => CancelledBy::Operator,
        UserRole::Courier => return Err(Problem::forbidden("couriers cannot cancel")),
    };
    // An operator also sees orders of other programs, which cannot be cancelled here.
    own.ok_or_else(|| Problem::not_found("order"))?;
    let cancellation: Cancellation = body.json().await?;
    let cancel = CancelOrder {
        order: order.clone(),
        by,
        reason: cancellation.reason,
    };
    let status = match app.store.execute(&cancel).await? {
        OrderState::Abandoned { .. } => "abandoned",
        _ => "cancelled",
    };
    app.feeds.notify(&order);
    let body = CancelledOrder { order, status };
    Ok(json(StatusCode::OK, &body))
}

/// An order that was cancelled.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CancelledOrder {
    /// The number of the order.
    #[schema(value_type = String)]
    order: InvoiceNo,
    /// `cancelled`, or `abandoned` if it was never confirmed.
    #[schema(value_type = String, example = "cancelled")]
    status: &'static str,
}

/// Returns the gateway's own record of an order that the caller may see; `None` if it has none and the caller is an
/// operator.
///
/// # Errors
/// The caller may see no such order.
pub(super) async fn seen(
    app: &AppState,
    caller: &AuthenticatedUser,
    number: &InvoiceNo,
) -> Result<Option<Order>, Problem> {
    let keys = vec![number.order_key(), number.delivery_key()];
    let entries = app.store.entries(keys).await?;
    let mut entries = entries.into_iter();
    let order = entries.next().flatten();
    let delivery = entries.next().flatten();
    let order = order.as_ref().and_then(Entity::order).cloned();
    let may_see = match (&caller.standing, &order) {
        (UserRole::Operator, _) => true,
        (_, None) => false,
        (UserRole::Customer, Some(order)) => order.customer == caller.name.customer(),
        (UserRole::Restaurant { .. }, Some(order)) => caller.manages(&order.restaurant),
        (UserRole::Courier, Some(_)) => delivery
            .as_ref()
            .and_then(Entity::delivery)
            .is_some_and(|delivery| delivery.courier == caller.name.courier()),
    };
    if may_see {
        Ok(order)
    } else {
        Err(Problem::not_found("order"))
    }
}

/// Returns the view of the role `orders` on an order; `None` if the role does not know it yet.
///
/// # Errors
/// The role does not reply.
pub(super) async fn view(app: &AppState, number: &InvoiceNo) -> Result<Option<OrderView>, Problem> {
    let asked = ReadOrder {
        order: number.clone(),
    };
    match app.backends.query(&asked).await {
        Ok(view) => Ok(Some(view)),
        Err(CallError::Rejected(rejected)) if rejected.code == "unknown_order" => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn read(app: &AppState, number: InvoiceNo, own: Option<Order>) -> Result<OrderBody, Problem> {
    let view = view(app, &number).await?;
    let own = own.map(|order| OrderBody {
        order: number.clone(),
        status: order.stage.status(),
        customer: Some(order.customer),
        restaurant: Some(order.restaurant),
        total: order.total,
        placed_at: order.placed_at,
        promised_at: order.stage.promised_at(),
        payment: None,
        history: Vec::new(),
    });
    match (own, view) {
        (None, None) => Err(Problem::not_found("order")),
        (Some(own), None) => Ok(own),
        (own, Some(view)) => {
            let body = OrderBody {
                order: number,
                status: view.status,
                customer: view.customer,
                restaurant: view.restaurant,
                total: view.total,
                placed_at: view.placed_at,
                promised_at: view.promised_at,
                payment: view.payment,
                history: view.history.into_iter().map(HistoryBody::from).collect(),
            };
            // The gateway knows first of its own confirmations.
            Ok(match own {
                Some(own) => OrderBody {
                    payment: body.payment,
                    history: body.history,
                    ..own
                },
                None => body,
            })
        }
    }
}
