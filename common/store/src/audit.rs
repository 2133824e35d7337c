//! Who has changed what by hand: a record of each change by an operator, written in the very transaction of the change.

use bytes::Bytes;
use doorstep_event::{StreamKey, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{DeadLetterId, TableUsage};

/// How many records are kept unless told otherwise, and how many bytes of them: above either the oldest go.
pub const MAX_AUDIT: TableUsage = TableUsage {
    rows: 100_000,
    bytes: 256 * 1024 * 1024,
};

/// Numbers a record within its store, in the order of writing; never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AuditId(pub i64);

/// What an operator has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditAction {
    /// Had a dead letter tried again.
    Replay,
    /// Stepped over a dead letter.
    Skip,
    /// Stepped over events that a stream misses.
    SkipGap,
    /// Put other data in place of a dead letter's.
    Edit,
    /// Did so by reading back what was exported.
    Import,
    /// Began to replay many, so that whoever is interrupted can go on with the very same ones.
    RunBegun,
    /// Came to the end of that.
    RunEnded,
    /// Gave the queues of the role to this store.
    TakeOver,
    /// Gave a restored store a source of its own.
    MintSource,
    /// Accepted that the store, or a source that it consumes, was restored.
    AcceptRestored,
    /// Gave a source to another user of the broker.
    Transfer,
}

impl AuditAction {
    /// All of them, each at the place that its number in a table is counted from.
    pub const ALL: [Self; 11] = [
        Self::Replay,
        Self::Skip,
        Self::SkipGap,
        Self::Edit,
        Self::Import,
        Self::RunBegun,
        Self::RunEnded,
        Self::TakeOver,
        Self::MintSource,
        Self::AcceptRestored,
        Self::Transfer,
    ];
}

/// A record to write; its time is that of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAudit {
    /// Who, as they name themselves.
    pub operator: String,
    /// What was done.
    pub action: AuditAction,
    /// What it was done to, under a name that stays the same: [`DeadLetterId::event_digest`], a stream, or what a run has chosen.
    pub about: String,
    /// The dead letter.
    pub dead: Option<DeadLetterId>,
    /// Its stream, or the one with the gap.
    pub stream: Option<StreamKey>,
    /// Which of the stream's sequences, the first and the last.
    pub sequences: Option<(u64, u64)>,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// The data as it was.
    pub before: Option<Bytes>,
    /// The data as it is from now on.
    pub after: Option<Bytes>,
}

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Which one.
    pub id: AuditId,
    /// When.
    pub at: Timestamp,
    /// The rest of it.
    pub entry: NewAudit,
}

/// Which records to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AuditFilter {
    /// All of them.
    #[default]
    All,
    /// Those about this: see [`NewAudit::about`].
    About(String),
}

/// A page of records, with how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// The page, the newest first.
    pub rows: Vec<AuditRow>,
    /// All that are kept.
    pub kept: TableUsage,
    /// How many older ones had to go.
    pub forgotten: u64,
}
