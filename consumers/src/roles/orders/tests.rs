//! Orders and returns, event by event, and the replies about them.

use doorstep_contracts::{CancelledBy, InvoiceNo, RefusedBy, Sku};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::roles::testing::{RoleHarness, applied, event, exported, rejected};

fn line(quantity: i64, unit_price: &str) -> OrderLine {
    let sku = Sku::new("85123A").unwrap();
    OrderLine::new(sku, None, quantity, unit_price.parse().unwrap()).unwrap()
}

fn total(lines: &[OrderLine]) -> Money {
    Money::sum(lines.iter().map(|line| line.amount)).unwrap()
}

fn placed(lines: Vec<OrderLine>) -> OrderPlaced {
    OrderPlaced {
        placed_at: "2010-12-01T08:26:00Z".parse().unwrap(),
        customer: Some(CustomerId::new("17850").unwrap()),
        country: Label::new("United Kingdom").unwrap(),
        total: total(&lines),
        lines,
    }
}

fn recorded(lines: Vec<OrderLine>) -> ReturnRecorded {
    ReturnRecorded {
        recorded_at: "2010-12-01T09:41:00Z".parse().unwrap(),
        customer: None,
        country: Label::new("France").unwrap(),
        total: total(&lines),
        lines,
    }
}

#[test]
fn an_order_is_summed_up_exactly() {
    let fact = placed(vec![line(6, "2.55"), line(5, "0.001"), line(-1, "0")]);
    let order = applied(&Orders, None, &event("order/536365", 1, &fact));
    let json = r#"{"line_count":3,"total":"15.305","customer":"17850","country":"United Kingdom","placed_at":"2010-12-01T08:26:00Z","status":"placed"}"#;
    assert_eq!(exported(&order), json);
    assert_eq!(serde_json::from_str::<Invoice>(json).unwrap(), order);
}

#[test]
fn return_has_a_negative_total_and_optional_customer() {
    let fact = recorded(vec![line(-1, "27.50")]);
    let returned = applied(&Orders, None, &event("return/C536379", 1, &fact));
    let json = r#"{"line_count":1,"total":"-27.50","country":"France","recorded_at":"2010-12-01T09:41:00Z","status":"recorded"}"#;
    assert_eq!(exported(&returned), json);
    assert_eq!(serde_json::from_str::<Invoice>(json).unwrap(), returned);
}

#[test]
fn order_and_return_are_recorded_once() {
    let fact = placed(vec![line(6, "2.55")]);
    let order = applied(&Orders, None, &event("order/536365", 1, &fact));
    let said = rejected(&Orders, Some(order), &event("order/536365", 2, &fact));
    assert_eq!(
        said,
        "order/536365 was already placed at 2010-12-01T08:26:00Z"
    );
    let fact = recorded(vec![line(-1, "27.50")]);
    let returned = applied(&Orders, None, &event("return/C536379", 1, &fact));
    let said = rejected(&Orders, Some(returned), &event("return/C536379", 2, &fact));
    assert_eq!(
        said,
        "return/C536379 was already recorded at 2010-12-01T09:41:00Z"
    );
}

const KEY: &str = "order/536365";

fn confirmed() -> OrderConfirmed {
    OrderConfirmed {
        restaurant: RestaurantId::new("trattoria").unwrap(),
        promised_at: "2026-11-23T09:30:00Z".parse().unwrap(),
    }
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn order_events() -> [Event; 3] {
    let cancelled = OrderCancelled {
        by: CancelledBy::Customer,
        reason: label("ordered twice"),
    };
    [
        event(KEY, 1, &placed(vec![line(6, "2.55")])),
        event(KEY, 2, &confirmed()),
        event(KEY, 3, &cancelled),
    ]
}

fn payment_events() -> [Event; 3] {
    let key = "payment/536365";
    let amount = "15.30".parse().unwrap();
    let authorized = PaymentAuthorized {
        customer: CustomerId::new("17850").unwrap(),
        amount,
        authorized_until: "2026-11-30T09:00:00Z".parse().unwrap(),
    };
    let refunded = PaymentRefunded {
        amount,
        reason: ReversalReason::OrderCancelled,
        detail: None,
    };
    [
        event(key, 1, &authorized),
        event(key, 2, &PaymentCaptured { amount }),
        event(key, 3, &refunded),
    ]
}

fn view(bench: &RoleHarness<Orders>) -> OrderView {
    let order = InvoiceNo::new("536365").unwrap();
    bench.query(&ReadOrder { order }).unwrap()
}

#[test]
fn history_of_an_order_begins_with_its_placing() {
    let mut bench = RoleHarness::new(Orders);
    let order = InvoiceNo::new("536365").unwrap();
    let unknown = bench.query(&ReadOrder { order }).unwrap_err();
    assert_eq!(unknown.code, "unknown_order");
    let [placed, confirmed, cancelled] = order_events();
    let [authorized, captured, refunded] = payment_events();
    bench.give(&placed).unwrap();
    // An order that was only placed has a history of one entry, which its state need not keep.
    assert!(!exported(bench.state(KEY).unwrap()).contains("history"));
    assert_eq!(view(&bench).history.len(), 1);
    for event in [authorized, confirmed, captured, cancelled, refunded] {
        bench.give(&event).unwrap();
    }
    let view = view(&bench);
    assert_eq!(view.status, OrderStatus::Cancelled);
    assert_eq!(view.payment, Some(PaymentStatus::Refunded));
    assert_eq!(view.restaurant.unwrap().as_str(), "trattoria");
    let told: Vec<String> = view.history.iter().map(exported).collect();
    assert_eq!(
        told,
        [
            r#"{"number":1,"at":"2010-12-01T08:26:00Z","what":"placed"}"#,
            r#"{"number":2,"at":"2026-11-23T09:00:01Z","what":"payment_authorized","detail":"15.30"}"#,
            r#"{"number":3,"at":"2026-11-23T09:00:02Z","what":"confirmed","detail":"trattoria"}"#,
            r#"{"number":4,"at":"2026-11-23T09:00:02Z","what":"payment_captured","detail":"15.30"}"#,
            r#"{"number":5,"at":"2026-11-23T09:00:03Z","what":"cancelled","detail":"customer: ordered twice"}"#,
            r#"{"number":6,"at":"2026-11-23T09:00:03Z","what":"payment_refunded","detail":"15.30, order_cancelled"}"#,
        ]
    );
}

#[test]
fn repeated_payment_is_one_entry() {
    let mut bench = RoleHarness::new(Orders);
    let [placed, ..] = order_events();
    let [authorized, captured, refunded] = payment_events();
    for event in [
        &placed,
        &authorized,
        &captured,
        &captured,
        &refunded,
        &captured,
    ] {
        bench.give(event).unwrap();
    }
    let view = view(&bench);
    assert_eq!(view.payment, Some(PaymentStatus::Refunded));
    let told: Vec<HistoryKind> = view.history.iter().map(|entry| entry.what).collect();
    let expected = [
        HistoryKind::Placed,
        HistoryKind::PaymentAuthorized,
        HistoryKind::PaymentCaptured,
        HistoryKind::PaymentRefunded,
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_payment_waits_for_its_order() {
    let mut bench = RoleHarness::new(Orders);
    let [authorized, ..] = payment_events();
    assert_eq!(
        bench.give(&authorized),
        Err(HandlerError::Retry(EntityKey::new(KEY)))
    );
}

#[test]
fn contradictions_of_an_order_are_rejected() {
    let [placed, confirmed, cancelled] = order_events();
    let refused_order = OrderRefused {
        by: RefusedBy::Restaurant,
        reason: label("restaurant_closed"),
    };
    let refused_order = event(KEY, 2, &refused_order);
    let abandoned = OrderAbandoned {
        reason: label("payments timed out"),
    };
    let abandoned = event(KEY, 2, &abandoned);
    let said = rejected(&Orders, None, &confirmed);
    assert_eq!(
        said,
        "order/536365 was not placed yet, which has to come before order.confirmed.v1"
    );
    let at = |event: &Event| applied(&Orders, Some(applied(&Orders, None, &placed)), event);
    let is_placed = applied(&Orders, None, &placed);
    for (before, event, says) in [
        (
            is_placed,
            &cancelled,
            "is placed, and cannot become cancelled",
        ),
        (
            at(&confirmed),
            &confirmed,
            "is confirmed, and cannot become confirmed",
        ),
        (
            at(&confirmed),
            &refused_order,
            "is confirmed, and cannot become refused",
        ),
        (
            at(&refused_order),
            &cancelled,
            "is refused, and cannot become cancelled",
        ),
        (
            at(&abandoned),
            &confirmed,
            "is abandoned, and cannot become confirmed",
        ),
        (
            at(&refused_order),
            &abandoned,
            "is refused, and cannot become abandoned",
        ),
    ] {
        let said = rejected(&Orders, Some(before), event);
        assert!(said.ends_with(says), "{said}");
    }
    let Invoice::Order(order) = at(&refused_order) else {
        panic!("an order is no return");
    };
    let last = order.history.last().unwrap();
    assert_eq!(
        last.detail.as_deref(),
        Some("restaurant: restaurant_closed")
    );
}

#[test]
fn long_history_keeps_only_its_end() {
    let mut bench = RoleHarness::new(Orders);
    let [placed, ..] = order_events();
    bench.give(&placed).unwrap();
    for n in 1..=MAX_HISTORY + 7 {
        let amount = n.to_string().parse().unwrap();
        let captured = event("payment/536365", 1, &PaymentCaptured { amount });
        bench.give(&captured).unwrap();
    }
    let history = view(&bench).history;
    let numbers: Vec<u64> = history.iter().map(|entry| entry.number).collect();
    let most = MAX_HISTORY as u64;
    assert_eq!(numbers, (9..=most + 8).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn order_and_payment_end_alike_in_any_order(
        turns in vec(any::<Index>(), 40),
    ) {
        let mut bench = RoleHarness::new(Orders);
        let mut streams = [order_events().to_vec(), payment_events().to_vec()];
        let mut turns = turns.iter().cycle();
        while streams.iter().any(|stream| !stream.is_empty()) {
            let turn = turns.next().unwrap().index(2);
            // Takes the other stream if this one waits or has ended: one of them can always go on.
            for stream in [turn, 1 - turn] {
                let Some(event) = streams[stream].first().cloned() else { continue };
                match bench.give(&event) {
                    Ok(()) => {
                        streams[stream].remove(0);
                        break;
                    }
                    Err(rejection) => prop_assert_eq!(rejection, HandlerError::Retry(EntityKey::new(KEY))),
                }
            }
        }
        let view = view(&bench);
        prop_assert_eq!(view.status, OrderStatus::Cancelled);
        prop_assert_eq!(view.payment, Some(PaymentStatus::Refunded));
        let numbers: Vec<u64> = view.history.iter().map(|entry| entry.number).collect();
        prop_assert_eq!(numbers, vec![1, 2, 3, 4, 5, 6]);
    }
}
