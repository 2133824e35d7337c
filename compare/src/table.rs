//! The report for people: two tables, of responses and of results, and the verdict. Paragraphs are at most 100 wide.

use std::fmt::Write;

use doorstep_table::{Column, Table};

use crate::{
    items::Operation,
    report::Report,
    scenario::Mode,
    stats::{Figures, Percentiles, Sample},
    verdict::{Verdict, time},
};

const WIDTH: usize = 100;

/// Formats the report for a terminal of this width, `None` for no terminal.
pub(crate) fn text(report: &Report, width: Option<usize>) -> String {
    let wrapped = |text: &str, indent: &str| wrapped(text, width, indent);
    let mut text = format!(
        "Responses, timed from the moment at which the user wanted the item\n\n{}\n\n",
        heard(&report.cells).fitted(width)
    );
    for line in failures(&report.cells) {
        text += &wrapped(&line, "  ");
    }
    let _ = write!(
        text,
        "\nResults, by the consumers' own stores\n\n{}\n\n",
        done(&report.cells).fitted(width)
    );
    text += &wrapped(
        "unsure: the user got an error, and the item was done all the same; lost: the user got a success, and the item was never done; done after: from the moment at which it was wanted",
        "",
    );
    for cell in report.cells.iter().filter(|cell| !cell.drained) {
        let (scenario, way) = (cell.scenario.label(), cell.way.label());
        text += &wrapped(
            &format!("{scenario}, {way}: the consumers had not finished at the timeout"),
            "  ",
        );
    }
    if let Some(verdict) = &report.verdict {
        text.push('\n');
        text += &findings(verdict, width);
        text.push('\n');
        text += &wrapped(&verdict.advice, "");
    }
    text
}

fn heard(cells: &[Sample]) -> Table {
    let mut table = Table::new([
        Column::text("consumers"),
        Column::text("what"),
        Column::text("way"),
        Column::number("offered"),
        Column::number("answered"),
        Column::number("per s").optional(),
        Column::number("failed"),
        Column::number("p50"),
        Column::number("p99"),
        Column::number("max").optional(),
    ]);
    for (cell, want, figures, first) in rows(cells) {
        let [p50, p99, max] = times(figures.response);
        table.add_row([
            first,
            want.label().to_owned(),
            cell.way.label().to_owned(),
            figures.offered.to_string(),
            figures.answered.to_string(),
            format!("{:.0}", figures.answered_a_second),
            figures.failures().to_string(),
            p50,
            p99,
            max,
        ]);
    }
    table
}

fn done(cells: &[Sample]) -> Table {
    let mut table = Table::new([
        Column::text("consumers"),
        Column::text("what"),
        Column::text("way"),
        Column::number("done"),
        Column::number("not done"),
        Column::number("unsure"),
        Column::number("lost"),
        Column::number("done after p50"),
        Column::number("max").optional(),
        Column::number("later than 1 s").optional(),
    ]);
    for (cell, want, figures, first) in rows(cells) {
        let [p50, _, max] = times(figures.done_after);
        table.add_row([
            first,
            want.label().to_owned(),
            cell.way.label().to_owned(),
            figures.applied.to_string(),
            figures.not_done.to_string(),
            figures.unsure.to_string(),
            figures.lost.to_string(),
            p50,
            max,
            figures.late.to_string(),
        ]);
    }
    table
}

/// Returns the rows of both tables; only its first row names the scenario.
fn rows(cells: &[Sample]) -> Vec<(&Sample, Operation, &Figures, String)> {
    let mut rows = Vec::new();
    let mut before = None;
    let mut scenarios: Vec<_> = cells.iter().map(|cell| cell.scenario).collect();
    scenarios.dedup();
    for scenario in scenarios {
        for want in Operation::ALL {
            for cell in cells.iter().filter(|cell| cell.scenario == scenario) {
                let is_first = before.replace(scenario) != Some(scenario);
                let first = if is_first { scenario.label() } else { "" };
                rows.push((cell, want, cell.figures(want), first.to_owned()));
            }
        }
    }
    rows
}

/// Returns the errors that users got.
fn failures(cells: &[Sample]) -> Vec<String> {
    let of = |cell: &Sample| {
        let failures: Vec<String> = cell
            .all
            .failed
            .iter()
            .map(|(trouble, count)| format!("{count} {}", trouble.describe()))
            .collect();
        let (scenario, way) = (cell.scenario.label(), cell.way.label());
        (!failures.is_empty())
            .then(|| format!("failed: {scenario}, {way}: {}", failures.join(", ")))
    };
    cells.iter().filter_map(of).collect()
}

fn findings(verdict: &Verdict, width: Option<usize>) -> String {
    let mut text =
        "Common claims about the two modes, and whether these figures show them\n\n".to_owned();
    for finding in &verdict.findings {
        let way = match finding.way {
            Mode::Sync => "sync: ",
            Mode::Async => "async:",
        };
        let line = format!(
            "{way} {} - {}: {}",
            finding.claim,
            finding.shown.label(),
            finding.because
        );
        text += &wrapped(&line, width, "  ");
    }
    text
}

/// Formats the median, the 99th percentile and the maximum of a distribution.
fn times(spread: Option<Percentiles>) -> [String; 3] {
    match spread {
        Some(spread) => [spread.p50_ms, spread.p99_ms, spread.max_ms].map(time),
        None => ["-", "-", "-"].map(str::to_owned),
    }
}

/// Wraps a paragraph and indents all lines but the first. A number stays with its unit.
fn wrapped(text: &str, width: Option<usize>, indent: &str) -> String {
    const GLUE: &str = "\u{a0}";
    let mut text = text.to_owned();
    for unit in ["ms", "s"] {
        for end in [" ", ",", ";", ":", "."] {
            text = text.replace(&format!(" {unit}{end}"), &format!("{GLUE}{unit}{end}"));
        }
    }
    let width = width.map_or(WIDTH, |width| width.min(WIDTH));
    doorstep_table::wrapped(&text, Some(width), indent) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_with_its_unit() {
        let text = "it took 85 ms, then 1.2 s and no more; ".repeat(20);
        for line in wrapped(&text, None, "").lines() {
            assert!(!line.starts_with("ms") && !line.starts_with("s "), "{line}");
        }
    }
}
