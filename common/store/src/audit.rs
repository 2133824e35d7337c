//! The audit log of operators' changes: each record is written in the transaction of its change.

use bytes::Bytes;
use doorstep_event::{StreamKey, Timestamp};
use serde::{Deserialize, Serialize};
use strum::FromRepr;

use crate::{DeadLetterId, TableUsage};

/// The default maximum of audit records and their bytes: above either, the oldest are deleted.
pub const MAX_AUDIT: TableUsage = TableUsage {
    rows: 100_000,
    bytes: 256 * 1024 * 1024,
};

/// The maximum of audit records that a store keeps; [`MAX_AUDIT`] by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditBounds(pub TableUsage);

impl Default for AuditBounds {
    fn default() -> Self {
        Self(MAX_AUDIT)
    }
}

/// The number of a record within its store, in the order of writing; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AuditId(pub i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, FromRepr)]
#[serde(rename_all = "snake_case")]
// The numbers stand in the table: append new actions.
#[repr(u8)]
pub enum AuditAction {
    /// Replayed a dead letter.
    Replay,
    /// Skipped a dead letter.
    Skip,
    /// Skipped missing events of a stream.
    SkipGap,
    /// Replaced the data of a dead letter.
    Edit,
    /// Replaced it by importing an edited export.
    Import,
    /// Began to replay many, so that an interrupted run can be resumed with exactly the same ones.
    RunBegun,
    /// Completed such a run.
    RunEnded,
    /// Transferred the queues of the role to this store.
    TakeOver,
    /// Gave a restored store a new source.
    MintSource,
    /// Accepted that the store, or a source that it consumes, was restored.
    AcceptRestored,
    /// Transferred a source to another user of the broker.
    Transfer,
    /// Cancelled a task.
    CancelTask,
    /// Made a task run now.
    RetryTask,
    /// Settled a task as done or failed without running it.
    ResolveTask,
}

/// A record to write; its time is that of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAudit {
    /// The operator's name, as the operator has given it.
    pub operator: String,
    pub action: AuditAction,
    /// The subject of the action under a stable name: [`DeadLetterId::event_digest`], a stream, a task, or the
    /// selection of a run.
    pub about: String,
    pub dead: Option<DeadLetterId>,
    /// The dead letter's stream, or the stream with the gap.
    pub stream: Option<StreamKey>,
    /// The first and the last of the stream's sequences that were changed.
    pub sequences: Option<(u64, u64)>,
    /// The reason in the operator's words.
    pub reason: Option<String>,
    /// The data before the change.
    pub before: Option<Bytes>,
    /// The data after the change.
    pub after: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub id: AuditId,
    /// The time of the commit.
    pub at: Timestamp,
    pub entry: NewAudit,
}

/// Selects the records to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AuditFilter {
    #[default]
    All,
    /// Those about this: see [`NewAudit::about`].
    About(String),
}

/// A page of records, with their total number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// The page, newest first.
    pub rows: Vec<AuditRow>,
    /// The usage of all kept records.
    pub kept: TableUsage,
    /// The number of older records deleted.
    pub forgotten: u64,
}
