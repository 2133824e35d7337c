//! What is asked of the role `restaurant`: prices, whether an order can be made, and by when.

use std::collections::BTreeSet;

use doorstep_event::{RequestContract, RequestKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::ErrorCode;
use crate::{
    InvoiceNo, Label, Money, OpeningHours, OrderLine, RestaurantId, Sku, ZoneName, check_text,
};

/// `restaurant.configure.v1`: open a restaurant, or change all about it. What it has already confirmed stays confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigureRestaurant {
    /// Which one.
    pub restaurant: RestaurantId,
    /// What it is called.
    pub name: Label,
    /// Whose clock its hours are on.
    pub time_zone: ZoneName,
    /// When it takes orders; never, where there are none.
    pub opening_hours: Vec<OpeningHours>,
    /// How many pieces it can have in hand at once.
    pub capacity: u32,
    /// How long it takes from an order to its being ready.
    pub minutes_to_prepare: u16,
    /// What it sells.
    pub menu: Vec<Dish>,
}

/// What a restaurant sells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dish {
    /// Its stock code.
    pub sku: Sku,
    /// What it is called.
    pub name: Label,
    /// What one piece costs: zero or more.
    pub price: Money,
}

/// A restaurant is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestaurantConfigured {
    /// Which one.
    pub restaurant: RestaurantId,
    /// How many dishes it has.
    pub dishes: u32,
}

impl ConfigureRestaurant {
    /// The most opening hours of a week.
    pub const MAX_HOURS: usize = 50;
    /// The most dishes on a menu.
    pub const MOST_DISHES: usize = 500;
    /// The most pieces at once.
    pub const MAX_QUANTITY: u32 = 100_000;
    /// The most minutes that may be needed: a day.
    pub const MAX_MINUTES: u16 = 24 * 60;
}

impl RequestContract for ConfigureRestaurant {
    const TYPE: &'static str = "restaurant.configure.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = RestaurantConfigured;

    fn check(&self) -> Result<(), String> {
        within("opening hours", self.opening_hours.len(), Self::MAX_HOURS)?;
        within("dishes", self.menu.len(), Self::MOST_DISHES)?;
        let Self {
            capacity,
            minutes_to_prepare: minutes,
            ..
        } = *self;
        if !(1..=Self::MAX_QUANTITY).contains(&capacity) {
            let most = Self::MAX_QUANTITY;
            return Err(format!(
                "capacity {capacity} is not within 1 to {most} pieces"
            ));
        }
        if !(1..=Self::MAX_MINUTES).contains(&minutes) {
            let most = Self::MAX_MINUTES;
            return Err(format!(
                "{minutes} minutes to prepare are not within 1 to {most}"
            ));
        }
        presentable("restaurant", self.restaurant.as_str())?;
        presentable("name", self.name.as_str())?;
        let mut seen = BTreeSet::new();
        for Dish { sku, price, name } in &self.menu {
            presentable("stock code", sku.as_str())?;
            presentable("name", name.as_str())?;
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

fn presentable(what: &str, text: &str) -> Result<(), String> {
    check_text(text).map_err(|e| format!("{what}: {e}"))
}

/// `restaurant.quote.v1`: what would this cost, if it were ordered now?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteOrder {
    /// Who is to make it.
    pub restaurant: RestaurantId,
    /// What is wanted; one line at least.
    pub lines: Vec<RequestedLine>,
}

/// So many pieces of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestedLine {
    /// What.
    pub sku: Sku,
    /// How many pieces: 1 to [`QuoteOrder::MOST_PIECES`], else refused as `bad_quantity`.
    pub quantity: i64,
}

/// What an order costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderQuote {
    /// Who would make it.
    pub restaurant: RestaurantId,
    /// The lines with their prices, as an order has them.
    pub lines: Vec<OrderLine>,
    /// How many pieces these are together.
    pub pieces: u32,
    /// What they cost together.
    pub total: Money,
}

impl QuoteOrder {
    /// The most lines of an order.
    pub const MAX_LINES: usize = 100;
    /// The most pieces of a line.
    pub const MOST_PIECES: i64 = 1_000;
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

/// `restaurant.confirm.v1`: will you make this order, and by when? A yes takes capacity until the promised time, or until the order is
/// refused, abandoned or cancelled. One order is confirmed once: the same again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmOrder {
    /// What is to be made.
    pub order: InvoiceNo,
    /// Who is to make it.
    pub restaurant: RestaurantId,
    /// How many pieces these are together: one or more.
    pub pieces: u32,
}

/// A restaurant's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderConfirmation {
    /// When it will be ready.
    pub promised_at: Timestamp,
}

impl RequestContract for ConfirmOrder {
    const TYPE: &'static str = "restaurant.confirm.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = OrderConfirmation;

    fn check(&self) -> Result<(), String> {
        if self.pieces == 0 {
            return Err("an order of no pieces cannot be made".to_owned());
        }
        Ok(())
    }
}

/// `restaurant.menu.v1`: what does a restaurant sell, and when?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadMenu {
    /// Which one.
    pub restaurant: RestaurantId,
}

/// All about a restaurant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Menu {
    /// Which one.
    pub restaurant: RestaurantId,
    /// What it is called.
    pub name: Label,
    /// Whose clock its hours are on.
    pub time_zone: ZoneName,
    /// When it takes orders.
    pub opening_hours: Vec<OpeningHours>,
    /// Whether it takes orders now.
    pub is_open: bool,
    /// How many pieces it can have in hand at once.
    pub capacity: u32,
    /// How many it has in hand.
    pub taken: u32,
    /// How long it takes from an order to its being ready.
    pub minutes_to_prepare: u16,
    /// What it sells.
    pub menu: Vec<Dish>,
}

impl RequestContract for ReadMenu {
    const TYPE: &'static str = "restaurant.menu.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = Menu;
}

fn within(what: &str, count: usize, most: usize) -> Result<(), String> {
    if count > most {
        return Err(format!("{count} {what} are more than {most}"));
    }
    Ok(())
}

const UNKNOWN: ErrorCode = ErrorCode::new("unknown_restaurant", "there is no such restaurant");
const CLOSED: ErrorCode = ErrorCode::new("closed", "the restaurant takes no orders now");

/// Why there is no price.
pub(super) const QUOTE: &[ErrorCode] = &[
    UNKNOWN,
    CLOSED,
    ErrorCode::new("unknown_sku", "the restaurant does not sell that"),
    ErrorCode::new("bad_quantity", "a line is not of 1 to 1000 pieces"),
    ErrorCode::new("bad_amount", "the order costs more than can be counted"),
];

/// Why an order is not made.
pub(super) const CONFIRM: &[ErrorCode] = &[
    UNKNOWN,
    CLOSED,
    ErrorCode::new("at_capacity", "the restaurant has too much in hand"),
    ErrorCode::new(
        "already_confirmed",
        "the order was confirmed, but not in this way",
    ),
    ErrorCode::new(
        "order_ended",
        "the order was refused, abandoned or cancelled",
    ),
];

/// Why there is no menu.
pub(super) const MENU: &[ErrorCode] = &[UNKNOWN];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(spoil: impl FnOnce(&mut ConfigureRestaurant)) -> String {
        let golden = include_str!("../../golden/requests/restaurant.configure.v1.request.json");
        let mut asked: ConfigureRestaurant = serde_json::from_str(golden).unwrap();
        assert_eq!(asked.check(), Ok(()));
        spoil(&mut asked);
        asked.check().unwrap_err()
    }

    #[test]
    fn what_no_restaurant_can_be_is_refused_with_its_value() {
        let said = refused(|r| r.capacity = 0);
        assert!(said.contains("capacity 0"), "{said}");
        let said = refused(|r| r.minutes_to_prepare = 1441);
        assert!(said.contains("1441 minutes"), "{said}");
        let said = refused(|r| r.menu.push(r.menu[0].clone()));
        assert!(said.contains("MARGHERITA is on the menu twice"), "{said}");
        let said = refused(|r| r.menu[0].price = "-1".parse().unwrap());
        assert!(said.contains("price -1.00"), "{said}");
        let said = refused(|r| r.opening_hours = vec![r.opening_hours[0]; 51]);
        assert!(said.contains("51 opening hours"), "{said}");
    }

    #[test]
    fn names_that_look_like_others_are_refused_wherever_they_stand() {
        let hidden = "da\u{200b}luigi";
        let said = refused(|r| r.name = Label::new(hidden).unwrap());
        assert!(said.contains("U+200B") && said.is_ascii(), "{said}");
        let said = refused(|r| r.restaurant = RestaurantId::new(hidden).unwrap());
        assert!(said.contains("restaurant"), "{said}");
        let said = refused(|r| r.menu[0].name = Label::new(" x").unwrap());
        assert!(said.contains("white space"), "{said}");
        let said = refused(|r| r.menu[0].sku = Sku::new("\u{202e}x").unwrap());
        assert!(said.contains("stock code"), "{said}");
    }
}
