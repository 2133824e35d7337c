//! Invariants of every payment: single steps, and any steps in any order.

use std::collections::BTreeMap;

use doorstep_contracts::{CancelledBy, Label, PaymentMethod, RefusedBy, RestaurantId};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::roles::testing::{RoleHarness, event, exported};

fn order(number: usize) -> InvoiceNo {
    InvoiceNo::new(&format!("{number}")).unwrap()
}

fn authorize(number: usize, amount: &str, method: &str) -> AuthorizePayment {
    AuthorizePayment {
        order: order(number),
        customer: CustomerId::new("17850").unwrap(),
        amount: amount.parse().unwrap(),
        method: PaymentMethod::new(method).unwrap(),
        hold_seconds: Some(60),
    }
}

fn void(number: usize) -> VoidPayment {
    VoidPayment {
        order: order(number),
        reason: Some(Label::new("changed my mind").unwrap()),
    }
}

fn refund(number: usize) -> RefundPayment {
    RefundPayment {
        order: order(number),
        reason: None,
    }
}

fn capture(number: usize) -> CapturePayment {
    CapturePayment {
        order: order(number),
    }
}

fn confirmed(number: usize, sequence: u64) -> Event {
    let fact = OrderConfirmed {
        restaurant: RestaurantId::new("trattoria").unwrap(),
        promised_at: crate::roles::testing::ten(),
    };
    event(&format!("order/{number}"), sequence, &fact)
}

fn order_refused(number: usize, sequence: u64) -> Event {
    let fact = OrderRefused {
        by: RefusedBy::Restaurant,
        reason: Label::new("at_capacity").unwrap(),
    };
    event(&format!("order/{number}"), sequence, &fact)
}

fn abandoned(number: usize, sequence: u64) -> Event {
    let fact = OrderAbandoned {
        reason: Label::new("payments timed out").unwrap(),
    };
    event(&format!("order/{number}"), sequence, &fact)
}

fn cancelled(number: usize, sequence: u64) -> Event {
    let fact = OrderCancelled {
        by: CancelledBy::Customer,
        reason: Label::new("ordered twice").unwrap(),
    };
    event(&format!("order/{number}"), sequence, &fact)
}

fn balances(bench: &RoleHarness<Payments>) -> [Money; 3] {
    Account::ALL.map(|account| match bench.state(account.key().as_str()) {
        Some(Book::Account(balance)) => balance.balance,
        Some(Book::Payment(_)) => panic!("an account is a payment"),
        None => Money::ZERO,
    })
}

#[track_caller]
fn hold(bench: &RoleHarness<Payments>, expected: [&str; 3]) {
    assert_eq!(balances(bench).map(|b| b.to_string()), expected);
}

fn status(bench: &RoleHarness<Payments>, number: usize) -> PaymentStatus {
    let asked = ReadPayment {
        order: order(number),
    };
    bench.query(&asked).unwrap().status
}

#[test]
fn money_is_held_captured_and_refunded_once() {
    let mut bench = RoleHarness::new(Payments);
    for _ in 0..2 {
        let authorized = bench.execute(&authorize(1, "27.30", "card/visa")).unwrap();
        assert_eq!(
            authorized.authorized_until.to_string(),
            "2026-11-23T10:01:00Z"
        );
        hold(&bench, ["-27.30", "27.30", "0.00"]);
    }
    for _ in 0..2 {
        let captured = bench.execute(&capture(1)).unwrap();
        assert_eq!(captured.status, PaymentStatus::Captured);
        hold(&bench, ["-27.30", "0.00", "27.30"]);
    }
    for _ in 0..2 {
        let refunded = bench.execute(&refund(1)).unwrap();
        assert_eq!(refunded.status, PaymentStatus::Refunded);
        hold(&bench, ["0.00", "0.00", "0.00"]);
    }
    bench.run_all_timers();
    assert_eq!(
        bench.emitted(),
        [
            "payment.authorized.v1",
            "payment.captured.v1",
            "payment.refunded.v1"
        ]
    );
    assert_eq!(
        exported(bench.state("payment/1").unwrap()),
        r#"{"order_status":"open","payment":{"status":"refunded","customer":"17850","amount":"27.30","authorized_until":"2026-11-23T10:01:00Z"}}"#
    );
    assert_eq!(
        exported(bench.state("account/cards").unwrap()),
        r#"{"balance":"0.00","postings":2}"#
    );
}

#[test]
fn rejected_hold_has_a_code_and_no_effect() {
    let mut bench = RoleHarness::new(Payments);
    for (amount, method, code) in [
        ("1", "card/declined", "card_declined"),
        ("1", "card/insufficient_funds", "insufficient_funds"),
        ("1", "card/", "unknown_method"),
        ("1", "shells", "unknown_method"),
        ("0", "card/visa", "invalid_amount"),
        ("-1", "card/visa", "invalid_amount"),
        ("100000.01", "card/visa", "invalid_amount"),
    ] {
        let rejected = bench.execute(&authorize(1, amount, method)).unwrap_err();
        assert_eq!(rejected.code, code, "{amount} by {method}");
    }
    assert_eq!(bench.states().count(), 0);
    // The customer tries another card.
    bench
        .execute(&authorize(1, "100000", "card/visa"))
        .map(drop)
        .unwrap();
}

#[test]
fn money_is_held_a_day_by_default() {
    let mut bench = RoleHarness::new(Payments);
    let mut asked = authorize(1, "5", "card/visa");
    asked.hold_seconds = None;
    let authorized = bench.execute(&asked).unwrap();
    assert_eq!(
        authorized.authorized_until.to_string(),
        "2026-11-24T10:00:00Z"
    );
}

#[test]
fn other_terms_for_the_same_order_are_rejected() {
    let mut bench = RoleHarness::new(Payments);
    bench.execute(&authorize(1, "5", "card/visa")).unwrap();
    let rejected = bench.execute(&authorize(1, "6", "card/visa")).unwrap_err();
    assert_eq!(rejected.code, "already_authorized");
    let mut other = authorize(1, "5", "card/visa");
    other.customer = CustomerId::new("9").unwrap();
    assert_eq!(
        bench.execute(&other).unwrap_err().code,
        "already_authorized"
    );
    hold(&bench, ["-5.00", "5.00", "0.00"]);
}

#[test]
fn order_confirmed_first_is_captured_too() {
    let mut bench = RoleHarness::new(Payments);
    bench.execute(&authorize(1, "5", "card/visa")).unwrap();
    bench.give(&confirmed(1, 2)).unwrap();
    assert_eq!(status(&bench, 1), PaymentStatus::Captured);
    bench.give(&confirmed(2, 2)).unwrap();
    assert_eq!(status(&bench, 2), PaymentStatus::Awaited);
    assert_eq!(
        bench.execute(&capture(2)).unwrap_err().code,
        "not_authorized"
    );
    bench.execute(&authorize(2, "7", "card/visa")).unwrap();
    assert_eq!(status(&bench, 2), PaymentStatus::Captured);
    hold(&bench, ["-12.00", "0.00", "12.00"]);
    bench.run_all_timers();
    hold(&bench, ["-12.00", "0.00", "12.00"]);
}

#[test]
fn ended_order_is_refunded_with_its_reason() {
    for (end, reason) in [
        (order_refused(1, 2), "order_refused"),
        (abandoned(1, 2), "order_abandoned"),
        (cancelled(1, 2), "order_cancelled"),
    ] {
        for is_captured in [false, true] {
            let mut bench = RoleHarness::new(Payments);
            bench.execute(&authorize(1, "5", "card/visa")).unwrap();
            if is_captured {
                bench.execute(&capture(1)).unwrap();
            }
            bench.give(&end).unwrap();
            hold(&bench, ["0.00", "0.00", "0.00"]);
            let last = bench.emitted.last().unwrap();
            let kind = match is_captured {
                true => "payment.refunded.v1",
                false => "payment.voided.v1",
            };
            assert_eq!(last.kind().as_str(), kind);
            let data = String::from_utf8(last.data().to_vec()).unwrap();
            assert!(data.contains(reason), "{data}");
        }
    }
}

#[test]
fn end_before_its_authorization_rejects_it() {
    let mut bench = RoleHarness::new(Payments);
    bench.give(&abandoned(1, 2)).unwrap();
    let rejected = bench.execute(&authorize(1, "5", "card/visa")).unwrap_err();
    assert_eq!(rejected.code, "order_closed");
    bench.execute(&void(2)).unwrap();
    let rejected = bench.execute(&authorize(2, "5", "card/visa")).unwrap_err();
    assert_eq!(rejected.code, "voided");
    assert_eq!(bench.emitted(), Vec::<&str>::new());
    hold(&bench, ["0.00", "0.00", "0.00"]);
}

#[test]
fn an_uncaptured_authorization_expires() {
    let mut bench = RoleHarness::new(Payments);
    bench.execute(&authorize(1, "5", "card/visa")).unwrap();
    bench.now = "2026-11-23T10:00:59Z".parse().unwrap();
    bench.run_due_timers();
    hold(&bench, ["-5.00", "5.00", "0.00"]);
    bench.now = "2026-11-23T10:01:00Z".parse().unwrap();
    bench.run_due_timers();
    hold(&bench, ["0.00", "0.00", "0.00"]);
    let data = bench.emitted.last().unwrap().data();
    assert_eq!(data, br#"{"amount":"5.00","reason":"lapsed"}"#);
    // Too late: the money is free, the customer is not charged again, and an operator has to decide on the order.
    let Err(HandlerError::Reject(reason)) = bench.give(&confirmed(1, 2)) else {
        panic!("an order that will not be paid is confirmed in silence")
    };
    assert!(reason.contains("was not paid"), "{reason}");
    assert_eq!(status(&bench, 1), PaymentStatus::Voided);
    assert_eq!(bench.execute(&capture(1)).unwrap_err().code, "voided");
}

#[test]
fn long_hold_is_scheduled_only_after_first_check() {
    let mut bench = RoleHarness::new(Payments);
    for number in [1, 2] {
        let mut asked = authorize(number, "5", "card/visa");
        asked.hold_seconds = None;
        bench.execute(&asked).unwrap();
    }
    bench.give(&confirmed(1, 2)).unwrap();
    bench.now = "2026-11-23T10:15:00Z".parse().unwrap();
    bench.run_due_timers();
    let [still_held] = &bench.scheduled[..] else {
        panic!("{:?}", bench.scheduled)
    };
    assert_eq!(still_held.due().to_string(), "2026-11-24T10:00:00Z");
    assert_eq!(status(&bench, 2), PaymentStatus::Authorized);
    bench.now = still_held.due();
    bench.run_due_timers();
    assert_eq!(status(&bench, 2), PaymentStatus::Voided);
    assert_eq!(bench.scheduled.len(), 0);
}

#[test]
fn invalid_steps_are_rejected_by_code() {
    let mut bench = RoleHarness::new(Payments);
    assert_eq!(
        bench.execute(&refund(1)).unwrap_err().code,
        "not_authorized"
    );
    bench.execute(&authorize(1, "5", "card/visa")).unwrap();
    assert_eq!(bench.execute(&refund(1)).unwrap_err().code, "not_captured");
    bench.execute(&capture(1)).unwrap();
    assert_eq!(bench.execute(&void(1)).unwrap_err().code, "captured");
    bench.execute(&refund(1)).unwrap();
    assert_eq!(bench.execute(&void(1)).unwrap_err().code, "refunded");
    assert_eq!(bench.execute(&capture(1)).unwrap_err().code, "refunded");
    let again = bench.execute(&authorize(1, "5", "card/visa")).unwrap_err();
    assert_eq!(again.code, "refunded");
    let unknown = bench.query(&ReadPayment { order: order(9) }).unwrap_err();
    assert_eq!(unknown.code, "unknown_payment");
}

#[test]
fn placed_order_leaves_no_payment() {
    let golden = include_str!("../../../../common/contracts/golden/order.placed.v1.json");
    let placed: doorstep_contracts::OrderPlaced = serde_json::from_str(golden).unwrap();
    let mut bench = RoleHarness::new(Payments);
    bench.give(&event("order/1", 1, &placed)).unwrap();
    assert_eq!(bench.states().count(), 0);
}

/// One step of a test.
#[derive(Debug, Clone, Copy)]
enum Step {
    Authorize,
    AuthorizeMore,
    Capture,
    Void,
    Refund,
    NextOfOrder,
    Lapse,
}

/// The events of an order's stream after its placing.
#[derive(Debug, Clone, Copy)]
enum Life {
    Open,
    Confirmed,
    Refused,
    Abandoned,
    Cancelled,
}

impl Life {
    fn stream(self, number: usize) -> Vec<Event> {
        match self {
            Self::Open => vec![],
            Self::Confirmed => vec![confirmed(number, 2)],
            Self::Refused => vec![order_refused(number, 2)],
            Self::Abandoned => vec![abandoned(number, 2)],
            Self::Cancelled => vec![confirmed(number, 2), cancelled(number, 3)],
        }
    }

    fn has_ended(self) -> bool {
        matches!(self, Self::Refused | Self::Abandoned | Self::Cancelled)
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Authorize),
        1 => Just(Step::AuthorizeMore),
        2 => Just(Step::Capture),
        1 => Just(Step::Void),
        1 => Just(Step::Refund),
        3 => Just(Step::NextOfOrder),
        1 => Just(Step::Lapse),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        Just(Life::Open),
        Just(Life::Confirmed),
        Just(Life::Refused),
        Just(Life::Abandoned),
        Just(Life::Cancelled),
    ]
}

/// Returns the published sums of one payment: authorized, captured, voided, refunded.
fn published(bench: &RoleHarness<Payments>) -> BTreeMap<String, [Money; 4]> {
    let mut sums = BTreeMap::<String, [Money; 4]>::new();
    for emitted in &bench.emitted {
        let data: serde_json::Value = serde_json::from_slice(emitted.data()).unwrap();
        let amount: Money = data["amount"].as_str().unwrap().parse().unwrap();
        let column = match emitted.kind().as_str() {
            "payment.authorized.v1" => 0,
            "payment.captured.v1" => 1,
            "payment.voided.v1" => 2,
            "payment.refunded.v1" => 3,
            other => panic!("{other} is published"),
        };
        let sum = sums.entry(emitted.subject().to_string()).or_default();
        assert_eq!(sum[column], Money::ZERO, "{emitted:?} comes twice");
        sum[column] = amount;
    }
    sums
}

/// Gives an event that may be rejected only because the hold has expired.
fn give(bench: &mut RoleHarness<Payments>, event: &Event) {
    if let Err(rejection) = bench.give(event) {
        assert!(
            format!("{rejection:?}").contains("has lapsed"),
            "{rejection:?}"
        );
    }
}

proptest! {
    #[test]
    fn any_order_of_steps_preserves_money(
        lives in vec(life(), 1..4),
        steps in vec((step(), any::<Index>(), any::<bool>()), 0..60),
    ) {
        let mut bench = RoleHarness::new(Payments);
        let mut streams: Vec<_> = lives.iter().enumerate().map(|(n, life)| life.stream(n).into_iter()).collect();
        for (step, which, again) in steps {
            let number = which.index(lives.len());
            // Each request may be repeated under another id.
            for _ in 0..=usize::from(again) {
                let _ = match step {
                    Step::Authorize => bench.execute(&authorize(number, "27.30", "card/visa")).map(drop),
                    Step::AuthorizeMore => bench.execute(&authorize(number, "99", "card/visa")).map(drop),
                    Step::Capture => bench.execute(&capture(number)).map(drop),
                    Step::Void => bench.execute(&void(number)).map(drop),
                    Step::Refund => bench.execute(&refund(number)).map(drop),
                    Step::NextOfOrder => {
                        if let Some(event) = streams[number].next() {
                            give(&mut bench, &event);
                        }
                        Ok(())
                    }
                    Step::Lapse => {
                        // Scheduled events come by their times, which several may share, and so in no fixed order.
                        if !bench.scheduled.is_empty() {
                            let one = bench.scheduled.remove(which.index(bench.scheduled.len()));
                            bench.now = bench.now.max(one.due());
                            bench.fire(&one);
                        }
                        Ok(())
                    }
                };
            }
            let sum = Money::sum(balances(&bench)).unwrap();
            prop_assert_eq!(sum, Money::ZERO);
            let [cards, authorized, sales] = balances(&bench);
            prop_assert!(cards <= Money::ZERO && !authorized.is_negative() && !sales.is_negative());
            for (payment, [authorized, captured, voided, refunded]) in published(&bench) {
                prop_assert!(captured <= authorized, "{} is charged beyond what was authorized", payment);
                prop_assert!(voided == Money::ZERO || captured == Money::ZERO, "{}", payment);
                prop_assert!(refunded <= captured, "{}", payment);
            }
        }
        // In the end everything has come.
        for stream in &mut streams {
            for event in stream {
                give(&mut bench, &event);
            }
        }
        bench.run_all_timers();
        let [_, authorized, sales] = balances(&bench);
        prop_assert_eq!(Money::sum(balances(&bench)).unwrap(), Money::ZERO);
        prop_assert_eq!(authorized, Money::ZERO);
        let published = published(&bench);
        let mut kept = Money::ZERO;
        for (number, life) in lives.iter().enumerate() {
            let [authorized, captured, voided, refunded] =
                published.get(&format!("payment/{number}")).copied().unwrap_or_default();
            prop_assert_eq!(authorized, captured.checked_add(voided).unwrap());
            if life.has_ended() {
                prop_assert_eq!(captured, refunded);
            }
            kept = kept.checked_add(captured).unwrap().checked_add(refunded.checked_mul(-1).unwrap()).unwrap();
        }
        prop_assert_eq!(sales, kept);
    }
}
