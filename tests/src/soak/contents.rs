//! The contents of the stores after a soak, compared with the expected ones.

use std::{collections::BTreeMap, path::Path};

use doorstep_store::{DeadLetter, DeadLetterFilter, SqliteStore, Store, sqlite::Options};
use serde_json::Value;

use super::case::{Case, DELIVERY, DELIVERY_EVENTS, FAR_AHEAD};

/// The maximum number of rows per read.
const PAGE: usize = 1_000;
/// The maximum number of differences reported for each kind.
const MAX_NAMED: usize = 5;

pub(super) struct Expected {
    /// The number of valid events by stock code.
    pub(super) sold: BTreeMap<String, u64>,
    pub(super) cases: Vec<Case>,
}

/// The contents of the stores.
#[derive(Debug, Default)]
pub(super) struct StoreContents {
    /// Pieces on hand and movements by stock code.
    pub(super) stock: BTreeMap<String, (i64, u64)>,
    pub(super) delivery: Option<Value>,
    /// The subjects that `orders` knows.
    pub(super) orders: Vec<String>,
    pub(super) dead: Vec<DeadLetter>,
    /// The number of events deferred by any role.
    pub(super) held: u64,
}

impl StoreContents {
    /// Reads the stores in this folder, to which no process writes any more.
    pub(super) async fn read(folder: &Path, roles: &[&str]) -> Self {
        let mut contents = Self::default();
        for role in roles {
            let store = SqliteStore::open_read_only(folder, role, &Options::default()).unwrap();
            for (key, state) in entities(&store).await {
                match (*role, key.strip_prefix("stock/")) {
                    ("inventory", Some(code)) => {
                        let on_hand = state["on_hand"].as_i64().unwrap_or_default();
                        let movements = state["movements"].as_u64().unwrap_or_default();
                        contents.stock.insert(code.to_owned(), (on_hand, movements));
                    }
                    ("tracking", _) if key == DELIVERY => contents.delivery = Some(state),
                    ("orders", _) => contents.orders.push(key),
                    _ => {}
                }
            }
            contents.dead.extend(dead(&store).await);
            contents.held += store.usage().await.unwrap().deferred.rows;
        }
        contents
    }

    /// Returns a description of every difference from the expected totals.
    pub(super) fn differences(&self, expected: &Expected) -> Vec<String> {
        let mut wrong = self.wrong_stock(expected);
        wrong.extend(self.wrong_delivery(expected));
        wrong.extend(self.wrong_dead_letters(expected));
        wrong.extend(
            self.orders.iter().map(|order| {
                format!("orders knows {order}, which the broker should have rejected")
            }),
        );
        if self.held > 0 {
            wrong.push(format!("{} events are deferred", self.held));
        }
        wrong
    }

    /// Checks that every valid event of any publisher is applied once.
    fn wrong_stock(&self, expected: &Expected) -> Vec<String> {
        let mut wanted = expected.sold.clone();
        for case in &expected.cases {
            if let Some(code) = case.sells() {
                wanted.insert(code, 1);
            }
        }
        let mut wrong = Vec::new();
        for (code, sold) in &wanted {
            let (on_hand, movements) = self.stock.get(code).copied().unwrap_or_default();
            let sold_of = i64::try_from(*sold).unwrap();
            if (on_hand, movements) != (-sold_of, *sold) {
                wrong.push(format!(
                    "stock {code}: {on_hand} on hand after {movements} movements, and {sold} were sold, one at a time"
                ));
            }
        }
        let unknown = self.stock.keys().filter(|code| !wanted.contains_key(*code));
        wrong.extend(unknown.map(|code| format!("stock {code}: no valid event is about it")));
        shortened(wrong)
    }

    fn wrong_delivery(&self, expected: &Expected) -> Option<String> {
        if !expected.cases.contains(&Case::Future) {
            return None;
        }
        let Some(delivery) = &self.delivery else {
            return Some(format!("{DELIVERY} is unknown"));
        };
        // All events but the first are positions.
        let has_all = delivery["fixes"].as_u64() == Some(DELIVERY_EVENTS - 1);
        let is_ahead = delivery["last_fix"].to_string().contains(FAR_AHEAD);
        (!has_all || is_ahead).then(|| format!("{DELIVERY} is {delivery}"))
    }

    fn wrong_dead_letters(&self, expected: &Expected) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut known = 0;
        for case in &expected.cases {
            let (count, reason) = case.dead_letters();
            let name = format!("order/{}\"", case.name());
            let of_case: Vec<_> = self
                .dead
                .iter()
                .filter(|dead| String::from_utf8_lossy(&dead.body).contains(&name))
                .collect();
            known += of_case.len();
            let right = of_case
                .iter()
                .filter(|dead| dead.reason == reason && !dead.blocks);
            if (of_case.len(), right.count()) != (count, count) {
                let reasons: Vec<_> = of_case.iter().map(|dead| dead.reason.as_str()).collect();
                wrong.push(format!(
                    "{}: {count} dead letters ({reason:?}) were expected, and there are {reasons:?}",
                    case.name()
                ));
            }
        }
        let others = self.dead.len() - known.min(self.dead.len());
        if others > 0 {
            wrong.push(format!(
                "{others} dead letters belong to no invalid message"
            ));
        }
        wrong
    }

    /// Returns the number of dead letters by reason.
    pub(super) fn reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for dead in &self.dead {
            *reasons.entry(dead.reason.clone()).or_default() += 1;
        }
        reasons
    }
}

fn shortened(mut wrong: Vec<String>) -> Vec<String> {
    let more = wrong.len().saturating_sub(MAX_NAMED);
    wrong.truncate(MAX_NAMED);
    if more > 0 {
        wrong.push(format!("and {more} more of this kind"));
    }
    wrong
}

async fn entities(store: &SqliteStore) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.entities(after, PAGE).await.unwrap();
        let Some(last) = page.last() else {
            return all;
        };
        after = Some(last.key.clone());
        all.extend(page.into_iter().filter_map(|row| {
            let state = serde_json::from_slice(&row.state?).ok()?;
            Some((row.key.to_string(), state))
        }));
    }
}

async fn dead(store: &SqliteStore) -> Vec<DeadLetter> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .dead_letters(DeadLetterFilter::All, after, PAGE)
            .await
            .unwrap();
        let Some(last) = page.last() else {
            return all;
        };
        after = Some(last.id.clone());
        all.extend(page);
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::Timestamp;
    use doorstep_store::{DeadLetterId, DeadLetterStatus};
    use serde_json::json;

    use super::{super::case::sale, *};

    fn letter(case: Case, number: usize, reason: &str) -> DeadLetter {
        DeadLetter {
            id: DeadLetterId(format!("{}-{number}", case.name())),
            event: None,
            body: sale(case.name()).into(),
            blocks: false,
            reason: reason.to_owned(),
            detail: String::new(),
            fingerprint: String::new(),
            attempts: 1,
            since: Timestamp::UNIX_EPOCH,
            status: DeadLetterStatus::Open,
            defect: None,
            task: None,
        }
    }

    /// Returns contents without any difference.
    fn right() -> (StoreContents, Expected) {
        let cases = Case::ALL.to_vec();
        let mut contents = StoreContents {
            delivery: Some(json!({"fixes": 4, "last_fix": {"at": "2026-11-30T08:59:00Z"}})),
            ..StoreContents::default()
        };
        contents.stock.insert("S0".to_owned(), (-3, 3));
        for case in &cases {
            if let Some(code) = case.sells() {
                contents.stock.insert(code, (-1, 1));
            }
            let (count, reason) = case.dead_letters();
            contents
                .dead
                .extend((0..count).map(|n| letter(*case, n, reason)));
        }
        let sold = BTreeMap::from([("S0".to_owned(), 3)]);
        (contents, Expected { sold, cases })
    }

    /// Checks that this mistake yields exactly one difference, with this text.
    fn differs(mistake: impl FnOnce(&mut StoreContents), says: &str) {
        let (mut contents, expected) = right();
        mistake(&mut contents);
        let differences = contents.differences(&expected);
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(differences[0].contains(says), "{differences:?}");
    }

    #[test]
    fn correct_books_have_no_difference() {
        let (contents, expected) = right();
        assert_eq!(contents.differences(&expected), [""; 0]);
    }

    #[test]
    fn every_mistake_is_a_difference() {
        let stock = |on_hand, movements| {
            move |contents: &mut StoreContents| {
                contents.stock.insert("S0".to_owned(), (on_hand, movements));
            }
        };
        differs(stock(-2, 2), "S0");
        differs(stock(-4, 4), "S0");
        differs(stock(-3, 5), "S0");
        differs(
            |contents| contents.stock.retain(|code, _| code != "STRUCTURED"),
            "STRUCTURED",
        );
        differs(
            |contents| contents.stock.extend([("OTHER".to_owned(), (-1, 1))]),
            "OTHER",
        );
        differs(|contents| contents.delivery = None, DELIVERY);
        let ahead = json!({"fixes": 4, "last_fix": {"at": "2046-07-16T00:00:00Z"}});
        differs(|contents| contents.delivery = Some(ahead), "2046");
        differs(
            |contents| contents.orders.push("order/forged".to_owned()),
            "order/forged",
        );
        differs(|contents| contents.held = 1, "deferred");
        differs(|contents| drop(contents.dead.remove(0)), "same-bodies");
        let forged = letter(Case::ForgedSource, 2, "foreign source");
        differs(|contents| contents.dead.push(forged), "forged-source");
        let other = letter(Case::Structured, 1, "unreadable");
        differs(|contents| contents.dead.push(other), "structured");
        differs(|contents| contents.dead[0].blocks = true, "same-bodies");
        let mut unknown = letter(Case::SameBodies, 9, "unreadable");
        unknown.body = sale("unknown").into();
        differs(
            |contents| contents.dead.push(unknown),
            "belong to no invalid message",
        );
    }
}
