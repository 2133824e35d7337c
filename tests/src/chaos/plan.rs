//! The planned order of each customer.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

/// One order and its variations.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The body of the request.
    pub(super) order: Value,
    /// The ordered items with their quantities.
    pub(super) pieces: Vec<(&'static str, i64)>,
    /// Repeats the same request after an answer, too.
    pub(super) asks_twice: bool,
    /// Sends the request twice at the same moment.
    pub(super) is_impatient: bool,
    /// Cancels if it is confirmed.
    pub(super) cancels: bool,
}

/// The menu, with prices that need exact sums.
pub(super) const MENU: [(&str, &str); 3] = [
    ("MARGHERITA", "7.35"),
    ("TIRAMISU", "4.105"),
    ("WATER", "0.99"),
];

impl Plan {
    pub(super) fn all(count: usize, seed: u64) -> Vec<Self> {
        let mut dice = StdRng::seed_from_u64(seed);
        (0..count).map(|_| Self::roll(&mut dice)).collect()
    }

    fn roll(dice: &mut StdRng) -> Self {
        let restaurant = match dice.random_range(0..100) {
            0..88 => "luigi",
            88..96 => "nook",
            _ => "night",
        };
        let method = if dice.random_ratio(1, 12) {
            "card/declined"
        } else {
            "card/visa"
        };
        let first = dice.random_range(0..MENU.len());
        let count = dice.random_range(1..=MENU.len());
        let pieces: Vec<(&'static str, i64)> = (0..count)
            .map(|n| {
                (
                    MENU[(first + n) % MENU.len()].0,
                    dice.random_range(1..=4_i64),
                )
            })
            .collect();
        let mut lines: Vec<Value> = pieces
            .iter()
            .map(|(sku, quantity)| json!({"sku": sku, "quantity": quantity}))
            .collect();
        if dice.random_ratio(1, 50) {
            lines.push(json!({"sku": "ANCHOVIES", "quantity": 1}));
        }
        Self {
            order: json!({"restaurant": restaurant, "lines": lines, "method": method}),
            pieces,
            asks_twice: dice.random_ratio(1, 6),
            is_impatient: dice.random_ratio(1, 10),
            cancels: dice.random_ratio(1, 8),
        }
    }
}
