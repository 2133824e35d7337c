//! The overflow file beside a store, `ROLE.overflow.jsonl`, and its older files `ROLE.overflow.1.jsonl` and so on.
//!
//! Only a commit writes it, under the store's write lock, so only one process writes at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::error::SqliteError;
use crate::{StreamlessBounds, overflow};

/// The file for dead letters of no stream that exceed the store's bounds.
pub(super) struct OverflowFile {
    current: PathBuf,
}

impl OverflowFile {
    /// The overflow file beside a store's file.
    pub(super) fn beside(store: &Path) -> Self {
        Self {
            current: store.with_extension("overflow.jsonl"),
        }
    }

    /// The file that is written to.
    pub(super) fn path(&self) -> &Path {
        &self.current
    }

    /// Appends lines and flushes them to disk. If older lines were dropped, returns the number of the oldest line left.
    pub(super) fn append(
        &self,
        lines: &[u8],
        bounds: &StreamlessBounds,
    ) -> Result<Option<u64>, SqliteError> {
        self.try_append(lines, bounds).map_err(|e| {
            SqliteError::Unavailable(format!(
                "the overflow file {} cannot be written ({e}); free space, or make it and its folder writable for this user",
                self.current.display()
            ))
        })
    }

    fn try_append(&self, lines: &[u8], bounds: &StreamlessBounds) -> io::Result<Option<u64>> {
        let length = match fs::metadata(&self.current) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        let is_full = length > 0 && length.saturating_add(lines.len() as u64) > bounds.file_bytes;
        let oldest = if is_full {
            self.rotate(bounds.files)?
        } else {
            None
        };
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.current)?;
        if ends_in_mid_line(&mut file)? {
            file.write_all(b"\n")?;
        }
        file.write_all(lines)?;
        file.sync_data()?;
        if is_full || length == 0 {
            self.sync_folder()?;
        }
        // The rotation has dropped older lines, so these are the oldest.
        Ok(match oldest {
            Some(None) => overflow::number_of(lines),
            Some(oldest) => oldest,
            None => None,
        })
    }

    /// Makes room for a new file. If a file was deleted, returns the number of the oldest line left.
    fn rotate(&self, files: u32) -> io::Result<Option<Option<u64>>> {
        let last = files.saturating_sub(1);
        let deletes = last == 0 || self.older(last).exists();
        for number in (1..last).rev() {
            rename_if_there(&self.older(number), &self.older(number + 1))?;
        }
        if last == 0 {
            fs::remove_file(&self.current)?;
        } else {
            rename_if_there(&self.current, &self.older(1))?;
        }
        if !deletes {
            return Ok(None);
        }
        if last == 0 {
            return Ok(Some(None));
        }
        Ok(Some(first_number(&self.older(last))?))
    }

    fn older(&self, number: u32) -> PathBuf {
        self.current.with_extension(format!("{number}.jsonl"))
    }

    #[cfg(unix)]
    fn sync_folder(&self) -> io::Result<()> {
        match self.current.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }

    #[cfg(not(unix))]
    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Returns true if the last line is incomplete: its writer crashed.
fn ends_in_mid_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn first_number(file: &Path) -> io::Result<Option<u64>> {
    let mut head = Vec::new();
    match File::open(file) {
        Ok(file) => file.take(64).read_to_end(&mut head)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(overflow::number_of(&head))
}
