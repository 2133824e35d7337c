//! Approximate row sizes: one rule for every store, so that bounds mean the same in each.

use doorstep_event::{Event, EventId, Source};

use crate::{
    NewReply, TaskRow,
    audit::NewAudit,
    rows::{DeadLetter, OutboxKind},
};

fn add(lengths: impl IntoIterator<Item = usize>) -> u64 {
    lengths
        .into_iter()
        .fold(0, |sum, length| sum.saturating_add(length as u64))
}

/// A budget of bytes for one read. Once it is exceeded, it takes nothing more, so that a read leaves no holes.
#[derive(Debug)]
pub(crate) struct ByteBudget(Option<u64>);

impl ByteBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Some(bytes))
    }

    /// Takes bytes from the budget; returns false if it is exceeded.
    pub(crate) fn takes(&mut self, bytes: u64) -> bool {
        self.0 = self.0.and_then(|left| left.checked_sub(bytes));
        self.0.is_some()
    }
}

/// The size of a deferred event.
pub(crate) fn deferred(event: &Event, defect: Option<&str>) -> u64 {
    add([event.size(), defect.map_or(0, str::len)])
}

/// The size of a dead letter.
pub(crate) fn dead_letter(row: &DeadLetter) -> u64 {
    add([
        row.event.as_ref().map_or(0, Event::size),
        row.body.len(),
        row.id.0.len(),
        row.reason.len(),
        row.detail.len(),
        row.fingerprint.len(),
        row.task.as_ref().map_or(0, |id| id.as_str().len()),
        row.defect.as_deref().map_or(0, str::len),
    ])
}

/// The size of a task.
pub(crate) fn task(row: &TaskRow) -> u64 {
    let own = add([
        row.id.as_str().len(),
        row.kind.as_str().len(),
        row.subject.as_str().len(),
        row.traceparent.as_deref().map_or(0, str::len),
        row.input.len(),
        64,
    ]);
    own.saturating_add(task_progress(row))
}

/// The part of a task's size that changes while it is live.
pub(crate) fn task_progress(row: &TaskRow) -> u64 {
    add([
        row.note.as_deref().map_or(0, str::len),
        row.error.as_deref().map_or(0, str::len),
        row.checkpoint.as_deref().map_or(0, <[u8]>::len),
    ])
}

/// The size of an audit record.
pub(crate) fn audit(entry: &NewAudit) -> u64 {
    let stream = entry.stream.as_ref();
    add([
        entry.operator.len(),
        entry.about.len(),
        entry.dead.as_ref().map_or(0, |id| id.0.len()),
        stream.map_or(0, |s| s.source.as_str().len() + s.subject.as_str().len()),
        entry.reason.as_deref().map_or(0, str::len),
        entry.before.as_ref().map_or(0, bytes::Bytes::len),
        entry.after.as_ref().map_or(0, bytes::Bytes::len),
        64,
    ])
}

/// The size of a seen id.
pub(crate) fn seen(source: &Source, id: &EventId) -> u64 {
    add([source.as_str().len(), id.as_str().len()])
}

/// The size of a reply to a command.
pub(crate) fn reply(new: &NewReply) -> u64 {
    add([
        new.caller.as_str().len(),
        new.id.as_str().len(),
        new.reply.len(),
        64,
    ])
}

/// The size of an outbox row.
pub(crate) fn outbox(kind: &OutboxKind) -> u64 {
    match kind {
        OutboxKind::Event(event) => add([event.size()]),
        OutboxKind::DeadCopy { id, headers, body } => add([
            id.0.len(),
            body.len(),
            headers.iter().map(|(k, v)| k.len() + v.len()).sum(),
        ]),
    }
}
