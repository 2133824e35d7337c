//! About how many bytes a row takes: one rule for every store, so that bounds mean the same in each.

use doorstep_event::{Event, EventId, Source};

use crate::{
    NewReply,
    audit::NewAudit,
    rows::{DeadLetter, OutboxKind},
};

fn add(lengths: impl IntoIterator<Item = usize>) -> u64 {
    lengths
        .into_iter()
        .fold(0, |sum, length| sum.saturating_add(length as u64))
}

/// How many bytes may still be read at a time. Once something was too much nothing more is taken, so that nothing is left out between.
#[derive(Debug)]
pub(crate) struct ByteBudget(Option<u64>);

impl ByteBudget {
    pub(crate) fn of(bytes: u64) -> Self {
        Self(Some(bytes))
    }

    /// Takes so many bytes, unless that is too much.
    pub(crate) fn takes(&mut self, bytes: u64) -> bool {
        self.0 = self.0.and_then(|left| left.checked_sub(bytes));
        self.0.is_some()
    }
}

/// Of a held event.
pub(crate) fn held(event: &Event, defect: Option<&str>) -> u64 {
    add([event.size(), defect.map_or(0, str::len)])
}

/// Of a dead letter.
pub(crate) fn dead(row: &DeadLetter) -> u64 {
    add([
        row.event.as_ref().map_or(0, Event::size),
        row.body.len(),
        row.id.0.len(),
        row.reason.len(),
        row.detail.len(),
        row.fingerprint.len(),
        row.defect.as_deref().map_or(0, str::len),
    ])
}

/// Of a record of what an operator has done.
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

/// Of an id that was seen.
pub(crate) fn seen(source: &Source, id: &EventId) -> u64 {
    add([source.as_str().len(), id.as_str().len()])
}

/// Of a reply to a command.
pub(crate) fn reply(new: &NewReply) -> u64 {
    add([
        new.caller.as_str().len(),
        new.id.as_str().len(),
        new.reply.len(),
        64,
    ])
}

/// Of what is owed.
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
