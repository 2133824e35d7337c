//! The sources of an import's events.
//!
//! An import numbers by what it reads, so a source is named after just that: the kind of file, and the SHA-256 of its rows in one form,
//! however the file wrote them. The same rows imported again have the same source and change nothing; other rows number streams of their
//! own. A data set that its owner names keeps one source: rows may only be added at its end, whole units at a time.

use doorstep_event::{AttributeError, Source};
use sha2::{Digest, Sha256};

use super::mapping::RowMapper;

/// Counts the ways in which rows became events. A new one makes other events, and so needs other sources.
const MAPPING_VERSION: u32 = 2;

/// The rows of a source, as they are read.
pub(crate) struct Rows(Sha256);

impl Rows {
    /// No rows of that kind yet.
    pub(crate) fn new<M: RowMapper>() -> Self {
        Self(Sha256::new().chain_update(format!("{} {MAPPING_VERSION}", M::NAME)))
    }

    /// Adds a row by its digest.
    pub(crate) fn add(&mut self, digest: &[u8; 32]) {
        self.0.update(digest);
    }

    /// The source of these rows: `import/KIND/HASH`.
    ///
    /// # Errors
    /// None in fact: the name always fits.
    pub(crate) fn source<M: RowMapper>(self) -> Result<Source, AttributeError> {
        let hex = hex::encode(self.0.finalize());
        Source::new(format!("import/{}/{hex}", M::NAME))
    }
}

/// The source of a named data set: `import/KIND/dataset/NAME`.
///
/// # Errors
/// The name does not fit a source.
pub(crate) fn of_dataset<M: RowMapper>(name: &str) -> Result<Source, AttributeError> {
    Source::new(format!("import/{}/dataset/{name}", M::NAME))
}
