//! Figures formatted for people.

use crate::stats::{Figures, Percentiles};

/// Returns true if every response was a success and every item was done once.
pub(super) fn is_all_done(figures: &Figures) -> bool {
    figures.failures() == 0
        && figures.applied == figures.offered
        && figures.lost == 0
        && figures.twice == 0
}

pub(super) fn failed(figures: &Figures) -> String {
    match figures.failures() {
        0 => "none failed".to_owned(),
        failures if failures == figures.offered => format!("all {failures} failed"),
        failures => format!("{failures} of {} failed", figures.offered),
    }
}

pub(super) fn percent(figures: &Figures) -> String {
    let share = figures.failures() as f64 / (figures.offered.max(1)) as f64;
    format!("{:.0}%", share * 100.0)
}

pub(super) fn p50(spread: Option<Percentiles>) -> f64 {
    spread.map_or(0.0, |s| s.p50_ms)
}

pub(super) fn p99(spread: Option<Percentiles>) -> f64 {
    spread.map_or(0.0, |s| s.p99_ms)
}

pub(super) fn max(spread: Option<Percentiles>) -> f64 {
    spread.map_or(0.0, |s| s.max_ms)
}

/// Formats a time for people.
pub(crate) fn time(millis: f64) -> String {
    match millis {
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        ..99_950.0 => format!("{:.1} s", millis / 1000.0),
        _ => format!("{:.0} s", millis / 1000.0),
    }
}
