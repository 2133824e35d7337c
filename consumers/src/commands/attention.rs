//! The work left to an operator once everything else is done: blocked streams, missing events, dead letters, and full
//! stores.

use std::path::Path;

use doorstep_cli::CliError;
use doorstep_event::Timestamp;
use doorstep_store::{
    DeadLetter, DeadLetterFilter, SequenceGap, SqliteStore, Store, Streamless, Summary,
};

use crate::format::{sanitize, shortened, time};

/// The maximum of dead letters, and of gaps, named for a role.
const NAMED: usize = 10;
/// The maximum of characters shown of a dead letter's detail.
const DETAIL_CHARS: usize = 200;

/// Describes how many dead letters went to the overflow file, if any did.
pub(crate) fn of_overflow(streamless: &Streamless, folder: &Path, role: &str) -> Option<String> {
    let Streamless {
        overflowed,
        dropped,
        ..
    } = streamless;
    (*overflowed > 0).then(|| {
        format!(
            "{overflowed} dead letters that belong to no stream went to {}, {dropped} of them are gone from it",
            SqliteStore::overflow_path(folder, role).display()
        )
    })
}

/// A role that takes no more deliveries, since a table of its store is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FullRole {
    pub(crate) role: &'static str,
    pub(crate) table: &'static str,
    /// Messages ready in its queues; `None` if the queues could not be read.
    pub(crate) ready: Option<u64>,
}

/// Reports the work that is left to an operator. Full roles come first.
///
/// # Errors
/// There is such work, all of which is listed; or a store cannot be read.
pub(crate) async fn report<S: Store>(
    roles: &[(&'static str, S)],
    full: &[FullRole],
) -> Result<(), CliError> {
    let mut lines: Vec<String> = full.iter().map(of_full).collect();
    for (role, store) in roles {
        lines.extend(of_role(role, store).await?);
    }
    if lines.is_empty() {
        return Ok(());
    }
    let list: String = lines.iter().map(|line| format!("\n  {line}")).collect();
    Err(CliError::trouble(format!(
        "all is worked that can be, but not all is well:{list}"
    )))
}

async fn of_role<S: Store>(role: &str, store: &S) -> Result<Vec<String>, CliError> {
    let now = Timestamp::now();
    let summary = store.summary(now).await?;
    let dead = store
        .dead_letters(DeadLetterFilter::All, None, NAMED)
        .await?;
    let gaps = store.gaps(now, now, NAMED).await?;
    let mut lines: Vec<String> = dead.iter().map(|row| of_dead(role, row)).collect();
    lines.extend(left_off(
        role,
        "dead letters",
        summary.usage.dead_letters.rows,
        dead.len(),
    ));
    lines.extend(gaps.iter().map(|gap| of_gap(role, gap)));
    lines.extend(left_off(
        role,
        "streams that miss events",
        summary.gaps,
        gaps.len(),
    ));
    if summary.gaps > 0 {
        lines.push(format!(
            "{role}: publish the missing events again from their source, or skip them with `consumers streams skip-gap`"
        ));
    }
    if summary.blocked > 0 {
        lines.push(format!(
            "{role}: {} blocked, the rest of each is deferred; see `consumers dead-letters list {role}`, then replay or skip",
            counted(summary.blocked, "stream is", "streams are")
        ));
    }
    let unknown = of_unknown(role, &summary);
    lines.extend(unknown.map(|line| format!("{role}: {line}")));
    Ok(lines)
}

/// Describes the tasks whose effect is unknown, if there are any.
pub(crate) fn of_unknown(role: &str, summary: &Summary) -> Option<String> {
    let unknown: u64 = summary.tasks.iter().map(|of| of.unknown).sum();
    (unknown > 0).then(|| {
        format!(
            "the effect of {} unknown; see `consumers tasks list {role} --state unknown`, then retry or resolve",
            counted(unknown, "task is", "tasks is")
        )
    })
}

fn of_full(full: &FullRole) -> String {
    let FullRole { role, table, ready } = full;
    let waiting = match ready {
        Some(0) => String::new(),
        Some(ready) => format!(
            "; {} in its queues",
            counted(*ready, "message waits", "messages wait")
        ),
        None => "; its queues could not be read".to_owned(),
    };
    format!(
        "{role}: the store's {table} are at their bound, so that it takes no deliveries until there is room{waiting}; see `consumers \
         status {role}`"
    )
}

fn of_dead(role: &str, row: &DeadLetter) -> String {
    let what = row.event.as_ref().map_or_else(
        || "an unreadable message".to_owned(),
        |event| {
            let sequence = event
                .sequence
                .map_or(String::new(), |n| format!(" number {n}"));
            format!("{}{sequence} of {}", event.event_type, event.stream())
        },
    );
    format!(
        "{role}: dead {}: {}: {}: {}",
        row.id,
        sanitize(&what),
        row.reason,
        shortened(&row.detail, DETAIL_CHARS)
    )
}

/// Describes a gap, in the words of `status`.
pub(crate) fn of_gap(role: &str, gap: &SequenceGap) -> String {
    format!(
        "{role}: missing {}..{} of {}, {} deferred behind it since {}",
        gap.from,
        gap.to,
        sanitize(&gap.stream.to_string()),
        gap.deferred,
        time(gap.since)
    )
}

fn left_off(role: &str, what: &str, all: u64, named: usize) -> Option<String> {
    let more = all.saturating_sub(named as u64);
    (more > 0).then(|| format!("{role}: {more} more {what}"))
}

fn counted(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use doorstep_cli::ExitReason;
    use doorstep_event::{Source, StreamKey, Subject};
    use doorstep_store::{
        Commit, DeadLetterId, DeadLetterStatus, ExpectedVersion, MemoryStore, NewDeadLetter,
        StreamChange, StreamState, WriteSet,
    };

    use super::*;
    use crate::roles::testing::event;

    fn stream(subject: &str) -> StreamKey {
        StreamKey {
            source: Source::new("test").unwrap(),
            subject: Subject::new(subject).unwrap(),
        }
    }

    async fn commit(store: &MemoryStore, changes: WriteSet) {
        assert!(matches!(
            store.commit(changes).await,
            Ok(Commit::Written(_))
        ));
    }

    fn changed(subject: &str, blocked: Option<DeadLetterId>) -> StreamChange {
        StreamChange {
            key: stream(subject),
            expect: ExpectedVersion {
                row: None,
                version: 0,
            },
            after: Some(StreamState {
                cursor: 0,
                last_id: None,
                blocked,
                epoch: None,
            }),
        }
    }

    fn delivered() -> doorstep_contracts::DeliveryDelivered {
        doorstep_contracts::DeliveryDelivered {
            delivered_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_sound_role_is_no_trouble() {
        assert!(
            report(&[("orders", MemoryStore::new("orders"))], &[])
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn full_role_is_named_with_table_and_backlog() {
        let full = |table, ready| FullRole {
            role: "orders",
            table,
            ready,
        };
        let full = [full("held", Some(0)), full("dead letters", Some(12))];
        let failure = report(&[("orders", MemoryStore::new("orders"))], &full)
            .await
            .unwrap_err();
        assert_eq!(failure.reason, ExitReason::Trouble);
        let said = failure.to_string();
        for part in [
            "orders: the store's held are at their bound, so that it takes no deliveries until there is room; see",
            "orders: the store's dead letters are at their bound, so that it takes no deliveries until there is room; 12 messages wait in \
             its queues; see `consumers status orders`",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }

    #[test]
    fn tasks_of_unknown_effect_need_an_operator() {
        let kind = |unknown| doorstep_store::TaskKindCount {
            kind: "reports.render.v1".parse().unwrap(),
            ready: 5,
            running: 1,
            unknown,
            oldest_ready_ms: Some(1),
        };
        let summary = |tasks| Summary {
            tasks,
            ..Summary::default()
        };
        assert_eq!(of_unknown("reports", &summary(vec![kind(0)])), None);
        let said = of_unknown("reports", &summary(vec![kind(1), kind(2)])).unwrap();
        assert!(
            said.starts_with("the effect of 3 tasks is unknown"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn dead_letters_gaps_and_blocked_streams_are_listed() {
        let store = MemoryStore::new("tracking");
        let mut changes = WriteSet::at(Timestamp::UNIX_EPOCH);
        let id = DeadLetterId("3f2a-1".into());
        changes
            .streams
            .push(changed("delivery/1", Some(id.clone())));
        changes.dead_letters.push(NewDeadLetter {
            row: doorstep_store::DeadLetter {
                id,
                event: Some(event("delivery/1", 1, &delivered())),
                body: "{}".into(),
                blocks: true,
                reason: "breaks a rule".into(),
                detail: "was not assigned yet\u{1b}".into(),
                fingerprint: "77".into(),
                attempts: 1,
                since: Timestamp::UNIX_EPOCH,
                status: DeadLetterStatus::Open,
                defect: None,
                task: None,
            },
        });
        changes.streams.push(changed("delivery/2", None));
        changes.defer.push(doorstep_store::NewDeferred {
            event: event("delivery/2", 4, &delivered()),
            defect: None,
            reason: doorstep_store::DeferReason::OutOfOrder,
            due: None,
            attempts: 0,
            since: Timestamp::UNIX_EPOCH,
        });
        commit(&store, changes).await;
        let failure = report(&[("tracking", store)], &[]).await.unwrap_err();
        assert_eq!(failure.reason, ExitReason::Trouble);
        let said = failure.to_string();
        for part in [
            "tracking: dead 3f2a-1: delivery.delivered.v1 number 1 of delivery/1 from test: breaks a rule: was not assigned yet\\u{1b}",
            "tracking: missing 1..3 of delivery/2 from test, 1 deferred behind it since 1970-01-01T00:00:00Z",
            "tracking: 1 stream is blocked",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
