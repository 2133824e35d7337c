//! Inventory: what is on hand of every stock code, on `stock/CODE`.
//!
//! Movements of several sources about one code add up to the same state in whatever order they come: everything that is kept is a
//! sum, a count or a maximum.

use doorstep_contracts::{StockAdjusted, StockReason};
use doorstep_event::{Contract, ContractError, Event, Timestamp};
use doorstep_runtime::{Effects, NoRequest, Reading, Refusal, Role, States};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use super::not_handled;

/// The role.
pub(crate) struct Inventory;

/// The stock of one code. The order of the fields is the order in exports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stock {
    /// Pieces on hand. Below zero where more was sold than was ever seen coming: the shop's books begin in the middle of its life.
    on_hand: i64,
    /// How many movements led to this.
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
}

impl Role for Inventory {
    type Fact = StockAdjusted;
    type Command = NoRequest;
    type Query = NoRequest;
    type State = Stock;

    fn name(&self) -> &'static str {
        "inventory"
    }

    fn read(&self, event: &Event) -> Result<Reading<StockAdjusted>, ContractError> {
        match event.kind.as_str() {
            StockAdjusted::TYPE => StockAdjusted::read(event).map(Reading::Fact),
            _ => not_handled(event),
        }
    }

    fn keys(&self, event: &Event, _fact: &StockAdjusted) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Stock>,
        event: &Event,
        fact: &StockAdjusted,
        _now: Timestamp,
    ) -> Result<Effects, Refusal> {
        let stock = states.first_or_default();
        stock.adjust(fact).ok_or_else(|| {
            Refusal::Never(format!(
                "moving {} by {} pieces leads beyond what can be counted, on hand are {}",
                event.subject, fact.delta, stock.on_hand
            ))
        })?;
        // `None` is below every time.
        stock.last_moved_at = stock.last_moved_at.max(event.time);
        Ok(Effects::none())
    }
}

impl Stock {
    /// Moves the stock; `None` where a sum leaves the range of 64 bits. What was done until then does not count.
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

    use super::*;
    use crate::roles::testing::{applied, event, exported, refused};

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
    fn the_latest_movement_is_found_in_whatever_order_they_come() {
        let late = moved(None, 9, -1, StockReason::Sale);
        let both = moved(Some(late.clone()), 3, -1, StockReason::Sale);
        assert_eq!(both.last_moved_at, late.last_moved_at);
        let mut timeless = event("stock/85123A", 4, &adjusted(-1, StockReason::Sale));
        timeless.time = None;
        let still = applied(&Inventory, Some(both), &timeless);
        assert_eq!(still.last_moved_at, late.last_moved_at);
    }

    #[test]
    fn a_stock_beyond_what_can_be_counted_is_refused() {
        let full = Stock {
            on_hand: i64::MAX,
            ..Stock::default()
        };
        let event = event("stock/85123A", 1, &adjusted(1, StockReason::Return));
        let said = refused(&Inventory, Some(full), &event);
        assert!(said.contains("beyond what can be counted"), "{said}");
        let sold = Stock {
            sold: i64::MAX,
            ..Stock::default()
        };
        let event = super::tests::event("stock/85123A", 1, &adjusted(-1, StockReason::Sale));
        refused(&Inventory, Some(sold), &event);
    }
}
