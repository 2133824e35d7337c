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
    path: PathBuf,
    file: File,
    bytes: u64,
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

    /// Returns the path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size of the file on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Starts reading from the beginning. All readers share the file's position, so use one at a time.
    ///
    /// # Errors
    /// The file cannot be read, or its name says gzip and its content is not.
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

    /// Converts an error while reading to one for the user.
    pub(crate) fn failed(&self, error: &io::Error, packing: Compression) -> CliError {
        let path = self.path.display();
        match (packing, error.kind()) {
            (Compression::Gzip, ErrorKind::UnexpectedEof) => CliError::data(format!(
                "{path} is truncated, its gzip stream ends too early: download it again"
            )),
            (Compression::Gzip, ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
                CliError::data(format!("{path} is damaged ({error}): download it again"))
            }
            _ => CliError::io(format!("cannot read {path}: {}", plain(error))),
        }
    }
}

/// The compression of the file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not compressed at all.
    Plain,
    /// One or several gzip members.
    Gzip,
}

/// The decompressed bytes of an input.
pub(crate) struct Bytes {
    packing: Compression,
    position: Arc<AtomicU64>,
    reader: BufReader<HashingReader>,
}

impl Bytes {
    /// Returns the compression of the file on disk.
    pub(crate) fn packing(&self) -> Compression {
        self.packing
    }

    /// Returns the number of bytes read from the file on disk.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Returns the next bytes; empty at the end.
    ///
    /// # Errors
    /// The file or its decompression fails; [`Input::failed`] describes the error.
    pub(crate) fn peek(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
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
