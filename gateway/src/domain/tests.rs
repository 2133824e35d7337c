//! Tests of the role without a store and a broker: its commands, one by one and in any order.

use std::{collections::BTreeMap, time::Duration};

use doorstep_contracts::{CancelledBy, Money, OrderLine, Position, RefusedBy, RestaurantId, Sku};
use doorstep_event::{RequestId, Source};
use doorstep_runtime::NewEvent;
use proptest::prelude::*;

use super::{order::label, *};

/// A store of the least kind.
#[derive(Default)]
pub(super) struct TestDomain {
    pub(super) states: BTreeMap<EntityKey, Entity>,
    pub(super) events: Vec<NewEvent>,
    /// The time since [`now`].
    pub(super) elapsed: Duration,
}

impl TestDomain {
    pub(super) fn execute<C: RequestContract>(
        &mut self,
        command: &C,
    ) -> Result<C::Reply, Rejection> {
        let id = RequestId::new("1").unwrap();
        let source = Source::new("gateway/test").unwrap();
        let request = Request::from_contract(&source, id, now(), now(), command).unwrap();
        let command = GatewayRole.read_command(&request).unwrap();
        let keys = GatewayRole.command_keys(&request, &command);
        let before = keys
            .iter()
            .map(|key| (key.clone(), self.states.get(key).cloned()));
        let mut states = States::new(before.collect());
        let now = now() + self.elapsed;
        let executed = GatewayRole.execute(&mut states, &request, &command, now)?;
        for key in keys {
            if let Some(state) = states.get(&key) {
                self.states.insert(key, state.clone());
            }
        }
        self.events.extend(executed.effects.events);
        Ok(serde_json::from_slice(&executed.reply).unwrap())
    }

    /// What was told about a subject, in order.
    pub(super) fn emitted(&self, subject: &str) -> Vec<&str> {
        let about = self
            .events
            .iter()
            .filter(|e| e.subject().as_str() == subject);
        about.map(|e| e.kind().as_str()).collect()
    }

    /// Reserved, and sold, by an order in the end.
    fn stock(&self, order: &str) -> (i64, i64) {
        let mut reserved = 0;
        let mut sold = 0;
        for event in &self.events {
            let data: serde_json::Value = serde_json::from_slice(event.data()).unwrap();
            if data["reference"] != order {
                continue;
            }
            match event.kind().as_str() {
                "stock.reserved.v1" => reserved += data["quantity"].as_i64().unwrap(),
                "stock.released.v1" => reserved -= data["quantity"].as_i64().unwrap(),
                "stock.adjusted.v1" => sold -= data["delta"].as_i64().unwrap(),
                other => panic!("{other} has a reference"),
            }
        }
        (reserved, sold)
    }

    fn is_confirmed(&self, order: u8) -> bool {
        let order = self.states.get(&number(&order.to_string()).order_key());
        let order = order.and_then(Entity::order);
        order.is_some_and(|order| matches!(order.stage, OrderState::Confirmed { .. }))
    }

    fn open(&self) -> Vec<String> {
        let parts = part_keys();
        let parts = parts.iter().filter_map(|key| self.states.get(key)?.open());
        parts.flat_map(|open| open.orders.keys().cloned()).collect()
    }
}

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn number(text: &str) -> doorstep_contracts::InvoiceNo {
    doorstep_contracts::InvoiceNo::new(text).unwrap()
}

fn begin(order: &str, key: &str) -> BeginOrder {
    let line = |sku: &str, quantity| {
        let sku = Sku::new(sku).unwrap();
        OrderLine::new(sku, None, quantity, "2.50".parse().unwrap()).unwrap()
    };
    let lines = vec![
        line("MARGHERITA", 2),
        line("TIRAMISU", 3),
        line("MARGHERITA", 1),
    ];
    BeginOrder {
        order: number(order),
        customer: "ada".parse::<UserName>().unwrap().customer(),
        key: key.to_owned(),
        fingerprint: "f".to_owned(),
        restaurant: RestaurantId::new("luigi").unwrap(),
        country: label("Italy"),
        total: Money::sum(lines.iter().map(|line| line.amount)).unwrap(),
        lines,
        deadline: now(),
    }
}

fn end(order: &str, outcome: OrderDecision) -> EndOrder {
    EndOrder {
        order: number(order),
        outcome,
    }
}

fn confirmed() -> OrderDecision {
    OrderDecision::Confirmed { promised_at: now() }
}

fn declined() -> OrderDecision {
    OrderDecision::Refused {
        by: RefusedBy::Payment,
        code: "card_declined".to_owned(),
        detail: "the card is declined".to_owned(),
    }
}

fn abandoned() -> OrderDecision {
    OrderDecision::Abandoned {
        reason: label("nobody answered"),
    }
}

fn cancel(order: &str) -> CancelOrder {
    CancelOrder {
        order: number(order),
        by: CancelledBy::Customer,
        reason: label("changed my mind"),
    }
}

fn assign(order: &str, courier: &str) -> AssignCourier {
    AssignCourier {
        order: number(order),
        courier: courier.parse::<UserName>().unwrap().courier(),
    }
}

fn step(order: &str, courier: &str, step: Step) -> AdvanceDelivery {
    AdvanceDelivery {
        order: number(order),
        courier: courier.parse::<UserName>().unwrap().courier(),
        step,
        at: now(),
    }
}

fn positions(courier: &str, orders: &[&str]) -> RecordPositions {
    RecordPositions {
        courier: courier.parse::<UserName>().unwrap().courier(),
        fixes: orders
            .iter()
            .map(|order| GpsFix {
                order: number(order),
                position: Position::new(9.19, 45.46).unwrap(),
                recorded_at: now(),
            })
            .collect(),
    }
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, Rejection>) -> String {
    result.unwrap_err().code
}

#[test]
fn a_confirmed_order_has_sold_what_it_reserved() {
    let mut world = TestDomain::default();
    world.execute(&begin("1", "k")).unwrap();
    assert_eq!(world.stock("order/1"), (6, 0));
    assert_eq!(world.open(), ["1"]);
    let stage = world.execute(&end("1", confirmed())).unwrap();
    assert_eq!(stage, OrderState::Confirmed { promised_at: now() });
    assert_eq!(world.stock("order/1"), (0, 6));
    assert_eq!(
        world.emitted("order/1"),
        ["order.placed.v1", "order.confirmed.v1"]
    );
    assert!(world.open().is_empty());
}

#[test]
fn restored_open_orders_end_by_role_or_operator() {
    let mut world = TestDomain::default();
    for (order, key) in [("1", "k"), ("2", "l")] {
        world.execute(&begin(order, key)).unwrap();
    }
    for _ in 0..2 {
        world.execute(&LeaveOpen {}).unwrap();
        assert!(world.open().is_empty());
    }
    // The lost store may have published its end.
    let adopted = AdoptOutcome {
        order: number("1"),
        outcome: confirmed(),
    };
    for _ in 0..2 {
        let stage = world.execute(&adopted).unwrap();
        assert_eq!(stage, OrderState::Confirmed { promised_at: now() });
    }
    assert_eq!(world.emitted("order/1"), ["order.placed.v1"]);
    assert_eq!(world.stock("order/1"), (6, 0));
    world.execute(&cancel("1")).unwrap();
    assert_eq!(world.stock("order/1"), (6, -6), "what was sold comes back");

    // Only an operator can say that it never ended.
    assert_eq!(code(world.execute(&cancel("2"))), "not_confirmed");
    let by_operator = CancelOrder {
        by: CancelledBy::Operator,
        ..cancel("2")
    };
    let stage = world.execute(&by_operator).unwrap();
    assert!(matches!(stage, OrderState::Abandoned { .. }), "{stage:?}");
    assert_eq!(
        world.emitted("order/2"),
        ["order.placed.v1", "order.abandoned.v1"]
    );
    assert_eq!(world.stock("order/2"), (0, 0));
    // An order that is open as usual is not the operator's to end.
    world.execute(&begin("3", "m")).unwrap();
    let by_operator = CancelOrder {
        by: CancelledBy::Operator,
        ..cancel("3")
    };
    assert_eq!(code(world.execute(&by_operator)), "not_confirmed");
}

#[test]
fn rejected_and_abandoned_orders_release_reservations() {
    let mut world = TestDomain::default();
    world.execute(&begin("1", "k")).unwrap();
    world.execute(&begin("2", "l")).unwrap();
    world.execute(&end("1", declined())).unwrap();
    world.execute(&end("2", abandoned())).unwrap();
    assert_eq!(world.stock("order/1"), (0, 0));
    assert_eq!(world.stock("order/2"), (0, 0));
    assert_eq!(
        world.emitted("order/1"),
        ["order.placed.v1", "order.refused.v1"]
    );
    assert_eq!(
        world.emitted("order/2"),
        ["order.placed.v1", "order.abandoned.v1"]
    );
    assert!(world.open().is_empty());
}

#[test]
fn ended_orders_keep_no_lines() {
    let mut world = TestDomain::default();
    let outcomes = [confirmed(), declined(), abandoned(), confirmed()];
    for (order, outcome) in ["1", "2", "3", "4"].into_iter().zip(outcomes) {
        world.execute(&begin(order, order)).unwrap();
        world.execute(&end(order, outcome)).unwrap();
    }
    world.execute(&cancel("4")).unwrap();
    let lines = |order: &str| {
        let entry = &world.states[&number(order).order_key()];
        entry.order().unwrap().lines.len()
    };
    assert_eq!(["1", "2", "3", "4"].map(lines), [3, 0, 0, 0]);
}

#[test]
fn first_outcome_stays_and_key_is_unique() {
    let mut world = TestDomain::default();
    world.execute(&begin("1", "k")).unwrap();
    assert_eq!(
        code(world.execute(&begin("2", "k"))),
        "idempotency_key_in_use"
    );
    world.execute(&end("1", abandoned())).unwrap();
    let stage = world.execute(&end("1", confirmed())).unwrap();
    assert!(matches!(stage, OrderState::Abandoned { .. }), "{stage:?}");
    assert_eq!(
        world.emitted("order/1"),
        ["order.placed.v1", "order.abandoned.v1"]
    );
    assert_eq!(code(world.execute(&end("2", confirmed()))), "unknown_order");
}

#[test]
fn only_confirmed_orders_are_cancelled_once() {
    let mut world = TestDomain::default();
    assert_eq!(code(world.execute(&cancel("1"))), "unknown_order");
    world.execute(&begin("1", "k")).unwrap();
    assert_eq!(code(world.execute(&cancel("1"))), "not_confirmed");
    world.execute(&end("1", confirmed())).unwrap();
    world.execute(&cancel("1")).unwrap();
    world.execute(&cancel("1")).unwrap();
    assert_eq!(world.stock("order/1"), (0, 0));
    assert_eq!(world.emitted("order/1").last(), Some(&"order.cancelled.v1"));
    assert_eq!(world.emitted("order/1").len(), 3);

    world.execute(&begin("2", "l")).unwrap();
    world.execute(&end("2", confirmed())).unwrap();
    world.execute(&assign("2", "bea")).unwrap();
    world.execute(&step("2", "bea", Step::PickedUp)).unwrap();
    assert_eq!(code(world.execute(&cancel("2"))), "picked_up");
}

#[test]
fn a_delivery_is_its_couriers_alone() {
    let mut world = TestDomain::default();
    world.execute(&begin("1", "k")).unwrap();
    assert_eq!(code(world.execute(&assign("1", "bea"))), "not_confirmed");
    assert_eq!(code(world.execute(&assign("9", "bea"))), "unknown_order");
    world.execute(&end("1", confirmed())).unwrap();
    world.execute(&assign("1", "bea")).unwrap();
    world.execute(&assign("1", "bea")).unwrap();
    assert_eq!(code(world.execute(&assign("1", "carl"))), "assigned");
    let delivered = step("1", "bea", Step::Delivered);
    assert_eq!(code(world.execute(&delivered)), "not_picked_up");
    let other = step("1", "carl", Step::PickedUp);
    assert_eq!(code(world.execute(&other)), "unknown_delivery");
    // Positions are all or nothing: one foreign order rejects the batch.
    let mixed = positions("bea", &["1", "9"]);
    assert_eq!(code(world.execute(&mixed)), "unknown_delivery");
    assert_eq!(world.emitted("delivery/1"), ["delivery.assigned.v1"]);
    world.execute(&positions("bea", &["1", "1"])).unwrap();
    world.execute(&step("1", "bea", Step::PickedUp)).unwrap();
    world.execute(&step("1", "bea", Step::PickedUp)).unwrap();
    world.execute(&delivered).unwrap();
    assert_eq!(
        world.emitted("delivery/1"),
        [
            "delivery.assigned.v1",
            "delivery.position_recorded.v1",
            "delivery.position_recorded.v1",
            "delivery.picked_up.v1",
            "delivery.delivered.v1",
        ]
    );
}

#[test]
fn cancelled_orders_are_not_delivered() {
    let mut world = TestDomain::default();
    world.execute(&begin("1", "k")).unwrap();
    world.execute(&begin("2", "l")).unwrap();
    for order in ["1", "2"] {
        world.execute(&end(order, confirmed())).unwrap();
        world.execute(&assign(order, "bea")).unwrap();
    }
    world.execute(&cancel("1")).unwrap();
    assert_eq!(code(world.execute(&assign("1", "bea"))), "not_confirmed");
    let pick_up = step("1", "bea", Step::PickedUp);
    assert_eq!(code(world.execute(&pick_up)), "not_confirmed");
    let mixed = positions("bea", &["2", "1"]);
    assert_eq!(code(world.execute(&mixed)), "not_confirmed");
    // Another courier learns nothing of it.
    let other = step("1", "carl", Step::PickedUp);
    assert_eq!(code(world.execute(&other)), "unknown_delivery");
    assert_eq!(world.emitted("delivery/1"), ["delivery.assigned.v1"]);
    assert_eq!(world.emitted("delivery/2"), ["delivery.assigned.v1"]);
}

#[test]
fn users_are_added_once_and_revocation_counts() {
    let mut world = TestDomain::default();
    let add = AddUser {
        name: "ada".parse().unwrap(),
        standing: UserRole::Customer,
        hash: "hash".to_owned(),
    };
    world.execute(&add).unwrap();
    assert_eq!(code(world.execute(&add)), "user_exists");
    world
        .execute(&RevokeTokens {
            name: add.name.clone(),
        })
        .unwrap();
    let entry = &world.states[&add.name.entity()];
    assert_eq!(entry.user().unwrap().generation, 2);
    let unknown = RevokeTokens {
        name: "bob".parse().unwrap(),
    };
    assert_eq!(code(world.execute(&unknown)), "unknown_user");
}

#[derive(Debug, Clone)]
enum Do {
    Begin(u8, u8),
    End(u8, u8),
    Cancel(u8),
    Assign(u8),
    PickUp(u8),
    Deliver(u8),
    Fix(u8),
}

fn any_do() -> impl Strategy<Value = Do> {
    let order = 0..4_u8;
    prop_oneof![
        (order.clone(), 0..4_u8).prop_map(|(order, key)| Do::Begin(order, key)),
        (order.clone(), 0..3_u8).prop_map(|(order, outcome)| Do::End(order, outcome)),
        order.clone().prop_map(Do::Cancel),
        order.clone().prop_map(Do::Assign),
        order.clone().prop_map(Do::PickUp),
        order.clone().prop_map(Do::Deliver),
        order.prop_map(Do::Fix),
    ]
}

pub(super) fn add(name: &str, standing: UserRole) -> AddUser {
    AddUser {
        name: name.parse().unwrap(),
        standing,
        hash: format!("hash of {name}"),
    }
}

fn set(name: &str, status: UserStatus, other_operator: Option<&str>) -> SetUserStatus {
    SetUserStatus {
        name: name.parse().unwrap(),
        status,
        other_operator: other_operator.map(|other| other.parse().unwrap()),
    }
}

impl TestDomain {
    fn user(&self, name: &str) -> &User {
        let key = name.parse::<UserName>().unwrap().entity();
        self.states[&key].user().unwrap()
    }
}

#[track_caller]
fn refused_as<T: std::fmt::Debug>(answer: Result<T, Rejection>, code: &str) {
    assert_eq!(answer.unwrap_err().code, code);
}

#[test]
fn disabled_user_has_no_session_until_enabled() {
    let mut world = TestDomain::default();
    world.execute(&add("ada", UserRole::Customer)).unwrap();
    let before = world.user("ada").clone();
    for _ in 0..2 {
        world
            .execute(&set("ada", UserStatus::Disabled, None))
            .unwrap();
    }
    assert_eq!(world.user("ada").status, UserStatus::Disabled);
    assert_eq!(world.user("ada").generation, before.generation + 1);
    world
        .execute(&set("ada", UserStatus::Active, None))
        .unwrap();
    let after = world.user("ada");
    assert_eq!(
        (after.status, &after.hash),
        (UserStatus::Active, &before.hash)
    );
    // No earlier token is valid any more.
    assert_eq!(after.generation, before.generation + 1);
    refused_as(
        world.execute(&set("bob", UserStatus::Disabled, None)),
        "unknown_user",
    );
}

#[test]
fn deleted_names_stay_taken_without_password() {
    let mut world = TestDomain::default();
    world.execute(&add("ada", UserRole::Customer)).unwrap();
    for _ in 0..2 {
        world
            .execute(&set("ada", UserStatus::Deleted, None))
            .unwrap();
    }
    let kept = serde_json::to_string(&Entity::User(world.user("ada").clone())).unwrap();
    assert!(!kept.contains("hash of ada"), "{kept}");
    refused_as(
        world.execute(&add("ada", UserRole::Customer)),
        "name_retired",
    );
    refused_as(
        world.execute(&set("ada", UserStatus::Active, None)),
        "user_deleted",
    );
    refused_as(world.execute(&password("ada", None)), "user_deleted");
}

fn password(name: &str, replaces: Option<&str>) -> SetPassword {
    SetPassword {
        name: name.parse().unwrap(),
        hash: "another".to_owned(),
        replaces: replaces.map(str::to_owned),
    }
}

#[test]
fn new_password_ends_sessions_and_replaces_old() {
    let mut world = TestDomain::default();
    world.execute(&add("ada", UserRole::Customer)).unwrap();
    world
        .execute(&password("ada", Some("hash of ada")))
        .unwrap();
    assert_eq!(world.user("ada").generation, 2);
    refused_as(
        world.execute(&password("ada", Some("hash of ada"))),
        "password_changed",
    );
    world.execute(&password("ada", None)).unwrap();
    assert_eq!(world.user("ada").generation, 3);
}

#[test]
fn last_operator_cannot_be_removed() {
    let mut world = TestDomain::default();
    for (name, standing) in [
        ("root", UserRole::Operator),
        ("ben", UserRole::Operator),
        ("ada", UserRole::Customer),
    ] {
        world.execute(&add(name, standing)).unwrap();
    }
    for other in [None, Some("root"), Some("ada"), Some("nobody")] {
        let command = set("root", UserStatus::Deleted, other);
        refused_as(world.execute(&command), "last_operator");
    }
    world
        .execute(&set("ben", UserStatus::Disabled, Some("root")))
        .unwrap();
    // At the same moment: each of them assumes that the other one stays.
    let command = set("root", UserStatus::Disabled, Some("ben"));
    refused_as(world.execute(&command), "last_operator");
    // A disabled operator is not the last one.
    world
        .execute(&set("ben", UserStatus::Deleted, None))
        .unwrap();
    assert!(world.user("root").is_active_operator());
}

proptest! {
    #[test]
    fn every_started_order_ends_once_with_its_compensations(done in prop::collection::vec(any_do(), 0..40)) {
        let mut world = TestDomain::default();
        for one in done {
            // A rejected command changes nothing, which the checks below confirm.
            match one {
                Do::Begin(order, key) => {
                    let _ = world.execute(&begin(&order.to_string(), &key.to_string()));
                }
                Do::End(order, outcome) => {
                    let outcome = [confirmed(), declined(), abandoned()][usize::from(outcome)].clone();
                    let _ = world.execute(&end(&order.to_string(), outcome));
                }
                Do::Cancel(order) => {
                    let _ = world.execute(&cancel(&order.to_string()));
                }
                Do::Assign(order) => {
                    let executed = world.execute(&assign(&order.to_string(), "bea"));
                    prop_assert!(executed.is_err() || world.is_confirmed(order));
                }
                Do::PickUp(order) | Do::Deliver(order) => {
                    let taken = match one {
                        Do::PickUp(_) => Step::PickedUp,
                        _ => Step::Delivered,
                    };
                    let executed = world.execute(&step(&order.to_string(), "bea", taken));
                    prop_assert!(executed.is_err() || world.is_confirmed(order));
                }
                Do::Fix(order) => {
                    let executed = world.execute(&positions("bea", &[&order.to_string()]));
                    prop_assert!(executed.is_err() || world.is_confirmed(order));
                }
            }
        }
        // Recovery at a start of the gateway.
        for order in world.open() {
            world.execute(&end(&order, abandoned())).unwrap();
        }
        prop_assert!(world.open().is_empty());
        for order in 0..4 {
            let subject = format!("order/{order}");
            let emitted = world.emitted(&subject);
            let (reserved, sold) = world.stock(&subject);
            prop_assert_eq!(reserved, 0, "{} {:?}", subject, emitted);
            let expected = match emitted.as_slice() {
                [] | ["order.placed.v1", "order.refused.v1" | "order.abandoned.v1"]
                | ["order.placed.v1", "order.confirmed.v1", "order.cancelled.v1"] => 0,
                ["order.placed.v1", "order.confirmed.v1"] => 6,
                other => return Err(TestCaseError::fail(format!("{subject}: {other:?}"))),
            };
            prop_assert_eq!(sold, expected, "{} {:?}", subject, emitted);
            let delivery = world.emitted(&format!("delivery/{order}"));
            let is_cancelled = emitted.contains(&"order.cancelled.v1");
            let is_picked_up = delivery.contains(&"delivery.picked_up.v1");
            prop_assert!(!(is_cancelled && is_picked_up), "{} {:?} {:?}", subject, emitted, delivery);
        }
    }
}
