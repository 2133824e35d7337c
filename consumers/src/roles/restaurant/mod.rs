//! Restaurants: menus, hours and prices, and whether and when an order can be made.
//!
//! A confirmed order takes capacity in the kitchen. Either of two events releases it, whichever comes first: the
//! promised time or the order's end. Both reach the kitchen as an event that this role schedules for itself, since an
//! event about an order does not name the kitchen. The booking remembers the kitchen, and that its capacity was
//! released once. An order that ends before it is confirmed leaves a booking that rejects a confirmation.

mod kitchen;
#[cfg(test)]
mod tests;

use doorstep_contracts::{
    InvoiceNo, Label, OrderAbandoned, OrderCancelled, OrderRefused, RestaurantId,
    requests::{
        ConfigureRestaurant, ConfirmOrder, Dish, Menu, QuoteOrder, ReadMenu, RestaurantConfigured,
    },
};
use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, Timestamp,
};
use doorstep_runtime::{CommandOutcome, Effects, HandlerError, Reading, Role, States, reply};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use self::kitchen::{Booking, Kitchen};
use super::{not_handled, order_of, subject_name};

pub(crate) struct Restaurant;

/// The events that the role handles.
pub(crate) enum Fact {
    /// An order was rejected, abandoned or cancelled.
    Ended(InvoiceNo),
    /// The capacity that an order takes in a kitchen is to be released.
    RoomDue {
        restaurant: RestaurantId,
        order: InvoiceNo,
    },
}

/// The commands that the role executes.
pub(crate) enum Command {
    Configure(Box<ConfigureRestaurant>),
    Confirm(ConfirmOrder),
}

/// The queries that the role serves.
pub(crate) enum Query {
    Quote(QuoteOrder),
    Menu(ReadMenu),
}

/// `restaurant.room_due.v1`, on `restaurant/NAME` from this role to itself: release the capacity that an order takes.
/// It is never published.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomDue {
    order: InvoiceNo,
}

impl Contract for RoomDue {
    const TYPE: &'static str = "restaurant.room_due.v1";
    const REQUIRES_SEQUENCE: bool = false;
}

/// The states of the role, each under its own kind of key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Record {
    /// On `restaurant/NAME`: the part that changes with every order, kept small.
    Kitchen(Kitchen),
    /// On `menu/NAME`.
    Menu(Card),
    /// On `booking/ORDER`.
    Booking(Booking),
}

/// The name and the menu of a restaurant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    name: Label,
    menu: Vec<Dish>,
}

impl Role for Restaurant {
    type Payload = Fact;
    type Command = Command;
    type Query = Query;
    type State = Record;

    fn name(&self) -> &'static str {
        "restaurant"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        match event.event_type.as_str() {
            OrderRefused::TYPE => OrderRefused::read(event).map(drop)?,
            OrderAbandoned::TYPE => OrderAbandoned::read(event).map(drop)?,
            OrderCancelled::TYPE => OrderCancelled::read(event).map(drop)?,
            RoomDue::TYPE => {
                let RoomDue { order } = RoomDue::read(event)?;
                let restaurant = subject_name(event, RestaurantId::new)?;
                return Ok(Reading::Handled(Fact::RoomDue { restaurant, order }));
            }
            _ => return not_handled(event),
        }
        order_of(event).map(Fact::Ended).map(Reading::Handled)
    }

    fn keys(&self, _event: &Event, fact: &Fact) -> Vec<EntityKey> {
        match fact {
            Fact::Ended(order) => vec![booking_key(order)],
            Fact::RoomDue { restaurant, order } => {
                vec![booking_key(order), kitchen_key(restaurant)]
            }
        }
    }

    fn handle(
        &self,
        states: &mut States<Record>,
        _event: &Event,
        fact: &Fact,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let mut effects = Effects::none();
        match fact {
            Fact::Ended(order) => {
                let key = booking_key(order);
                let (booking, due) = Booking::ended(booking(states, &key));
                states.put(&key, Record::Booking(booking));
                if let Some(restaurant) = due {
                    let order = order.clone();
                    effects.schedule(now, &restaurant.subject(), &RoomDue { order })?;
                }
            }
            Fact::RoomDue { restaurant, order } => {
                let [key, at] = [booking_key(order), kitchen_key(restaurant)];
                let (Some(booking), Some(Record::Kitchen(kitchen))) =
                    (booking(states, &key), states.get(&at))
                else {
                    return Ok(effects);
                };
                let (booking, pieces) = booking.rejection();
                let kitchen = kitchen.can_fit(pieces);
                states.put(&key, Record::Booking(booking));
                states.put(&at, Record::Kitchen(kitchen));
            }
        }
        Ok(effects)
    }

    fn read_command(&self, request: &Request) -> Result<Command, ContractError> {
        Ok(match request.kind.as_str() {
            ConfigureRestaurant::TYPE => {
                Command::Configure(ConfigureRestaurant::read(request)?.into())
            }
            ConfirmOrder::TYPE => Command::Confirm(ConfirmOrder::read(request)?),
            unknown => return Err(ContractError::UnknownType(unknown.to_owned())),
        })
    }

    fn command_keys(&self, _request: &Request, command: &Command) -> Vec<EntityKey> {
        match command {
            Command::Configure(asked) => {
                vec![kitchen_key(&asked.restaurant), menu_key(&asked.restaurant)]
            }
            Command::Confirm(asked) => {
                vec![booking_key(&asked.order), kitchen_key(&asked.restaurant)]
            }
        }
    }

    fn execute(
        &self,
        states: &mut States<Record>,
        _request: &Request,
        command: &Command,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        match command {
            Command::Configure(asked) => {
                let key = kitchen_key(&asked.restaurant);
                let kitchen = Kitchen::configured(asked, kitchen(states, &key));
                let card = Card {
                    name: asked.name.clone(),
                    menu: asked.menu.clone(),
                };
                let configured = RestaurantConfigured {
                    restaurant: asked.restaurant.clone(),
                    dishes: u32::try_from(card.menu.len()).unwrap_or(u32::MAX),
                };
                states.put(&key, Record::Kitchen(kitchen));
                states.put(&menu_key(&asked.restaurant), Record::Menu(card));
                CommandOutcome::new::<ConfigureRestaurant>(&configured, Effects::none())
            }
            Command::Confirm(asked) => confirm(states, asked, now),
        }
    }

    fn read_query(&self, request: &Request) -> Result<Query, ContractError> {
        Ok(match request.kind.as_str() {
            QuoteOrder::TYPE => Query::Quote(QuoteOrder::read(request)?),
            ReadMenu::TYPE => Query::Menu(ReadMenu::read(request)?),
            unknown => return Err(ContractError::UnknownType(unknown.to_owned())),
        })
    }

    fn query_keys(&self, _request: &Request, query: &Query) -> Vec<EntityKey> {
        let (Query::Quote(QuoteOrder { restaurant, .. }) | Query::Menu(ReadMenu { restaurant })) =
            query;
        vec![kitchen_key(restaurant), menu_key(restaurant)]
    }

    fn query(
        &self,
        states: &States<Record>,
        _request: &Request,
        query: &Query,
        now: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        let (Query::Quote(QuoteOrder { restaurant, .. }) | Query::Menu(ReadMenu { restaurant })) =
            query;
        let (Some(kitchen), Some(Record::Menu(card))) = (
            kitchen(states, &kitchen_key(restaurant)),
            states.get(&menu_key(restaurant)),
        ) else {
            return Err(unknown(restaurant));
        };
        match query {
            Query::Quote(asked) => {
                kitchen.is_open(restaurant, now)?;
                reply::<QuoteOrder>(&card.quote(asked)?)
            }
            Query::Menu(_) => reply::<ReadMenu>(&Menu {
                restaurant: restaurant.clone(),
                name: card.name.clone(),
                is_open: kitchen.is_open(restaurant, now).is_ok(),
                time_zone: kitchen.time_zone,
                opening_hours: kitchen.opening_hours,
                capacity: kitchen.capacity,
                taken: kitchen.taken,
                minutes_to_prepare: kitchen.minutes_to_prepare,
                menu: card.menu.clone(),
            }),
        }
    }
}

/// Confirms an order or rejects it. A confirmed order stays confirmed, even after closing time.
fn confirm(
    states: &mut States<Record>,
    asked: &ConfirmOrder,
    now: Timestamp,
) -> Result<CommandOutcome, Rejection> {
    let [key, at] = [booking_key(&asked.order), kitchen_key(&asked.restaurant)];
    if let Some(booking) = booking(states, &key) {
        let promise = booking.previous_confirmation(asked)?;
        return CommandOutcome::new::<ConfirmOrder>(&promise, Effects::none());
    }
    let kitchen = kitchen(states, &at).ok_or_else(|| unknown(&asked.restaurant))?;
    let (kitchen, booking, promise) = kitchen.book(asked, now)?;
    let mut effects = Effects::none();
    let order = asked.order.clone();
    let subject = asked.restaurant.subject();
    effects.schedule(promise.promised_at, &subject, &RoomDue { order })?;
    states.put(&key, Record::Booking(booking));
    states.put(&at, Record::Kitchen(kitchen));
    CommandOutcome::new::<ConfirmOrder>(&promise, effects)
}

fn booking(states: &States<Record>, key: &EntityKey) -> Option<Booking> {
    match states.get(key) {
        Some(Record::Booking(booking)) => Some(booking.clone()),
        Some(Record::Kitchen(_) | Record::Menu(_)) | None => None,
    }
}

fn kitchen(states: &States<Record>, key: &EntityKey) -> Option<Kitchen> {
    match states.get(key) {
        Some(Record::Kitchen(kitchen)) => Some(kitchen.clone()),
        Some(Record::Booking(_) | Record::Menu(_)) | None => None,
    }
}

fn unknown(restaurant: &RestaurantId) -> Rejection {
    Rejection::new(
        "unknown_restaurant",
        format!("there is no restaurant {restaurant}"),
    )
}

fn booking_key(order: &InvoiceNo) -> EntityKey {
    EntityKey::new(format!("booking/{order}"))
}

fn kitchen_key(restaurant: &RestaurantId) -> EntityKey {
    EntityKey::from(&restaurant.subject())
}

fn menu_key(restaurant: &RestaurantId) -> EntityKey {
    EntityKey::new(format!("menu/{restaurant}"))
}
