//! The report: a table to read, and JSON to keep.

use std::{fmt::Write, path::Path};

use anyhow::{Context, Result};
use doorstep_table::{Column, Table};
use serde_json::{Value, json};

use crate::{
    figures::{Figure, median},
    options::Options,
    rounds::Figures,
    rpc::CallPath,
};

const PUBLISH_AIM: f64 = 0.90;
const CONSUME_AIM: f64 = 0.80;
const RPC_AIM: f64 = 1.25;
const MEMORY_AIM_MB: f64 = 100.0;

/// Formats the figures as a table.
pub(crate) fn table(figures: &Figures, options: &Options) -> String {
    let mut table = Table::new([
        Column::text("SHAPE"),
        Column::number("EVENTS/S"),
        Column::number("PROCESSOR S/MILLION"),
    ]);
    for (shape, rounds) in shapes(figures) {
        let rate = median(rounds.iter().map(|f| f.events_per_second)).unwrap_or_default();
        let processor =
            median(rounds.iter().map(|f| f.processor_seconds_per_million)).unwrap_or_default();
        table.add_row([shape, thousands(rate), format!("{processor:.2}")]);
    }
    if let Some(consumed) = &figures.consumer {
        table.add_row([
            format!(
                "Doorstep, consume, {} waiting",
                thousands(consumed.events as f64)
            ),
            thousands(consumed.events_per_second),
            format!("{:.2}", consumed.processor_seconds_per_million),
        ]);
    }
    let mut text = format!(
        "{}, {} cores, quorum queue, {} events of 300 bytes over {} streams, medians of {} rounds\n\n{table}\n\n",
        figures.broker,
        cores(),
        thousands(options.events as f64),
        thousands(options.streams as f64),
        options.rounds
    );
    if let Some(table) = round_trips(figures) {
        let _ = writeln!(
            text,
            "round trips of 300 bytes, served by another process\n\n{table}\n"
        );
    }
    let mut line = |name: &str, value: String, aim: String| {
        let _ = writeln!(text, "{name:<34} {value:>9}   (aim: {aim})");
    };
    if let Some(ratio) = figures.publish_ratio() {
        line(
            "publishing, of the bare client",
            format!("{ratio:.2}"),
            format!("at least {PUBLISH_AIM:.2}"),
        );
    }
    if let Some(ratio) = figures.consume_ratio() {
        line(
            "consuming, of the bare client",
            format!("{ratio:.2}"),
            format!("at least {CONSUME_AIM:.2}"),
        );
    }
    if let Some(ratio) = figures.round_trips.p50_ratio(CallPath::Query, 1) {
        line(
            "query, of the bare client's p50",
            format!("{ratio:.2}"),
            format!("at most {RPC_AIM:.2}"),
        );
    }
    if let Some(consumed) = &figures.consumer {
        line(
            "memory of the consumer at most",
            format!("{:.1} MB", consumed.peak_mb),
            format!("below {MEMORY_AIM_MB} MB"),
        );
    }
    if options.quick {
        text.push_str("a quick run: every result was right, but its figures are meaningless\n");
    }
    text
}

/// Formats the durations of requests, a row for each number in flight and each variant.
fn round_trips(figures: &Figures) -> Option<Table> {
    let medians = figures.round_trips.medians();
    if medians.is_empty() {
        return None;
    }
    let mut table = Table::new([
        Column::number("IN FLIGHT"),
        Column::text("WAY"),
        Column::number("P50 US"),
        Column::number("P99 US"),
        Column::number("PER SECOND"),
        Column::number("P50, OF BARE"),
    ]);
    for trips in medians {
        table.add_row([
            trips.in_flight.to_string(),
            trips.way.to_string(),
            thousands(trips.p50_us),
            thousands(trips.p99_us),
            thousands(trips.per_second),
            format!("{:.2}", trips.p50_of_bare),
        ]);
    }
    Some(table)
}

/// Writes the figures to the requested file.
///
/// # Errors
/// The file that cannot be written.
pub(crate) fn write_json(path: &Path, figures: &Figures, options: &Options) -> Result<()> {
    let shapes: serde_json::Map<String, Value> = shapes(figures)
        .into_iter()
        .map(|(shape, rounds)| {
            let medians = json!({
                "events_per_second": median(rounds.iter().map(|f| f.events_per_second)),
                "processor_seconds_per_million": median(rounds.iter().map(|f| f.processor_seconds_per_million)),
            });
            (shape, medians)
        })
        .collect();
    let json = json!({
        "publish_ratio": figures.publish_ratio(),
        "consume_ratio": figures.consume_ratio(),
        "rpc_p50_ratio": figures.round_trips.p50_ratio(CallPath::Query, 1),
        "rpc_echo_p50_ratio": figures.round_trips.p50_ratio(CallPath::Echo, 1),
        "consumer_peak_mb": figures.consumer.map(|c| c.peak_mb),
        "quick": options.quick,
        "machine": { "cores": cores(), "processor": processor(), "broker": figures.broker },
        "events": options.events,
        "event_bytes": 300,
        "streams": options.streams,
        "medians": shapes,
        "rounds": figures.rounds,
        "round_trips": figures.round_trips,
        "round_trip_medians": figures.round_trips.medians(),
        "bare_consume_without_headers": figures.bare_consume_without_headers,
        "other_streams": figures.other_streams,
        "consumer_with_a_backlog": figures.consumer,
    });
    let text = serde_json::to_string_pretty(&json)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn shapes(figures: &Figures) -> Vec<(String, Vec<Figure>)> {
    let rounds = &figures.rounds;
    let of =
        |side: fn(&crate::rounds::Round) -> Figure| rounds.iter().map(side).collect::<Vec<_>>();
    let mut shapes = vec![
        ("bare client, publish".to_owned(), of(|r| r.bare.publish)),
        ("Doorstep, publish".to_owned(), of(|r| r.doorstep.publish)),
        ("bare client, consume".to_owned(), of(|r| r.bare.consume)),
        ("Doorstep, consume".to_owned(), of(|r| r.doorstep.consume)),
        (
            "bare client, consume without headers".to_owned(),
            figures.bare_consume_without_headers.into_iter().collect(),
        ),
    ];
    shapes.extend(figures.other_streams.iter().map(|other| {
        let streams = thousands(other.streams as f64);
        (
            format!("Doorstep, consume, {streams} streams"),
            other.rounds.clone(),
        )
    }));
    shapes.retain(|(_, rounds)| !rounds.is_empty());
    shapes
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Formats a whole number with a comma at every third digit.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(thousands(7.4), "7");
        assert_eq!(thousands(1_000_000.0), "1,000,000");
        assert_eq!(thousands(48_211.0), "48,211");
    }
}
