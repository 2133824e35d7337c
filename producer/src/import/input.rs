//! An input file as a stream of bytes. Gzip is decompressed and hashed as it is read; other formats are rejected by
//! name.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use doorstep_cli::CliError;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::packing;

const BUFFER_BYTES: usize = 64 * 1024;

/// An open file that is read more than once. It stays open, so a file that replaces it meanwhile is not read instead.
pub(crate) struct Input {
    /// The path as it was given.
    pub(crate) path: PathBuf,
    /// The size of the file on disk.
    pub(crate) bytes: u64,
    file: File,
}

/// The SHA-256 of the decompressed bytes.
pub(crate) type Fingerprint = [u8; 32];

impl Input {
    /// Opens the file.
    ///
    /// # Errors
    /// The file does not exist, may not be read, or is no regular file and so cannot be read twice.
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        let missing = |e: io::Error| {
            CliError::missing(format!("cannot open {}: {}", path.display(), plain(&e)))
        };
        let file = File::open(path).map_err(missing)?;
        let metadata = file.metadata().map_err(missing)?;
        if !metadata.is_file() {
            return Err(CliError::missing(format!(
                "{} is not a regular file, and an import reads its file twice: save it to disk first",
                path.display()
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes: metadata.len(),
        })
    }

    /// Starts reading from the beginning. All readers share the file's position, so use one at a time.
    ///
    /// # Errors
    /// The file cannot be read, or its name says gzip and its content is not.
    pub(crate) fn read(&self) -> Result<Bytes, CliError> {
        let io = |e: io::Error| failed(&self.path, false, &e);
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
            return Err(CliError::data(format!("{path} is {remedy}")));
        }
        let is_gzip = start.starts_with(&packing::GZIP_MAGIC);
        let is_named_gzip = self.path.extension().is_some_and(|e| e == "gz");
        if is_named_gzip && !is_gzip && self.bytes > 0 {
            return Err(CliError::data(format!(
                "{} is not gzip, though its name ends in .gz: rename it if it is plain text, or download it again",
                self.path.display()
            )));
        }
        let unpacked: Box<dyn Read + Send> = if is_gzip {
            Box::new(MultiGzDecoder::new(raw))
        } else {
            Box::new(raw)
        };
        Ok(Bytes {
            path: self.path.clone(),
            is_gzip,
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
}

/// Converts an error while reading to one for the user.
pub(super) fn failed(path: &Path, is_gzip: bool, error: &io::Error) -> CliError {
    let path = path.display();
    match (is_gzip, error.kind()) {
        (true, ErrorKind::UnexpectedEof) => CliError::data(format!(
            "{path} is truncated, its gzip stream ends too early: download it again"
        )),
        (true, ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
            CliError::data(format!("{path} is damaged ({error}): download it again"))
        }
        _ => CliError::io(format!("cannot read {path}: {}", plain(error))),
    }
}

/// The decompressed bytes of an input.
pub(crate) struct Bytes {
    path: PathBuf,
    pub(super) is_gzip: bool,
    position: Arc<AtomicU64>,
    reader: BufReader<HashingReader>,
}

impl Bytes {
    /// Returns the number of bytes read from the file on disk.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Returns the next bytes; empty at the end.
    ///
    /// # Errors
    /// The file cannot be read, or its gzip is damaged.
    pub(crate) fn peek(&mut self) -> Result<&[u8], CliError> {
        let bytes = self.reader.fill_buf();
        bytes.map_err(|e| failed(&self.path, self.is_gzip, &e))
    }

    /// Consumes this many of the bytes that [`Self::peek`] returned.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }

    /// Returns the hash of everything that was read, which is complete once [`Self::peek`] returns nothing.
    pub(crate) fn fingerprint(self) -> Fingerprint {
        self.reader.into_inner().hash.finalize().into()
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl BufRead for Bytes {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }
}

/// Counts the bytes read from disk.
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

/// Hashes the bytes after decompression.
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

/// Returns the system's text of an error, without the number after it.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "the file does not exist".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}
