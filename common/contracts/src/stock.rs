//! Stock movements, on `stock/CODE`.

use doorstep_event::{Contract, Subject};
use serde::{Deserialize, Serialize};

/// `stock.adjusted.v1`: a stock has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StockAdjusted {
    /// Pieces added (positive) or removed (negative).
    pub delta: i64,
    pub reason: StockReason,
    /// The cause, such as `order/536365`.
    pub reference: Subject,
}

/// The reason for a stock's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StockReason {
    /// A sale, which removes pieces from stock.
    Sale,
    /// A return, which adds pieces to stock.
    Return,
    /// Broken, lost or thrown away: removes pieces.
    WriteOff,
}

impl Contract for StockAdjusted {
    const TYPE: &'static str = "stock.adjusted.v1";

    fn check(&self) -> Result<(), String> {
        let Self { delta, reason, .. } = self;
        match reason {
            StockReason::Sale if *delta > 0 => Err(format!("a sale cannot add {delta} to a stock")),
            StockReason::WriteOff if *delta > 0 => {
                Err(format!("a write-off cannot add {delta} to a stock"))
            }
            StockReason::Return if *delta < 0 => {
                Err(format!("a return cannot take {delta} from a stock"))
            }
            StockReason::Sale | StockReason::Return | StockReason::WriteOff => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_determines_the_sign() {
        for (reason, delta, fits) in [
            (StockReason::Sale, -6, true),
            (StockReason::Sale, 0, true),
            (StockReason::Sale, 6, false),
            (StockReason::Return, 6, true),
            (StockReason::Return, -6, false),
            (StockReason::WriteOff, -6, true),
            (StockReason::WriteOff, 6, false),
        ] {
            let adjusted = StockAdjusted {
                delta,
                reason,
                reference: Subject::new("order/1").unwrap(),
            };
            assert_eq!(adjusted.check().is_ok(), fits, "{adjusted:?}");
        }
    }
}
