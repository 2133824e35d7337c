//! Restaurants: their menus, hours and capacity.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use doorstep_contracts::{
    Label, Money, OpeningHours, RestaurantId, Sku, ZoneName,
    requests::{ConfigureRestaurant, Dish, ReadMenu},
};
use doorstep_event::RequestContract;
use serde::{Deserialize, Deserializer, de::Error as _};
use utoipa::ToSchema;

use super::health::json;
use crate::{
    app::AppState,
    auth::AuthenticatedUser,
    backends::after,
    http::{PathParam, Problem, Unread, bounded_str, is_presentable, whole_number},
};

/// The timeout of a change.
const CHANGE_TIME: std::time::Duration = std::time::Duration::from_secs(4);

/// A restaurant to open or change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRestaurant {
    /// The name of the restaurant.
    #[serde(deserialize_with = "bounded_str")]
    #[schema(value_type = String, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "Da Luigi")]
    name: Label,
    /// The time zone of its hours.
    #[schema(value_type = String, example = "Europe/Rome")]
    time_zone: ZoneName,
    /// The hours in which it takes orders; without any it takes none.
    #[schema(value_type = Vec<OpeningBody>, max_items = 50)]
    opening_hours: Vec<OpeningHours>,
    /// The number of pieces that it can prepare at once.
    #[serde(deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 100_000, example = 40)]
    capacity: u32,
    /// The minutes from an order to its being ready.
    #[serde(deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 1440, example = 25)]
    minutes_to_prepare: u16,
    /// The dishes that it sells, each once.
    #[schema(max_items = 500)]
    menu: Vec<DishBody>,
}

/// A restaurant and its present state.
#[derive(ToSchema)]
#[expect(dead_code, reason = "tells the form of the contract's own type")]
pub(crate) struct RestaurantBody {
    /// The id of the restaurant.
    #[schema(value_type = String)]
    restaurant: RestaurantId,
    /// The name of the restaurant.
    #[schema(value_type = String)]
    name: Label,
    /// The time zone of its hours.
    #[schema(value_type = String)]
    time_zone: ZoneName,
    /// The hours in which it takes orders.
    #[schema(value_type = Vec<OpeningBody>)]
    opening_hours: Vec<OpeningHours>,
    /// True if it takes orders now.
    is_open: bool,
    /// The number of pieces that it can prepare at once.
    capacity: u32,
    /// The number of pieces that it prepares now.
    taken: u32,
    /// The minutes from an order to its being ready.
    minutes_to_prepare: u16,
    /// The dishes that it sells.
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
    /// The first minute in which no more orders are taken.
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

/// A dish on the menu.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Dish)]
pub(crate) struct DishBody {
    /// The stock code of the dish.
    #[serde(deserialize_with = "bounded_str")]
    #[schema(value_type = String, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "MARGHERITA")]
    sku: Sku,
    /// The name of the dish.
    #[serde(deserialize_with = "bounded_str")]
    #[schema(value_type = String, min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$", example = "Pizza Margherita")]
    name: Label,
    /// The price of one piece: more than zero.
    #[serde(deserialize_with = "price")]
    #[schema(value_type = String, pattern = "^[0-9]{1,9}(\\.[0-9]{1,9})?$", example = "7.50")]
    price: Money,
}

impl From<DishBody> for Dish {
    fn from(dish: DishBody) -> Self {
        Self {
            sku: dish.sku,
            name: dish.name,
            price: dish.price,
        }
    }
}

/// The limit of digits of a price, before and after its point.
const PRICE_DIGITS: usize = 9;

/// Reads a price in the form that the document describes.
fn price<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    let text = String::deserialize(deserializer)?;
    let (whole, part) = text.split_once('.').unwrap_or((text.as_str(), "0"));
    let are_digits = |digits: &str| {
        (1..=PRICE_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    if !are_digits(whole) || !are_digits(part) {
        return Err(D::Error::custom(format!(
            "a price is 1 to {PRICE_DIGITS} digits, and as many behind a point, such as 7.50"
        )));
    }
    text.parse().map_err(D::Error::custom)
}

/// Rejects dishes that cost nothing, since their payment could not be authorized.
fn check_prices(menu: &[Dish]) -> Result<(), Problem> {
    match menu.iter().find(|dish| dish.price <= Money::ZERO) {
        None => Ok(()),
        Some(Dish { sku, price, .. }) => Err(Problem::invalid(format!(
            "the price of {sku} is {price}, and must be above zero"
        ))),
    }
}

/// Open a restaurant, or replace its settings.
///
/// For the restaurant's own users and operators.
#[utoipa::path(put, operation_id = "configure_restaurant", path = "/v1/restaurants/{restaurant}", tag = "restaurants", security(("token" = [])), request_body = NewRestaurant,
    params(("restaurant" = String, Path, description = "The id of the restaurant.",
        min_length = 1, max_length = 50, pattern = "^[^\\u0000-\\u001f\\u007f]+$")),
    responses(
    (status = 204, description = "The restaurant's settings are stored."),
    (status = 403, description = "The restaurant is not the user's."),
    (status = 422, description = "The body has an invalid form, or breaks a rule: a dish costs nothing or occurs twice, or a name is too long or contains invisible characters."),
))]
pub(super) async fn configure(
    State(app): State<Arc<AppState>>,
    caller: AuthenticatedUser,
    PathParam(restaurant): PathParam<RestaurantId>,
    body: Unread,
) -> Result<StatusCode, Problem> {
    if !caller.manages(&restaurant) {
        return Err(Problem::forbidden(
            "only its own users and operators may change a restaurant",
        ));
    }
    let new: NewRestaurant = body.json().await?;
    is_presentable(restaurant.as_str()).map_err(Problem::invalid)?;
    let configure = ConfigureRestaurant {
        restaurant,
        name: new.name,
        time_zone: new.time_zone,
        opening_hours: new.opening_hours,
        capacity: new.capacity,
        minutes_to_prepare: new.minutes_to_prepare,
        menu: new.menu.into_iter().map(Dish::from).collect(),
    };
    configure.check().map_err(Problem::invalid)?;
    check_prices(&configure.menu)?;
    app.backends
        .command(None, after(CHANGE_TIME), &configure)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get a restaurant's menu, and whether it is open.
///
/// For every user with a session.
#[utoipa::path(get, operation_id = "show_restaurant", path = "/v1/restaurants/{restaurant}", tag = "restaurants", security(("token" = [])),
    params(("restaurant" = String, Path, description = "The id of the restaurant.")),
    responses(
    (status = 200, description = "The restaurant.", body = RestaurantBody),
    (status = 404, description = "The restaurant does not exist."),
))]
pub(super) async fn show(
    State(app): State<Arc<AppState>>,
    _caller: AuthenticatedUser,
    PathParam(restaurant): PathParam<RestaurantId>,
) -> Result<Response, Problem> {
    let menu = app.backends.query(&ReadMenu { restaurant }).await?;
    Ok(json(StatusCode::OK, &menu))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use super::*;

    fn read(sku: &str, price: &str) -> serde_json::Result<DishBody> {
        let dish = json!({"sku": sku, "name": "Pizza", "price": price});
        serde_json::from_value(dish)
    }

    #[test]
    fn prices_match_the_documented_pattern() {
        for good in ["7.50", "7", "0.000000001", "999999999.999999999", "007.1"] {
            let dish = read("PIZZA", good).unwrap();
            assert_eq!(dish.price, good.parse::<Money>().unwrap(), "{good}");
        }
        let long = format!("0.{}", "0".repeat(10));
        for bad in [
            "",
            "-1",
            "+1",
            "1.",
            ".5",
            "1,5",
            "1e3",
            "1.2.3",
            "1000000000",
            &long,
        ] {
            assert!(read("PIZZA", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dish_has_orderable_stock_code() {
        let longest = "\u{1f355}".repeat(50);
        assert_eq!(read(&longest, "1").unwrap().sku.as_str(), longest);
        assert!(read(&"x".repeat(51), "1").is_err());
    }

    #[test]
    fn a_free_dish_is_on_no_menu() {
        let menu = |price: &str| [Dish::from(read("PIZZA", price).unwrap())];
        assert!(check_prices(&menu("0.01")).is_ok());
        let rejected = check_prices(&menu("0.00")).unwrap_err();
        assert_eq!(rejected.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}
