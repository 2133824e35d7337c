//! Compares exports and reports with the results that awk and Python compute from a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::workspace::{checked, root};

/// An export.
pub(super) struct Export<'a> {
    /// The role that has written it.
    pub(super) role: &'a str,
    pub(super) text: &'a str,
    /// The required number of lines.
    pub(super) count: usize,
}

/// Compares every line of these exports with the result of a program in `xtask/data`, and checks that there are no
/// others.
///
/// # Errors
/// The first entity that differs.
pub(super) fn compare(file: &Path, program: &str, exports: &[Export<'_>]) -> Result<()> {
    let mut expected = by_awk(file, program)?;
    for Export {
        role: name,
        text: export,
        count,
    } in exports
    {
        let mut last: Option<&str> = None;
        for line in export.lines() {
            let key = line
                .strip_prefix(r#"{"key":""#)
                .and_then(|rest| rest.split_once(r#"","state":"#))
                .with_context(|| {
                    format!("the export of {name} has a line of another form: {line}")
                })?
                .0;
            ensure!(
                last.is_none_or(|last| last < key),
                "the export of {name} is not sorted at {key}"
            );
            last = Some(key);
            let begins = expected
                .remove(key)
                .with_context(|| format!("{key} is in the export of {name} and not in the file"))?;
            ensure!(
                line.starts_with(&begins),
                "{key} is exported as\n{line}\nwhich should begin with\n{begins}"
            );
        }
        let found = export.lines().count();
        ensure!(
            found == *count,
            "the export of {name} has {found} entities, not {count}"
        );
    }
    if let Some((key, _)) = expected.first_key_value() {
        bail!("{key} is in the file, but in no export");
    }
    Ok(())
}

/// Compares a report with the one of a program in `xtask/data`: the totals in JSON, and every line of the CSV.
///
/// # Errors
/// The totals, or the first line that differs.
pub(super) fn compare_report(file: &Path, program: &str, total: &Value, csv: &str) -> Result<()> {
    let expected = computed(file, "python3", &[], program)?;
    let (expected_total, expected) = expected.split_once('\n').context("no totals")?;
    let expected_total: Value = serde_json::from_str(expected_total)?;
    ensure!(
        *total == expected_total,
        "the report's totals are\n{total}\nand should be\n{expected_total}"
    );
    let mut lines = csv.lines().zip(expected.lines()).zip(1..);
    if let Some(((found, expected), number)) =
        lines.find(|((found, expected), _)| found != expected)
    {
        bail!("line {number} of the report is\n{found}\nand should be\n{expected}");
    }
    ensure!(
        csv.len() == expected.len(),
        "the report's number of lines differs"
    );
    Ok(())
}

/// Compares the lines of a report, in any order, with those of a program in `xtask/data`.
///
/// # Errors
/// The first line that is on one side only.
pub(super) fn compare_lines(file: &Path, program: &str, report: &str) -> Result<()> {
    let expected = by_awk(file, program)?;
    let expected: BTreeSet<&str> = expected.values().map(String::as_str).collect();
    let found: BTreeSet<&str> = report.lines().collect();
    match expected.symmetric_difference(&found).next() {
        None => Ok(()),
        Some(line) => bail!("either the report or {program} lacks {line}"),
    }
}

/// Returns the required beginning of each entity's line in the export.
fn by_awk(file: &Path, program: &str) -> Result<BTreeMap<String, String>> {
    let text = computed(file, "awk", &["-f"], program)?;
    text.lines()
        .map(|line| {
            let (key, begins) = line
                .split_once('\t')
                .with_context(|| format!("awk printed {line}"))?;
            Ok((key.to_owned(), begins.to_owned()))
        })
        .collect()
}

/// Returns the output of a program in `xtask/data` for an unpacked file.
fn computed(file: &Path, language: &str, options: &[&str], program: &str) -> Result<String> {
    let mut unpacked = Command::new("gzip")
        .arg("-dc")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip")?;
    let input = unpacked.stdout.take().context("gzip has no output")?;
    let output = Command::new(language)
        .args(options)
        .arg(root().join("xtask/data").join(program))
        .env("LC_ALL", "C")
        .stdin(input)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {language}"))?;
    checked("gzip", unpacked.wait()?)?;
    checked(language, output.status)?;
    String::from_utf8(output.stdout).with_context(|| format!("{language} printed invalid UTF-8"))
}
