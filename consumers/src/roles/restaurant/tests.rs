//! Invariants of every restaurant: single steps, and any steps in any order.

use doorstep_contracts::{CancelledBy, Label, RefusedBy, Sku, requests::RequestedLine};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::roles::testing::{RoleHarness, event, exported};

fn name(text: &str) -> RestaurantId {
    RestaurantId::new(text).unwrap()
}

/// Returns a restaurant that is open from nine to noon on Mondays, the day of the tests, with this capacity in pieces.
fn configure(capacity: u32) -> ConfigureRestaurant {
    let golden = include_str!(
        "../../../../common/contracts/golden/requests/restaurant.configure.v1.request.json"
    );
    let mut asked: ConfigureRestaurant = serde_json::from_str(golden).unwrap();
    asked.opening_hours[0].opens = "09:00".parse().unwrap();
    asked.opening_hours[0].closes = "12:00".parse().unwrap();
    asked.capacity = capacity;
    asked
}

fn open(capacity: u32) -> RoleHarness<Restaurant> {
    let mut bench = RoleHarness::new(Restaurant);
    let done = bench.execute(&configure(capacity)).unwrap();
    assert_eq!((done.restaurant.as_str(), done.dishes), ("trattoria", 2));
    bench
}

fn order(number: usize) -> InvoiceNo {
    InvoiceNo::new(&format!("{number}")).unwrap()
}

fn confirm(number: usize, pieces: u32) -> ConfirmOrder {
    ConfirmOrder {
        order: order(number),
        restaurant: name("trattoria"),
        pieces,
    }
}

fn quote(lines: &[(&str, i64)]) -> QuoteOrder {
    let wanted = |(sku, quantity): &(&str, i64)| RequestedLine {
        sku: Sku::new(sku).unwrap(),
        quantity: *quantity,
    };
    QuoteOrder {
        restaurant: name("trattoria"),
        lines: lines.iter().map(wanted).collect(),
    }
}

fn menu(bench: &RoleHarness<Restaurant>) -> Menu {
    let restaurant = name("trattoria");
    bench.query(&ReadMenu { restaurant }).unwrap()
}

fn abandoned(number: usize) -> Event {
    let reason = Label::new("restaurant timed out").unwrap();
    let subject = format!("order/{number}");
    event(&subject, 2, &OrderAbandoned { reason })
}

fn order_refused(number: usize) -> Event {
    let fact = OrderRefused {
        by: RefusedBy::Payment,
        reason: Label::new("card_declined").unwrap(),
    };
    event(&format!("order/{number}"), 2, &fact)
}

fn cancelled(number: usize) -> Event {
    let fact = OrderCancelled {
        by: CancelledBy::Restaurant,
        reason: Label::new("no more dough").unwrap(),
    };
    event(&format!("order/{number}"), 3, &fact)
}

#[test]
fn an_order_costs_what_the_menu_says() {
    let bench = open(40);
    let quote = bench
        .query(&quote(&[
            ("MARGHERITA", 2),
            ("TIRAMISU", 3),
            ("TIRAMISU", 1),
        ]))
        .unwrap();
    assert_eq!(
        (quote.pieces, quote.total.to_string().as_str()),
        (6, "35.60")
    );
    assert_eq!(
        exported(&quote.lines[1]),
        r#"{"sku":"TIRAMISU","description":"Tiramisu","quantity":3,"unit_price":"4.15","amount":"12.45"}"#
    );
}

#[test]
fn invalid_quotes_are_rejected_by_code() {
    let mut bench = open(40);
    for (lines, code) in [
        (&[("MARGHERITA", 1), ("SUSHI", 1)][..], "unknown_sku"),
        (&[("MARGHERITA", 0)], "invalid_quantity"),
        (&[("MARGHERITA", -1)], "invalid_quantity"),
        (&[("MARGHERITA", 1001)], "invalid_quantity"),
        (&[("MARGHERITA", i64::MAX)], "invalid_quantity"),
        (&[], "bad_request"),
    ] {
        let rejected = bench.query(&quote(lines)).unwrap_err();
        assert_eq!(rejected.code, code, "{lines:?}");
    }
    let mut elsewhere = quote(&[("MARGHERITA", 1)]);
    elsewhere.restaurant = name("nowhere");
    let rejected = bench.query(&elsewhere).unwrap_err();
    assert_eq!(rejected.code, "unknown_restaurant");
    bench.now = "2026-11-23T12:00:00Z".parse().unwrap();
    let rejected = bench.query(&quote(&[("MARGHERITA", 1)])).unwrap_err();
    assert_eq!(rejected.code, "restaurant_closed");
    assert!(!menu(&bench).is_open);
}

#[test]
fn an_order_takes_room_until_its_promised_time() {
    let mut bench = open(10);
    for _ in 0..2 {
        let promise = bench.execute(&confirm(1, 6)).unwrap();
        assert_eq!(promise.promised_at.to_string(), "2026-11-23T10:25:00Z");
        assert_eq!(menu(&bench).taken, 6);
    }
    let rejected = bench.execute(&confirm(2, 5)).unwrap_err();
    assert_eq!(rejected.code, "at_capacity");
    bench.execute(&confirm(3, 4)).unwrap();
    let rejected = bench.execute(&confirm(2, u32::MAX)).unwrap_err();
    assert_eq!(rejected.code, "at_capacity");
    bench.now = "2026-11-23T10:25:00Z".parse().unwrap();
    bench.run_due_timers();
    assert_eq!(menu(&bench).taken, 0);
    bench.execute(&confirm(2, 5)).unwrap();
    assert_eq!(
        exported(bench.state("booking/1").unwrap()),
        r#"{"status":"ready","restaurant":"trattoria","pieces":6,"promised_at":"2026-11-23T10:25:00Z"}"#
    );
}

#[test]
fn ended_order_releases_its_capacity_once() {
    for end in [abandoned(1), order_refused(1), cancelled(1)] {
        let mut bench = open(10);
        bench.execute(&confirm(1, 6)).unwrap();
        bench.execute(&confirm(2, 4)).unwrap();
        bench.give(&end).unwrap();
        bench.give(&end).unwrap();
        bench.run_due_timers();
        assert_eq!(menu(&bench).taken, 4);
        let rejected = bench.execute(&confirm(1, 6)).unwrap_err();
        assert_eq!(rejected.code, "order_closed");
        bench.run_all_timers();
        assert_eq!(menu(&bench).taken, 0);
    }
}

#[test]
fn end_before_its_order_rejects_it() {
    let mut bench = open(10);
    bench.give(&abandoned(1)).unwrap();
    let rejected = bench.execute(&confirm(1, 6)).unwrap_err();
    assert_eq!(rejected.code, "order_closed");
    assert_eq!(menu(&bench).taken, 0);
    assert!(bench.scheduled.is_empty());
}

#[test]
fn invalid_confirmations_are_rejected_by_code() {
    let mut bench = open(10);
    let mut elsewhere = confirm(1, 1);
    elsewhere.restaurant = name("nowhere");
    assert_eq!(
        bench.execute(&elsewhere).unwrap_err().code,
        "unknown_restaurant"
    );
    assert_eq!(
        bench.execute(&confirm(1, 0)).unwrap_err().code,
        "bad_request"
    );
    bench.execute(&confirm(1, 1)).unwrap();
    assert_eq!(
        bench.execute(&confirm(1, 2)).unwrap_err().code,
        "already_confirmed"
    );
    assert_eq!(
        bench.execute(&elsewhere).unwrap_err().code,
        "already_confirmed"
    );
    bench.now = "2026-11-23T08:59:59Z".parse().unwrap();
    assert_eq!(
        bench.execute(&confirm(2, 1)).unwrap_err().code,
        "restaurant_closed"
    );
    // A confirmed order stays confirmed.
    bench.execute(&confirm(1, 1)).map(drop).unwrap();
}

#[test]
fn reconfigured_restaurant_keeps_its_bookings() {
    let mut bench = open(10);
    bench.execute(&confirm(1, 6)).unwrap();
    bench.execute(&configure(5)).unwrap();
    let shown = menu(&bench);
    assert_eq!((shown.taken, shown.capacity), (6, 5));
    let rejected = bench.execute(&confirm(2, 1)).unwrap_err();
    assert_eq!(rejected.code, "at_capacity");
    bench.run_all_timers();
    assert_eq!(menu(&bench).taken, 0);
}

/// One step of a test.
#[derive(Debug, Clone, Copy)]
enum Step {
    Confirm(u32),
    End,
    Due,
    Configure(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..8_u32).prop_map(Step::Confirm),
        2 => Just(Step::End),
        2 => Just(Step::Due),
        1 => (5..20_u32).prop_map(Step::Configure),
    ]
}

proptest! {
    #[test]
    fn any_order_of_steps_keeps_kitchen_within_capacity(
        steps in vec((step(), 0..6_usize, any::<Index>()), 0..80),
    ) {
        let mut bench = open(10);
        let mut capacity = 10;
        for (step, number, which) in steps {
            match step {
                Step::Confirm(pieces) => {
                    let before = menu(&bench).taken;
                    let is_new = bench.state(&format!("booking/{number}")).is_none();
                    let answer = bench.execute(&confirm(number, pieces));
                    let after = menu(&bench).taken;
                    match answer {
                        Ok(_) if is_new => {
                            prop_assert_eq!(after, before + pieces);
                            prop_assert!(after <= capacity);
                        }
                        Ok(_) | Err(_) => prop_assert_eq!(after, before),
                    }
                }
                Step::End => bench.give(&abandoned(number)).unwrap(),
                Step::Due => {
                    // Any scheduled event, whatever its time: no code may depend on their order.
                    if !bench.scheduled.is_empty() {
                        let one = bench.scheduled.remove(which.index(bench.scheduled.len()));
                        bench.fire(&one);
                    }
                }
                Step::Configure(to) => {
                    capacity = to;
                    bench.execute(&configure(to)).unwrap();
                }
            }
            let taken: u32 = bench
                .states()
                .filter_map(|(_, state)| match state {
                    Record::Booking(booking) => Some(booking.clone().rejection().1),
                    Record::Kitchen(_) | Record::Menu(_) => None,
                })
                .sum();
            prop_assert_eq!(menu(&bench).taken, taken);
        }
        bench.run_all_timers();
        prop_assert_eq!(menu(&bench).taken, 0);
        for (key, state) in bench.states() {
            if let Record::Booking(booking) = state {
                let at_rest = matches!(booking, Booking::Ready(_) | Booking::Ended);
                prop_assert!(at_rest, "{key}: {booking:?}");
            }
        }
    }
}
