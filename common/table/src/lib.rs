//! Tables for people: they fit a terminal of any width, and break no word, number or id.
//!
//! A table that is too wide gives way in this order: its prose is cut between two words, optional columns are left off, rows and columns
//! change places, each row becomes a list of `NAME: value`. Where standard output is no terminal, a table has the width that it needs.
//!
//! The cells are printed as they are: what comes from outside is made safe for a terminal before.

mod text;

use std::{fmt, io};

use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthStr;

pub use text::{fields, wrapped};

use text::{cut, push_field};

/// The blanks between two columns.
const GAP: usize = 2;
/// The least width in which prose is worth showing.
const MIN_PROSE: usize = 24;
/// The widest first word for which prose gets the room.
const MAX_FIRST_WORD: usize = 30;

/// The width of the terminal at standard output, in columns; `None` where that is no terminal.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(io::stdout())?;
    // Some terminals that do not know their size say 0.
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// A column of a table.
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
    /// A column of names, ids or times: flush left and never cut.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self::new(name, Kind::Text)
    }

    /// A column of numbers: flush right and never cut.
    #[must_use]
    pub const fn number(name: &'static str) -> Self {
        Self::new(name, Kind::Number)
    }

    /// A column of sentences, which may be cut between two words. It has to be the last of its table.
    #[must_use]
    pub const fn prose(name: &'static str) -> Self {
        Self::new(name, Kind::Prose)
    }

    /// The column as one that may be left off: the rightmost goes first, and prose where its least width is not there.
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

/// A table without lines, so that it reads as well in a pipe as on a terminal. `Display` fits it to the terminal at standard output.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty, further ones are dropped. A cell may have several lines.
    pub fn add_row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let mut row: Vec<_> = cells.into_iter().map(Into::into).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the table in this width, in columns of a terminal; `None` is any width. The last line has no line break.
    #[must_use]
    pub fn fitted(&self, width: Option<usize>) -> String {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let Some(width) = width else {
            return self.side_by_side(&all, None);
        };
        if let Some((shown, prose)) = self.shown(width) {
            let mut text = self.side_by_side(&shown, prose);
            let left_off: Vec<_> = all
                .iter()
                .filter(|column| !shown.contains(column))
                .map(|column| self.columns[*column].name)
                .collect();
            if !left_off.is_empty() {
                let note = format!(
                    "Not shown for want of width: {}; a wider terminal or --json shows them.",
                    left_off.join(", ")
                );
                text.push('\n');
                text.push_str(&wrapped(&note, Some(width), ""));
            }
            return text;
        }
        let turned = self.turned();
        let is_short = self.rows.len() > 1 && turned.total_width() <= width;
        if is_short {
            return turned.side_by_side(&(0..turned.columns.len()).collect::<Vec<_>>(), None);
        }
        self.list(width)
    }

    /// The columns to show side by side, with the width of prose that is cut; `None` where they do not fit.
    fn shown(&self, width: usize) -> Option<(Vec<usize>, Option<usize>)> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let is_prose = |column: &&usize| self.columns[**column].kind == Kind::Prose;
        let Some(prose) = shown.last().filter(is_prose).copied() else {
            return self.beside(shown, width).map(|(shown, _)| (shown, None));
        };
        shown.pop();
        let needed = self.width_of(prose);
        let least = needed.min(self.least_of(prose));
        let rest = width.checked_sub(least + GAP);
        if let Some((mut shown, used)) = rest.and_then(|rest| self.beside(shown.clone(), rest)) {
            let room = width - used - GAP;
            shown.push(prose);
            return Some((shown, (needed > room).then_some(room)));
        }
        let may_go = self.columns[prose].is_optional;
        let (shown, _) = may_go.then(|| self.beside(shown, width))??;
        Some((shown, None))
    }

    /// As many of these columns as fit beside each other, optional ones left off from the right, and the width that they need.
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

    /// The least width of prose that is cut: in most rows some words have to fit.
    fn least_of(&self, prose: usize) -> usize {
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

    /// The table with rows and columns in each other's place. Lines of a cell would become unclear, so such a table is as wide as its text.
    fn turned(&self) -> Self {
        let is_number = |column: &Column| column.kind == Kind::Number;
        let kind = if self.columns.iter().skip(1).all(is_number) {
            Kind::Number
        } else {
            Kind::Text
        };
        let mut columns = vec![Column::text("")];
        columns.resize(self.rows.len() + 1, Column::new("", kind));
        let mut turned = Self::new(columns);
        for (number, column) in self.columns.iter().enumerate() {
            let cells = self.rows.iter().map(|row| row[number].replace('\n', " "));
            turned.add_row(std::iter::once(column.name.to_owned()).chain(cells));
        }
        turned
    }

    /// A block for each row, with a line for each column.
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

    /// The width of a column that is not cut.
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
