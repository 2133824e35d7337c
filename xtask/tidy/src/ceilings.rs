//! The ceilings of all measures. Each falls with its value until it is at its goal, and never rises.

/// The bound of a measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ceiling {
    /// The measure's name, in the table and on the command line.
    pub(crate) measure: &'static str,
    /// The greatest value that passes.
    pub(crate) ceiling: f64,
    /// The value at which the ceiling stays.
    pub(crate) goal: f64,
    /// The unit of all three numbers.
    pub(crate) unit: &'static str,
}

/// The share of its ceiling by which a value may stay below it before the ceiling has to be lowered.
const SLACK: f64 = 0.1;

const fn ceiling(measure: &'static str, ceiling: f64, goal: f64, unit: &'static str) -> Ceiling {
    Ceiling {
        measure,
        ceiling,
        goal,
        unit,
    }
}

pub(crate) const CEILINGS: [Ceiling; 9] = [
    ceiling("openings", 4.0, 4.0, "% of comment blocks"),
    ceiling("nameless", 1.0, 1.0, "per 1,000 words"),
    ceiling("short-comments", 8.0, 8.0, "% of comment blocks"),
    ceiling("long-functions", 0.0, 0.0, "functions"),
    ceiling("long-test-functions", 0.0, 0.0, "functions"),
    ceiling("circles", 0.0, 0.0, "files in circles"),
    ceiling("long-test-names", 0.0, 0.0, "tests"),
    ceiling("retired-names", 0.0, 0.0, "identifiers"),
    ceiling("retired-texts", 0.0, 0.0, "texts"),
];

/// The comparison of a value with its ceiling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Within,
    Exceeded,
    /// The value is so far below the ceiling that the ceiling has to be lowered, to this.
    Lower(f64),
}

impl Ceiling {
    pub(crate) fn judge(&self, value: f64) -> Verdict {
        if value > self.ceiling {
            return Verdict::Exceeded;
        }
        let lowered = round_up(value).max(self.goal);
        if self.ceiling > self.goal && value < self.ceiling * (1.0 - SLACK) {
            return Verdict::Lower(lowered);
        }
        Verdict::Within
    }
}

/// The value with one decimal, rounded up, so that a ceiling of that number is not exceeded.
fn round_up(value: f64) -> f64 {
    // The subtrahend keeps a value that has one decimal already from being rounded to the next.
    (value * 10.0 - 1e-6).ceil() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Ceiling = ceiling("sample", 20.0, 4.0, "%");

    #[test]
    fn value_above_ceiling_is_exceeded() {
        assert_eq!(SAMPLE.judge(20.1), Verdict::Exceeded);
        assert_eq!(SAMPLE.judge(20.0), Verdict::Within);
    }

    #[test]
    fn far_lower_value_lowers_ceiling() {
        assert_eq!(SAMPLE.judge(18.0), Verdict::Within);
        assert_eq!(SAMPLE.judge(17.92), Verdict::Lower(18.0));
        assert_eq!(SAMPLE.judge(12.3), Verdict::Lower(12.3));
    }

    #[test]
    fn ceiling_stays_at_its_goal() {
        assert_eq!(SAMPLE.judge(1.0), Verdict::Lower(4.0));
        let at_goal = ceiling("sample", 4.0, 4.0, "%");
        assert_eq!(at_goal.judge(1.0), Verdict::Within);
        assert_eq!(at_goal.judge(4.01), Verdict::Exceeded);
    }

    #[test]
    fn measures_have_distinct_names() {
        for (index, ceiling) in CEILINGS.iter().enumerate() {
            assert!(
                CEILINGS[..index]
                    .iter()
                    .all(|c| c.measure != ceiling.measure)
            );
            assert!(ceiling.goal <= ceiling.ceiling, "{}", ceiling.measure);
        }
    }
}
