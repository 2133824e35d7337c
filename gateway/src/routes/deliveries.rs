//! Deliveries: couriers accept them, report their progress, and send positions.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use doorstep_contracts::{
    CourierId, DeliveryId, InvoiceNo, Position,
    requests::{DeliveryStatus, DeliveryView, ReadDelivery},
};
use doorstep_event::{RequestId, Timestamp};
use doorstep_messaging::CallError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{health::json, orders};
use crate::{
    app::AppState,
    auth::AuthenticatedUser,
    backends::after,
    domain::{
        AdvanceDelivery, AssignCourier, Entity, GpsFix, OrderNames, RecordPositions, Step, User,
        UserName, UserRole,
    },
    http::{PathParam, Problem, Unread, known},
    repository::GatewayStoreError,
};

/// The limit of positions in a batch.
const MAX_POSITIONS: usize = 500;
/// The number of positions that weigh as much as one more request.
const POSITIONS_PER_TOKEN: f64 = 10.0;
/// The time that a courier's clock may be ahead.
const MAX_CLOCK_AHEAD: Duration = Duration::from_secs(60);

/// The courier of a delivery to assign.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assignment {
    /// The courier; by default the courier who sends the request.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$", example = "bea")]
    courier: Option<UserName>,
}

/// A delivery and its progress.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryBody {
    /// The number of the delivered order.
    #[schema(value_type = String)]
    order: DeliveryId,
    /// The progress: assigned, picked_up or delivered.
    #[schema(value_type = String, example = "picked_up")]
    status: DeliveryStatus,
    /// The courier of the delivery.
    #[schema(value_type = String)]
    courier: CourierId,
    /// The time at which the courier accepted.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// The time at which the courier took the parcel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    picked_up_at: Option<Timestamp>,
    /// The time at which the customer got the parcel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    delivered_at: Option<Timestamp>,
    /// The last known position of the courier.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<PlaceBody>,
}

/// A position and its time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaceBody {
    /// Longitude in degrees, east is positive.
    longitude: f64,
    /// Latitude in degrees, north is positive.
    latitude: f64,
    /// The time of the position.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
}

/// The positions of a courier.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Positions {
    /// The positions, in any order.
    #[schema(min_items = 1, max_items = 500)]
    positions: Vec<NewPosition>,
}

/// A position of a courier.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPosition {
    /// The order that is being delivered.
    #[serde(deserialize_with = "known")]
    #[schema(value_type = String, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$")]
    order: InvoiceNo,
    /// Longitude in degrees, east is positive.
    #[schema(minimum = -180, maximum = 180, example = 9.19)]
    longitude: f64,
    /// Latitude in degrees, north is positive.
    #[schema(minimum = -90, maximum = 90, example = 45.46)]
    latitude: f64,
    /// The time at which the courier was there; at most a minute ahead.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
}

/// The result of a batch of positions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcceptedPositions {
    /// The number of accepted positions.
    accepted: usize,
}

/// Assign a confirmed order to a courier.
///
/// Couriers accept orders themselves; restaurants and operators name a courier.
#[utoipa::path(post, operation_id = "assign_courier", path = "/v1/deliveries/{order}/assignment", tag = "deliveries", security(("token" = [])), request_body = Assignment,
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 204, description = "The order is assigned to the courier."),
    (status = 404, description = "The order does not exist, or is another user's; for couriers also one that is not confirmed, or that another courier has."),
    (status = 409, description = "`not_confirmed`: it is not confirmed, or no longer; or, for restaurants and operators, `assigned`: another courier has it."),
    (status = 422, description = "The body has an invalid form; or it names no courier, or a courier who does not exist."),
))]
pub(super) async fn assign(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(order): PathParam<InvoiceNo>,
    body: Unread,
) -> Result<StatusCode, Problem> {
    if caller.standing != UserRole::Courier {
        orders::seen(&app, &caller, &order).await?;
    }
    if caller.standing == UserRole::Customer {
        return Err(Problem::forbidden("customers do not deliver"));
    }
    let assignment: Assignment = body.json().await?;
    let courier = match (&caller.standing, assignment.courier) {
        (UserRole::Courier, None) => caller.name.courier(),
        (UserRole::Courier, Some(named)) if named == caller.name => named.courier(),
        (UserRole::Courier, Some(_)) => {
            return Err(Problem::forbidden(
                "couriers accept orders for themselves only",
            ));
        }
        (_, named) => {
            let named = named.ok_or_else(|| Problem::invalid("name the courier"))?;
            let user = app.users.get(&app.store, &named).await?;
            let is_courier =
                |user: User| user.standing == UserRole::Courier && user.status.is_active();
            if !user.is_some_and(is_courier) {
                return Err(Problem::invalid("this courier does not exist"));
            }
            named.courier()
        }
    };
    let assign = AssignCourier {
        order: order.clone(),
        courier,
    };
    let assigned = app.store.execute(&assign).await;
    let is_refused = matches!(assigned, Err(GatewayStoreError::Refused(_)));
    if is_refused && caller.standing == UserRole::Courier {
        // A courier may accept an order without a courier. The response for any other order does not reveal whether it
        // exists.
        orders::seen(&app, &caller, &order).await?;
    }
    assigned?;
    app.feeds.notify(&order);
    Ok(StatusCode::NO_CONTENT)
}

/// Report that the parcel is picked up.
///
/// For the order's courier. A repeated report changes nothing.
#[utoipa::path(post, operation_id = "pick_up", path = "/v1/deliveries/{order}/pick-up", tag = "deliveries", security(("token" = [])),
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 204, description = "The step is stored."),
    (status = 404, description = "This courier has no such delivery."),
    (status = 409, description = "`not_confirmed`: the order was cancelled."),
))]
pub(super) async fn pick_up(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(order): PathParam<InvoiceNo>,
) -> Result<StatusCode, Problem> {
    advance(&app, &caller, order, Step::PickedUp).await
}

/// Report that the parcel is delivered.
///
/// For the order's courier. A repeated report changes nothing.
#[utoipa::path(post, operation_id = "hand_over", path = "/v1/deliveries/{order}/hand-over", tag = "deliveries", security(("token" = [])),
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 204, description = "The step is stored."),
    (status = 404, description = "This courier has no such delivery."),
    (status = 409, description = "`not_picked_up`: not yet; or `not_confirmed`: the order was cancelled."),
))]
pub(super) async fn deliver(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(order): PathParam<InvoiceNo>,
) -> Result<StatusCode, Problem> {
    advance(&app, &caller, order, Step::Delivered).await
}

async fn advance(
    app: &AppState,
    caller: &AuthenticatedUser,
    order: InvoiceNo,
    step: Step,
) -> Result<StatusCode, Problem> {
    let courier = match caller.courier() {
        Ok(courier) => courier,
        Err(forbidden) => {
            // Only a user who may see the order learns that couriers alone may do this.
            orders::seen(app, caller, &order).await?;
            return Err(forbidden);
        }
    };
    let take = AdvanceDelivery {
        order: order.clone(),
        courier,
        step,
        at: Timestamp::now(),
    };
    app.store.execute(&take).await?;
    app.feeds.notify(&order);
    Ok(StatusCode::NO_CONTENT)
}

/// Get the progress of a delivery and the last position of its courier.
///
/// For users who may see the order.
#[utoipa::path(get, operation_id = "show_delivery", path = "/v1/deliveries/{order}", tag = "deliveries", security(("token" = [])),
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 200, description = "The delivery.", body = DeliveryBody),
    (status = 404, description = "The delivery does not exist yet, or is another user's."),
))]
pub(super) async fn show(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(order): PathParam<InvoiceNo>,
) -> Result<Response, Problem> {
    orders::seen(&app, &caller, &order).await?;
    let view = view(&app, &order).await?;
    let view = view.ok_or_else(|| Problem::not_found("delivery"))?;
    Ok(json(StatusCode::OK, &DeliveryBody::from(view)))
}

/// Record up to 500 positions of the courier, all or nothing.
///
/// They are durable when this returns, also while the broker is unavailable. Ten of them weigh as much as a request. A
/// batch with an Idempotency-Key may be sent again and counts once. Such a batch is rejected once it is older than 24
/// hours, since keys expire then.
#[utoipa::path(post, operation_id = "record_positions", path = "/v1/positions", tag = "deliveries", security(("token" = [])), request_body = Positions,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this batch among the courier's, such as a UUID.",
        min_length = 1, max_length = 100, pattern = "^[!-~]+$")),
    responses(
    (status = 202, description = "They are stored, and sent to the feeds of the delivery.", body = AcceptedPositions),
    (status = 400, description = "The body is not JSON, or the Idempotency-Key has an invalid form."),
    (status = 404, description = "A position is of a delivery that is not this courier's; nothing is stored."),
    (status = 409, description = "`not_confirmed`: the named order was cancelled; nothing is stored."),
    (status = 422, description = "`outside_the_world`, `in_the_future`, `id_reused`: the key was used for another batch; or `too_old`: a position is older than 24 hours, send it without a key; nothing is stored."),
    (status = 503, description = "`store_nearly_full`: the broker has been unavailable for so long that the remaining space is for orders; or it cannot be done now. Nothing is stored; Retry-After says when to retry."),
))]
pub(super) async fn record(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    headers: HeaderMap,
    body: Unread,
) -> Result<Response, Problem> {
    let courier = caller.courier()?;
    let key = orders::optional_key(&headers)?;
    let batch: Positions = body.json().await?;
    let count = batch.positions.len();
    if !(1..=MAX_POSITIONS).contains(&count) {
        return Err(Problem::invalid(format!(
            "a batch has 1 to {MAX_POSITIONS} positions, and this one {count}"
        )));
    }
    app.admission.admit_positions()?;
    let weight = count as f64 / POSITIONS_PER_TOKEN;
    app.user_rate
        .acquire_n(caller.name.clone(), weight, Instant::now())
        .map_err(|after| Problem::too_many("you send too many positions", after))?;
    let latest = after(MAX_CLOCK_AHEAD);
    let fixes = batch.positions.into_iter().map(|new| fix(new, latest));
    let record = RecordPositions {
        courier,
        fixes: fixes.collect::<Result<_, _>>()?,
    };
    match key {
        // The key belongs to one courier: it never replies to another one's batch.
        Some(key) => {
            let id = format!("positions/{}/{key}", caller.name);
            let id = RequestId::new(id).map_err(|e| Problem::malformed(e.to_string()))?;
            // The same for every repetition, so a batch that is repeated after its reply expired differs from a new
            // one.
            let oldest = record.fixes.iter().map(|fix| fix.recorded_at).min();
            let time = oldest.unwrap_or_else(Timestamp::now);
            app.store.execute_idempotent(id, time, &record).await?;
        }
        None => {
            app.store.execute(&record).await?;
        }
    }
    for fix in &record.fixes {
        app.feeds.notify(&fix.order);
    }
    Ok(json(
        StatusCode::ACCEPTED,
        &AcceptedPositions { accepted: count },
    ))
}

fn fix(new: NewPosition, latest: Timestamp) -> Result<GpsFix, Problem> {
    let wrong = |code, detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
    let position = Position::new(new.longitude, new.latitude)
        .map_err(|e| wrong("outside_the_world", e.to_string()))?;
    if new.recorded_at > latest {
        return Err(wrong(
            "in_the_future",
            format!("{} is in the future", new.recorded_at),
        ));
    }
    Ok(GpsFix {
        order: new.order,
        position,
        recorded_at: new.recorded_at,
    })
}

/// Returns the view of the role `tracking` on a delivery that was assigned here; `None` if it was not assigned, or the
/// role does not know it yet.
///
/// # Errors
/// The role does not reply.
pub(super) async fn assigned_view(
    app: &AppState,
    order: &InvoiceNo,
) -> Result<Option<DeliveryView>, Problem> {
    let entry = app.store.get(order.delivery_key()).await?;
    match entry.as_ref().and_then(Entity::delivery) {
        Some(_) => view(app, order).await,
        None => Ok(None),
    }
}

async fn view(app: &AppState, order: &InvoiceNo) -> Result<Option<DeliveryView>, Problem> {
    let order = DeliveryId::new(order.as_str()).map_err(|_| Problem::not_found("delivery"))?;
    match app.backends.query(&ReadDelivery { order }).await {
        Ok(view) => Ok(Some(view)),
        Err(CallError::Rejected(rejected)) if rejected.code == "unknown_delivery" => Ok(None),
        Err(e) => Err(e.into()),
    }
}

impl From<DeliveryView> for DeliveryBody {
    fn from(view: DeliveryView) -> Self {
        Self {
            order: view.order,
            status: view.status,
            courier: view.courier,
            accepted_at: view.accepted_at,
            picked_up_at: view.picked_up_at,
            delivered_at: view.delivered_at,
            position: view.last_fix.map(|fix| PlaceBody {
                longitude: fix.position.longitude(),
                latitude: fix.position.latitude(),
                recorded_at: fix.recorded_at,
            }),
        }
    }
}
