//! The record of earlier imports, so that the same rows are never booked twice. It has the sources of each import with
//! the digest of every row, by unit.
//!
//! It is a file of JSON lines beside the stores. A line is written and synced before the first event of its source is
//! published. So a killed import finds its own line when it is run again.
//!
//! Without the file, the same rows are still not doubled, since sources are named after them. But only the file shows
//! which rows of a grown file were imported before.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use doorstep_cli::CliError;
use doorstep_event::{Source, Timestamp};
use serde::{Deserialize, Serialize};

use super::{input::plain, mapping::RowMapper};

/// The digest of a row, long enough to identify it.
pub(crate) type RowDigest = u64;

/// The units of an import: the digests of the rows of each, in their order.
pub(crate) type Units = HashMap<Box<[u8]>, Vec<RowDigest>>;

/// The history of one kind of import, or of one data set. It locks out any other import of the same.
pub(crate) struct History {
    path: PathBuf,
    file: File,
    /// The sources, in the order in which they were begun.
    pub(crate) runs: Vec<Run>,
    units: HashMap<Box<[u8]>, (usize, Vec<RowDigest>)>,
}

/// A source that was imported, or begun.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) source: Source,
    /// The name of the file, for messages.
    pub(crate) file: String,
    /// The number of its units.
    pub(crate) units: usize,
    /// True if all of its events have arrived.
    pub(crate) is_done: bool,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    /// The source is about to be published.
    Begun {
        at: Timestamp,
        file: String,
        source: Source,
        /// The digests of each unit's rows, 16 hexadecimal digits each.
        units: HashMap<String, String>,
    },
    /// All events of a source have arrived.
    Done { source: Source },
}

impl History {
    /// Opens the history in this folder, and creates it if there is none.
    ///
    /// # Errors
    /// The file cannot be created or read, or another import of the kind is running.
    pub(crate) fn open<M: RowMapper>(
        folder: &Path,
        dataset: Option<&str>,
    ) -> Result<Self, CliError> {
        let kind = M::NAME;
        let name = match dataset {
            None => format!("imports.{kind}.jsonl"),
            Some(dataset) => format!("imports.{kind}.dataset.{dataset}.jsonl"),
        };
        let path = folder.join(name);
        let cannot = |e: &io::Error| {
            CliError::cannot_create(format!(
                "cannot open {}, which remembers what was imported: {}; name a folder that you may write with --data-dir FOLDER",
                path.display(),
                plain(e)
            ))
        };
        create_folder(folder).map_err(|e| cannot(&e))?;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(|e| cannot(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::busy(format!(
                    "another import holds {}: try again when it is done",
                    path.display()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(cannot(&e)),
        }
        let mut history = Self {
            path,
            file,
            runs: Vec::new(),
            units: HashMap::new(),
        };
        history.read()?;
        Ok(history)
    }

    fn read(&mut self) -> Result<(), CliError> {
        let failed = |e: io::Error, path: &Path| {
            CliError::io(format!("cannot read {}: {}", path.display(), plain(&e)))
        };
        let mut reader = BufReader::new(self.file.try_clone().map_err(|e| failed(e, &self.path))?);
        let (mut line, mut number, mut whole) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            let read = read.map_err(|e| failed(e, &self.path))?;
            number += 1;
            if read == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                // A crash cut the line off while it was written, so no event of its source was published.
                return self.file.set_len(whole).map_err(|e| failed(e, &self.path));
            }
            whole += read as u64;
            let entry = serde_json::from_slice(&line).ok();
            if entry.and_then(|entry| self.take(entry)).is_none() {
                return Err(CliError::io(format!(
                    "line {number} of {} is damaged: restore the file, or move it away, after which only identical files are recognised",
                    self.path.display()
                )));
            }
        }
    }

    fn take(&mut self, entry: Entry) -> Option<()> {
        match entry {
            Entry::Begun {
                source,
                file,
                units,
                ..
            } => {
                let index = self.runs.len();
                self.runs.push(Run {
                    source,
                    file,
                    units: units.len(),
                    is_done: false,
                });
                for (unit, digests) in units {
                    let digests = digests_of(&digests)?;
                    self.units
                        .insert(unit.into_bytes().into(), (index, digests));
                }
            }
            Entry::Done { source } => {
                for run in &mut self.runs {
                    run.is_done |= run.source == source;
                }
            }
        }
        Some(())
    }

    /// Returns the run that imported a unit, by its index in [`Self::runs`], and the digests of its rows.
    pub(crate) fn unit(&self, unit: &[u8]) -> Option<(usize, &[RowDigest])> {
        let (run, digests) = self.units.get(unit)?;
        Some((*run, digests))
    }

    /// Records that a source is about to be published. Blocks until the record is on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn begin(
        &mut self,
        source: &Source,
        file: &Path,
        units: &Units,
    ) -> Result<(), CliError> {
        let units = units.iter().filter(|(_, digests)| !digests.is_empty());
        let entry = Entry::Begun {
            at: Timestamp::now(),
            file: file.display().to_string(),
            source: source.clone(),
            units: units
                .map(|(unit, digests)| {
                    let hex = digests.iter().map(|digest| format!("{digest:016x}"));
                    (String::from_utf8_lossy(unit).into_owned(), hex.collect())
                })
                .collect(),
        };
        self.write(&entry)?;
        self.take(entry);
        Ok(())
    }

    /// Records that all events of a source have arrived, unless this is recorded already or the source was not begun.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn done(&mut self, source: &Source) -> Result<(), CliError> {
        let mut runs = self.runs.iter();
        if !runs.any(|run| run.source == *source && !run.is_done) {
            return Ok(());
        }
        let entry = Entry::Done {
            source: source.clone(),
        };
        self.write(&entry)?;
        self.take(entry);
        Ok(())
    }

    fn write(&self, entry: &Entry) -> Result<(), CliError> {
        let write = || {
            let mut writer = BufWriter::new(&self.file);
            serde_json::to_writer(&mut writer, entry)?;
            writer.write_all(b"\n")?;
            writer.flush()?;
            drop(writer);
            self.file.sync_data()
        };
        write().map_err(|e| {
            CliError::io(format!(
                "cannot write {}: {}",
                self.path.display(),
                plain(&e)
            ))
        })
    }
}

/// Reads digests of 16 hexadecimal digits each.
fn digests_of(text: &str) -> Option<Vec<RowDigest>> {
    if !text.is_ascii() || !text.len().is_multiple_of(16) {
        return None;
    }
    let digests = text.as_bytes().chunks(16).map(|digits| {
        let digits = std::str::from_utf8(digits).ok()?;
        RowDigest::from_str_radix(digits, 16).ok()
    });
    digests.collect()
}

/// Creates the folder for its owner alone, as stores do.
fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
