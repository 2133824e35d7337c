//! Inventory: the stock of every stock code, on `stock/CODE`.
//!
//! Movements of several sources for one code add up to the same state in any order: every value kept is a sum, a count
//! or a maximum. The reservations of unconfirmed orders are such a sum, too; a reservation is no movement, since the
//! pieces stay where they are.

use doorstep_contracts::{StockAdjusted, StockReason, StockReleased, StockReserved};
use doorstep_event::{Contract, ContractError, Event, Timestamp};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use super::not_handled;

pub(crate) struct Inventory;

/// The events that the role handles.
pub(crate) enum Fact {
    /// Pieces came or went.
    Adjusted(StockAdjusted),
    /// A change of the reserved pieces; negative if fewer are reserved.
    Reserved(i64),
}

/// The stock of one code. The order of the fields is the order in exports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stock {
    /// Pieces on hand. Negative if more were sold than received: the shop's records begin in the middle of its life.
    on_hand: i64,
    /// The number of movements applied.
    movements: u64,
    /// Pieces sold.
    sold: i64,
    /// Pieces given back.
    returned: i64,
    /// Pieces broken, lost or thrown away.
    written_off: i64,
    /// The latest movement, by the times of the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_moved_at: Option<Timestamp>,
    /// Pieces reserved for unconfirmed orders.
    #[serde(default, skip_serializing_if = "is_nothing")]
    reserved: i64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference over"
)]
fn is_nothing(pieces: &i64) -> bool {
    *pieces == 0
}

impl Role for Inventory {
    type Payload = Fact;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = Stock;

    fn name(&self) -> &'static str {
        "inventory"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.event_type.as_str() {
            StockAdjusted::TYPE => Fact::Adjusted(StockAdjusted::read(event)?),
            StockReserved::TYPE => Fact::Reserved(StockReserved::read(event)?.quantity),
            // Quantities are positive, so each has a negative.
            StockReleased::TYPE => Fact::Reserved(-StockReleased::read(event)?.quantity),
            _ => return not_handled(event),
        };
        Ok(Reading::Handled(fact))
    }

    fn keys(&self, event: &Event, _fact: &Fact) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Stock>,
        event: &Event,
        fact: &Fact,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let stock = states.first_or_default();
        match fact {
            Fact::Adjusted(fact) => {
                stock.adjust(fact).ok_or_else(|| {
                    HandlerError::Reject(format!(
                        "moving {} by {} pieces leads beyond what can be counted, on hand are {}",
                        event.subject, fact.delta, stock.on_hand
                    ))
                })?;
                // `None` is below every time.
                stock.last_moved_at = stock.last_moved_at.max(event.time);
            }
            Fact::Reserved(more) => {
                stock.reserved = stock.reserved.checked_add(*more).ok_or_else(|| {
                    HandlerError::Reject(format!(
                        "reserving {more} pieces more of {} leads beyond what can be counted, reserved are {}",
                        event.subject, stock.reserved
                    ))
                })?;
            }
        }
        Ok(Effects::none())
    }
}

impl Stock {
    /// Applies a movement; `None` if a sum exceeds 64 bits, and then the caller drops the state.
    fn adjust(&mut self, fact: &StockAdjusted) -> Option<()> {
        let StockAdjusted { delta, reason, .. } = *fact;
        let on_hand = self.on_hand.checked_add(delta)?;
        match reason {
            StockReason::Sale => self.sold = self.sold.checked_sub(delta)?,
            StockReason::WriteOff => self.written_off = self.written_off.checked_sub(delta)?,
            StockReason::Return => self.returned = self.returned.checked_add(delta)?,
        }
        self.on_hand = on_hand;
        self.movements += 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::Subject;
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::roles::testing::{applied, event, exported, rejected};

    fn adjusted(delta: i64, reason: StockReason) -> StockAdjusted {
        StockAdjusted {
            delta,
            reason,
            reference: Subject::new("order/536365").unwrap(),
        }
    }

    fn moved(before: Option<Stock>, sequence: u64, delta: i64, reason: StockReason) -> Stock {
        let event = event("stock/85123A", sequence, &adjusted(delta, reason));
        applied(&Inventory, before, &event)
    }

    #[test]
    fn movements_add_up_by_reason() {
        let stock = moved(None, 1, -6, StockReason::Sale);
        let stock = moved(Some(stock), 2, -3, StockReason::WriteOff);
        let stock = moved(Some(stock), 3, 2, StockReason::Return);
        let stock = moved(Some(stock), 4, 0, StockReason::Sale);
        assert_eq!(
            exported(&stock),
            r#"{"on_hand":-7,"movements":4,"sold":6,"returned":2,"written_off":3,"last_moved_at":"2026-11-23T09:00:04Z"}"#
        );
    }

    #[test]
    fn latest_movement_is_found_in_any_order() {
        let late = moved(None, 9, -1, StockReason::Sale);
        let both = moved(Some(late.clone()), 3, -1, StockReason::Sale);
        assert_eq!(both.last_moved_at, late.last_moved_at);
        let mut timeless = event("stock/85123A", 4, &adjusted(-1, StockReason::Sale));
        timeless.time = None;
        let still = applied(&Inventory, Some(both), &timeless);
        assert_eq!(still.last_moved_at, late.last_moved_at);
    }

    #[test]
    fn stock_overflow_is_rejected() {
        let full = Stock {
            on_hand: i64::MAX,
            ..Stock::default()
        };
        let event = event("stock/85123A", 1, &adjusted(1, StockReason::Return));
        let said = rejected(&Inventory, Some(full), &event);
        assert!(said.contains("beyond what can be counted"), "{said}");
        let sold = Stock {
            sold: i64::MAX,
            ..Stock::default()
        };
        let event = super::tests::event("stock/85123A", 1, &adjusted(-1, StockReason::Sale));
        rejected(&Inventory, Some(sold), &event);
    }

    fn order(number: usize) -> Subject {
        Subject::new(format!("order/{number}")).unwrap()
    }

    #[test]
    fn a_reservation_shows_until_its_release() {
        let reserved = StockReserved {
            quantity: 3,
            reference: order(1),
        };
        let stock = applied(&Inventory, None, &event("stock/A", 1, &reserved));
        assert_eq!(
            exported(&stock),
            r#"{"on_hand":0,"movements":0,"sold":0,"returned":0,"written_off":0,"reserved":3}"#
        );
        let released = StockReleased {
            quantity: 3,
            reference: order(1),
        };
        let stock = applied(&Inventory, Some(stock), &event("stock/A", 2, &released));
        assert_eq!(stock, Stock::default());
        let full = Stock {
            reserved: i64::MAX,
            ..Stock::default()
        };
        let said = rejected(&Inventory, Some(full), &event("stock/A", 1, &reserved));
        assert!(said.contains("reserving 3 pieces more"), "{said}");
    }

    /// The end of an order, as far as it changes stocks.
    #[derive(Debug, Clone, Copy)]
    enum Ending {
        Confirmed,
        Refused,
        Cancelled,
    }

    proptest! {
        #[test]
        fn ended_orders_leave_no_reservation_in_any_order(
            orders in vec(
                (1..50_i64, prop_oneof![Just(Ending::Confirmed), Just(Ending::Refused), Just(Ending::Cancelled)]),
                1..12,
            ),
            turns in vec(any::<Index>(), 60),
        ) {
            // Each order has a source of its own, so there is no order between two of them.
            let streams = orders.iter().enumerate().map(|(number, (quantity, ending))| {
                let (quantity, reference) = (*quantity, order(number));
                let moved = |delta, reason| event("stock/A", 3, &StockAdjusted { delta, reason, reference: reference.clone() });
                let mut stream = vec![
                    event("stock/A", 1, &StockReserved { quantity, reference: reference.clone() }),
                    event("stock/A", 2, &StockReleased { quantity, reference: reference.clone() }),
                ];
                if !matches!(ending, Ending::Refused) {
                    stream.push(moved(-quantity, StockReason::Sale));
                }
                if matches!(ending, Ending::Cancelled) {
                    stream.push(moved(quantity, StockReason::Return));
                }
                stream.into_iter()
            });
            let mut streams: Vec<_> = streams.collect();
            let mut stock = Stock::default();
            let mut turns = turns.iter().cycle();
            while !streams.is_empty() {
                let turn = turns.next().unwrap().index(streams.len());
                match streams[turn].next() {
                    Some(event) => stock = applied(&Inventory, Some(stock), &event),
                    None => drop(streams.swap_remove(turn)),
                }
                prop_assert!(stock.reserved >= 0);
            }
            let sold: i64 = orders
                .iter()
                .filter(|(_, ending)| matches!(ending, Ending::Confirmed))
                .map(|(quantity, _)| quantity)
                .sum();
            prop_assert_eq!((stock.reserved, stock.on_hand), (0, -sold));
            prop_assert!(!exported(&stock).contains("reserved"));
        }
    }
}
