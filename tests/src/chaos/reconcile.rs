//! The final states of all roles, and the rules that they must satisfy.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{play::CustomerView, shop::Shop};

/// The states of the roles, by key.
pub(super) struct Reconciliation {
    payments: BTreeMap<String, Value>,
    orders: BTreeMap<String, Value>,
    inventory: BTreeMap<String, Value>,
    /// Kitchens, menus, and the orders that occupy capacity in each kitchen.
    restaurant: BTreeMap<String, Value>,
    dead: String,
}

/// Money in thousandths, so that sums are exact.
type Thousandths = i128;

impl Reconciliation {
    pub(super) async fn read(shop: &Shop) -> Self {
        let export = async |role: &str| {
            let lines = shop.output(&["export", role]).await;
            let states = lines.lines().map(|line| {
                let entity: Value =
                    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                (text(&entity, "key").to_owned(), entity["state"].clone())
            });
            states.collect()
        };
        Self {
            payments: export("payments").await,
            orders: export("orders").await,
            inventory: export("inventory").await,
            restaurant: export("restaurant").await,
            dead: shop
                .output(&["dead-letters", "list", "--by-kind", "--json"])
                .await,
        }
    }

    /// Compares the roles' states with each other and with the customers' answers.
    ///
    /// # Errors
    /// A description of the first contradiction.
    pub(super) fn check(&self, answers: &[CustomerView]) -> Result<(), String> {
        if !self.dead.is_empty() {
            return Err(format!("dead letters: {}", self.dead));
        }
        self.check_ledger()?;
        self.check_kitchens()?;
        self.check_ends(answers)?;
        let mut receipts = BTreeMap::new();
        for answers in answers {
            if let Some(receipt) = answers.receipt()
                && let Some(twice) = receipts.insert(receipt.order.as_str(), answers)
            {
                return Err(format!(
                    "two orders have the same number: {twice:?}, {answers:?}"
                ));
            }
        }
        let mut sales: Thousandths = 0;
        let mut sold: BTreeMap<&str, i64> = BTreeMap::new();
        for (key, order) in &self.orders {
            let number = key.trim_start_matches("order/");
            let answers = receipts.remove(number);
            let payment = self.payments.get(&format!("payment/{number}"));
            let stage = payment.map_or("none", |p| text(&p["payment"], "status"));
            let booking = self.restaurant.get(&format!("booking/{number}"));
            let room = booking.map_or("none", |booking| text(booking, "status"));
            let fits = match (text(order, "status"), answers) {
                ("confirmed", Some(answers)) => {
                    answers.is_confirmed()
                        && stage == "captured"
                        && matches!(room, "taken" | "ready")
                }
                ("cancelled", Some(answers)) => {
                    answers.is_cancelled()
                        && matches!(stage, "refunded" | "voided")
                        && room == "ended"
                }
                ("refused" | "abandoned", None) => {
                    matches!(stage, "voided" | "barred") && room == "ended"
                }
                _ => false,
            };
            if !fits {
                return Err(format!(
                    "{key} is {order}, its payment {payment:?}, its booking {booking:?}, and the customer got {answers:?}"
                ));
            }
            let Some(answers) = answers.filter(|answers| answers.is_confirmed()) else {
                continue;
            };
            let total = answers.receipt().map_or("", |receipt| &receipt.total);
            let amount = payment.map_or("", |p| text(&p["payment"], "amount"));
            if thousandths(total) != thousandths(amount) || total != text(order, "total") {
                return Err(format!(
                    "{key} costs {total}, {amount} was captured, order {order}"
                ));
            }
            let wanted: i64 = answers.pieces.iter().map(|(_, quantity)| quantity).sum();
            let made = booking.and_then(|booking| booking["pieces"].as_i64());
            if made != Some(wanted) {
                return Err(format!(
                    "{key} has {wanted} pieces, and its booking is {booking:?}"
                ));
            }
            sales += thousandths(total);
            for (sku, quantity) in &answers.pieces {
                *sold.entry(sku).or_default() += quantity;
            }
        }
        if let Some((number, answers)) = receipts.pop_first() {
            return Err(format!("no role knows order {number}: {answers:?}"));
        }
        let taken = self.balance("account/sales");
        if taken != sales {
            return Err(format!(
                "sales are {sales} thousandths, and captured payments {taken}"
            ));
        }
        self.check_stock(&sold)
    }

    fn check_ledger(&self) -> Result<(), String> {
        let sum: Thousandths = self
            .payments
            .keys()
            .filter(|key| key.starts_with("account/"))
            .map(|key| self.balance(key))
            .sum();
        let held = self.balance("account/held");
        if sum != 0 || held != 0 {
            return Err(format!(
                "the ledger's sum is {sum}, and {held} thousandths are held"
            ));
        }
        Ok(())
    }

    /// Checks that each order ended as its customer was told, even if the customer got no order number.
    fn check_ends(&self, answers: &[CustomerView]) -> Result<(), String> {
        let of = |what: fn(&CustomerView) -> bool| {
            answers.iter().filter(|answers| what(answers)).count()
        };
        for (status, expected) in [
            ("confirmed", of(CustomerView::is_confirmed)),
            ("cancelled", of(CustomerView::is_cancelled)),
            ("refused", of(CustomerView::is_refused_order)),
            (
                "abandoned",
                answers.iter().map(|answers| answers.abandoned).sum(),
            ),
        ] {
            let orders = self.orders.values();
            let found = orders.filter(|o| text(o, "status") == status).count();
            if found != expected {
                return Err(format!(
                    "{found} orders are {status}, and {expected} according to the customers"
                ));
            }
        }
        Ok(())
    }

    /// Checks that exactly the confirmed orders that are not ready yet occupy capacity.
    fn check_kitchens(&self) -> Result<(), String> {
        let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
        for (key, booking) in &self.restaurant {
            let Some(number) = key.strip_prefix("booking/") else {
                continue;
            };
            if !self.orders.contains_key(&format!("order/{number}")) {
                return Err(format!("{key} is {booking}, and no role knows its order"));
            }
            if text(booking, "status") == "taken" {
                let pieces = booking["pieces"].as_u64().unwrap_or_default();
                *taken.entry(text(booking, "restaurant")).or_default() += pieces;
            }
        }
        for (key, kitchen) in &self.restaurant {
            let Some(name) = key.strip_prefix("restaurant/") else {
                continue;
            };
            let expected = taken.get(name).copied().unwrap_or_default();
            if kitchen["taken"] != expected {
                return Err(format!("{key} is {kitchen}, and orders occupy {expected}"));
            }
        }
        Ok(())
    }

    fn balance(&self, account: &str) -> Thousandths {
        self.payments
            .get(account)
            .map_or(0, |state| thousandths(text(state, "balance")))
    }

    fn check_stock(&self, sold: &BTreeMap<&str, i64>) -> Result<(), String> {
        for (key, stock) in &self.inventory {
            let sku = key.trim_start_matches("stock/");
            let gone = sold.get(sku).copied().unwrap_or_default();
            let reserved = stock["reserved"].as_i64().unwrap_or_default();
            if reserved != 0 || stock["on_hand"] != -gone {
                return Err(format!("{key} is {stock}, and {gone} were sold"));
            }
        }
        match sold
            .keys()
            .find(|sku| !self.inventory.contains_key(&format!("stock/{sku}")))
        {
            Some(sku) => Err(format!("{sku} was sold and is unknown to the inventory")),
            None => Ok(()),
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn thousandths(amount: &str) -> Thousandths {
    let (sign, digits) = match amount.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, amount),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |text: &str| {
        text.parse::<Thousandths>()
            .unwrap_or_else(|_| panic!("{amount:?} is not an amount"))
    };
    assert!(part.len() <= 3, "{amount:?} has more than three decimals");
    sign * (number(whole) * 1_000 + number(&format!("{part:0<3}")))
}

#[cfg(test)]
mod tests {
    use super::thousandths;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, expected) in [
            ("0.00", 0),
            ("12.5", 12_500),
            ("-0.105", -105),
            ("7", 7_000),
        ] {
            assert_eq!(thousandths(text), expected, "{text}");
        }
    }
}
