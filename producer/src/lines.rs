//! Lines of an input that may never end, in bounded memory.

use std::io::{self, BufRead};

/// A line, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InputLine<'a> {
    /// The line as it was read.
    Whole(&'a [u8]),
    /// Longer than the limit; it was skipped.
    TooLong,
}

/// Reads lines up to a limit of bytes.
pub(crate) struct LineReader<R> {
    reader: R,
    most_bytes: usize,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> LineReader<R> {
    /// Creates a reader of lines of at most `most_bytes`.
    pub(crate) fn new(reader: R, most_bytes: usize) -> Self {
        Self {
            reader,
            most_bytes,
            line: Vec::new(),
            number: 0,
        }
    }

    /// Returns the next line and its number, from 1; blocks until there is one. The last line need not end in a line
    /// break.
    ///
    /// # Errors
    /// The input cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, InputLine<'_>)>> {
        self.line.clear();
        let mut is_too_long = false;
        let mut is_something = false;
        loop {
            let bytes = match self.reader.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                break;
            }
            is_something = true;
            let end = bytes.iter().position(|b| *b == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > self.most_bytes {
                is_too_long = true;
                self.line.clear();
            }
            if !is_too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !is_something {
            return Ok(None);
        }
        self.number += 1;
        let line = if is_too_long {
            InputLine::TooLong
        } else {
            InputLine::Whole(self.line.strip_suffix(b"\r").unwrap_or(&self.line))
        };
        Ok(Some((self.number, line)))
    }

    /// Returns the reader, at the end of the last line.
    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    /// Returns true if the next line may have to be waited for: no complete one has been read ahead.
    pub(crate) fn would_block(&self) -> bool
    where
        R: Buffered,
    {
        !self.reader.read_ahead().contains(&b'\n')
    }
}

/// A reader that exposes the bytes it has read ahead.
pub(crate) trait Buffered {
    /// Returns the bytes that are available without waiting.
    fn read_ahead(&self) -> &[u8];
}

impl<R: io::Read> Buffered for io::BufReader<R> {
    fn read_ahead(&self) -> &[u8] {
        self.buffer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn lines(text: &str, most_bytes: usize) -> Vec<String> {
        // A small buffer, so that lines span several.
        let reader = io::BufReader::with_capacity(3, text.as_bytes());
        let mut lines = LineReader::new(reader, most_bytes);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().unwrap() {
            found.push(match line {
                InputLine::Whole(line) => format!("{number} {}", String::from_utf8_lossy(line)),
                InputLine::TooLong => format!("{number} too long"),
            });
        }
        found
    }

    #[test]
    fn lines_are_numbered_whatever_ends_them() {
        assert_eq!(lines("a\r\n\nbc", 9), ["1 a", "2 ", "3 bc"]);
        assert_eq!(lines("a\n", 9), ["1 a"]);
        assert_eq!(lines("", 9), Vec::<String>::new());
    }

    #[test]
    fn oversized_line_is_skipped() {
        assert_eq!(
            lines("12345678\n123456789\nabc", 8),
            ["1 12345678", "2 too long", "3 abc"]
        );
    }
}
