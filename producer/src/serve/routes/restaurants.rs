//! Restaurants: their menus, hours and capacity.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use doorstep_contracts::{
    Label, Money, Opening, RestaurantId, Sku, ZoneName,
    requests::{ConfigureRestaurant, Dish, Menu, ReadMenu},
};
use doorstep_event::RequestContract;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::health::json;
use crate::serve::{
    app::App,
    auth::Caller,
    http::{Json, Named, Problem, short, whole},
    roles::after,
};

/// How long a change may take.
const CHANGE_TIME: std::time::Duration = std::time::Duration::from_secs(4);

/// A restaurant as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRestaurant {
    /// What it is called.
    #[serde(deserialize_with = "short")]
    #[schema(value_type = String, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "Da Luigi")]
    name: Label,
    /// Whose clock its hours are on.
    #[schema(value_type = String, example = "Europe/Rome")]
    time_zone: ZoneName,
    /// When it takes orders; never, where there are none.
    #[schema(value_type = Vec<OpeningBody>, max_items = 50)]
    opening_hours: Vec<Opening>,
    /// How many pieces it can have in hand at once.
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 100_000, example = 40)]
    capacity: u32,
    /// How long it takes from an order to its being ready.
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 1440, example = 25)]
    minutes_to_prepare: u16,
    /// What it sells, each once.
    #[schema(value_type = Vec<DishBody>, max_items = 500)]
    menu: Vec<Dish>,
}

/// A restaurant as it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RestaurantBody {
    /// Which one.
    #[schema(value_type = String)]
    restaurant: RestaurantId,
    /// What it is called.
    #[schema(value_type = String)]
    name: Label,
    /// Whose clock its hours are on.
    #[schema(value_type = String)]
    time_zone: ZoneName,
    /// When it takes orders.
    #[schema(value_type = Vec<OpeningBody>)]
    opening_hours: Vec<Opening>,
    /// Whether it takes orders now.
    is_open: bool,
    /// How many pieces it can have in hand at once.
    capacity: u32,
    /// How many it has in hand.
    taken: u32,
    /// How long it takes from an order to its being ready.
    minutes_to_prepare: u16,
    /// What it sells.
    #[schema(value_type = Vec<DishBody>)]
    menu: Vec<Dish>,
}

/// Hours of one day. Those that end at or before their start run past midnight.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Opening)]
#[expect(dead_code, reason = "tells the form of the contract's own type")]
struct OpeningBody {
    /// The day on which they begin.
    day: DayBody,
    /// The first minute in which orders are taken.
    #[schema(pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", example = "11:30")]
    opens: String,
    /// The first minute in which they are not taken any more.
    #[schema(pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", example = "22:00")]
    closes: String,
}

/// A day of the week.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Weekday)]
enum DayBody {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// What a restaurant sells.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Dish)]
#[expect(dead_code, reason = "tells the form of the contract's own type")]
struct DishBody {
    /// Its stock code.
    #[schema(value_type = String, min_length = 1, max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "MARGHERITA")]
    sku: Sku,
    /// What it is called.
    #[schema(value_type = String, min_length = 1, max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "Pizza Margherita")]
    name: Label,
    /// What one piece costs.
    #[schema(value_type = String, pattern = "^[0-9]{1,9}(\\.[0-9]{1,9})?$", example = "7.50")]
    price: Money,
}

/// Open a restaurant, or change all about it; for its own people and operators.
#[utoipa::path(put, operation_id = "configure_restaurant", path = "/v1/restaurants/{restaurant}", tag = "restaurants", security(("token" = [])), request_body = NewRestaurant,
    params(("restaurant" = String, Path, description = "Which one.")),
    responses(
    (status = 204, description = "It is as asked for."),
    (status = 404, description = "It is somebody else's."),
))]
pub(super) async fn configure(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(restaurant): Named<RestaurantId>,
    Json(new): Json<NewRestaurant>,
) -> Result<StatusCode, Problem> {
    if !caller.looks_after(&restaurant) {
        return Err(Problem::not_found("restaurant"));
    }
    let configure = ConfigureRestaurant {
        restaurant,
        name: new.name,
        time_zone: new.time_zone,
        opening_hours: new.opening_hours,
        capacity: new.capacity,
        minutes_to_prepare: new.minutes_to_prepare,
        menu: new.menu,
    };
    configure.check().map_err(Problem::invalid)?;
    app.roles
        .command(None, after(CHANGE_TIME), &configure)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a restaurant sells, and whether it is open; for everybody who is logged in.
#[utoipa::path(get, operation_id = "show_restaurant", path = "/v1/restaurants/{restaurant}", tag = "restaurants", security(("token" = [])),
    params(("restaurant" = String, Path, description = "Which one.")),
    responses(
    (status = 200, description = "The restaurant.", body = RestaurantBody),
    (status = 404, description = "There is no such restaurant."),
))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    _caller: Caller,
    Named(restaurant): Named<RestaurantId>,
) -> Result<Response, Problem> {
    let Menu {
        restaurant,
        name,
        time_zone,
        opening_hours,
        is_open,
        capacity,
        taken,
        minutes_to_prepare,
        menu,
    } = app.roles.query(&ReadMenu { restaurant }).await?;
    let body = RestaurantBody {
        restaurant,
        name,
        time_zone,
        opening_hours,
        is_open,
        capacity,
        taken,
        minutes_to_prepare,
        menu,
    };
    Ok(json(StatusCode::OK, &body))
}
