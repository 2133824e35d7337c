//! Reservations of pieces for an order, on `stock/CODE`: reserved when the order is placed, released when it is confirmed (and sold),
//! refused or abandoned. One source publishes both on one stream, so a release never precedes its reservation.

use doorstep_event::{Contract, Subject};
use serde::{Deserialize, Serialize};

/// `stock.reserved.v1`: pieces are reserved for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StockReserved {
    /// Number of pieces: one or more.
    pub quantity: i64,
    /// The order, such as `order/536365`.
    pub reference: Subject,
}

impl Contract for StockReserved {
    const TYPE: &'static str = "stock.reserved.v1";

    fn check(&self) -> Result<(), String> {
        is_positive(self.quantity)
    }
}

/// `stock.released.v1`: an order's reservation ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StockReleased {
    /// Number of pieces: as many as were reserved.
    pub quantity: i64,
    /// The order, such as `order/536365`.
    pub reference: Subject,
}

impl Contract for StockReleased {
    const TYPE: &'static str = "stock.released.v1";

    fn check(&self) -> Result<(), String> {
        is_positive(self.quantity)
    }
}

fn is_positive(quantity: i64) -> Result<(), String> {
    if quantity < 1 {
        return Err(format!("quantity {quantity} is below one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_piece_is_reserved_and_released() {
        let reference = Subject::new("order/1").unwrap();
        for (quantity, fits) in [(1, true), (i64::MAX, true), (0, false), (-1, false)] {
            let reserved = StockReserved {
                quantity,
                reference: reference.clone(),
            };
            let released = StockReleased {
                quantity,
                reference: reference.clone(),
            };
            assert_eq!(reserved.check().is_ok(), fits, "{quantity}");
            assert_eq!(released.check().is_ok(), fits, "{quantity}");
        }
    }
}
