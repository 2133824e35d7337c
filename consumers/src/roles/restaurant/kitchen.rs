//! A kitchen's capacity, the bookings that take it, and prices. Capacity is counted in pieces: an order of ten takes
//! ten times that of an order of one.

use doorstep_contracts::{
    InvoiceNo, Money, MoneyError, OpeningHours, OrderLine, RestaurantId, ZoneName, is_open,
    requests::{
        ConfigureRestaurant, ConfirmOrder, OrderConfirmation, OrderQuote, QuoteOrder, RequestedLine,
    },
};
use doorstep_event::{Rejection, Timestamp};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::Card;

/// A restaurant's hours and capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kitchen {
    pub(super) time_zone: ZoneName,
    pub(super) opening_hours: Vec<OpeningHours>,
    /// The maximum of pieces in progress.
    pub(super) capacity: u32,
    /// The pieces in progress. Above the capacity only if that was lowered meanwhile.
    pub(super) taken: u32,
    pub(super) minutes_to_prepare: u16,
}

/// The state of an order in a restaurant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum Booking {
    /// The restaurant makes it.
    Taken(Promised),
    /// The promised time has come.
    Ready(Promised),
    /// The order has ended, and its capacity is about to be released.
    Ending(Promised),
    /// The order has ended, and its capacity, if any, was released.
    Ended,
}

/// The promise to the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promised {
    restaurant: RestaurantId,
    pieces: u32,
    promised_at: Timestamp,
}

impl Kitchen {
    /// Returns a kitchen as requested; the pieces in progress stay.
    pub(super) fn configured(asked: &ConfigureRestaurant, before: Option<Self>) -> Self {
        Self {
            time_zone: asked.time_zone.clone(),
            opening_hours: asked.opening_hours.clone(),
            capacity: asked.capacity,
            taken: before.map_or(0, |kitchen| kitchen.taken),
            minutes_to_prepare: asked.minutes_to_prepare,
        }
    }

    /// Returns whether it takes orders now.
    pub(super) fn is_open(
        &self,
        restaurant: &RestaurantId,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        if is_open(&self.opening_hours, &self.time_zone, now) {
            return Ok(());
        }
        let detail = format!("restaurant {restaurant} takes no orders now");
        Err(Rejection::new("restaurant_closed", detail))
    }

    /// Books an order.
    pub(super) fn book(
        mut self,
        asked: &ConfirmOrder,
        now: Timestamp,
    ) -> Result<(Self, Booking, OrderConfirmation), Rejection> {
        let ConfirmOrder {
            restaurant, pieces, ..
        } = asked;
        self.is_open(restaurant, now)?;
        self.taken = self
            .taken
            .checked_add(*pieces)
            .filter(|taken| *taken <= self.capacity)
            .ok_or_else(|| {
                let Self {
                    capacity, taken, ..
                } = self;
                let detail = format!(
                    "restaurant {restaurant} has {taken} of {capacity} pieces in hand, and no room for {pieces}"
                );
                Rejection::new("at_capacity", detail)
            })?;
        let promised_at = now
            .checked_add(SignedDuration::from_mins(self.minutes_to_prepare.into()))
            .map_err(|e| Rejection::new(Rejection::FAILED, e.to_string()))?;
        let booking = Booking::Taken(Promised {
            restaurant: restaurant.clone(),
            pieces: *pieces,
            promised_at,
        });
        Ok((self, booking, OrderConfirmation { promised_at }))
    }

    /// Returns the kitchen after this many pieces have left it.
    pub(super) fn can_fit(&self, pieces: u32) -> Self {
        Self {
            taken: self.taken.saturating_sub(pieces),
            ..self.clone()
        }
    }
}

impl Booking {
    /// Returns the reply to a repeated request.
    pub(super) fn previous_confirmation(
        &self,
        asked: &ConfirmOrder,
    ) -> Result<OrderConfirmation, Rejection> {
        let order: &InvoiceNo = &asked.order;
        match self {
            Self::Taken(promised) | Self::Ready(promised)
                if (&promised.restaurant, promised.pieces) == (&asked.restaurant, asked.pieces) =>
            {
                Ok(OrderConfirmation {
                    promised_at: promised.promised_at,
                })
            }
            Self::Taken(Promised {
                restaurant, pieces, ..
            })
            | Self::Ready(Promised {
                restaurant, pieces, ..
            }) => Err(Rejection::new(
                "already_confirmed",
                format!("order {order} was confirmed by {restaurant} with {pieces} pieces"),
            )),
            Self::Ending(_) | Self::Ended => {
                let detail = format!("order {order} has ended");
                Err(Rejection::new("order_closed", detail))
            }
        }
    }

    /// Returns the booking of an order that has ended, and the restaurant whose capacity is to be released, if any.
    pub(super) fn ended(before: Option<Self>) -> (Self, Option<RestaurantId>) {
        match before {
            Some(Self::Taken(promised)) => {
                let restaurant = promised.restaurant.clone();
                (Self::Ending(promised), Some(restaurant))
            }
            Some(Self::Ending(promised)) => (Self::Ending(promised), None),
            Some(Self::Ready(_) | Self::Ended) | None => (Self::Ended, None),
        }
    }

    /// Returns the booking without its capacity, and the number of pieces released: once only.
    pub(super) fn rejection(self) -> (Self, u32) {
        match self {
            Self::Taken(promised) => {
                let pieces = promised.pieces;
                (Self::Ready(promised), pieces)
            }
            Self::Ending(Promised { pieces, .. }) => (Self::Ended, pieces),
            without @ (Self::Ready(_) | Self::Ended) => (without, 0),
        }
    }
}

impl Card {
    /// Returns the price of an order.
    pub(super) fn quote(&self, asked: &QuoteOrder) -> Result<OrderQuote, Rejection> {
        let lines: Vec<OrderLine> = asked
            .lines
            .iter()
            .map(|wanted| self.priced(&asked.restaurant, wanted))
            .collect::<Result<_, _>>()?;
        let total = Money::sum(lines.iter().map(|line| line.amount)).map_err(too_much)?;
        // At most a hundred lines of a thousand pieces.
        let pieces = lines.iter().map(|line| line.quantity).sum::<i64>();
        Ok(OrderQuote {
            restaurant: asked.restaurant.clone(),
            pieces: u32::try_from(pieces).unwrap_or(u32::MAX),
            lines,
            total,
        })
    }

    fn priced(
        &self,
        restaurant: &RestaurantId,
        wanted: &RequestedLine,
    ) -> Result<OrderLine, Rejection> {
        let RequestedLine { sku, quantity } = wanted;
        let dish = self.menu.iter().find(|dish| dish.sku == *sku);
        let dish = dish.ok_or_else(|| {
            let detail = format!("restaurant {restaurant} does not sell {sku}");
            Rejection::new("unknown_sku", detail)
        })?;
        let most = QuoteOrder::MAX_QUANTITY;
        if !(1..=most).contains(quantity) {
            let detail = format!("{quantity} pieces of {sku} are not within 1 to {most}");
            return Err(Rejection::new("invalid_quantity", detail));
        }
        let name = Some(dish.name.to_string());
        OrderLine::new(sku.clone(), name, *quantity, dish.price).map_err(too_much)
    }
}

fn too_much(error: MoneyError) -> Rejection {
    Rejection::new("invalid_amount", error.to_string())
}
