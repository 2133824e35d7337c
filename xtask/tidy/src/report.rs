//! The table of measures, and the findings of those that fail.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::ceilings::Verdict;
use crate::finding::Finding;
use crate::measure::Measured;

/// The most findings that are listed of a measure that exceeds its ceiling.
const WORST: usize = 15;

/// The text of a report, and whether every measure passes.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) failed: bool,
}

impl Report {
    /// Reports the table, the worst findings of each measure above its ceiling, and every finding of the measures in `listed`.
    pub(crate) fn new(measured: &[Measured], listed: &[String]) -> Self {
        let mut report = Self::default();
        report.line(&format!(
            "{:<20} {:>9} {:>9} {:>6}  unit",
            "measure", "value", "ceiling", "goal"
        ));
        for measure in measured {
            report.row(measure);
        }
        for measure in measured {
            let name = measure.ceiling.measure;
            let verdict = measure.ceiling.judge(measure.value);
            report.failed |= verdict != Verdict::Within;
            if let Verdict::Lower(lower) = verdict {
                let today = measure.ceiling.ceiling;
                let text = format!(
                    "{name}: lower its ceiling, {today:.1}, to {lower:.1} in xtask/tidy/src/ceilings.rs"
                );
                report.line(&format!("\n{text}"));
            }
            let findings = worst(&measure.findings);
            if listed.iter().any(|listed| listed == name) {
                report.findings(&format!("{name}:"), &findings);
            } else if verdict == Verdict::Exceeded {
                let head = format!("{name}, the worst (all: cargo xtask tidy {name}):");
                report.findings(&head, &findings[..findings.len().min(WORST)]);
            }
        }
        report
    }

    fn row(&mut self, measure: &Measured) {
        let ceiling = &measure.ceiling;
        let mark = match ceiling.judge(measure.value) {
            Verdict::Within => "",
            Verdict::Exceeded => "  EXCEEDED",
            Verdict::Lower(_) => "  LOWER THE CEILING",
        };
        self.line(&format!(
            "{:<20} {:>9.2} {:>9.1} {:>6.1}  {}{mark}",
            ceiling.measure, measure.value, ceiling.ceiling, ceiling.goal, ceiling.unit
        ));
    }

    fn findings(&mut self, head: &str, findings: &[&Finding]) {
        self.line(&format!("\n{head}"));
        for finding in findings {
            self.line(&format!(
                "{}:{}: {}",
                finding.path, finding.line, finding.text
            ));
        }
    }

    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// The findings by weight, then by the number of findings in their files.
fn worst(findings: &[Finding]) -> Vec<&Finding> {
    let mut in_file: HashMap<&str, usize> = HashMap::new();
    for finding in findings {
        *in_file.entry(&finding.path).or_default() += 1;
    }
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.weight, in_file[finding.path.as_str()]);
        key(b)
            .cmp(&key(a))
            .then_with(|| (&a.path, a.line).cmp(&(&b.path, b.line)))
    });
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ceilings::Ceiling;

    fn measured(value: f64) -> Measured {
        Measured {
            ceiling: Ceiling {
                measure: "sample",
                ceiling: 2.0,
                goal: 0.0,
                unit: "findings",
            },
            value,
            findings: vec![Finding::new("a.rs", 7, "the finding")],
        }
    }

    #[test]
    fn measure_above_its_ceiling_fails() {
        let report = Report::new(&[measured(3.0)], &[]);
        assert!(report.failed);
        assert!(report.text.contains("EXCEEDED"), "{}", report.text);
        assert!(
            report.text.ends_with("\na.rs:7: the finding\n"),
            "{}",
            report.text
        );
    }

    #[test]
    fn measure_far_below_its_ceiling_fails() {
        let report = Report::new(&[measured(1.0)], &[]);
        assert!(report.failed);
        assert!(
            report
                .text
                .contains("sample: lower its ceiling, 2.0, to 1.0"),
            "{}",
            report.text
        );
    }

    #[test]
    fn listed_measure_shows_its_places() {
        let within = Report::new(&[measured(2.0)], &[]);
        assert!(
            !within.failed && !within.text.contains("a.rs"),
            "{}",
            within.text
        );
        let listed = Report::new(&[measured(2.0)], &["sample".to_owned()]);
        assert!(
            !listed.failed && listed.text.contains("a.rs:7: the finding"),
            "{}",
            listed.text
        );
    }

    #[test]
    fn worst_places_come_first() {
        let findings = [
            Finding::new("a.rs", 1, "one of one"),
            Finding::new("b.rs", 7, "second of two"),
            Finding::new("b.rs", 2, "first of two"),
            Finding::new("c.rs", 3, "heavy").with_weight(3),
        ];
        let texts: Vec<&str> = worst(&findings)
            .iter()
            .map(|finding| finding.text.as_str())
            .collect();
        assert_eq!(
            texts,
            ["heavy", "first of two", "second of two", "one of one"]
        );
    }
}
