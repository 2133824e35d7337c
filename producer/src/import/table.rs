//! A CSV table, row by row: with true line numbers, in bounded memory, and with a check for a truncated end.
//!
//! The csv crate bounds no row and takes a truncated one for complete, so this reader uses its core.
//!
//! The line of a row is the line that it begins on, the header being line 1; a quoted field may span several. The
//! header decides the order of the columns and the delimiter.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use doorstep_cli::CliError;

use super::input::{Bytes, Fingerprint, Input};

/// The limit of a row in bytes. Anything longer is most likely a quote without its end.
const MAX_ROW_BYTES: usize = 1024 * 1024;
/// The limit of fields of a row, well above any table read here.
const MAX_FIELDS: usize = 1024;
/// The delimiters that are tried on a header, in this order.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// A column of a kind of file.
#[derive(Debug)]
pub(crate) struct Column {
    /// The name of the column in options.
    pub(crate) key: &'static str,
    /// The name in the header, unless an option gives another.
    pub(crate) name: &'static str,
    /// True if a file without the column is rejected; otherwise its fields are empty.
    pub(crate) is_required: bool,
}

impl Column {
    pub(crate) const fn required(key: &'static str, name: &'static str) -> Self {
        Self {
            key,
            name,
            is_required: true,
        }
    }

    pub(crate) const fn optional(key: &'static str, name: &'static str) -> Self {
        Self {
            key,
            name,
            is_required: false,
        }
    }
}

/// The layout of the table in a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// The delimiter; `None` takes it from the header.
    pub(crate) delimiter: Option<u8>,
    /// Header names of the file by the index of the column that they stand for.
    pub(crate) names: Vec<(usize, String)>,
}

impl Layout {
    fn name<'l>(&'l self, columns: &'static [Column], index: usize) -> &'l str {
        let own = self.names.iter().find(|(column, _)| *column == index);
        own.map_or(columns[index].name, |(_, name)| name)
    }
}

/// A table with known columns.
pub(crate) struct Table<'i> {
    input: &'i Input,
    bytes: Bytes,
    columns: &'static [Column],
    /// The index of each column's field in a row.
    fields: Vec<Option<usize>>,
    /// The number of fields in the header.
    width: usize,
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
    columns: &'static [Column],
    fields: &'t [Option<usize>],
    defect: Option<String>,
}

impl<'i> Table<'i> {
    /// Starts reading the input as a table and reads its header.
    ///
    /// # Errors
    /// The input cannot be read, is empty, or lacks a column.
    pub(crate) fn open(
        input: &'i Input,
        columns: &'static [Column],
        layout: &Layout,
    ) -> Result<Self, CliError> {
        let mut bytes = input.read()?;
        let header = read_header(input, &mut bytes)?;
        let delimiters = layout
            .delimiter
            .map_or(DELIMITERS.to_vec(), |delimiter| vec![delimiter]);
        let read = |delimiter| Header::read(&header, delimiter, columns, layout);
        let found = delimiters.iter().copied().map(read).find(Header::is_whole);
        let Some(found) = found else {
            // The delimiter that separates most fields is the right one.
            let mut tried: Vec<_> = delimiters.into_iter().map(read).collect();
            tried.sort_by_key(|header| header.names.len());
            return Err(tried.pop().map_or_else(
                || CliError::internal("no delimiter to try"),
                |header| header.failure(input, columns, layout),
            ));
        };
        Ok(Self {
            input,
            bytes,
            columns,
            width: found.names.len(),
            parser: ReaderBuilder::new().delimiter(found.delimiter).build(),
            fields: found.fields,
            line: 2,
            text: vec![0; 4096],
            ends: vec![0; 64],
        })
    }

    /// Returns the next row; `None` at the proper end of the input.
    ///
    /// # Errors
    /// The input cannot be read, or ends in the middle of a row.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>, CliError> {
        self.skip_line_ends()?;
        let line = self.line;
        let (mut text_len, mut fields) = (0, 0);
        let (mut quotes, mut is_too_long) = (0, false);
        loop {
            let bytes = self.bytes.peek()?;
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
                    // The rest of the row is skipped, into the same memory.
                    is_too_long = true;
                    (text_len, fields) = (0, 0);
                }
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record => {
                    // A row at the end of the input with an open quote or missing columns was cut off.
                    if is_end && (quotes % 2 == 1 || fields < self.width) {
                        return Err(self.cut_off(line));
                    }
                    break;
                }
            }
        }
        let defect = if is_too_long {
            fields = 0;
            Some("the row is above 1 MiB, perhaps a quote in it is not closed".to_owned())
        } else if fields == self.width {
            None
        } else {
            Some(format!("the row has {fields} columns, not {}", self.width))
        };
        Ok(Some(Row {
            line,
            text: &self.text[..text_len],
            ends: &self.ends[..fields],
            columns: self.columns,
            fields: &self.fields,
            defect,
        }))
    }

    /// Skips line ends before a row (blank lines, and the second half of CRLF), which count as lines and not as part of
    /// the row.
    fn skip_line_ends(&mut self) -> Result<(), CliError> {
        loop {
            let bytes = self.bytes.peek()?;
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

    fn cut_off(&self, line: u64) -> CliError {
        CliError::data(format!(
            "{} is truncated: it ends in the middle of the row that begins on line {line}; download it again",
            self.input.path.display()
        ))
    }

    /// Returns the number of bytes read from the file on disk.
    pub(crate) fn position(&self) -> u64 {
        self.bytes.position()
    }

    /// Returns the hash of the whole input, once [`Self::next`] has returned `None`.
    pub(crate) fn fingerprint(self) -> Fingerprint {
        self.bytes.fingerprint()
    }
}

impl Row<'_> {
    /// Returns the fields as bytes, also if there are more or fewer than columns.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().enumerate().map(|(i, end)| {
            let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.text[start..*end]
        })
    }

    /// Returns the field in that column.
    ///
    /// # Errors
    /// The reason why the row has no such field: another number of columns, too long, not UTF-8.
    pub(crate) fn field(&self, column: usize) -> Result<&str, String> {
        std::str::from_utf8(self.bytes(column)?)
            .map_err(|_| format!("{} is not UTF-8", self.columns[column].name))
    }

    /// Returns the bytes of the field in that column.
    ///
    /// # Errors
    /// The reason why the row has no such field: another number of columns, or too long.
    pub(crate) fn bytes(&self, column: usize) -> Result<&[u8], String> {
        match &self.defect {
            Some(defect) => Err(defect.clone()),
            None => Ok(self.fields[column].map_or(b"", |field| {
                let start = field.checked_sub(1).map_or(0, |before| self.ends[before]);
                &self.text[start..self.ends[field]]
            })),
        }
    }
}

/// The header, read with one delimiter.
struct Header {
    delimiter: u8,
    names: Vec<String>,
    fields: Vec<Option<usize>>,
    missing: Vec<usize>,
    twice: Vec<usize>,
}

impl Header {
    fn read(text: &[u8], delimiter: u8, columns: &'static [Column], layout: &Layout) -> Self {
        let names = header_names(text, delimiter);
        let (mut fields, mut missing, mut twice) = (Vec::new(), Vec::new(), Vec::new());
        for (index, column) in columns.iter().enumerate() {
            let wanted = layout.name(columns, index);
            let is_named = layout.names.iter().any(|(named, _)| *named == index);
            let mut places = names
                .iter()
                .enumerate()
                .filter(|(_, name)| **name == wanted);
            let place = places.next().map(|(place, _)| place);
            if place.is_none() && (column.is_required || is_named) {
                missing.push(index);
            }
            if places.next().is_some() {
                twice.push(index);
            }
            fields.push(place);
        }
        Self {
            delimiter,
            names,
            fields,
            missing,
            twice,
        }
    }

    fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.twice.is_empty()
    }

    fn failure(self, input: &Input, columns: &'static [Column], layout: &Layout) -> CliError {
        let list = |indices: &[usize]| -> String {
            let names: Vec<_> = indices.iter().map(|i| layout.name(columns, *i)).collect();
            names.join(", ")
        };
        let found: String = self.names.join(", ").chars().take(200).collect();
        let path = input.path.display();
        let text = if let Some(twice) = self.twice.first() {
            format!(
                "{path} has the column {} more than once: rename the one that is not meant",
                layout.name(columns, *twice)
            )
        } else {
            let key = self.missing.first().map_or("", |i| columns[*i].key);
            format!(
                "{path} has other columns: {} is missing, found {found}; say what a column is called in this file with --columns {key}=NAME",
                list(&self.missing)
            )
        };
        CliError::data(text)
    }
}

/// Returns the names in a header: without a byte order mark, and without spaces around them.
fn header_names(text: &[u8], delimiter: u8) -> Vec<String> {
    let mut parser = ReaderBuilder::new().delimiter(delimiter).build();
    let mut fields = vec![0; text.len() + 1];
    let mut ends = vec![0; MAX_FIELDS];
    let (result, _, written, mut count) = parser.read_record(text, &mut fields, &mut ends);
    if result == ReadRecordResult::InputEmpty {
        // No line end follows, so an empty record tells the parser that the header has ended.
        let (_, _, _, last) = parser.read_record(b"", &mut fields[written..], &mut ends[count..]);
        count += last;
    }
    let mut start = 0;
    ends[..count]
        .iter()
        .map(|end| {
            let name = text_of(&fields[start..*end]);
            start = *end;
            name.trim_start_matches('\u{feff}').trim().to_owned()
        })
        .collect()
}

/// Returns the first line that is not blank, with its line end.
fn read_header(input: &Input, bytes: &mut Bytes) -> Result<Vec<u8>, CliError> {
    let mut header = Vec::new();
    loop {
        let part = bytes.peek()?;
        if part.is_empty() {
            break;
        }
        let end = part.iter().position(|b| *b == b'\n');
        let part = &part[..end.map_or(part.len(), |end| end + 1)];
        header.extend_from_slice(part);
        let used = part.len();
        bytes.consume(used);
        if end.is_some() || header.len() > MAX_ROW_BYTES {
            break;
        }
    }
    if header.iter().all(u8::is_ascii_whitespace) {
        return Err(CliError::data(format!(
            "{} is empty, or its first line is: a table begins with the names of its columns",
            input.path.display()
        )));
    }
    Ok(header)
}

/// Formats a field for people, also if it is not UTF-8.
pub(crate) fn text_of(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

fn count(bytes: &[u8], wanted: u8) -> usize {
    bytes.iter().filter(|b| **b == wanted).count()
}
