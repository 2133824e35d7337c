//! A report as one self-contained page: tables with the exact figures, charts, and a style sheet for screens and paper.
//!
//! The template escapes every text, so no name of a country or a stock code becomes markup. The page has no script and
//! loads nothing, and equal figures give equal bytes.

use askama::Template;
use doorstep_contracts::{Label, Money};
use rust_decimal::prelude::ToPrimitive;

use super::{
    charts::{Chart, Point},
    delivery_counts::{DURATION_BOUNDS, DeliveryCounts, DurationCounts},
    figures::{DeliveryFigures, Named, SalesFigures, SalesSums, SkuSums, Summable},
    turnover::Turnover,
};

/// The maximum of lines in a table by stock code, and by country or city.
const MAX_SKUS: usize = 20;
const MAX_PLACES: usize = 50;
/// The maximum of bars in a chart of names.
const MAX_BARS: usize = 10;
/// The maximum of days that a chart shows one by one; beyond it shows months.
const MAX_DAY_BARS: usize = 62;
/// The name of the deliveries without a city.
const NO_CITY: &str = "no city";

/// The content of the page.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: &'static str,
    from: String,
    to: String,
    /// The only country that counts.
    country: Option<&'a str>,
    /// The most important figures, each with its name.
    facts: Vec<(&'static str, String)>,
    charts: Vec<Chart>,
    tables: Vec<Table>,
    notes: Vec<&'static str>,
}

/// A table: names on the left, numbers in the other columns.
struct Table {
    title: &'static str,
    head: Vec<&'static str>,
    lines: Vec<TableLine>,
}

struct TableLine {
    name: String,
    cells: Vec<String>,
}

/// Renders the page of sales.
///
/// # Errors
/// A bug in the template.
pub(crate) fn sales_page(figures: &SalesFigures) -> askama::Result<String> {
    let total = figures.total;
    let net = |sums: &SalesSums| net(&sums.turnover);
    let by_time = by_time(&figures.days, &figures.months, net);
    let countries = top(&figures.countries, MAX_PLACES, "other countries");
    Page {
        title: "Sales",
        from: figures.period.from().to_string(),
        to: figures.period.to().to_string(),
        country: figures.country.as_ref().map(Label::as_str),
        facts: vec![
            ("Net sales", net(&total).text()),
            ("Sales", Cell::from(total.turnover.sales).text()),
            ("Returns", Cell::from(total.turnover.returns).text()),
            ("Orders", Cell::from(total.orders).text()),
            ("Returned invoices", Cell::from(total.returns).text()),
            ("Reversed orders", Cell::from(total.reversed_orders).text()),
        ],
        charts: vec![
            Chart::columns(by_time.title_of("Net sales"), &by_time.points),
            Chart::rows(
                "Net sales by country",
                &bars(&top(&figures.countries, MAX_BARS, "other countries"), net),
            ),
        ],
        tables: vec![
            sales_table("By month", "Month", &figures.months),
            sales_table("By country", "Country", &countries),
            sku_table(&top(&figures.skus, MAX_SKUS, "other codes")),
            sales_table("By day", "Day", &figures.days),
        ],
        notes: vec![
            "Days are in UTC. An order counts on the day of its placing, a return on the day of its recording.",
            "Net is sales less returns, write-offs and reversals. Reversals are the orders that were rejected, abandoned or cancelled: they count on the day of their placing.",
            "Codes beyond the first 10,000 of a day and country are among the other codes.",
        ],
    }
    .render()
}

/// Renders the page of deliveries.
///
/// # Errors
/// A bug in the template.
pub(crate) fn deliveries_page(figures: &DeliveryFigures) -> askama::Result<String> {
    let total = figures.total;
    let picked_up = |counts: &DeliveryCounts| Cell::from(counts.picked_up);
    let by_time = by_time(&figures.days, &figures.months, picked_up);
    let mut cities = figures.cities.clone();
    for city in &mut cities {
        if city.name.as_deref() == Some("") {
            city.name = Some(NO_CITY.to_owned());
        }
    }
    Page {
        title: "Deliveries",
        from: figures.period.from().to_string(),
        to: figures.period.to().to_string(),
        country: None,
        facts: vec![
            ("Assigned", Cell::from(total.assigned).text()),
            ("Picked up", Cell::from(total.picked_up).text()),
            ("Picked up late", Cell::from(total.picked_up_late).text()),
            ("Delivered", Cell::from(total.delivered).text()),
        ],
        charts: vec![
            Chart::columns(by_time.title_of("Picked up"), &by_time.points),
            Chart::rows(
                "Picked up by city",
                &bars(&top(&cities, MAX_BARS, "other cities"), picked_up),
            ),
            Chart::rows(
                "Minutes from assignment to pick-up",
                &class_bars(&total.until_picked_up),
            ),
            Chart::rows(
                "Minutes from pick-up to delivery",
                &class_bars(&total.until_delivered),
            ),
        ],
        tables: vec![
            delivery_table("By month", "Month", &figures.months),
            delivery_table("By city", "City", &top(&cities, MAX_PLACES, "other cities")),
            duration_table(&total),
            delivery_table("By day", "Day", &figures.days),
        ],
        notes: vec![
            "Days are in UTC. Each step of a delivery counts on its own day.",
            "Late is a pick-up after the end of the promised time window.",
        ],
    }
    .render()
}

/// A number of a table and a chart.
struct Cell {
    exact: String,
    value: f64,
}

impl Cell {
    /// Returns the exact number with its digits in groups of three.
    fn text(&self) -> String {
        let number = self.exact.strip_prefix('-').unwrap_or(&self.exact);
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let mut text = String::from(if number == self.exact { "" } else { "-" });
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        if !decimals.is_empty() {
            text.push('.');
            text.push_str(decimals);
        }
        text
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self {
            exact: count.to_string(),
            value: count as f64,
        }
    }
}

impl From<i64> for Cell {
    fn from(pieces: i64) -> Self {
        Self {
            exact: pieces.to_string(),
            value: pieces as f64,
        }
    }
}

impl From<Money> for Cell {
    fn from(amount: Money) -> Self {
        Self {
            exact: amount.to_string(),
            value: amount.decimal().to_f64().unwrap_or_default(),
        }
    }
}

/// Returns the net amount. Sums were checked to have one.
fn net(turnover: &Turnover) -> Cell {
    turnover.net().unwrap_or_default().into()
}

/// The points of a chart over the period.
struct TimePoints {
    points: Vec<Point>,
    has_days: bool,
}

impl TimePoints {
    fn title_of(&self, what: &'static str) -> String {
        let unit = if self.has_days { "day" } else { "month" };
        format!("{what} by {unit}")
    }
}

/// Returns the points of days, or of months if there are too many days.
fn by_time<T>(days: &[Named<T>], months: &[Named<T>], cell: impl Fn(&T) -> Cell) -> TimePoints {
    let has_days = days.len() <= MAX_DAY_BARS;
    TimePoints {
        points: bars(if has_days { days } else { months }, cell),
        has_days,
    }
}

fn bars<T>(lines: &[Named<T>], cell: impl Fn(&T) -> Cell) -> Vec<Point> {
    let point = |line: &Named<T>| {
        let cell = cell(&line.sums);
        Point {
            label: line.name.clone().unwrap_or_default(),
            value: cell.value,
            text: cell.text(),
        }
    };
    lines.iter().map(point).collect()
}

/// Returns the first lines, and a last one with the sum of the others under this name.
fn top<T: Summable>(lines: &[Named<T>], most: usize, others: &str) -> Vec<Named<T>> {
    let named = lines.iter().take(most).filter(|line| line.name.is_some());
    let mut top: Vec<Named<T>> = named.cloned().collect();
    let rest = &lines[top.len()..];
    if !rest.is_empty() {
        let mut sums = T::default();
        for line in rest {
            // The sums of the period are checked, and these are a part of them.
            let _ = sums.add(&line.sums);
        }
        top.push(Named {
            name: Some(others.to_owned()),
            sums,
        });
    }
    top
}

fn table<T>(
    title: &'static str,
    head: Vec<&'static str>,
    lines: &[Named<T>],
    cells: impl Fn(&T) -> Vec<Cell>,
) -> Table {
    let line = |line: &Named<T>| TableLine {
        name: line.name.clone().unwrap_or_default(),
        cells: cells(&line.sums).iter().map(Cell::text).collect(),
    };
    Table {
        title,
        head,
        lines: lines.iter().map(line).collect(),
    }
}

fn sales_table(title: &'static str, names: &'static str, lines: &[Named<SalesSums>]) -> Table {
    let head = vec![
        names,
        "Orders",
        "Returns",
        "Reversed",
        "Sales",
        "Returned",
        "Write-offs",
        "Reversals",
        "Net",
    ];
    table(title, head, lines, |sums| {
        let mut cells = vec![
            sums.orders.into(),
            sums.returns.into(),
            sums.reversed_orders.into(),
        ];
        cells.extend(amounts(&sums.turnover));
        cells
    })
}

fn sku_table(lines: &[Named<SkuSums>]) -> Table {
    let head = vec![
        "Code",
        "Sold",
        "Back",
        "Written off",
        "Sales",
        "Returned",
        "Write-offs",
        "Reversals",
        "Net",
    ];
    table("By stock code", head, lines, |SkuSums(turnover)| {
        let mut cells = vec![
            turnover.sold.into(),
            turnover.returned.into(),
            turnover.written_off.into(),
        ];
        cells.extend(amounts(turnover));
        cells
    })
}

fn amounts(turnover: &Turnover) -> [Cell; 5] {
    [
        turnover.sales.into(),
        turnover.returns.into(),
        turnover.write_offs.into(),
        turnover.reversals.into(),
        net(turnover),
    ]
}

fn delivery_table(
    title: &'static str,
    names: &'static str,
    lines: &[Named<DeliveryCounts>],
) -> Table {
    let head = vec![names, "Assigned", "Picked up", "Late", "Delivered"];
    table(title, head, lines, |counts| {
        vec![
            counts.assigned.into(),
            counts.picked_up.into(),
            counts.picked_up_late.into(),
            counts.delivered.into(),
        ]
    })
}

fn duration_table(total: &DeliveryCounts) -> Table {
    let durations = total.until_picked_up.iter().zip(&total.until_delivered);
    let lines = class_names()
        .into_iter()
        .zip(durations)
        .map(|(name, (picked_up, delivered))| TableLine {
            name,
            cells: [*picked_up, *delivered]
                .map(|count| Cell::from(count).text())
                .into(),
        });
    Table {
        title: "By duration",
        head: vec!["Minutes", "Until picked up", "Until delivered"],
        lines: lines.collect(),
    }
}

/// Returns the names of the classes of durations.
fn class_names() -> Vec<String> {
    let mut from = 0;
    let mut names = Vec::new();
    for to in DURATION_BOUNDS {
        names.push(format!("{from} to {to}"));
        from = to;
    }
    names.push(format!("{from} or more"));
    names
}

fn class_bars(counts: &DurationCounts) -> Vec<Point> {
    let point = |(label, count): (String, &u64)| Point {
        label,
        value: *count as f64,
        text: Cell::from(*count).text(),
    };
    class_names().into_iter().zip(counts).map(point).collect()
}
