//! The first pass over a file: it checks the whole file, and assigns every row to a source.

use std::collections::HashMap;

use doorstep_cli::CliError;
use doorstep_event::Source;
use sha2::{Digest, Sha256};

use super::{
    history::{History, RowDigest, Run, Units},
    input::{Fingerprint, Input},
    mapping::RowMapper,
    source::{self, Rows},
    table::{Layout, Row, Table},
};
use crate::progress::{Progress, Unit as Counted};

/// The number of rows between two updates of the progress display.
const ROWS_PER_TICK: u64 = 4096;
/// The limit of distinct reasons; a file has a handful.
const MAX_REASONS: usize = 100;

/// The part of each unit, by its index among the parts.
type PartOf = HashMap<Box<[u8]>, usize>;

/// The result of the first pass.
pub(crate) struct FirstPass<M> {
    pub(crate) rows: u64,
    /// The hash of the content, which shows a change before the second pass.
    pub(crate) fingerprint: Fingerprint,
    /// The parts of the units.
    pub(crate) part_of: PartOf,
    /// The sources of the file's rows.
    pub(crate) parts: Vec<Part<M>>,
    mapping: M,
}

impl<M: RowMapper> FirstPass<M> {
    /// Returns the part of a row.
    ///
    /// # Errors
    /// The reason why the row is in none.
    pub(crate) fn part_mut(&mut self, row: &Row<'_>) -> Result<&mut Part<M>, String> {
        let unit = self.mapping.unit(row)?;
        let part = self.part_of.get(unit);
        let part = part.and_then(|part| self.parts.get_mut(*part));
        part.ok_or_else(|| format!("its {} was not in the file in the first pass", M::UNIT))
    }
}

/// Rows that are numbered together.
pub(crate) enum Part<M> {
    /// Rows of a source, to be published.
    Sent {
        source: Source,
        /// The mapping that makes the events.
        mapping: M,
        /// True if an earlier import has published at least a part of them.
        is_known: bool,
    },
    /// Rows that an earlier import has published among others that this file lacks, so that they cannot be numbered
    /// again.
    Kept {
        /// The source that they were published under.
        source: Source,
    },
}

/// The state of a unit while the file is read.
#[derive(Default)]
struct UnitState {
    rows: u64,
    digests: Vec<RowDigest>,
    run: Option<usize>,
}

/// The conditions on which a file as a whole is accepted.
pub(crate) struct Terms<'a> {
    /// The name of a data set that grows, if the file is one.
    pub(crate) dataset: Option<&'a str>,
    /// The percentage of rows that may be rejected.
    pub(crate) max_refused_percent: f64,
}

/// Reads the file once. The new part, if there is one, is in the history afterwards.
///
/// # Errors
/// The file is invalid, contradicts earlier imports, or has too many rows that would be rejected.
pub(crate) fn first_pass<M: RowMapper>(
    mapping: &M,
    input: &Input,
    layout: &Layout,
    history: Option<&mut History>,
    terms: &Terms<'_>,
) -> Result<FirstPass<M>, CliError> {
    let mut progress = Progress::new("checking", Counted::Bytes, Some(input.bytes));
    let mut table = Table::open(input, M::COLUMNS, layout)?;
    let runs = history.as_ref().map_or(0, |history| history.runs.len());
    let mut reading = Reading {
        mapping,
        input,
        terms,
        history: history.as_deref(),
        units: HashMap::new(),
        // One for each earlier import, and one for the new rows.
        rows_of: (0..=runs).map(|_| Rows::new::<M>()).collect(),
        has_new: false,
        rejections: Rejections::default(),
        form: Vec::new(),
    };
    let mut rows = 0;
    while let Some(row) = table.next()? {
        reading.take(&row)?;
        rows += 1;
        if rows % ROWS_PER_TICK == 0 {
            progress.set(table.position());
        }
    }
    progress.finish();
    let Reading {
        units,
        rows_of,
        rejections,
        ..
    } = reading;
    rejections.check(input, rows, terms)?;
    let (part_of, parts) = divide(mapping, input, units, rows_of, history, terms)?;
    Ok(FirstPass {
        rows,
        fingerprint: table.fingerprint(),
        part_of,
        parts,
        mapping: mapping.begin(HashMap::new()),
    })
}

/// The state of the first pass.
struct Reading<'a, M> {
    mapping: &'a M,
    input: &'a Input,
    terms: &'a Terms<'a>,
    history: Option<&'a History>,
    units: HashMap<Box<[u8]>, UnitState>,
    rows_of: Vec<Rows>,
    has_new: bool,
    rejections: Rejections,
    form: Vec<u8>,
}

impl<M: RowMapper> Reading<'_, M> {
    fn take(&mut self, row: &Row<'_>) -> Result<(), CliError> {
        let unit = match self.mapping.unit(row) {
            Ok(unit) => unit,
            Err(reason) => {
                self.rejections.add(row.line, reason);
                return Ok(());
            }
        };
        let seen = match self.units.get_mut(unit) {
            Some(seen) => seen,
            None => self.units.entry(unit.into()).or_default(),
        };
        seen.rows += 1;
        self.form.clear();
        if let Err(reason) = self.mapping.normalise(row, &mut self.form) {
            self.rejections.add(row.line, reason);
            return Ok(());
        }
        let hash: [u8; 32] = Sha256::digest(&self.form).into();
        let mut digest = [0; 8];
        digest.copy_from_slice(&hash[..8]);
        let digest = RowDigest::from_be_bytes(digest);
        match self.history.and_then(|history| history.unit(unit)) {
            None => {
                self.has_new = true;
                if let Some(rows) = self.rows_of.last_mut() {
                    rows.add(&hash);
                }
            }
            Some((run, known)) => {
                let is_in_place = self.terms.dataset.is_none() || !self.has_new;
                if known.get(seen.digests.len()) != Some(&digest) || !is_in_place {
                    return Err(self.contradiction(row, unit, run, known.len(), is_in_place));
                }
                seen.run = Some(run);
                self.rows_of[run].add(&hash);
            }
        }
        seen.digests.push(digest);
        Ok(())
    }

    fn contradiction(
        &self,
        row: &Row<'_>,
        unit: &[u8],
        run: usize,
        known: usize,
        is_in_place: bool,
    ) -> CliError {
        let before = self.history.map_or("", |h| h.runs[run].file.as_str());
        let what = if is_in_place {
            format!(
                "differs from the row imported before from {before} (with {known} rows of {} {})",
                M::UNIT,
                String::from_utf8_lossy(unit)
            )
        } else {
            "was imported before, but comes after new rows: a data set may only grow at its end"
                .to_owned()
        };
        contradicts(self.input, &format!("line {} {what}", row.line))
    }
}

/// Returns the source of each unit.
fn divide<M: RowMapper>(
    mapping: &M,
    input: &Input,
    units: HashMap<Box<[u8]>, UnitState>,
    mut rows_of: Vec<Rows>,
    history: Option<&mut History>,
    terms: &Terms<'_>,
) -> Result<(PartOf, Vec<Part<M>>), CliError> {
    let new_run = rows_of.len() - 1;
    let mut found = vec![0; new_run];
    let mut new = Units::new();
    let mut rows_to_come = vec![HashMap::new(); new_run + 1];
    let mut part_of = HashMap::with_capacity(units.len());
    for (unit, seen) in units {
        let known = history.as_deref().and_then(|history| history.unit(&unit));
        match known {
            Some((run, digests)) if seen.digests.len() == digests.len() => found[run] += 1,
            Some((_, digests)) => {
                let unit = String::from_utf8_lossy(&unit);
                let (now, before) = (seen.digests.len(), digests.len());
                let kind = M::UNIT;
                return Err(contradicts(
                    input,
                    &format!(
                        "{kind} {unit} has {now} rows, and had {before} when it was imported before"
                    ),
                ));
            }
            None => {
                new.insert(unit.clone(), seen.digests);
            }
        }
        // A data set has one source, whenever its rows came.
        let part = match terms.dataset {
            Some(_) => 0,
            None => seen.run.unwrap_or(new_run),
        };
        rows_to_come[part].insert(unit.clone(), seen.rows);
        part_of.insert(unit, part);
    }
    let known: &[Run] = history.as_deref().map_or(&[], |history| &history.runs);
    let mut parts = Vec::with_capacity(new_run + 1);
    let mut rows_to_come = rows_to_come.into_iter();
    let mut begin = || mapping.begin(rows_to_come.next().unwrap_or_default());
    if let Some(dataset) = terms.dataset {
        if found.iter().sum::<usize>() < known.iter().map(|run| run.units).sum() {
            let kind = M::UNIT;
            return Err(contradicts(
                input,
                &format!(
                    "some {kind} that was imported before is not in it any more: a data set may only grow"
                ),
            ));
        }
        parts.push(Part::Sent {
            source: source::of_dataset::<M>(dataset)
                .map_err(|e| CliError::settings(format!("--dataset: {e}")))?,
            mapping: begin(),
            is_known: !known.is_empty(),
        });
    } else {
        let last = rows_of.pop();
        for ((run, rows), found) in known.iter().zip(rows_of).zip(found) {
            let mapping = begin();
            // The numbers follow from the order of the rows, which the source's name stands for.
            let is_whole = found == run.units && rows.source::<M>().is_ok_and(|s| s == run.source);
            let source = run.source.clone();
            parts.push(if is_whole {
                Part::Sent {
                    source,
                    mapping,
                    is_known: true,
                }
            } else {
                Part::Kept { source }
            });
        }
        let source = last.unwrap_or_else(Rows::new::<M>).source::<M>();
        parts.push(Part::Sent {
            source: source.map_err(|e| CliError::internal(e.to_string()))?,
            mapping: begin(),
            is_known: false,
        });
    }
    let has_new = new.values().any(|digests| !digests.is_empty());
    if let (Some(history), Some(Part::Sent { source, .. }), true) = (history, parts.last(), has_new)
    {
        history.begin(source, &input.path, &new)?;
    }
    Ok((part_of, parts))
}

fn contradicts(input: &Input, what: &str) -> CliError {
    CliError::data(format!(
        "{} contradicts an earlier import: {what}. Nothing was sent. If these are other sales, give them a name of their own with --dataset NAME",
        input.path.display()
    ))
}

/// The rows that would be rejected, by reason.
#[derive(Default)]
struct Rejections {
    count: u64,
    reasons: HashMap<String, Reasoned>,
}

/// A reason, as it was first given.
struct Reasoned {
    count: u64,
    first_line: u64,
    text: String,
}

impl Rejections {
    fn add(&mut self, line: u64, reason: String) {
        self.count += 1;
        let kind = without_values(&reason);
        if self.reasons.len() >= MAX_REASONS && !self.reasons.contains_key(&kind) {
            return;
        }
        let reasoned = self.reasons.entry(kind).or_insert(Reasoned {
            count: 0,
            first_line: line,
            text: reason,
        });
        reasoned.count += 1;
    }

    fn check(self, input: &Input, rows: u64, terms: &Terms<'_>) -> Result<(), CliError> {
        let percent = 100.0 * self.count as f64 / rows.max(1) as f64;
        if self.count == 0 || (self.count < rows && percent <= terms.max_refused_percent) {
            return Ok(());
        }
        let all = self.reasons.into_values();
        let commonest = all.max_by_key(|reasoned| (reasoned.count, u64::MAX - reasoned.first_line));
        let commonest = commonest.map_or_else(String::new, |reasoned| {
            format!(
                "; the most common reason, of {} rows from line {} on: {}",
                reasoned.count, reasoned.first_line, reasoned.text
            )
        });
        let bound = if self.count == rows {
            String::new()
        } else {
            format!(", more than --max-refused {}", terms.max_refused_percent)
        };
        Err(CliError::data(format!(
            "{}: {} of {rows} rows would be refused{bound}, so nothing was sent{commonest}",
            input.path.display(),
            self.count
        )))
    }
}

/// Returns a reason without the parts that differ by row: digits, and text in quotation marks.
fn without_values(reason: &str) -> String {
    let outside = reason.split('"').step_by(2);
    let mut kind: String = outside.collect::<Vec<_>>().join("\"");
    kind.retain(|c| !c.is_ascii_digit());
    kind
}
