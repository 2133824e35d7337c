//! The sources of an import's events.
//!
//! A source is named after the rows that its numbers come from: the kind of file, and the SHA-256 of its rows in one
//! form, independent of the file. The same rows imported again have the same source and change nothing; other
//! rows number streams of their own.
//!
//! A named data set keeps one source: rows may only be appended, whole units at a time.

use doorstep_event::{AttributeError, Source};
use sha2::{Digest, Sha256};

use super::mapping::RowMapper;

/// The version of the mapping of rows to events. A new version makes other events, and so needs other sources.
const MAPPING_VERSION: u32 = 2;

/// The rows of a source, as they are read.
pub(crate) struct Rows(Sha256);

impl Rows {
    /// Creates an empty set of rows of that kind.
    pub(crate) fn new<M: RowMapper>() -> Self {
        Self(Sha256::new().chain_update(format!("{} {MAPPING_VERSION}", M::NAME)))
    }

    /// Adds a row by its digest.
    pub(crate) fn add(&mut self, digest: &[u8; 32]) {
        self.0.update(digest);
    }

    /// Returns the source of these rows: `import/KIND/HASH`.
    ///
    /// # Errors
    /// None in fact: the name always fits.
    pub(crate) fn source<M: RowMapper>(self) -> Result<Source, AttributeError> {
        let hex = hex::encode(self.0.finalize());
        Source::new(format!("import/{}/{hex}", M::NAME))
    }
}

/// Returns the source of a named data set: `import/KIND/dataset/NAME`.
///
/// # Errors
/// The name does not fit a source.
pub(crate) fn of_dataset<M: RowMapper>(name: &str) -> Result<Source, AttributeError> {
    Source::new(format!("import/{}/dataset/{name}", M::NAME))
}
