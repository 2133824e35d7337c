//! Deliveries: who takes one on, how far it has come, and where couriers are.

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
    domain::{
        AdvanceDelivery, AssignCourier, Entity, Fix, OrderNames, RecordPositions, Step, User,
        UserName, UserRole,
    },
    http::{PathParam, Problem, Unread, known},
    repository::GatewayStoreError,
};

/// The most positions in a batch.
const MAX_POSITIONS: usize = 500;
/// How many positions weigh as much as one more request.
const POSITIONS_PER_TOKEN: f64 = 10.0;
/// How far a courier's clock may be ahead.
const MAX_CLOCK_AHEAD: Duration = Duration::from_secs(60);

/// Who is to deliver.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assignment {
    /// The courier; a courier who asks is meant where nobody is named.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9_-]{0,62}$", example = "bea")]
    courier: Option<UserName>,
}

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryBody {
    /// The order's number.
    #[schema(value_type = String)]
    order: DeliveryId,
    /// How far it has come: assigned, picked_up or delivered.
    #[schema(value_type = String, example = "picked_up")]
    status: DeliveryStatus,
    /// Who delivers.
    #[schema(value_type = String)]
    courier: CourierId,
    /// When the courier accepted.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// When the courier took the parcel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    picked_up_at: Option<Timestamp>,
    /// When it was handed over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    delivered_at: Option<Timestamp>,
    /// Where the courier was last.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<PlaceBody>,
}

/// Where somebody was, and when.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaceBody {
    /// Degrees east.
    longitude: f64,
    /// Degrees north.
    latitude: f64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
}

/// Positions of a courier.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Positions {
    /// In any order.
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
    /// Degrees east.
    #[schema(minimum = -180, maximum = 180, example = 9.19)]
    longitude: f64,
    /// Degrees north.
    #[schema(minimum = -90, maximum = 90, example = 45.46)]
    latitude: f64,
    /// When the courier was there; at most a minute ahead.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
}

/// Positions that were accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AcceptedPositions {
    /// How many.
    accepted: usize,
}

/// Give a confirmed order to a courier: couriers take one on themselves, restaurants and operators name somebody.
#[utoipa::path(post, operation_id = "assign_courier", path = "/v1/deliveries/{order}/assignment", tag = "deliveries", security(("token" = [])), request_body = Assignment,
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 204, description = "The courier has it."),
    (status = 404, description = "There is no such order, or it is somebody else's; for couriers also one that is not confirmed, or that another courier has."),
    (status = 409, description = "`not_confirmed`: it is not, or not any more; or, for restaurants and operators, `assigned`: another courier has it."),
    (status = 422, description = "The body is not of the form asked for; or no courier is named, or there is no such courier."),
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
            return Err(Problem::forbidden("couriers take on for themselves alone"));
        }
        (_, named) => {
            let named = named.ok_or_else(|| Problem::invalid("name the courier"))?;
            let user = app.users.get(&app.books, &named).await?;
            let is_courier =
                |user: User| user.standing == UserRole::Courier && user.status.is_active();
            if !user.is_some_and(is_courier) {
                return Err(Problem::invalid("there is no such courier"));
            }
            named.courier()
        }
    };
    let assign = AssignCourier {
        order: order.clone(),
        courier,
    };
    let assigned = app.books.execute(&assign).await;
    let is_refused = matches!(assigned, Err(GatewayStoreError::Refused(_)));
    if is_refused && caller.standing == UserRole::Courier {
        // A courier may take on what is to be delivered and is nobody's; of other orders none learns anything, not even that they are there.
        orders::seen(&app, &caller, &order).await?;
    }
    assigned?;
    app.feeds.notify(&order);
    Ok(StatusCode::NO_CONTENT)
}

/// Tell that the parcel is picked up; for its courier. Again changes nothing.
#[utoipa::path(post, operation_id = "pick_up", path = "/v1/deliveries/{order}/pick-up", tag = "deliveries", security(("token" = [])),
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 204, description = "It is kept."),
    (status = 404, description = "There is no such delivery of this courier."),
    (status = 409, description = "`not_confirmed`: the order was called off."),
))]
pub(super) async fn pick_up(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(order): PathParam<InvoiceNo>,
) -> Result<StatusCode, Problem> {
    take(&app, &caller, order, Step::PickedUp).await
}

/// Tell that the parcel is delivered; for its courier. Again changes nothing.
#[utoipa::path(post, operation_id = "hand_over", path = "/v1/deliveries/{order}/hand-over", tag = "deliveries", security(("token" = [])),
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 204, description = "It is kept."),
    (status = 404, description = "There is no such delivery of this courier."),
    (status = 409, description = "`not_picked_up`: not yet; or `not_confirmed`: the order was called off."),
))]
pub(super) async fn hand_over(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(order): PathParam<InvoiceNo>,
) -> Result<StatusCode, Problem> {
    take(&app, &caller, order, Step::Delivered).await
}

async fn take(
    app: &AppState,
    caller: &AuthenticatedUser,
    order: InvoiceNo,
    step: Step,
) -> Result<StatusCode, Problem> {
    let courier = match caller.courier() {
        Ok(courier) => courier,
        Err(forbidden) => {
            // Only who may see the order learns that couriers alone may do this.
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
    app.books.execute(&take).await?;
    app.feeds.notify(&order);
    Ok(StatusCode::NO_CONTENT)
}

/// How far a delivery has come, and where its courier was last; for whoever may see the order.
#[utoipa::path(get, operation_id = "show_delivery", path = "/v1/deliveries/{order}", tag = "deliveries", security(("token" = [])),
    params(("order" = String, Path, description = "The order's number.")),
    responses(
    (status = 200, description = "The delivery.", body = DeliveryBody),
    (status = 404, description = "There is no such delivery yet, or it is somebody else's."),
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

/// Tell where the courier was, up to 500 times at once, all or nothing; accepted once it is durable, also while the broker is away. Ten of
/// them weigh as much as a request. With an Idempotency-Key the same batch may be sent again and counts once; what is older than 24 hours
/// then is refused, since keys are not remembered for longer.
#[utoipa::path(post, operation_id = "record_positions", path = "/v1/positions", tag = "deliveries", security(("token" = [])), request_body = Positions,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this batch among the courier's, such as a UUID.",
        min_length = 1, max_length = 100, pattern = "^[!-~]+$")),
    responses(
    (status = 202, description = "They are kept, and are told to whoever follows the delivery.", body = AcceptedPositions),
    (status = 400, description = "The body is not JSON, or the Idempotency-Key is not of the form that it should have."),
    (status = 404, description = "One is about a delivery that is not this courier's; nothing is kept."),
    (status = 409, description = "`not_confirmed`: the order of one, which is named, was called off; nothing is kept."),
    (status = 422, description = "`outside_the_world`, `in_the_future`, `id_reused`: the key came with another batch; or `too_old`: with a key, one is older than 24 hours, send it without; nothing is kept."),
    (status = 503, description = "`store_filling`: the broker has been away for so long that what room is left is for orders; or it cannot be done now. Nothing is kept; Retry-After says when to ask again."),
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
    app.keeper.admit_positions()?;
    let weight = count as f64 / POSITIONS_PER_TOKEN;
    app.user_rate
        .acquire_n(caller.name.clone(), weight, Instant::now())
        .map_err(|after| Problem::too_many("you send too many positions", after))?;
    let latest = Timestamp::now()
        .checked_add(MAX_CLOCK_AHEAD)
        .unwrap_or(Timestamp::MAX);
    let fixes = batch.positions.into_iter().map(|new| fix(new, latest));
    let record = RecordPositions {
        courier,
        fixes: fixes.collect::<Result<_, _>>()?,
    };
    match key {
        // Of one courier alone: nobody else's batch is answered by it.
        Some(key) => {
            let id = format!("positions/{}/{key}", caller.name);
            let id = RequestId::new(id).map_err(|e| Problem::malformed(e.to_string()))?;
            // The same however often it comes, so that a batch that comes again after its reply was forgotten is told from a new one.
            let oldest = record.fixes.iter().map(|fix| fix.recorded_at).min();
            let time = oldest.unwrap_or_else(Timestamp::now);
            app.books.execute_idempotent(id, time, &record).await?;
        }
        None => {
            app.books.execute(&record).await?;
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

fn fix(new: NewPosition, latest: Timestamp) -> Result<Fix, Problem> {
    let wrong = |code, detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
    let position = Position::new(new.longitude, new.latitude)
        .map_err(|e| wrong("outside_the_world", e.to_string()))?;
    if new.recorded_at > latest {
        return Err(wrong(
            "in_the_future",
            format!("{} is in the future", new.recorded_at),
        ));
    }
    Ok(Fix {
        order: new.order,
        position,
        recorded_at: new.recorded_at,
    })
}

/// What the role `tracking` knows of a delivery that was assigned here; `None` where it was not, or is not known there yet.
///
/// # Errors
/// It does not answer.
pub(super) async fn assigned_view(
    app: &AppState,
    order: &InvoiceNo,
) -> Result<Option<DeliveryView>, Problem> {
    let entry = app.books.get(order.delivery_key()).await?;
    match entry.as_ref().and_then(Entity::delivery) {
        Some(_) => view(app, order).await,
        None => Ok(None),
    }
}

async fn view(app: &AppState, order: &InvoiceNo) -> Result<Option<DeliveryView>, Problem> {
    let order = DeliveryId::new(order.as_str()).map_err(|_| Problem::not_found("delivery"))?;
    match app.roles.query(&ReadDelivery { order }).await {
        Ok(view) => Ok(Some(view)),
        Err(CallError::Rejected(refused)) if refused.code == "unknown_delivery" => Ok(None),
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
