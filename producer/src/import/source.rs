//! The source of an import's events.
//!
//! Whoever numbers has a source of its own, and an import numbers by what it reads. So its source is named after just that: the kind of
//! file, the SHA-256 of the unpacked content, and the options that shape events. The same import run again has the same source and
//! changes nothing; another content or other options number a stream of their own. A file that grows keeps its source under a name
//! that its owner gives: then rows may only be added at the end, whole invoices at a time, and options must stay as they are.

use doorstep_event::{AttributeError, Source};
use sha2::{Digest, Sha256};

use super::{input::Fingerprint, mapping::Mapping};

/// Counts the ways in which rows became events. A new one makes other events, and so needs other sources.
const MAPPING_VERSION: u32 = 1;

/// The source of events from that content: `import/KIND/HASH`, or `import/KIND/dataset/NAME` for a named data set.
///
/// # Errors
/// The name does not fit a source.
pub(crate) fn of<M: Mapping>(
    mapping: &M,
    dataset: Option<&str>,
    content: Fingerprint,
) -> Result<Source, AttributeError> {
    let kind = M::NAME;
    if let Some(name) = dataset {
        return Source::new(format!("import/{kind}/dataset/{name}"));
    }
    let mut hash = Sha256::new();
    hash.update(content);
    hash.update(format!("{kind} {MAPPING_VERSION} {}", mapping.options()));
    let hash: [u8; 32] = hash.finalize().into();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Source::new(format!("import/{kind}/{hex}"))
}
