//! Recovery of orders without an outcome: of a process that is gone, of an outcome that could not be recorded, and of a
//! restored copy of the store.
//!
//! An order whose deadline has passed is abandoned. A saga that still works on it then finds that outcome.
//!
//! An order of a restored copy is not abandoned: the lost store may have ended it and released its stock, and a second
//! release would exceed the reservation. It gets the outcome that the role `orders` knows. If that role knows it only
//! as placed, or not at all, it waits for an operator.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use doorstep_contracts::{
    InvoiceNo,
    requests::{OrderStatus, OrderView, ReadOrder},
};
use doorstep_event::Timestamp;
use doorstep_messaging::{CallError, OutageReasons};
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    backends::Backends,
    domain::{AdoptOutcome, EndOrder, Entity, LeaveOpen, OrderDecision, label, part_keys},
    readiness_issue::Issue,
    repository::{GatewayStore, GatewayStoreError},
};

/// The interval between two checks; the first is at once.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval between two queries about orders of a restored copy; the first is at once.
const QUERY_INTERVAL: Duration = Duration::from_secs(10);
/// The limit of orders that are ended, or queried, concurrently.
const PAGE: usize = 32;

/// The limit of an order's deadline, which only a clock that was ahead exceeds.
const LATEST: Duration = Duration::from_hours(2);

/// The number of orders of a restored copy that wait for an operator. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeftOrders(Arc<AtomicUsize>);

impl LeftOrders {
    /// Returns the issue of these orders, if there are any.
    pub(crate) fn trouble(&self) -> Option<Issue> {
        (self.0.load(Ordering::Relaxed) > 0).then_some(Issue::UNRESOLVED)
    }
}

/// Marks the orders that are open in a restored copy as left, and returns their numbers.
///
/// # Errors
/// The store cannot be used.
pub(crate) async fn leave_open(store: &GatewayStore) -> Result<Vec<String>, GatewayStoreError> {
    store.execute(&LeaveOpen {}).await?;
    Ok(unfinished(store, Timestamp::now()).await?.left)
}

/// Abandons expired orders, at once and then at an interval, without end.
pub(crate) async fn abandon_expired(store: GatewayStore, roles: Backends, left: LeftOrders) {
    let mut timer = interval(CHECK_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failing, mut store_outage) = (Failing::default(), OutageReasons::default());
    let (mut asked, mut role_outage) = (None::<Instant>, OutageReasons::default());
    loop {
        timer.tick().await;
        let unfinished = match abandon(&store, &mut failing).await {
            Ok(unfinished) => unfinished,
            Err(e) => {
                if store_outage.is_new(&e.to_string()) {
                    tracing::warn!(error = %e, "cannot recover unfinished orders now");
                }
                continue;
            }
        };
        store_outage.clear();
        left.0.store(unfinished.left.len(), Ordering::Relaxed);
        if unfinished.left.is_empty() || asked.is_some_and(|at| at.elapsed() < QUERY_INTERVAL) {
            continue;
        }
        match adopt(&store, &roles, &unfinished.left).await {
            Ok(()) => role_outage.clear(),
            Err(e) if role_outage.is_new(&e) => {
                tracing::warn!(error = e, "cannot query orders of a restored copy now");
            }
            Err(_) => {}
        }
        asked = Some(Instant::now());
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Unfinished {
    /// Those whose deadline has passed.
    late: Vec<String>,
    /// Those of a restored copy.
    left: Vec<String>,
}

/// Orders that cannot be abandoned. Each is logged once.
#[derive(Debug, Default)]
struct Failing(HashSet<String>);

impl Failing {
    fn log_new(&mut self, failed: &[(String, String)]) {
        self.0
            .retain(|told| failed.iter().any(|(order, _)| order == told));
        for (order, reason) in failed {
            if self.0.insert(order.clone()) {
                tracing::warn!(
                    order,
                    reason,
                    "cannot abandon an unfinished order: it will be retried, and delays no other"
                );
            }
        }
    }
}

async fn unfinished(store: &GatewayStore, now: Timestamp) -> Result<Unfinished, GatewayStoreError> {
    let parts = store.entries(part_keys()).await?;
    let mut unfinished = Unfinished::default();
    for open in parts.iter().flatten().filter_map(Entity::open) {
        let late = open.orders.iter().filter(|(_, by)| is_over(**by, now));
        unfinished
            .late
            .extend(late.map(|(number, _)| number.clone()));
        unfinished.left.extend(open.left.keys().cloned());
    }
    Ok(unfinished)
}

/// Abandons the orders whose deadline has passed, and returns the orders without an outcome. A failed order does not
/// stop the others.
///
/// # Errors
/// The store cannot be used.
async fn abandon(
    store: &GatewayStore,
    failing: &mut Failing,
) -> Result<Unfinished, GatewayStoreError> {
    let found = unfinished(store, Timestamp::now()).await?;
    let (mut count, mut failed) = (0, Vec::new());
    for some in found.late.chunks(PAGE) {
        let ended = join_all(some.iter().map(|number| abandon_one(store, number))).await;
        // If all of them fail, the store is unavailable for any other order as well.
        let is_away = ended
            .iter()
            .all(|end| matches!(end, Err(e) if e.is_transient()));
        for (number, end) in some.iter().zip(ended) {
            match end {
                Ok(()) => count += 1,
                Err(e) if is_away => return Err(e),
                Err(e) => failed.push((number.clone(), e.to_string())),
            }
        }
    }
    if count > 0 {
        tracing::info!(count, "abandoned unfinished orders");
    }
    failing.log_new(&failed);
    Ok(found)
}

async fn abandon_one(store: &GatewayStore, number: &str) -> Result<(), GatewayStoreError> {
    let order = invoice_no(number)?;
    let outcome = OrderDecision::Abandoned {
        reason: label("not finished in time"),
    };
    store.execute(&EndOrder { order, outcome }).await.map(drop)
}

/// Queries the outcomes of orders of a restored copy, and records those that are known.
///
/// # Errors
/// The role or the store cannot be used; the text says why.
async fn adopt(store: &GatewayStore, roles: &Backends, left: &[String]) -> Result<(), String> {
    for some in left.chunks(PAGE) {
        let adopted = join_all(some.iter().map(|number| adopt_one(store, roles, number))).await;
        adopted.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

async fn adopt_one(store: &GatewayStore, roles: &Backends, number: &str) -> Result<(), String> {
    let order = invoice_no(number).map_err(|e| e.to_string())?;
    let asked = ReadOrder {
        order: order.clone(),
    };
    let view = match roles.query(&asked).await {
        Ok(view) => view,
        Err(CallError::Rejected(rejected)) if rejected.code == "unknown_order" => return Ok(()),
        Err(e) => return Err(e.to_string()),
    };
    let Some(outcome) = known_outcome(&view) else {
        return Ok(());
    };
    let adopted = store.execute(&AdoptOutcome { order, outcome }).await;
    let stage = adopted.map_err(|e| e.to_string())?;
    tracing::info!(
        order = number,
        ?stage,
        "took the outcome of a restored copy's order from the role orders"
    );
    Ok(())
}

/// Returns the outcome of an order that the role `orders` knows, or `None` if the order is only placed.
fn known_outcome(view: &OrderView) -> Option<OrderDecision> {
    let ended = |how: &str| {
        Some(OrderDecision::Abandoned {
            reason: label(&format!("{how} before the store was restored")),
        })
    };
    match view.status {
        OrderStatus::Placed => None,
        OrderStatus::Confirmed => view
            .promised_at
            .map(|promised_at| OrderDecision::Confirmed { promised_at }),
        OrderStatus::Refused => ended("refused"),
        OrderStatus::Abandoned => ended("abandoned"),
        OrderStatus::Cancelled => ended("cancelled"),
    }
}

fn invoice_no(number: &str) -> Result<InvoiceNo, GatewayStoreError> {
    InvoiceNo::new(number)
        .map_err(|e| doorstep_event::Rejection::new("bad_number", e.to_string()).into())
}

/// Returns true if this deadline has passed.
fn is_over(deadline: Timestamp, now: Timestamp) -> bool {
    let latest = now.checked_add(LATEST).unwrap_or(Timestamp::MAX);
    deadline < now || deadline > latest
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use doorstep_contracts::{CustomerId, OrderLine, RestaurantId, Sku};
    use doorstep_store::{
        Commit, EntityChange, ExpectedVersion, SqliteStore, Store, WriteSet, sqlite::Options,
    };

    use super::*;
    use crate::domain::{BeginOrder, OpenOrders, OrderNames, OrderState};

    #[test]
    fn orders_expire_after_deadline_or_future_start() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        for (deadline, over) in [
            ("2026-11-23T09:59:59Z", true),
            ("2026-11-23T10:00:05Z", false),
            ("2026-11-23T11:59:00Z", false),
            ("2027-11-23T10:00:05Z", true),
        ] {
            assert_eq!(is_over(deadline.parse().unwrap(), now), over, "{deadline}");
        }
    }

    /// A folder that is removed with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("doorstep-unfinished-{}", uuid::Uuid::new_v4());
            Self(std::env::temp_dir().join(name))
        }

        fn store(&self) -> SqliteStore {
            SqliteStore::open(&self.0, "gateway", &Options::default()).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn begin(store: &GatewayStore, number: &str) -> InvoiceNo {
        let order = InvoiceNo::new(number).unwrap();
        let price = "2.50".parse().unwrap();
        let line = OrderLine::new(Sku::new("MARGHERITA").unwrap(), None, 2, price).unwrap();
        let begin = BeginOrder {
            order: order.clone(),
            customer: CustomerId::new("ada").unwrap(),
            key: number.to_owned(),
            fingerprint: "f".to_owned(),
            restaurant: RestaurantId::new("luigi").unwrap(),
            country: label("Italy"),
            total: line.amount,
            lines: vec![line],
            deadline: Timestamp::now() - Duration::from_secs(60),
        };
        store.execute(&begin).await.unwrap();
        order
    }

    async fn stage(store: &GatewayStore, order: &InvoiceNo) -> OrderState {
        let entry = store.get(order.order_key()).await.unwrap().unwrap();
        entry.order().unwrap().stage.clone()
    }

    async fn outbox(store: &SqliteStore) -> usize {
        store.outbox(Timestamp::now(), 100).await.unwrap().len()
    }

    #[tokio::test]
    async fn failing_orders_do_not_delay_others() {
        let folder = Folder::new();
        let store = folder.store();
        // More of them than are ended side by side, in every part, and before the sound one in each order.
        let mut changes = WriteSet::at(Timestamp::now());
        let unknown: Vec<String> = (0..3).map(|n| format!("0000-{n}")).collect();
        for key in part_keys() {
            let deadlines = unknown.iter().map(|n| (n.clone(), Timestamp::UNIX_EPOCH));
            let open = Entity::Open(OpenOrders {
                orders: deadlines.collect(),
                ..OpenOrders::default()
            });
            changes.entities.push(EntityChange {
                key,
                expect: ExpectedVersion {
                    row: None,
                    version: 0,
                },
                after: Some(serde_json::to_vec(&open).unwrap()),
            });
        }
        assert!(3 * part_keys().len() > PAGE);
        let written = store.commit(changes).await.unwrap();
        assert!(matches!(written, Commit::Written(_)));
        let store = GatewayStore::alone(store);
        let sound = begin(&store, "9").await;

        let mut failing = Failing::default();
        let found = abandon(&store, &mut failing).await.unwrap();
        assert_eq!(found.late.len(), 3 * part_keys().len() + 1);
        assert!(matches!(
            stage(&store, &sound).await,
            OrderState::Abandoned { .. }
        ));
        // Failing orders are logged, each once.
        let logged: HashSet<String> = unknown.into_iter().collect();
        assert_eq!(failing.0, logged);
        abandon(&store, &mut failing).await.unwrap();
        assert_eq!(failing.0, logged);
    }

    #[tokio::test]
    async fn restored_open_orders_are_not_abandoned() {
        let folder = Folder::new();
        let rows = folder.store();
        let store = GatewayStore::alone(rows.clone());
        let [confirmed, unknown] = [begin(&store, "1").await, begin(&store, "2").await];
        let before = outbox(&rows).await;
        assert_eq!(leave_open(&store).await.unwrap().len(), 2);
        let found = abandon(&store, &mut Failing::default()).await.unwrap();
        assert_eq!((found.late.len(), found.left.len()), (0, 2));
        assert_eq!(stage(&store, &confirmed).await, OrderState::Open);

        let promised_at = Timestamp::now();
        let adopted = AdoptOutcome {
            order: confirmed.clone(),
            outcome: OrderDecision::Confirmed { promised_at },
        };
        for _ in 0..2 {
            store.execute(&adopted).await.unwrap();
            let stage = stage(&store, &confirmed).await;
            assert_eq!(stage, OrderState::Confirmed { promised_at });
        }
        // The lost store has published it.
        assert_eq!(outbox(&rows).await, before);
        let found = abandon(&store, &mut Failing::default()).await.unwrap();
        assert_eq!(found.left, [unknown.to_string()]);
    }
}
