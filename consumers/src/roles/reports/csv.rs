//! A report as CSV: the lines from which its figures are summed, in the order of days.

use std::io::Write;

use csv::Writer;
use jiff::civil::Date;

use super::{
    delivery_counts::{DURATION_BOUNDS, DeliveryDay},
    turnover::SalesDay,
};

const SALES: [&str; 11] = [
    "day",
    "country",
    "sku",
    "sold",
    "returned",
    "written_off",
    "reversed",
    "sales",
    "returns",
    "write_offs",
    "reversals",
];
const DELIVERIES: [&str; 6] = [
    "day",
    "city",
    "assigned",
    "picked_up",
    "picked_up_late",
    "delivered",
];

/// Returns the head of sales.
pub(super) fn sales_head() -> Vec<String> {
    SALES.iter().map(ToString::to_string).collect()
}

/// Writes the sales of a day in a country: a line for each stock code, and one without a code for the codes beyond the
/// bound of an entity.
///
/// # Errors
/// The output cannot be written.
pub(super) fn write_sales<W: Write>(
    writer: &mut Writer<W>,
    day: Date,
    country: &str,
    sales: &SalesDay,
) -> csv::Result<()> {
    let (day, country) = (day.to_string(), cell(country));
    for (sku, turnover) in sales.lines() {
        let names = [day.clone(), country.clone(), cell(sku.unwrap_or_default())];
        let pieces = [
            turnover.sold,
            turnover.returned,
            turnover.written_off,
            turnover.reversed,
        ];
        let amounts = [
            turnover.sales,
            turnover.returns,
            turnover.write_offs,
            turnover.reversals,
        ];
        let cells = names.into_iter().chain(pieces.map(|n| n.to_string()));
        writer.write_record(cells.chain(amounts.map(|n| n.to_string())))?;
    }
    Ok(())
}

/// Returns the head of deliveries.
pub(super) fn deliveries_head() -> Vec<String> {
    let mut head: Vec<String> = DELIVERIES.iter().map(ToString::to_string).collect();
    for step in ["picked_up", "delivered"] {
        head.extend(DURATION_BOUNDS.map(|bound| format!("{step}_below_{bound}_min")));
        head.push(format!("{step}_later"));
    }
    head
}

/// Writes the deliveries of a day: a line for each city, with its counts by class of duration.
///
/// # Errors
/// The output cannot be written.
pub(super) fn write_deliveries<W: Write>(
    writer: &mut Writer<W>,
    day: Date,
    deliveries: &DeliveryDay,
) -> csv::Result<()> {
    for (city, counts) in deliveries.lines() {
        let names = [day.to_string(), cell(city.unwrap_or("(other)"))];
        let steps = [
            counts.assigned,
            counts.picked_up,
            counts.picked_up_late,
            counts.delivered,
        ];
        let durations = counts.until_picked_up.iter().chain(&counts.until_delivered);
        let numbers = steps.iter().chain(durations).map(ToString::to_string);
        writer.write_record(names.into_iter().chain(numbers))?;
    }
    Ok(())
}

/// Returns a text that no spreadsheet takes for a formula.
fn cell(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}
