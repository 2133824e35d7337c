//! An input file as a stream of bytes: gzip is unpacked as it is read, the unpacked bytes are hashed on the way, and other packings are
//! named for what they are.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use doorstep_cli::{CliError, ExitReason};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::packing;

const BUFFER_BYTES: usize = 64 * 1024;

/// An open file that is read more than once. It stays open, so that a file put in its place meanwhile is not read instead.
pub(crate) struct Input {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// The SHA-256 of the unpacked bytes.
pub(crate) type Fingerprint = [u8; 32];

impl Input {
    /// Opens the file.
    ///
    /// # Errors
    /// There is no such file, it may not be read, or it is no regular file and so cannot be read twice.
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        let missing = |e: io::Error| {
            CliError::new(
                ExitReason::Missing,
                format!("cannot open {}: {}", path.display(), plain(&e)),
            )
        };
        let file = File::open(path).map_err(missing)?;
        let metadata = file.metadata().map_err(missing)?;
        if !metadata.is_file() {
            return Err(CliError::new(
                ExitReason::Missing,
                format!(
                    "{} is not a regular file, and an import reads its file twice: save it to disk first",
                    path.display()
                ),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes: metadata.len(),
        })
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the file as it lies on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Starts to read from the beginning. One reader at a time: all share the file's position.
    ///
    /// # Errors
    /// The file cannot be read, or its name promises gzip and its content does not keep it.
    pub(crate) fn read(&self) -> Result<Bytes, CliError> {
        let io = |e: io::Error| self.failed(&e, Compression::Plain);
        let mut file = self.file.try_clone().map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let position = Arc::new(AtomicU64::new(0));
        let mut raw = BufReader::with_capacity(
            BUFFER_BYTES,
            CountingReader {
                file,
                position: Arc::clone(&position),
            },
        );
        let start = raw.fill_buf().map_err(io)?;
        if let Some(remedy) = packing::unreadable(start) {
            let path = self.path.display();
            return Err(CliError::new(
                ExitReason::Data,
                format!("{path} is {remedy}"),
            ));
        }
        let is_gzip = start.starts_with(&packing::GZIP_MAGIC);
        let is_named_gzip = self.path.extension().is_some_and(|e| e == "gz");
        if is_named_gzip && !is_gzip && self.bytes > 0 {
            return Err(CliError::new(
                ExitReason::Data,
                format!(
                    "{} is not gzip, though its name ends in .gz: rename it if it is plain text, fetch it again if not",
                    self.path.display()
                ),
            ));
        }
        let (packing, unpacked): (_, Box<dyn Read + Send>) = if is_gzip {
            (Compression::Gzip, Box::new(MultiGzDecoder::new(raw)))
        } else {
            (Compression::Plain, Box::new(raw))
        };
        Ok(Bytes {
            packing,
            position,
            reader: BufReader::with_capacity(
                BUFFER_BYTES,
                HashingReader {
                    reader: unpacked,
                    hash: Sha256::new(),
                },
            ),
        })
    }

    /// What an error while reading means for the user.
    pub(crate) fn failed(&self, error: &io::Error, packing: Compression) -> CliError {
        let path = self.path.display();
        match (packing, error.kind()) {
            (Compression::Gzip, ErrorKind::UnexpectedEof) => CliError::new(
                ExitReason::Data,
                format!("{path} is truncated, its gzip stream ends too early: fetch it again"),
            ),
            (Compression::Gzip, ErrorKind::InvalidInput | ErrorKind::InvalidData) => CliError::new(
                ExitReason::Data,
                format!("{path} is damaged ({error}): fetch it again"),
            ),
            _ => CliError::new(
                ExitReason::Io,
                format!("cannot read {path}: {}", plain(error)),
            ),
        }
    }
}

/// How the bytes lie on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// As they are.
    Plain,
    /// One or several gzip members.
    Gzip,
}

/// The unpacked bytes of an input.
pub(crate) struct Bytes {
    packing: Compression,
    position: Arc<AtomicU64>,
    reader: BufReader<HashingReader>,
}

impl Bytes {
    /// How the bytes lie on disk.
    pub(crate) fn packing(&self) -> Compression {
        self.packing
    }

    /// How many bytes of the file on disk have been read.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// The bytes that come next; none at the end.
    ///
    /// # Errors
    /// What the file or its unpacking says; [`Input::failed`] puts it into words.
    pub(crate) fn peek(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    /// Goes on behind so many of the bytes that [`Self::peek`] showed.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }

    /// The hash of all that was read, which is all that there is once [`Self::peek`] shows nothing.
    pub(crate) fn fingerprint(self) -> Fingerprint {
        self.reader.into_inner().hash.finalize().into()
    }
}

/// Counts what is read from disk.
struct CountingReader {
    file: File,
    position: Arc<AtomicU64>,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.position.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Hashes what is unpacked.
struct HashingReader {
    reader: Box<dyn Read + Send>,
    hash: Sha256,
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.read(buffer)?;
        self.hash.update(&buffer[..bytes]);
        Ok(bytes)
    }
}

/// The system's words for an error, without the number behind them.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}
