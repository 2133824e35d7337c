//! A table in CSV, row by row: with true line numbers, in bounded memory, and with an end that is known to be one.
//!
//! The line of a row is the line that it begins on, the header being line 1; a quoted field may span several.

use csv_core::{ReadRecordResult, Reader};
use doorstep_program::{Failure, Reason};

use super::input::{Bytes, Fingerprint, Input};

/// The most bytes of one row. Whatever is longer is no row of a table but, most likely, a quote that nobody closed.
const MAX_ROW_BYTES: usize = 1024 * 1024;
/// The most fields of one row, well above any table read here.
const MAX_FIELDS: usize = 1024;

/// A table with known columns.
pub(crate) struct Table<'i> {
    input: &'i Input,
    bytes: Bytes,
    columns: &'static [&'static str],
    parser: Reader,
    /// The line that the next byte is on.
    line: u64,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// A row, as its bytes.
pub(crate) struct Row<'t> {
    /// The line that it begins on.
    pub(crate) line: u64,
    text: &'t [u8],
    ends: &'t [usize],
    columns: &'static [&'static str],
    defect: Option<String>,
}

impl<'i> Table<'i> {
    /// Starts to read the input as a table and checks its header.
    ///
    /// # Errors
    /// The input cannot be read, is empty, or has other columns.
    pub(crate) fn open(
        input: &'i Input,
        columns: &'static [&'static str],
    ) -> Result<Self, Failure> {
        let mut table = Self {
            input,
            bytes: input.read()?,
            columns,
            parser: Reader::new(),
            line: 1,
            text: vec![0; 4096],
            ends: vec![0; 64],
        };
        table.check_header()?;
        Ok(table)
    }

    fn check_header(&mut self) -> Result<(), Failure> {
        let wrong = |text: String| Failure::new(Reason::Data, text);
        let path = self.input.path().display();
        let columns = self.columns;
        let Some(header) = self.next()? else {
            return Err(wrong(format!("{path} is empty")));
        };
        let found: Vec<String> = header.fields().map(text_of).collect();
        // A byte order mark is no part of the first column's name.
        let named = |(i, name): (usize, &String)| match i {
            0 => name.trim_start_matches('\u{feff}') == columns[0],
            _ => columns.get(i) == Some(&name.as_str()),
        };
        if found.len() == columns.len() && found.iter().enumerate().all(named) {
            return Ok(());
        }
        let found: String = found.join(",").chars().take(200).collect();
        Err(wrong(format!(
            "{path} has other columns: expected {:?}, found {found:?}",
            columns.join(",")
        )))
    }

    /// The next row; `None` once the input has come to a proper end.
    ///
    /// # Errors
    /// The input cannot be read, or ends in the middle of a row.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>, Failure> {
        self.skip_line_ends()?;
        let line = self.line;
        let (mut text_len, mut fields) = (0, 0);
        let (mut quotes, mut is_too_long) = (0, false);
        loop {
            let packing = self.bytes.packing();
            let bytes = match self.bytes.peek() {
                Ok(bytes) => bytes,
                Err(e) => return Err(self.input.failed(&e, packing)),
            };
            let is_end = bytes.is_empty();
            let (result, read, written, ended) = self.parser.read_record(
                bytes,
                &mut self.text[text_len..],
                &mut self.ends[fields..],
            );
            let read_bytes = &bytes[..read];
            self.line += count(read_bytes, b'\n') as u64;
            quotes += count(read_bytes, b'"');
            self.bytes.consume(read);
            text_len += written;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.text.len() < MAX_ROW_BYTES => {
                    self.text.resize(self.text.len() * 2, 0);
                }
                ReadRecordResult::OutputEndsFull if self.ends.len() < MAX_FIELDS => {
                    self.ends.resize(self.ends.len() * 2, 0);
                }
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    // The rest of the row is read over, into the same memory.
                    is_too_long = true;
                    (text_len, fields) = (0, 0);
                }
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record => {
                    // A row that only the end of the input has ended, in an open quote or with columns missing, was cut off.
                    if is_end && (quotes % 2 == 1 || fields < self.columns.len()) {
                        return Err(self.cut_off(line));
                    }
                    break;
                }
            }
        }
        let defect = if is_too_long {
            fields = 0;
            Some("the row is above 1 MiB, perhaps a quote in it is not closed".to_owned())
        } else if fields == self.columns.len() {
            None
        } else {
            Some(format!(
                "the row has {fields} columns, not {}",
                self.columns.len()
            ))
        };
        Ok(Some(Row {
            line,
            text: &self.text[..text_len],
            ends: &self.ends[..fields],
            columns: self.columns,
            defect,
        }))
    }

    /// Line ends before a row (of blank lines, and the second half of CRLF) count as lines, not as part of the row.
    fn skip_line_ends(&mut self) -> Result<(), Failure> {
        loop {
            let packing = self.bytes.packing();
            let bytes = match self.bytes.peek() {
                Ok(bytes) => bytes,
                Err(e) => return Err(self.input.failed(&e, packing)),
            };
            let ends = bytes
                .iter()
                .take_while(|b| matches!(b, b'\n' | b'\r'))
                .count();
            self.line += count(&bytes[..ends], b'\n') as u64;
            let is_over = ends < bytes.len() || bytes.is_empty();
            self.bytes.consume(ends);
            if is_over {
                return Ok(());
            }
        }
    }

    fn cut_off(&self, line: u64) -> Failure {
        Failure::new(
            Reason::Data,
            format!(
                "{} is truncated: it ends in the middle of the row that begins on line {line}; fetch it again",
                self.input.path().display()
            ),
        )
    }

    /// How many bytes of the file on disk have been read.
    pub(crate) fn position(&self) -> u64 {
        self.bytes.position()
    }

    /// The hash of the whole input, once [`Self::next`] has returned `None`.
    pub(crate) fn fingerprint(self) -> Fingerprint {
        self.bytes.fingerprint()
    }
}

impl Row<'_> {
    /// The fields as bytes, also where there are more or fewer than columns.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().enumerate().map(|(i, end)| {
            let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.text[start..*end]
        })
    }

    /// The field in that column.
    ///
    /// # Errors
    /// Says why the row has no such field: another number of columns, too long, not UTF-8.
    pub(crate) fn field(&self, column: usize) -> Result<&str, String> {
        std::str::from_utf8(self.bytes(column)?)
            .map_err(|_| format!("{} is not UTF-8", self.columns[column]))
    }

    /// The field in that column, as it is.
    ///
    /// # Errors
    /// Says why the row has no such field: another number of columns, or too long.
    pub(crate) fn bytes(&self, column: usize) -> Result<&[u8], String> {
        match &self.defect {
            Some(defect) => Err(defect.clone()),
            None => {
                let start = column.checked_sub(1).map_or(0, |before| self.ends[before]);
                Ok(&self.text[start..self.ends[column]])
            }
        }
    }
}

/// A field as text for people, whatever it holds.
pub(crate) fn text_of(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

fn count(bytes: &[u8], wanted: u8) -> usize {
    bytes.iter().filter(|b| **b == wanted).count()
}
