//! Mails as files, for demos and for programs that have no mail server.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::task;
use uuid::Uuid;

use crate::{MailMessage, MailOutcome};

/// The bounds of a folder of mails. Beyond them the oldest mails are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderLimits {
    /// Maximum files.
    pub max_files: usize,
    /// Maximum bytes of all files.
    pub max_bytes: u64,
}

impl Default for FolderLimits {
    fn default() -> Self {
        Self {
            max_files: 10_000,
            max_bytes: 1 << 30,
        }
    }
}

/// A folder with a file for each mail, named after the mail's cause. Another attempt for the same cause writes the same bytes to the same
/// file, so a mail is one file however often its program is killed.
#[derive(Debug, Clone)]
pub struct MailFolder(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    limits: FolderLimits,
    room: Mutex<Room>,
}

/// The files and bytes that fit into the folder before its files have to be counted again.
#[derive(Debug, Default)]
struct Room {
    files: usize,
    bytes: u64,
}

/// A file of the folder that this crate has written.
struct MailFile {
    modified: SystemTime,
    path: PathBuf,
    bytes: u64,
}

impl MailFolder {
    /// Returns the folder at `path`, which the first mail creates.
    #[must_use]
    pub fn new(path: &Path, limits: FolderLimits) -> Self {
        Self(Arc::new(Folder {
            path: path.to_owned(),
            limits,
            room: Mutex::default(),
        }))
    }

    /// Writes a mail to its file, durably. If it is dropped meanwhile, the file may still be written.
    pub async fn write(&self, message: &MailMessage) -> MailOutcome {
        let folder = self.0.clone();
        let message = message.clone();
        let written = task::spawn_blocking(move || folder.write(&message)).await;
        match written.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(path) => MailOutcome::Sent {
                reply: path.display().to_string(),
            },
            Err(error) => self.0.failed(&error),
        }
    }
}

impl Folder {
    fn write(&self, message: &MailMessage) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.path)?;
        self.take_room(message.bytes().len() as u64)?;
        let path = self.path.join(format!("{}.eml", message.digest()));
        let temporary = self
            .path
            .join(format!(".{}-{}.tmp", message.digest(), Uuid::new_v4()));
        let written = write_durably(&temporary, message.bytes())
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(&self.path)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map(|()| path)
    }

    fn failed(&self, error: &io::Error) -> MailOutcome {
        let why = format!("{}: cannot be written ({error})", self.path.display());
        match error.kind() {
            ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::AlreadyExists
            | ErrorKind::ReadOnlyFilesystem => MailOutcome::Misconfigured { why },
            _ => MailOutcome::Retry { why },
        }
    }

    /// Takes room for a file. Where there is none left, counts the files again, and deletes the oldest if the folder is full.
    fn take_room(&self, bytes: u64) -> io::Result<()> {
        // The room is only numbers, which a panic elsewhere cannot have left half-changed.
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if room.files == 0 || room.bytes < bytes {
            *room = self.make_room(bytes)?;
        }
        room.files = room.files.saturating_sub(1);
        room.bytes = room.bytes.saturating_sub(bytes);
        Ok(())
    }

    /// Counts the files, and deletes the oldest until a tenth of the folder is free if a file of `bytes` would not fit.
    fn make_room(&self, bytes: u64) -> io::Result<Room> {
        let FolderLimits {
            max_files,
            max_bytes,
        } = self.limits;
        let mut files = self.files()?;
        files.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        let mut count = files.len();
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        let tenth = (max_files / 10).max(1);
        if count >= max_files || total + bytes > max_bytes {
            let keep_bytes = (max_bytes - max_bytes / 10).saturating_sub(bytes);
            for file in &files {
                if count + tenth <= max_files && total <= keep_bytes {
                    break;
                }
                remove(&file.path)?;
                count -= 1;
                total -= file.bytes;
            }
        }
        Ok(Room {
            // Other processes may write here, too: at most a tenth is taken unseen.
            files: max_files.saturating_sub(count).min(tenth),
            bytes: max_bytes.saturating_sub(total),
        })
    }

    /// Lists the mails, and what killed processes have left of mails.
    fn files(&self) -> io::Result<Vec<MailFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_left = name.starts_with('.') && name.ends_with(".tmp");
            if !name.ends_with(".eml") && !is_left {
                continue;
            }
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Another process has renamed or deleted it.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if metadata.is_file() {
                files.push(MailFile {
                    modified: metadata.modified()?,
                    path: entry.path(),
                    bytes: metadata.len(),
                });
            }
        }
        Ok(files)
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
