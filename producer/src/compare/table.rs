//! The comparison for people: two tables, what users heard and what came of it, and the verdict. At most 100 wide.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::{
    figures::{Cell, Figures, Spread},
    items::Want,
    report::Report,
    scenario::Way,
    verdict::{Verdict, time},
};

/// How wide lines of text are at most.
const WIDTH: usize = 100;

/// All of it.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "What users heard, from the moment at which they wanted something\n\n{}\n\n",
        heard(&report.cells)
    );
    for line in failures(&report.cells) {
        text += &wrapped(&line, "  ");
    }
    let _ = write!(
        text,
        "\nWhat came of it, by the consumers' own stores\n\n{}\n\n",
        done(&report.cells)
    );
    text += &wrapped(
        "unsure: the user was told an error, and it was done all the same; lost: the user was answered well, and it was never done; done after: from the moment at which it was wanted",
        "",
    );
    for cell in report.cells.iter().filter(|cell| !cell.drained) {
        let (scenario, way) = (cell.scenario.words(), cell.way.words());
        text += &wrapped(
            &format!(
                "{scenario}, {way}: the consumers had not come to the end of it when we ceased to wait"
            ),
            "  ",
        );
    }
    if let Some(verdict) = &report.verdict {
        text.push('\n');
        text += &findings(verdict);
        text.push('\n');
        text += &wrapped(&verdict.advice, "");
    }
    text
}

fn heard(cells: &[Cell]) -> Table {
    let mut table = table(&[
        "consumers",
        "what",
        "way",
        "offered",
        "answered",
        "per s",
        "failed",
        "p50",
        "p99",
        "max",
    ]);
    for (cell, want, figures, first) in rows(cells) {
        let spread = Times::of(figures.response);
        table.add_row([
            first,
            want.words().to_owned(),
            cell.way.words().to_owned(),
            figures.offered.to_string(),
            figures.answered.to_string(),
            format!("{:.0}", figures.answered_a_second),
            figures.failures().to_string(),
            spread.p50,
            spread.p99,
            spread.max,
        ]);
    }
    table
}

fn done(cells: &[Cell]) -> Table {
    let mut table = table(&[
        "consumers",
        "what",
        "way",
        "done",
        "not done",
        "unsure",
        "lost",
        "done after p50",
        "max",
        "later than 1 s",
    ]);
    for (cell, want, figures, first) in rows(cells) {
        let spread = Times::of(figures.done_after);
        table.add_row([
            first,
            want.words().to_owned(),
            cell.way.words().to_owned(),
            figures.applied.to_string(),
            figures.not_done.to_string(),
            figures.unsure.to_string(),
            figures.lost.to_string(),
            spread.p50,
            spread.max,
            figures.late.to_string(),
        ]);
    }
    table
}

/// Which rows there are, in both tables; the scenario is named in its first row alone.
fn rows(cells: &[Cell]) -> Vec<(&Cell, Want, &Figures, String)> {
    let mut rows = Vec::new();
    let mut before = None;
    let mut scenarios: Vec<_> = cells.iter().map(|cell| cell.scenario).collect();
    scenarios.dedup();
    for scenario in scenarios {
        for want in Want::ALL {
            for cell in cells.iter().filter(|cell| cell.scenario == scenario) {
                let is_first = before.replace(scenario) != Some(scenario);
                let first = if is_first { scenario.words() } else { "" };
                rows.push((cell, want, cell.figures(want), first.to_owned()));
            }
        }
    }
    rows
}

/// Which errors users were told.
fn failures(cells: &[Cell]) -> Vec<String> {
    let of = |cell: &Cell| {
        let told: Vec<String> = cell
            .all
            .failed
            .iter()
            .map(|(trouble, count)| format!("{count} {}", trouble.words()))
            .collect();
        let (scenario, way) = (cell.scenario.words(), cell.way.words());
        (!told.is_empty()).then(|| format!("failed: {scenario}, {way}: {}", told.join(", ")))
    };
    cells.iter().filter_map(of).collect()
}

fn findings(verdict: &Verdict) -> String {
    let mut text = "What is said of the two ways, and whether these figures show it\n\n".to_owned();
    for finding in &verdict.findings {
        let way = match finding.way {
            Way::Sync => "sync: ",
            Way::Async => "async:",
        };
        let line = format!(
            "{way} {} - {}: {}",
            finding.claim,
            finding.shown.words(),
            finding.because
        );
        text += &wrapped(&line, "  ");
    }
    text
}

/// A table without lines, so that it reads as well in a pipe as on a terminal. All columns but the first three hold numbers.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().copied());
    for index in 3..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A spread in words.
struct Times {
    p50: String,
    p99: String,
    max: String,
}

impl Times {
    fn of(spread: Option<Spread>) -> Self {
        let told = |of: fn(Spread) -> f64| spread.map_or("-".to_owned(), |s| time(of(s)));
        Self {
            p50: told(|s| s.p50_ms),
            p99: told(|s| s.p99_ms),
            max: told(|s| s.max_ms),
        }
    }
}

/// A paragraph in lines; all but the first are indented. A number stays with its unit.
fn wrapped(text: &str, indent: &str) -> String {
    const GLUE: &str = "\u{a0}";
    let mut text = text.to_owned();
    for unit in ["ms", "s"] {
        for end in [" ", ",", ";", ":", "."] {
            text = text.replace(&format!(" {unit}{end}"), &format!("{GLUE}{unit}{end}"));
        }
    }
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let word = word.replace(GLUE, " ");
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            lines.push('\n');
            lines.push_str(indent);
            width = indent.len();
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(&word);
        width += length;
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_broken_between_words_and_loses_none() {
        let text = "word ".repeat(60);
        let wrapped = wrapped(text.trim(), "  ");
        assert!(wrapped.lines().all(|line| line.chars().count() <= WIDTH));
        assert!(
            wrapped
                .lines()
                .skip(1)
                .all(|line| line.starts_with("  word"))
        );
        assert_eq!(wrapped.split_whitespace().count(), 60);
    }

    #[test]
    fn a_number_stays_with_its_unit() {
        let text = "it took 85 ms, then 1.2 s and no more; ".repeat(20);
        for line in wrapped(&text, "").lines() {
            assert!(!line.starts_with("ms") && !line.starts_with("s "), "{line}");
        }
    }
}
