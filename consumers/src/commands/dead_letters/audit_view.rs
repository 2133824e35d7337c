//! An audit record as programs see it.

use doorstep_event::Timestamp;
use doorstep_store::{AuditAction, AuditRow};
use serde::Serialize;

use super::view::Body;

#[derive(Debug, Serialize)]
pub(super) struct RecordView<'a> {
    number: i64,
    at: Timestamp,
    operator: &'a str,
    action: AuditAction,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequences: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Body<'a>>,
}

impl<'a> RecordView<'a> {
    pub(super) fn new(row: &'a AuditRow) -> Self {
        let entry = &row.entry;
        let stream = entry.stream.as_ref();
        Self {
            number: row.id.0,
            at: row.at,
            operator: &entry.operator,
            action: entry.action,
            dead: entry.dead.as_ref().map(|id| id.0.as_str()),
            run: is_run(entry.action).then_some(entry.about.as_str()),
            source: stream.map(|stream| stream.source.as_str()),
            subject: stream.map(|stream| stream.subject.as_str()),
            sequences: entry.sequences,
            reason: entry.reason.as_deref(),
            before: entry.before.as_deref().map(Body::from_bytes),
            after: entry.after.as_deref().map(Body::from_bytes),
        }
    }
}

/// Describes an action for people.
pub(super) fn action(action: AuditAction) -> &'static str {
    match action {
        AuditAction::Replay => "replay",
        AuditAction::Skip => "skip",
        AuditAction::SkipGap => "skip gap",
        AuditAction::Edit => "edit",
        AuditAction::Import => "import",
        AuditAction::RunBegun => "run begun",
        AuditAction::RunEnded => "run ended",
        AuditAction::TakeOver => "take over",
        AuditAction::MintSource => "mint source",
        AuditAction::AcceptRestored => "accept restored",
        AuditAction::Transfer => "transfer",
        AuditAction::CancelTask => "cancel task",
        AuditAction::RetryTask => "retry task",
        AuditAction::ResolveTask => "resolve task",
    }
}

/// Returns whether the record is about a run rather than a change.
pub(super) fn is_run(action: AuditAction) -> bool {
    matches!(action, AuditAction::RunBegun | AuditAction::RunEnded)
}
