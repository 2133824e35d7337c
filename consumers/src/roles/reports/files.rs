//! The folder with the files of reports: `ID.html` and `ID.csv`.
//!
//! A file appears under its name once it is complete and durable. Another attempt for the same report replaces it by
//! the same bytes. The folder has a bound; the oldest reports beyond it are removed.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::SystemTime,
};

use doorstep_contracts::ReportId;
use sha2::{Digest, Sha256};
use tokio::{fs as async_fs, io::AsyncWriteExt, task};
use uuid::Uuid;

use super::contracts::FileDigest;

/// The extensions of a report's files.
const FORMS: [&str; 2] = [ReportFolder::PAGE, ReportFolder::CSV];
/// The extension of a file in progress.
const TEMPORARY: &str = "tmp";

/// The folder, with its bounds.
#[derive(Debug, Clone)]
pub(crate) struct ReportFolder {
    path: PathBuf,
    max_bytes: u64,
    max_files: usize,
}

/// A failure with the place where it happened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    #[error("{}: {error}: let this user write there, free some space, or set another DOORSTEP_REPORTS_DIR", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "the report has more than {0} bytes: ask for a shorter period, or raise DOORSTEP_REPORTS_MAX_BYTES"
    )]
    TooLarge(u64),
}

/// A file in progress. It is removed unless it is completed.
#[derive(Debug)]
pub(super) struct DraftFile {
    temporary: PathBuf,
    path: PathBuf,
    file: async_fs::File,
    digest: Sha256,
    bytes: u64,
    max_bytes: u64,
}

/// A complete file without its name.
#[derive(Debug)]
pub(super) struct CompleteFile {
    draft: Option<(PathBuf, PathBuf)>,
    pub(super) digest: FileDigest,
}

/// A file of the folder.
struct Found {
    path: PathBuf,
    /// The report; `None` for a file in progress, or what a killed process has left of one.
    report: Option<ReportId>,
    modified: SystemTime,
    bytes: u64,
}

impl ReportFolder {
    /// The extension of a page.
    pub(super) const PAGE: &str = "html";
    /// The extension of the lines.
    pub(super) const CSV: &str = "csv";
    /// The maximum of files.
    pub(super) const MAX_FILES: usize = 10_000;

    pub(crate) fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self {
            path,
            max_bytes,
            max_files: Self::MAX_FILES,
        }
    }

    #[cfg(test)]
    pub(super) fn with_max_files(self, max_files: usize) -> Self {
        Self { max_files, ..self }
    }

    /// Begins a file of a report.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) async fn draft(
        &self,
        report: &ReportId,
        form: &str,
    ) -> Result<DraftFile, FolderError> {
        let path = self.path.join(format!("{report}.{form}"));
        // Two attempts may overlap for a moment: each has a file of its own.
        let temporary = self
            .path
            .join(format!(".{report}-{}.{TEMPORARY}", Uuid::new_v4()));
        let created = async_fs::create_dir_all(&self.path).await;
        let created = match created {
            Ok(()) => async_fs::File::create_new(&temporary).await,
            Err(e) => Err(e),
        };
        Ok(DraftFile {
            file: created.map_err(|e| failed(&self.path, e))?,
            temporary,
            path,
            digest: Sha256::new(),
            bytes: 0,
            max_bytes: self.max_bytes,
        })
    }

    /// Returns the reports that have to be removed for a report with so many bytes, the oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) async fn to_evict(
        &self,
        report: ReportId,
        bytes: u64,
    ) -> Result<Vec<ReportId>, FolderError> {
        let folder = self.clone();
        self.blocking(move || folder.find_evicted(report, bytes))
            .await
    }

    /// Removes the files of reports, and what killed processes have left of them. Files that are already gone are none.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(super) async fn remove(&self, reports: Vec<ReportId>) -> Result<(), FolderError> {
        let folder = self.clone();
        self.blocking(move || folder.remove_now(&reports)).await
    }

    /// Removes what killed processes have left of a report.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(super) async fn remove_drafts(&self, report: ReportId) -> Result<(), FolderError> {
        let folder = self.clone();
        self.blocking(move || folder.remove_drafts_now(report))
            .await
    }

    /// Gives files their names, all of them durably. The last one says that the report is complete.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) async fn publish(&self, files: Vec<CompleteFile>) -> Result<(), FolderError> {
        let path = self.path.clone();
        self.blocking(move || {
            for mut file in files {
                if let Some((temporary, path)) = &file.draft {
                    fs::rename(temporary, path)?;
                    file.draft = None;
                }
            }
            fs::File::open(&path)?.sync_all()
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, FolderError> {
        let done = task::spawn_blocking(work).await;
        done.unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|e| failed(&self.path, e))
    }

    fn find_evicted(&self, report: ReportId, bytes: u64) -> io::Result<Vec<ReportId>> {
        let mut found = self.found()?;
        found.retain(|file| file.report != Some(report));
        found.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        let reports = |file: &Found| file.report;
        let mut oldest: Vec<ReportId> = Vec::new();
        for id in found.iter().filter_map(reports) {
            if !oldest.contains(&id) {
                oldest.push(id);
            }
        }
        let kept = |file: &&Found| file.report.is_some();
        let mut total: u64 = found.iter().filter(kept).map(|file| file.bytes).sum();
        let mut count = found.iter().filter(kept).count();
        let mut evicted = Vec::new();
        for id in oldest {
            if total.saturating_add(bytes) <= self.max_bytes
                && count + FORMS.len() <= self.max_files
            {
                break;
            }
            let files = found.iter().filter(|file| file.report == Some(id));
            for file in files {
                total -= file.bytes;
                count -= 1;
            }
            evicted.push(id);
        }
        Ok(evicted)
    }

    fn remove_now(&self, reports: &[ReportId]) -> io::Result<()> {
        for report in reports {
            for form in FORMS {
                remove(&self.path.join(format!("{report}.{form}")))?;
            }
            self.remove_drafts_now(*report)?;
        }
        Ok(())
    }

    fn remove_drafts_now(&self, report: ReportId) -> io::Result<()> {
        let prefix = format!(".{report}-");
        for file in self.found()?.iter().filter(|file| file.report.is_none()) {
            let name = file.path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with(&prefix) {
                remove(&file.path)?;
            }
        }
        Ok(())
    }

    /// Lists the files of reports. Others are left alone.
    fn found(&self) -> io::Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let Some(report) = report_of(&path) else {
                continue;
            };
            let metadata: Metadata = match entry.metadata() {
                // Another process has renamed or removed it.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_file() {
                found.push(Found {
                    path,
                    report,
                    modified: metadata.modified()?,
                    bytes: metadata.len(),
                });
            }
        }
        Ok(found)
    }
}

/// Returns the report of a file, `None` inside for one in progress; `None` for any other file.
fn report_of(path: &Path) -> Option<Option<ReportId>> {
    let extension = path.extension()?.to_str()?;
    let stem = path.file_stem()?.to_str()?;
    if extension == TEMPORARY {
        return stem.starts_with('.').then_some(None);
    }
    FORMS
        .contains(&extension)
        .then(|| stem.parse().ok().map(Some))?
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn failed(path: &Path, error: io::Error) -> FolderError {
    FolderError::Io {
        path: path.to_owned(),
        error,
    }
}

impl DraftFile {
    /// Appends bytes.
    ///
    /// # Errors
    /// They cannot be written, or the file exceeds the folder's bound.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), FolderError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.max_bytes {
            return Err(FolderError::TooLarge(self.max_bytes));
        }
        self.digest.update(bytes);
        let written = self.file.write_all(bytes).await;
        written.map_err(|e| failed(&self.path, e))
    }

    /// Makes its content durable.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn complete(mut self) -> Result<CompleteFile, FolderError> {
        let written = match self.file.flush().await {
            Ok(()) => self.file.sync_all().await,
            Err(e) => Err(e),
        };
        written.map_err(|e| failed(&self.path, e))?;
        let digest = FileDigest {
            bytes: self.bytes,
            sha256: hex::encode(std::mem::take(&mut self.digest).finalize()),
        };
        let names = (std::mem::take(&mut self.temporary), self.path.clone());
        Ok(CompleteFile {
            draft: Some(names),
            digest,
        })
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            // What cannot be removed now is removed with the report.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Drop for CompleteFile {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.draft {
            let _ = fs::remove_file(temporary);
        }
    }
}
