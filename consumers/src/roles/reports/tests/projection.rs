//! The projection: events in any order give the same figures, and all sums of a report agree.

use std::collections::BTreeMap;

use doorstep_store::Store;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::roles::{
    reports::{
        SalesReversed,
        figures::{Named, SalesSums, Summable},
        turnover::Turnover,
    },
    testing::exported,
};

const DAYS: [&str; 3] = ["2010-12-01", "2010-12-02", "2011-01-01"];
const COUNTRIES: [&str; 2] = ["France", "United Kingdom"];

#[test]
fn day_has_sales_by_country_and_code() {
    let rows = rows(&[
        placed(
            1,
            "2010-12-01T08:26:00Z",
            "France",
            vec![
                line("A", 6, "2.55"),
                line("B", -3, "0"),
                line("A", 1, "2.50"),
            ],
        ),
        returned(
            2,
            "2010-12-01T23:59:59.9Z",
            "France",
            vec![line("A", -2, "2.55")],
        ),
    ]);
    let state = |key: &str| {
        let row = rows.iter().find(|row| row.key.as_str() == key).unwrap();
        String::from_utf8(row.state.as_ref().unwrap().to_vec()).unwrap()
    };
    assert_eq!(
        state("sales/2010-12-01/France"),
        r#"{"sales":{"orders":1,"returns":1,"reversed_orders":0,"skus":{"A":{"sold":7,"returned":2,"sales":"17.80","returns":"5.10"},"B":{"written_off":3}}}}"#
    );
    assert_eq!(
        state("order/1"),
        r#"{"order":{"status":"placed","day":"2010-12-01","country":"France","lines":{"A":{"sold":7,"sales":"17.80"},"B":{"written_off":3}}}}"#
    );
    assert_eq!(
        state("return/C2"),
        r#"{"return":{"recorded_at":"2010-12-01T23:59:59.9Z"}}"#
    );
}

#[test]
fn a_return_takes_the_sale_back() {
    let day = period("2010-12-01", "2010-12-31");
    let sale = placed(
        1,
        "2010-12-01T08:00:00Z",
        "France",
        vec![line("A", 6, "2.55")],
    );
    let back = returned(
        1,
        "2010-12-09T08:00:00Z",
        "France",
        vec![line("A", -6, "2.55")],
    );
    let figures = sales(&[sale, back], day);
    assert_eq!(figures.total.turnover.net(), Some(Money::ZERO));
    assert_eq!(figures.skus[0].sums.0.net(), Some(Money::ZERO));
    let [first, ninth] = [0, 8].map(|index| figures.days[index].sums.turnover.net());
    assert_eq!(
        [first, ninth].map(|net| net.unwrap().to_string()),
        ["15.30", "-15.30"]
    );
}

#[test]
fn ended_order_is_reversed_on_its_day() {
    let day = period("2010-12-01", "2010-12-02");
    let sale = || {
        placed(
            1,
            "2010-12-01T08:00:00Z",
            "France",
            vec![line("A", 6, "2.55"), line("A", -1, "1")],
        )
    };
    for events in [
        vec![sale(), cancelled(1, 2), cancelled(1, 3)],
        // Its end may come first, from another source.
        vec![cancelled(1, 2), cancelled(1, 3), sale()],
    ] {
        let figures = sales(&events, day);
        let SalesSums {
            orders,
            reversed_orders,
            turnover,
            ..
        } = figures.days[0].sums;
        assert_eq!((orders, reversed_orders), (1, 1));
        assert_eq!(
            (turnover.sold, turnover.written_off, turnover.reversed),
            (6, 1, 5)
        );
        assert_eq!(turnover.reversals.to_string(), "14.30");
        assert_eq!(turnover.net(), Some(Money::ZERO));
        assert_eq!(figures.total, figures.days[0].sums);
    }
}

#[test]
fn an_order_or_return_counts_once() {
    let mut bench = RoleHarness::new(Reports::new(None));
    let sale = placed(
        1,
        "2010-12-01T08:00:00Z",
        "France",
        vec![line("A", 6, "2.55")],
    );
    let back = returned(
        1,
        "2010-12-01T08:00:00Z",
        "France",
        vec![line("A", -6, "2.55")],
    );
    bench.give(&sale).unwrap();
    bench.give(&back).unwrap();
    let before = exported(bench.state("sales/2010-12-01/France").unwrap());
    let said = format!("{:?}", bench.give(&sale).unwrap_err());
    assert!(said.contains("order/1 was already placed"), "{said}");
    let said = format!("{:?}", bench.give(&back).unwrap_err());
    assert!(
        said.contains("return/C1 was already recorded at 2010-12-01T08:00:00Z"),
        "{said}"
    );
    assert_eq!(
        exported(bench.state("sales/2010-12-01/France").unwrap()),
        before
    );
}

#[test]
fn another_day_reverses_no_order() {
    let mut bench = RoleHarness::new(Reports::new(None));
    let sale = placed(
        1,
        "2010-12-01T08:00:00Z",
        "France",
        vec![line("A", 6, "2.55")],
    );
    bench.give(&sale).unwrap();
    bench.give(&cancelled(1, 2)).unwrap();
    let order = doorstep_contracts::InvoiceNo::new("1").unwrap();
    let forged = event("sales/2010-12-02/France", 1, &SalesReversed { order });
    let said = format!("{:?}", bench.give(&forged).unwrap_err());
    assert!(
        said.contains("sales/2010-12-02/France does not count order/1"),
        "{said}"
    );
    bench.run_all_timers();
    assert_eq!(
        exported(bench.state("order/1").unwrap()),
        r#"{"order":{"status":"reversed"}}"#
    );
}

#[test]
fn sums_beyond_their_bounds_are_rejected() {
    let mut bench = RoleHarness::new(Reports::new(None));
    let full = |number| {
        placed(
            number,
            "2010-12-01T08:00:00Z",
            "France",
            vec![line("A", 1, "999999999999999")],
        )
    };
    bench.give(&full(1)).unwrap();
    let said = format!("{:?}", bench.give(&full(2)).unwrap_err());
    assert!(said.contains("leads beyond what can be counted"), "{said}");
    let least = placed(
        3,
        "2010-12-01T08:00:00Z",
        "France",
        vec![line("A", i64::MIN, "0")],
    );
    assert!(bench.give(&least).is_err());
}

#[test]
fn codes_beyond_the_bound_are_counted_together() {
    let lines = |from: usize| {
        (from..from + 5_001)
            .map(|n| line(&n.to_string(), 1, "1"))
            .collect()
    };
    let figures = sales(
        &[
            placed(1, "2010-12-01T08:00:00Z", "France", lines(0)),
            placed(2, "2010-12-01T08:00:00Z", "France", lines(5_001)),
        ],
        period("2010-12-01", "2010-12-01"),
    );
    assert_eq!(figures.skus.len(), 10_001);
    let other = figures.skus.last().unwrap();
    assert_eq!((other.name.as_deref(), other.sums.0.sold), (None, 2));
    assert_eq!(figures.total.turnover.sold, 10_002);
}

#[test]
fn the_longest_country_fits_the_reversal() {
    let country = "/ä".repeat(66);
    let day = period("2010-12-01", "2010-12-01");
    let sale = placed(1, "2010-12-01T08:00:00Z", &country, vec![line("A", 1, "1")]);
    let figures = sales(&[sale, cancelled(1, 2)], day);
    assert_eq!(figures.total.reversed_orders, 1);
    assert_eq!(figures.countries[0].name.as_deref(), Some(country.as_str()));
}

#[test]
fn delivery_steps_count_on_their_days() {
    let events = [
        assigned(
            1,
            "2022-05-01T23:00:00Z",
            Some("Jilin"),
            Some("2022-05-01T23:30:00Z"),
        ),
        picked_up(1, "2022-05-01T23:45:00Z"),
        delivered(1, "2022-05-02T08:00:00Z"),
        assigned(2, "2022-05-02T10:00:00Z", None, None),
        // Its clock runs behind.
        picked_up(2, "2022-05-02T09:59:00Z"),
    ];
    let figures = deliveries(&events, period("2022-05-01", "2022-05-02"));
    let counts = |index: usize| {
        let counts = figures.days[index].sums;
        (
            counts.assigned,
            counts.picked_up,
            counts.picked_up_late,
            counts.delivered,
        )
    };
    assert_eq!((counts(0), counts(1)), ((1, 1, 1, 0), (1, 1, 0, 1)));
    assert_eq!(figures.total.until_picked_up, [1, 0, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(figures.total.until_delivered, [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let cities: Vec<_> = figures.cities.iter().map(|c| c.name.as_deref()).collect();
    assert_eq!(cities, [Some("Jilin"), Some("")]);
    assert_eq!(figures.months[0].sums, figures.total);
}

#[test]
fn contradictions_of_a_delivery_are_rejected() {
    let mut bench = RoleHarness::new(Reports::new(None));
    let mut reject = |event: &Event, words: &str| {
        let said = format!("{:?}", bench.give(event).unwrap_err());
        assert!(said.contains(words), "{said}");
        bench.states().count()
    };
    assert_eq!(
        reject(
            &picked_up(1, "2022-05-01T10:00:00Z"),
            "was not assigned yet"
        ),
        0
    );
    assert_eq!(
        reject(
            &delivered(1, "2022-05-01T10:00:00Z"),
            "was not assigned yet"
        ),
        0
    );
    let assigned = assigned(1, "2022-05-01T10:00:00Z", None, None);
    bench.give(&assigned).unwrap();
    let mut reject = |event: &Event, words: &str| {
        let said = format!("{:?}", bench.give(event).unwrap_err());
        assert!(said.contains(words), "{said}");
    };
    reject(&assigned, "was already assigned");
    reject(
        &delivered(1, "2022-05-01T11:00:00Z"),
        "was not picked up yet",
    );
    bench.give(&picked_up(1, "2022-05-01T11:00:00Z")).unwrap();
    bench.give(&delivered(1, "2022-05-01T12:00:00Z")).unwrap();
    let mut reject = |event: &Event, words: &str| {
        let said = format!("{:?}", bench.give(event).unwrap_err());
        assert!(said.contains(words), "{said}");
    };
    reject(
        &picked_up(1, "2022-05-01T11:00:00Z"),
        "was already picked up at",
    );
    reject(
        &delivered(1, "2022-05-01T12:00:00Z"),
        "was already delivered at",
    );
}

/// An order, a return or an order with its end, with the lines as codes, quantities and prices in thousandths.
#[derive(Debug, Clone)]
struct Invoice {
    day: &'static str,
    country: &'static str,
    is_return: bool,
    has_ended: bool,
    lines: Vec<(u8, i64, i64)>,
}

fn invoice() -> impl Strategy<Value = Invoice> {
    let lines = vec((0..4_u8, -5..20_i64, 0..50_000_i64), 1..6);
    let place = (
        prop::sample::select(&DAYS[..]),
        prop::sample::select(&COUNTRIES[..]),
    );
    (place, any::<(bool, bool)>(), lines).prop_map(
        |((day, country), (is_return, has_ended), lines)| Invoice {
            day,
            country,
            is_return,
            has_ended: has_ended && !is_return,
            lines,
        },
    )
}

impl Invoice {
    fn events(&self, number: usize) -> Vec<Event> {
        let price =
            |thousandths: i64| format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
        let lines = self.lines.iter().map(|(sku, quantity, thousandths)| {
            let quantity = if self.is_return {
                -quantity.abs()
            } else {
                *quantity
            };
            line(&format!("sku{sku}"), quantity, &price(*thousandths))
        });
        let time = format!("{}T12:00:00Z", self.day);
        let lines = lines.collect();
        if self.is_return {
            return vec![returned(number, &time, self.country, lines)];
        }
        let mut events = vec![placed(number, &time, self.country, lines)];
        if self.has_ended {
            events.push(cancelled(number, 2));
        }
        events
    }

    /// Returns the net amount in thousandths.
    fn net(&self) -> i64 {
        let amounts = self.lines.iter().map(|(_, quantity, thousandths)| {
            let quantity = if self.is_return {
                -quantity.abs()
            } else {
                *quantity
            };
            quantity * thousandths
        });
        if self.has_ended { 0 } else { amounts.sum() }
    }
}

fn thousandths(amount: i64) -> Money {
    Money::new(rust_decimal::Decimal::new(amount, 3)).unwrap()
}

async fn projected(deliveries: Vec<Event>, batch: usize) -> Vec<EntityRow> {
    let store = applied(&deliveries, batch).await;
    store.entities(None, 10_000).await.unwrap()
}

/// Returns invoices, their events in order, and the same in any order with some of them twice.
fn scenario() -> impl Strategy<Value = (Vec<Invoice>, Vec<Event>, Vec<Event>)> {
    let invoices = vec((invoice(), any::<bool>()), 1..12);
    invoices.prop_flat_map(|invoices| {
        let events = |(number, (invoice, _)): (usize, &(Invoice, bool))| invoice.events(number);
        let in_order: Vec<Event> = invoices.iter().enumerate().flat_map(events).collect();
        let twice = invoices
            .iter()
            .enumerate()
            .filter(|(_, (_, is_twice))| *is_twice);
        let mut delivered = in_order.clone();
        delivered.extend(twice.flat_map(events));
        let invoices = invoices.into_iter().map(|(invoice, _)| invoice).collect();
        (
            Just(invoices),
            Just(in_order),
            Just(delivered).prop_shuffle(),
        )
    })
}

fn net_by<T>(lines: &[Named<T>], net: impl Fn(&T) -> Option<Money>) -> BTreeMap<String, Money> {
    let line = |line: &Named<T>| (line.name.clone().unwrap(), net(&line.sums).unwrap());
    lines
        .iter()
        .map(line)
        .filter(|(_, net)| *net != Money::ZERO)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn events_in_any_order_give_the_same_figures(
        (invoices, in_order, shuffled) in scenario(),
        batch in 1..8_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let period = period("2010-12-01", "2011-01-01");
        let figures = |events, batch| {
            let rows = runtime.block_on(projected(events, batch));
            summed::<SalesReport>(&rows, period).1
        };
        let expected = figures(in_order, 500);
        let found = figures(shuffled, batch);
        prop_assert_eq!(&found, &expected);

        // By day, by country, by code and in all: the sums of the lines.
        let mut days = BTreeMap::<String, i64>::new();
        let mut countries = BTreeMap::<String, i64>::new();
        for invoice in &invoices {
            *days.entry(invoice.day.to_owned()).or_default() += invoice.net();
            *countries.entry(invoice.country.to_owned()).or_default() += invoice.net();
        }
        let amounts = |sums: BTreeMap<String, i64>| -> BTreeMap<String, Money> {
            sums.into_iter().filter(|(_, net)| *net != 0).map(|(name, net)| (name, thousandths(net))).collect()
        };
        let all = thousandths(invoices.iter().map(Invoice::net).sum());
        let turnover = |sums: &SalesSums| sums.turnover.net();
        prop_assert_eq!(net_by(&found.days, turnover), amounts(days));
        prop_assert_eq!(net_by(&found.countries, turnover), amounts(countries));
        prop_assert_eq!(found.total.turnover.net(), Some(all));
        let mut by_code = Turnover::default();
        for line in &found.skus {
            by_code.add(&line.sums.0).unwrap();
        }
        prop_assert_eq!(by_code, found.total.turnover);
        let mut by_month = SalesSums::default();
        for month in &found.months {
            by_month.add(&month.sums).unwrap();
        }
        prop_assert_eq!(by_month, found.total);
        let orders = invoices.iter().filter(|i| !i.is_return).count() as u64;
        let ended = invoices.iter().filter(|i| i.has_ended).count() as u64;
        let returns = invoices.len() as u64 - orders;
        prop_assert_eq!((found.total.orders, found.total.reversed_orders, found.total.returns), (orders, ended, returns));
    }
}

#[test]
fn a_report_can_count_one_country() {
    let rows = rows(&[
        placed(1, "2010-12-01T08:00:00Z", "France", vec![line("A", 1, "2")]),
        placed(2, "2010-12-01T08:00:00Z", "EIRE", vec![line("A", 1, "3")]),
        placed(3, "2010-12-03T08:00:00Z", "France", vec![line("A", 1, "5")]),
    ]);
    let scope = Scope {
        period: period("2010-12-01", "2010-12-02"),
        country: Some(Label::new("France").unwrap()),
    };
    let mut report = <SalesReport as Report>::new(scope.clone());
    for row in &rows {
        if let Some(entity) = DayEntity::read(row, SalesReport::ENTITIES).unwrap()
            && entity.is_in(&scope)
        {
            Report::add(&mut report, &entity).unwrap();
        }
    }
    let figures = report.finish().unwrap();
    assert_eq!(figures.total.turnover.net(), Some("2.00".parse().unwrap()));
    assert_eq!(figures.countries.len(), 1);
    let page = <SalesReport as Report>::page(&figures).unwrap();
    assert!(page.contains("<h1>Sales in France</h1>"), "{page}");
}

#[test]
fn reading_begins_before_the_first_day() {
    for from in ["2010-12-01", "0001-01-01"] {
        let period = period(from, from);
        for (kind, key) in [
            ("sales", format!("sales/{from}/\u{1}")),
            ("deliveries", format!("deliveries/{from}")),
        ] {
            let before = DayEntity::key_before(kind, period);
            assert!(before < key && before.starts_with(kind), "{before}");
        }
    }
    let day_before = DayEntity::key_before("sales", period("2010-12-01", "2010-12-01"));
    assert!(*"sales/2010-11-30/\u{10fffe}" < *day_before);
}
