//! Parses the output of `cargo test` line by line: counts, measurements, and the output to show of a binary with failed
//! tests.

use std::mem;

/// The prefix of a line with a measurement of a test, such as a duration, that is shown without failing.
const MEASURED: &str = "measured: ";

/// The tests of one binary, or the examples in one crate's documentation.
#[derive(Debug, Default)]
pub(crate) struct Section {
    /// The name, such as `doorstep_event (src/lib.rs)`.
    pub(crate) name: String,
    pub(crate) result: Option<Counts>,
    pub(crate) lines: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// The time as printed: `0.05s`.
    pub(crate) time: String,
}

/// Parses the lines in order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    current: Option<Section>,
    /// The lines before the first section or between two: Cargo's own output.
    pub(crate) other: Vec<String>,
}

impl Report {
    /// Takes a line; returns a section when this line ends it. A section also ends where the next begins: a binary that
    /// crashed prints no result.
    pub(crate) fn take(&mut self, line: String) -> Option<Section> {
        if let Some(name) = section_name(&line) {
            let next = Section {
                name,
                ..Section::default()
            };
            return self.current.replace(next);
        }
        let Some(section) = &mut self.current else {
            self.other.push(line);
            return None;
        };
        section.result = counts(&line);
        section.lines.push(line);
        section.result.as_ref()?;
        self.current.take()
    }

    /// Returns the section that was incomplete when the output ended.
    pub(crate) fn end(&mut self) -> Option<Section> {
        mem::take(&mut self.current)
    }
}

impl Section {
    pub(crate) fn has_failed(&self) -> bool {
        self.result.as_ref().is_none_or(|counts| counts.failed > 0)
    }

    /// Returns all lines except those of passed tests.
    pub(crate) fn details(&self) -> impl Iterator<Item = &str> {
        let of_others = self.lines_by_origin().filter(|(of_passed, _)| !of_passed);
        let lines = of_others.map(|(_, line)| line);
        lines.filter(|line| !(line.starts_with("test ") && line.ends_with("... ok")))
    }

    /// Returns the measurements of passed tests.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &str> {
        let of_passed = self.lines_by_origin().filter(|(of_passed, _)| *of_passed);
        of_passed.filter_map(|(_, line)| line.strip_prefix(MEASURED))
    }

    /// Returns every line, with true for output of passed tests: that comes first, between two headings like this.
    fn lines_by_origin(&self) -> impl Iterator<Item = (bool, &str)> {
        let mut of_passed = false;
        self.lines.iter().map(move |line| {
            match line.as_str() {
                "successes:" => of_passed = true,
                "failures:" => of_passed = false,
                other if counts(other).is_some() => of_passed = false,
                _ => {}
            }
            (of_passed, line.as_str())
        })
    }
}

/// Parses `Running unittests src/lib.rs (target/debug/deps/some_crate-0123456789abcdef)`, `Running tests/some.rs
/// (...)`, `Doc-tests some_crate`.
fn section_name(line: &str) -> Option<String> {
    let line = line.strip_prefix("  ")?.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} (documentation)"));
    }
    let (source, binary) = line.strip_prefix("Running ")?.split_once(" (")?;
    let source = source.strip_prefix("unittests ").unwrap_or(source);
    let file = binary.trim_end_matches(')').rsplit('/').next()?;
    let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
    Some(format!("{name} ({source})"))
}

/// Parses `test result: ok. 17 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.05s`
fn counts(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, rest) = rest.split_once(". ")?;
    let mut counts = Counts::default();
    for part in rest.split("; ") {
        if let Some(time) = part.strip_prefix("finished in ") {
            counts.time = time.to_owned();
            continue;
        }
        let (number, what) = part.split_once(' ')?;
        let number = number.parse().ok()?;
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.ignored = number,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "   Compiling some_crate v0.1.0
     Running unittests src/lib.rs (target/debug/deps/some_crate-0123456789abcdef)

running 2 tests
test one ... ok
test other ... FAILED

successes:

---- one stdout ----
seen by the way
measured: back after 1 s


successes:
    one

failures:

---- other stdout ----
measured: in vain


failures:
    other

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.05s

error: test failed, to rerun pass `-p some_crate --lib`
     Running tests/crash.rs (target/debug/deps/crash-0123456789abcdef)

running 1 test
   Doc-tests some_crate

running 3 tests

successes:

---- three stdout ----
measured: nothing of note


successes:
    three

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    #[test]
    fn a_crash_counts_as_a_failure() {
        let mut report = Report::default();
        let mut sections: Vec<Section> = OUTPUT
            .lines()
            .filter_map(|line| report.take(line.to_owned()))
            .collect();
        sections.extend(report.end());
        let told: Vec<(&str, bool)> = sections
            .iter()
            .map(|section| (section.name.as_str(), section.has_failed()))
            .collect();
        assert_eq!(
            told,
            [
                ("some_crate (src/lib.rs)", true),
                ("crash (tests/crash.rs)", true),
                ("some_crate (documentation)", false),
            ]
        );
        let last = sections[2].result.clone().unwrap();
        assert_eq!(
            (last.passed, last.ignored, last.time.as_str()),
            (3, 1, "1.00s")
        );
        let details: Vec<&str> = sections[0].details().collect();
        assert!(details.contains(&"test other ... FAILED"));
        assert!(details.contains(&"measured: in vain"));
        for of_passed in [
            "test one ... ok",
            "seen by the way",
            "    one",
            "successes:",
        ] {
            assert!(!details.contains(&of_passed), "{details:#?}");
        }
        let measured: Vec<&str> = sections.iter().flat_map(Section::measured).collect();
        assert_eq!(measured, ["back after 1 s", "nothing of note"]);
        assert_eq!(report.other.len(), 3);
    }

    #[test]
    fn output_of_tests_is_no_section_or_result() {
        for line in ["Running late (by a minute)", "a test result: ok. 1 passed"] {
            assert_eq!(section_name(line), None);
            assert_eq!(counts(line), None);
        }
    }
}
