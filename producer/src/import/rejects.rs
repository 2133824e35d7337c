//! The list of rejected rows: one JSON object a line with the row's line number, the reason and the original row;
//! of a log, without the row.
//!
//! Every run overwrites it. It grows under another name beside its path, and moves there when the import is done. So a
//! reader never finds a part of it. A run without rejected rows leaves no list, not even an older one.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use doorstep_cli::CliError;
use serde::Serialize;

use super::{
    input::plain,
    table::{Row, text_of},
};

/// The list while it is written.
pub(crate) struct RejectFile {
    path: PathBuf,
    partial: PathBuf,
    file: Option<BufWriter<File>>,
    /// The number of rows on the list.
    pub(crate) count: u64,
}

/// A line of the list.
#[derive(Serialize)]
struct RefusedRow<'a> {
    line: u64,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<Vec<String>>,
}

impl RejectFile {
    /// Creates a list for that path. Nothing is written before the first row.
    pub(crate) fn new(path: PathBuf) -> Self {
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        Self {
            path,
            partial: partial.into(),
            file: None,
            count: 0,
        }
    }

    /// Adds a row to the list.
    ///
    /// # Errors
    /// The list cannot be written.
    pub(crate) fn add(&mut self, row: &Row<'_>, reason: &str) -> Result<(), CliError> {
        self.list(&RefusedRow {
            line: row.line,
            reason,
            row: Some(row.fields().map(text_of).collect()),
        })
    }

    /// Adds a line without its content, which may contain what must not be kept.
    ///
    /// # Errors
    /// The list cannot be written.
    pub(crate) fn add_line(&mut self, line: u64, reason: &str) -> Result<(), CliError> {
        let row = None;
        self.list(&RefusedRow { line, reason, row })
    }

    fn list(&mut self, row: &RefusedRow<'_>) -> Result<(), CliError> {
        let line = serde_json::to_vec(row);
        self.write(line.map_err(io::Error::other))
            .map_err(|e| self.failed(&e))?;
        self.count += 1;
        Ok(())
    }

    /// Otherwise root would replace a device such as /dev/null.
    fn may_be_replaced(&self) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(there) if !there.is_file() => Err(io::Error::other("it is not a regular file")),
            _ => Ok(()),
        }
    }

    fn write(&mut self, line: io::Result<Vec<u8>>) -> io::Result<()> {
        if self.file.is_none() {
            self.may_be_replaced()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self
                .file
                .insert(BufWriter::new(File::create(&self.partial)?)),
        };
        file.write_all(&line?)?;
        file.write_all(b"\n")
    }

    /// Moves the list to its path. Returns the path, if there are rows.
    ///
    /// # Errors
    /// The list cannot be written, or an older one not removed.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>, CliError> {
        self.put_in_place().map_err(|e| self.failed(&e))
    }

    fn put_in_place(&mut self) -> io::Result<Option<PathBuf>> {
        self.may_be_replaced()?;
        let Some(file) = self.file.take() else {
            return match fs::remove_file(&self.path) {
                // A read-only file system may report a missing file this way.
                Err(e) if self.path.try_exists().unwrap_or(true) => Err(e),
                _ => Ok(None),
            };
        };
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        Ok(Some(self.path.clone()))
    }

    fn failed(&self, error: &io::Error) -> CliError {
        CliError::io(format!(
            "cannot write the list of refused rows {}: {}; choose another path with --refused PATH",
            self.path.display(),
            plain(error)
        ))
    }
}

impl Drop for RejectFile {
    /// An unfinished list is of no use, since the next run writes it again.
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Returns the default path of the list: in the current folder, named after the input.
pub(crate) fn default_path(input: &Path) -> PathBuf {
    let mut name = input.file_name().unwrap_or_default().to_owned();
    name.push(".refused.jsonl");
    name.into()
}
