//! `consumers dead-letters show`.

use std::collections::BTreeMap;

use doorstep_cli::{
    CliError,
    output::{print, print_json},
};
use doorstep_event::{Event, Sequence, headers};
use doorstep_store::{AuditAction, AuditFilter, AuditRow, DeadLetter, ReadSet, Store};
use doorstep_table::{fields, terminal_width};
use serde::Serialize;

use super::{
    audit_view::{RecordView, action},
    list::state,
    selection::one,
    view::{DeadLetterDetail, Original, body},
};
use crate::{
    cli::dead_letters::ShowArgs,
    format::{indented, or_dash, range, sanitize, time},
    stores,
};

/// The maximum of sequences listed for the events behind a dead letter; their number is always exact.
const MAX_DEFERRED: usize = 10_000;
/// The maximum of records shown for one dead letter.
const MAX_RECORDS: usize = 1_000;

/// The events that a dead letter blocks.
#[derive(Debug, Default, Serialize)]
struct BlockedEvents {
    count: u64,
    /// Their sequences, as ranges with both ends.
    sequences: Vec<(u64, u64)>,
}

/// A dead letter with all its details.
#[derive(Debug, Serialize)]
struct All<'a> {
    #[serde(flatten)]
    letter: DeadLetterDetail<'a>,
    #[serde(flatten)]
    original: Option<Original<'a>>,
    /// The event's attributes as headers of its message.
    headers: BTreeMap<&'a str, String>,
    holds_back: BlockedEvents,
    /// Its audit records so far, the oldest first.
    edits: Vec<RecordView<'a>>,
}

/// Shows a dead letter in full.
///
/// # Errors
/// There is no store or no such dead letter, or the store cannot be read.
pub(crate) async fn show(args: ShowArgs) -> Result<(), CliError> {
    let store = stores::try_open_read_only(&args.place)?;
    let role = args.place.role.name;
    let row = one(&store, role, &args.id).await?;
    let holds_back = holds_back(&store, &row).await?;
    let records = edits(&store, &row).await?;
    if args.json {
        let headers = row.event.iter().flat_map(|event| headers::write(event));
        return print_json(&All {
            letter: DeadLetterDetail::new(role, &row),
            original: Original::if_edited(&row),
            headers: headers.collect(),
            holds_back,
            edits: records.iter().map(RecordView::new).collect(),
        });
    }
    let mut members = json_members(role, &row);
    if row.blocks {
        members.push(("holds back", describe_blocked(&holds_back)));
    }
    members.extend(records.iter().map(|record| ("so far", history(record))));
    for (_, value) in &mut members {
        *value = sanitize(value);
    }
    print(|out| {
        writeln!(out, "{}", fields(&members, terminal_width()))?;
        writeln!(out, "{}", decode_body(body(&row)))?;
        if row.is_edited() {
            writeln!(out, "\nas it first came:\n{}", decode_body(&row.body))?;
        }
        Ok(())
    })
}

fn describe_blocked(blocked: &BlockedEvents) -> String {
    let ranges: Vec<String> = blocked
        .sequences
        .iter()
        .take(20)
        .copied()
        .map(range)
        .collect();
    match (blocked.count, ranges.len() < blocked.sequences.len()) {
        (0, _) => "nothing".to_owned(),
        (count, false) => format!("{count}: {}", ranges.join(", ")),
        (count, true) => format!("{count}: {}, and more", ranges.join(", ")),
    }
}

fn history(record: &AuditRow) -> String {
    let entry = &record.entry;
    let reason = entry.reason.as_deref().unwrap_or_default();
    let colon = if reason.is_empty() { "" } else { ": " };
    format!(
        "{} {} by {}{colon}{reason}",
        time(record.at),
        action(entry.action),
        entry.operator
    )
}

/// Returns the audit records of a dead letter and its predecessors, the oldest first.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn edits<S: Store>(
    store: &S,
    row: &DeadLetter,
) -> Result<Vec<AuditRow>, CliError> {
    let about = AuditFilter::About(row.id.event_digest().to_owned());
    let mut records = store.audit(about, None, MAX_RECORDS).await?.rows;
    records.retain(|record| {
        matches!(
            record.entry.action,
            AuditAction::Edit | AuditAction::Import | AuditAction::Replay
        )
    });
    records.reverse();
    Ok(records)
}

/// Returns the number of events that a dead letter blocks.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn held_behind<S: Store>(store: &S, row: &DeadLetter) -> Result<u64, CliError> {
    Ok(holds_back(store, row).await?.count)
}

async fn holds_back<S: Store>(store: &S, row: &DeadLetter) -> Result<BlockedEvents, CliError> {
    let Some(event) = row.event.as_ref().filter(|_| row.blocks) else {
        return Ok(BlockedEvents::default());
    };
    let number = event.sequence.map_or(0, Sequence::get);
    let blocked = store
        .deferred_sequences(event.stream(), number, MAX_DEFERRED)
        .await?;
    let mut count = blocked.len() as u64;
    if blocked.len() == MAX_DEFERRED {
        count = count.max(held_in_all(store, event).await?);
    }
    Ok(BlockedEvents {
        count,
        sequences: ranges(blocked.into_iter().map(Sequence::get)),
    })
}

async fn held_in_all<S: Store>(store: &S, event: &Event) -> Result<u64, CliError> {
    let ask = ReadSet {
        streams: vec![event.stream()],
        ..ReadSet::default()
    };
    let loaded = store.load(ask).await?;
    Ok(loaded.streams.first().map_or(0, |stream| stream.deferred))
}

/// Returns ascending numbers as ranges without gaps.
fn ranges(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if number == *last + 1 => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

fn json_members(role: &str, row: &DeadLetter) -> Vec<(&'static str, String)> {
    let mut members = vec![
        ("role", role.to_owned()),
        ("id", row.id.0.clone()),
        ("state", state(row).to_owned()),
        ("reason", row.reason.clone()),
        ("detail", row.detail.clone()),
        ("attempts", row.attempts.to_string()),
        ("since", row.since.to_string()),
        ("fingerprint", row.fingerprint.clone()),
    ];
    members.extend(row.task.iter().map(|task| ("task", task.to_string())));
    if let Some(event) = &row.event {
        members.extend([
            ("type", event.event_type.to_string()),
            ("subject", event.subject.to_string()),
            ("source", event.source.to_string()),
            ("sequence", or_dash(event.sequence)),
            ("event id", event.id.to_string()),
            ("time", or_dash(event.time)),
        ]);
    }
    members
}

/// Formats a body for people: indented JSON, anything else as text.
fn decode_body(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if body.is_empty() {
        return "(no data)".to_owned();
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => indented(&text)
            .lines()
            .map(sanitize)
            .collect::<Vec<_>>()
            .join("\n"),
        Err(_) => sanitize(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_events_are_shown_as_ranges() {
        let blocked = |numbers: &[u64]| BlockedEvents {
            count: numbers.len() as u64,
            sequences: ranges(numbers.iter().copied()),
        };
        assert_eq!(describe_blocked(&blocked(&[])), "nothing");
        assert_eq!(
            describe_blocked(&blocked(&[3, 4, 5, 7, 9, 10])),
            "6: 3..5, 7, 9..10"
        );
        let many: Vec<u64> = (1..=50).map(|n| n * 2).collect();
        assert!(describe_blocked(&blocked(&many)).ends_with(", 40, and more"));
    }
}
