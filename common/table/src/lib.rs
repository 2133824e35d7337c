//! Tables for terminals of any width, without breaking words, numbers or ids.
//!
//! A table that is too wide is reduced in this order: prose is cut between words, optional columns are omitted, rows and columns are
//! transposed, each row becomes a list of `NAME: value`. If standard output is not a terminal, the table has its full width.
//!
//! Cells are printed unchanged: callers make foreign text safe for terminals first.

mod text;

use std::{fmt, io};

use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

pub use text::{fields, wrapped};

use text::{cut, push_field};

/// Spaces between two columns.
const GAP: usize = 2;
/// Minimum useful width of prose.
const MIN_PROSE: usize = 24;
/// Widest first word for which prose is widened.
const MAX_FIRST_WORD: usize = 30;

/// Returns the terminal's width in columns; `None` if standard output is not a terminal.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(io::stdout())?;
    // Some terminals of unknown size report 0.
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    kind: Kind,
    is_optional: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Prose,
}

impl Column {
    /// Creates a column of names, ids or times: left-aligned and never cut.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self::new(name, Kind::Text)
    }

    /// Creates a column of numbers: right-aligned and never cut.
    #[must_use]
    pub const fn number(name: &'static str) -> Self {
        Self::new(name, Kind::Number)
    }

    /// Creates a column of sentences, which may be cut between words. It must be the last column.
    #[must_use]
    pub const fn prose(name: &'static str) -> Self {
        Self::new(name, Kind::Prose)
    }

    /// Makes the column optional: the rightmost is omitted first, and prose if its minimum width is not available.
    #[must_use]
    pub const fn optional(self) -> Self {
        Self {
            is_optional: true,
            ..self
        }
    }

    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            is_optional: false,
        }
    }
}

/// A table without lines, readable in a pipe as well as on a terminal. `Display` fits it to the terminal at standard output.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty, extra ones are dropped. A cell may have several lines.
    pub fn add_row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let mut row: Vec<_> = cells.into_iter().map(Into::into).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Formats the table for the terminal; returns the text instead if it has no rows.
    #[must_use]
    pub fn or_text(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        self.to_string()
    }

    /// Formats the table for a width in terminal columns; `None` is unlimited. The last line has no line break.
    #[must_use]
    pub fn fitted(&self, width: Option<usize>) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let Some(width) = width else {
            return self.side_by_side(&all, None);
        };
        if let Some((shown, prose)) = self.shown(width) {
            let mut text = self.side_by_side(&shown, prose);
            let omitted: Vec<_> = all
                .iter()
                .filter(|column| !shown.contains(column))
                .map(|column| self.columns[*column].name)
                .collect();
            if !omitted.is_empty() {
                let note = format!(
                    "Not shown for lack of width: {}; use a wider terminal or --json.",
                    omitted.join(", ")
                );
                text.push('\n');
                text.push_str(&wrapped(&note, Some(width), ""));
            }
            return text;
        }
        let transposed = self.transposed();
        let is_short = self.rows.len() > 1 && transposed.total_width() <= width;
        if is_short {
            return transposed
                .side_by_side(&(0..transposed.columns.len()).collect::<Vec<_>>(), None);
        }
        self.list(width)
    }

    /// Returns the columns to show side by side, with the width of cut prose; `None` if they do not fit.
    fn shown(&self, width: usize) -> Option<(Vec<usize>, Option<usize>)> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let is_prose = |column: &&usize| self.columns[**column].kind == Kind::Prose;
        let Some(prose) = shown.last().filter(is_prose).copied() else {
            return self.beside(shown, width).map(|(shown, _)| (shown, None));
        };
        shown.pop();
        let needed = self.width_of(prose);
        let min = needed.min(self.min_width_of(prose));
        let rest = width.checked_sub(min + GAP);
        if let Some((mut shown, used)) = rest.and_then(|rest| self.beside(shown.clone(), rest)) {
            let room = width - used - GAP;
            shown.push(prose);
            return Some((shown, (needed > room).then_some(room)));
        }
        let may_go = self.columns[prose].is_optional;
        let (shown, _) = may_go.then(|| self.beside(shown, width))??;
        Some((shown, None))
    }

    /// Returns as many of these columns as fit side by side, omitting optional ones from the right, and their total width.
    fn beside(&self, mut columns: Vec<usize>, width: usize) -> Option<(Vec<usize>, usize)> {
        loop {
            let used = columns.iter().map(|column| self.width_of(*column) + GAP);
            let used = used.sum::<usize>().saturating_sub(GAP);
            if used <= width {
                return Some((columns, used));
            }
            let is_optional = |column: &usize| self.columns[*column].is_optional;
            columns.remove(columns.iter().rposition(is_optional)?);
        }
    }

    /// Returns the minimum width of cut prose: in most rows some words must fit.
    fn min_width_of(&self, prose: usize) -> usize {
        let first = |row: &Vec<String>| {
            row[prose]
                .split(' ')
                .next()
                .map_or(0, UnicodeWidthStr::width)
        };
        let first = self.rows.iter().map(first).max().unwrap_or(0) + GAP;
        let name = self.columns[prose].name.width();
        MIN_PROSE.max(name).max(first.min(MAX_FIRST_WORD))
    }

    /// Transposes the table. Line breaks within cells would be ambiguous, so the result is as wide as its text.
    fn transposed(&self) -> Self {
        let is_number = |column: &Column| column.kind == Kind::Number;
        let kind = if self.columns.iter().skip(1).all(is_number) {
            Kind::Number
        } else {
            Kind::Text
        };
        let mut columns = vec![Column::text("")];
        columns.resize(self.rows.len() + 1, Column::new("", kind));
        let mut transposed = Self::new(columns);
        for (number, column) in self.columns.iter().enumerate() {
            let cells = self.rows.iter().map(|row| row[number].replace('\n', " "));
            transposed.add_row(std::iter::once(column.name.to_owned()).chain(cells));
        }
        transposed
    }

    /// Formats a block per row, with a line per column.
    fn list(&self, width: usize) -> String {
        let names = self.columns.iter().map(|column| column.name.width());
        let indent = names.max().unwrap_or(0) + 1;
        let blocks = self.rows.iter().map(|row| {
            let mut block = String::new();
            for (column, cell) in self.columns.iter().zip(row) {
                push_field(
                    &mut block,
                    &format!("{}:", column.name),
                    cell,
                    indent,
                    Some(width),
                );
            }
            block.truncate(block.trim_end().len());
            block
        });
        blocks.collect::<Vec<_>>().join("\n\n")
    }

    fn side_by_side(&self, shown: &[usize], prose: Option<usize>) -> String {
        let widths: Vec<usize> = shown.iter().map(|column| self.width_of(*column)).collect();
        let mut lines = Vec::new();
        if self.columns.iter().any(|column| !column.name.is_empty()) {
            let names = shown.iter().map(|column| self.columns[*column].name);
            lines.push(self.line(shown, &widths, names));
        }
        for row in &self.rows {
            let cells: Vec<Vec<&str>> = shown
                .iter()
                .map(|column| row[*column].split('\n').collect())
                .collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            for line in 0..height {
                let texts = shown.iter().zip(&cells).map(|(column, cell)| {
                    let text = cell.get(line).copied().unwrap_or_default();
                    match prose {
                        Some(room) if self.columns[*column].kind == Kind::Prose => cut(text, room),
                        _ => text.into(),
                    }
                });
                lines.push(self.line(shown, &widths, texts));
            }
        }
        lines.join("\n")
    }

    fn line(
        &self,
        shown: &[usize],
        widths: &[usize],
        texts: impl Iterator<Item = impl AsRef<str>>,
    ) -> String {
        let mut line = String::new();
        for ((column, width), text) in shown.iter().zip(widths).zip(texts) {
            let text = text.as_ref();
            let blanks = " ".repeat(width.saturating_sub(text.width()));
            if self.columns[*column].kind == Kind::Number {
                line.push_str(&blanks);
                line.push_str(text);
            } else {
                line.push_str(text);
                line.push_str(&blanks);
            }
            line.push_str("  ");
        }
        line.truncate(line.trim_end().len());
        line
    }

    fn total_width(&self) -> usize {
        let all = (0..self.columns.len()).map(|column| self.width_of(column) + GAP);
        all.sum::<usize>().saturating_sub(GAP)
    }

    /// Returns the width of an uncut column.
    fn width_of(&self, column: usize) -> usize {
        let lines = self.rows.iter().flat_map(|row| row[column].split('\n'));
        let widest = lines.map(UnicodeWidthStr::width).max().unwrap_or(0);
        widest.max(self.columns[column].name.width())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fitted(terminal_width()))
    }
}

#[cfg(test)]
mod tests;
