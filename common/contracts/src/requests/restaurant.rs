//! Requests to the role `restaurant`: prices, and confirmations of orders.

use std::collections::BTreeSet;

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::ErrorCode;
use crate::{
    InvoiceNo, Label, Money, OpeningHours, OrderLine, RestaurantId, Sku, ZoneName, check_text,
};

/// `restaurant.configure.v1`: creates a restaurant, or replaces its configuration. Confirmed orders stay confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigureRestaurant {
    pub restaurant: RestaurantId,
    pub name: Label,
    /// Time zone of its opening hours.
    pub time_zone: ZoneName,
    /// Its opening hours; empty if it never accepts orders.
    pub opening_hours: Vec<OpeningHours>,
    /// Maximum pieces in preparation at once.
    pub capacity: u32,
    /// Preparation time of an order, in minutes.
    pub minutes_to_prepare: u16,
    pub menu: Vec<Dish>,
}

/// An item on a restaurant's menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dish {
    pub sku: Sku,
    pub name: Label,
    /// The price of one piece: zero or more.
    pub price: Money,
}

/// The result of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestaurantConfigured {
    pub restaurant: RestaurantId,
    /// Number of dishes on its menu.
    pub dishes: u32,
}

impl ConfigureRestaurant {
    /// Maximum opening hours per week.
    pub const MAX_HOURS: usize = 50;
    pub const MAX_DISHES: usize = 500;
    pub const MAX_QUANTITY: u32 = 100_000;
    /// Maximum preparation time in minutes: one day.
    pub const MAX_MINUTES: u16 = 24 * 60;
}

impl RequestContract for ConfigureRestaurant {
    const TYPE: &'static str = "restaurant.configure.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = RestaurantConfigured;

    fn check(&self) -> Result<(), String> {
        within("opening hours", self.opening_hours.len(), Self::MAX_HOURS)?;
        within("dishes", self.menu.len(), Self::MAX_DISHES)?;
        let Self {
            capacity,
            minutes_to_prepare: minutes,
            ..
        } = *self;
        if !(1..=Self::MAX_QUANTITY).contains(&capacity) {
            let max = Self::MAX_QUANTITY;
            return Err(format!(
                "capacity {capacity} is not within 1 to {max} pieces"
            ));
        }
        if !(1..=Self::MAX_MINUTES).contains(&minutes) {
            let max = Self::MAX_MINUTES;
            return Err(format!(
                "{minutes} minutes to prepare are not within 1 to {max}"
            ));
        }
        check_displayable("restaurant", self.restaurant.as_str())?;
        check_displayable("name", self.name.as_str())?;
        let mut seen = BTreeSet::new();
        for Dish { sku, price, name } in &self.menu {
            check_displayable("stock code", sku.as_str())?;
            check_displayable("name", name.as_str())?;
            if price.is_negative() {
                return Err(format!("price {price} of {sku} is negative"));
            }
            if !seen.insert(sku) {
                return Err(format!("{sku} is on the menu twice"));
            }
        }
        Ok(())
    }
}

fn check_displayable(what: &str, text: &str) -> Result<(), String> {
    check_text(text).map_err(|e| format!("{what}: {e}"))
}

/// `restaurant.quote.v1`: computes the current price of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteOrder {
    pub restaurant: RestaurantId,
    /// The requested items; at least one line.
    pub lines: Vec<RequestedLine>,
}

/// A quantity of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestedLine {
    pub sku: Sku,
    /// Number of pieces: 1 to [`QuoteOrder::MAX_QUANTITY`], otherwise rejected as `invalid_quantity`.
    pub quantity: i64,
}

/// The price of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderQuote {
    pub restaurant: RestaurantId,
    /// The lines with prices, as in an order.
    pub lines: Vec<OrderLine>,
    pub pieces: u32,
    pub total: Money,
}

impl QuoteOrder {
    pub const MAX_LINES: usize = 100;
    /// Maximum pieces of a line.
    pub const MAX_QUANTITY: i64 = 1_000;
}

impl RequestContract for QuoteOrder {
    const TYPE: &'static str = "restaurant.quote.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = OrderQuote;

    fn check(&self) -> Result<(), String> {
        if self.lines.is_empty() {
            return Err("there is no line".to_owned());
        }
        within("lines", self.lines.len(), Self::MAX_LINES)
    }
}

/// `restaurant.confirm.v1`: confirms an order with a time. A confirmation reserves capacity until the promised time, or until the order is
/// refused, abandoned or cancelled. An order is confirmed once: repeating the same request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmOrder {
    pub order: InvoiceNo,
    pub restaurant: RestaurantId,
    /// Total number of pieces: at least one.
    pub pieces: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderConfirmation {
    /// Time by which the order is promised to be ready.
    pub promised_at: Timestamp,
}

impl RequestContract for ConfirmOrder {
    const TYPE: &'static str = "restaurant.confirm.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = OrderConfirmation;

    fn check(&self) -> Result<(), String> {
        if self.pieces == 0 {
            return Err("an order needs at least one piece".to_owned());
        }
        Ok(())
    }
}

/// `restaurant.menu.v1`: reads a restaurant's menu and hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadMenu {
    pub restaurant: RestaurantId,
}

/// The public description of a restaurant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Menu {
    pub restaurant: RestaurantId,
    pub name: Label,
    /// Time zone of its opening hours.
    pub time_zone: ZoneName,
    pub opening_hours: Vec<OpeningHours>,
    /// True if it currently accepts orders.
    pub is_open: bool,
    /// Maximum pieces in preparation at once.
    pub capacity: u32,
    /// Pieces in preparation.
    pub taken: u32,
    /// Preparation time of an order, in minutes.
    pub minutes_to_prepare: u16,
    pub menu: Vec<Dish>,
}

impl RequestContract for ReadMenu {
    const TYPE: &'static str = "restaurant.menu.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = Menu;
}

fn within(what: &str, count: usize, max: usize) -> Result<(), String> {
    if count > max {
        return Err(format!("{count} {what} are more than {max}"));
    }
    Ok(())
}

const UNKNOWN: ErrorCode = ErrorCode::new("unknown_restaurant", "there is no such restaurant");
const CLOSED: ErrorCode =
    ErrorCode::new("restaurant_closed", "the restaurant accepts no orders now");

pub(super) const QUOTE: &[ErrorCode] = &[
    UNKNOWN,
    CLOSED,
    ErrorCode::new("unknown_sku", "the restaurant does not sell this item"),
    ErrorCode::new("invalid_quantity", "a line must have 1 to 1000 pieces"),
    ErrorCode::new("invalid_amount", "the order's total is too large"),
];

pub(super) const CONFIRM: &[ErrorCode] = &[
    UNKNOWN,
    CLOSED,
    ErrorCode::new("at_capacity", "the restaurant is at capacity"),
    ErrorCode::new(
        "already_confirmed",
        "the order was already confirmed with other terms",
    ),
    ErrorCode::new(
        "order_closed",
        "the order was refused, abandoned or cancelled",
    ),
];

pub(super) const MENU: &[ErrorCode] = &[UNKNOWN];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rejected(change: impl FnOnce(&mut ConfigureRestaurant)) -> String {
        let golden = include_str!("../../golden/requests/restaurant.configure.v1.request.json");
        let mut request: ConfigureRestaurant = serde_json::from_str(golden).unwrap();
        assert_eq!(request.check(), Ok(()));
        change(&mut request);
        request.check().unwrap_err()
    }

    #[test]
    fn invalid_configurations_are_rejected_with_the_value() {
        let error = rejected(|r| r.capacity = 0);
        assert!(error.contains("capacity 0"), "{error}");
        let error = rejected(|r| r.minutes_to_prepare = 1441);
        assert!(error.contains("1441 minutes"), "{error}");
        let error = rejected(|r| r.menu.push(r.menu[0].clone()));
        assert!(error.contains("MARGHERITA is on the menu twice"), "{error}");
        let error = rejected(|r| r.menu[0].price = "-1".parse().unwrap());
        assert!(error.contains("price -1.00"), "{error}");
        let error = rejected(|r| r.opening_hours = vec![r.opening_hours[0]; 51]);
        assert!(error.contains("51 opening hours"), "{error}");
    }

    #[test]
    fn deceptive_names_are_rejected_everywhere() {
        let hidden = "da\u{200b}luigi";
        let error = rejected(|r| r.name = Label::new(hidden).unwrap());
        assert!(error.contains("U+200B") && error.is_ascii(), "{error}");
        let error = rejected(|r| r.restaurant = RestaurantId::new(hidden).unwrap());
        assert!(error.contains("restaurant"), "{error}");
        let error = rejected(|r| r.menu[0].name = Label::new(" x").unwrap());
        assert!(error.contains("white space"), "{error}");
        let error = rejected(|r| r.menu[0].sku = Sku::new("\u{202e}x").unwrap());
        assert!(error.contains("stock code"), "{error}");
    }
}
