//! The upkeep of a role's store between batches: recovery of overlooked rows, and retention.

use std::time::Duration;

use doorstep_event::Timestamp;
use doorstep_store::{Result, Store};

use crate::{Limits, relay};

/// The maximum of ids pruned at a time, so that no commit waits for it for long.
const PRUNED_AT_A_TIME: usize = 10_000;
/// The maximum of batches of replies pruned in one turn.
const REPLY_PRUNINGS: usize = 10;

/// Makes rows due that were overlooked or deferred too far, and prunes expired rows if the clock `may_prune`. Tasks are
/// looked after if the role runs any: `max_task_backoff` is the longest time until a task's next attempt.
///
/// # Errors
/// The store could not be used.
pub(super) async fn keep_up<S: Store>(
    store: &S,
    limits: &Limits,
    max_task_backoff: Option<Duration>,
    may_prune: bool,
    now: Timestamp,
) -> Result<()> {
    store.repair_due(now).await?;
    // No backoff of the engine or of the relay is longer, so the clock was ahead.
    let latest_due = now
        .checked_add(limits.max_backoff.max(relay::MAX_BACKOFF))
        .unwrap_or(Timestamp::MAX);
    store.clamp_due_times(now, latest_due).await?;
    if let Some(longest) = max_task_backoff {
        let latest_due = now.checked_add(longest).unwrap_or(Timestamp::MAX);
        store.clamp_task_times(now, latest_due).await?;
    }
    if may_prune {
        prune(store, limits, now).await?;
    }
    Ok(())
}

/// Prunes expired ids, crash counts and replies, a bounded number at a time.
async fn prune<S: Store>(store: &S, limits: &Limits, now: Timestamp) -> Result<()> {
    let oldest_seen = limits.oldest_seen(now);
    store.prune_seen(oldest_seen, PRUNED_AT_A_TIME).await?;
    store
        .prune_crash_counts(oldest_seen, PRUNED_AT_A_TIME)
        .await?;
    let oldest_reply = limits.oldest_reply(now);
    // Replies may come faster than any other rows with a retention.
    for _ in 0..REPLY_PRUNINGS {
        if store.prune_replies(oldest_reply, PRUNED_AT_A_TIME).await? < PRUNED_AT_A_TIME as u64 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use doorstep_event::{
        Event, EventId, EventType, RequestId, Sequence, Source, StreamKey, Subject,
    };
    use doorstep_store::{
        Commit, CrashCountChange, DeferReason, ExpectedVersion, MemoryStore, NewDeferred, NewReply,
        ReadSet, RequestHash, StreamChange, StreamState, WriteSet,
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn source() -> Source {
        Source::new("shop").unwrap()
    }

    /// Returns the event after the first of its stream.
    fn next_of(subject: &str) -> Event {
        Event {
            id: EventId::new(format!("{subject}#2")).unwrap(),
            source: source(),
            event_type: EventType::new("account.moved.v1").unwrap(),
            subject: Subject::new(subject).unwrap(),
            time: None,
            sequence: Sequence::new(2),
            epoch: None,
            traceparent: None,
            data: Bytes::from_static(b"{}"),
        }
    }

    async fn write(store: &MemoryStore, changes: WriteSet) {
        let commit = store.commit(changes).await.unwrap();
        assert!(matches!(commit, Commit::Written(_)), "{commit:?}");
    }

    /// Adds a seen id, a crash count and a reply under this name, as of that time.
    pub(in crate::runner) async fn remember(store: &MemoryStore, name: &str, time: Timestamp) {
        let mut changes = WriteSet::at(time);
        let id = EventId::new(name).unwrap();
        changes.seen = vec![(source(), id.clone(), time)];
        changes.crash_counts = vec![CrashCountChange {
            source: source(),
            id,
            before: 0,
            after: 1,
        }];
        changes.replies = vec![NewReply {
            caller: source(),
            id: RequestId::new(name).unwrap(),
            hash: RequestHash([0; 32]),
            reply: Bytes::from_static(b"{}"),
            time,
        }];
        write(store, changes).await;
    }

    /// Returns whether the seen id, the crash count and the reply of this name are still there.
    pub(in crate::runner) async fn remembered(store: &MemoryStore, name: &str) -> [bool; 3] {
        let id = EventId::new(name).unwrap();
        let ask = ReadSet {
            seen: vec![(source(), id.clone())],
            crash_counts: vec![(source(), id)],
            replies: vec![(source(), RequestId::new(name).unwrap())],
            ..ReadSet::default()
        };
        let loaded = store.load(ask).await.unwrap();
        [
            loaded.seen[0],
            loaded.crash_counts[0] > 0,
            loaded.replies[0].is_some(),
        ]
    }

    /// Defers the next event of a stream whose first one was applied. Without a due time, only a sweep makes it due.
    pub(in crate::runner) async fn defer(
        store: &MemoryStore,
        subject: &str,
        due: Option<Timestamp>,
        now: Timestamp,
    ) {
        let event = next_of(subject);
        let mut changes = WriteSet::at(now);
        changes.streams = vec![StreamChange {
            key: StreamKey {
                source: source(),
                subject: event.subject.clone(),
            },
            expect: ExpectedVersion {
                row: None,
                version: 0,
            },
            after: Some(StreamState {
                cursor: 1,
                last_id: Some(EventId::new(format!("{subject}#1")).unwrap()),
                blocked: None,
                epoch: None,
            }),
        }];
        write(store, changes).await;
        let mut changes = WriteSet::at(now);
        changes.defer = vec![NewDeferred {
            event,
            defect: None,
            reason: DeferReason::OutOfOrder,
            due,
            attempts: 0,
            since: now,
        }];
        write(store, changes).await;
    }

    /// Returns the subjects of the events that are due.
    pub(in crate::runner) async fn due(store: &MemoryStore, now: Timestamp) -> Vec<String> {
        let due = store.due(now, 10, u64::MAX).await.unwrap();
        let mut due: Vec<_> = due
            .into_iter()
            .map(|row| row.event.subject.to_string())
            .collect();
        due.sort();
        due
    }

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().unwrap()
    }

    #[tokio::test]
    async fn missed_and_misdated_rows_are_made_due() {
        let store = MemoryStore::new("ledger");
        let limits = Limits::default();
        let longest = now().checked_add(limits.max_backoff).unwrap();
        defer(&store, "account/overlooked", None, now()).await;
        defer(&store, "account/in-time", Some(longest), now()).await;
        let beyond = longest.checked_add(SECOND).unwrap();
        defer(&store, "account/too-far", Some(beyond), now()).await;
        assert!(due(&store, now()).await.is_empty());
        keep_up(&store, &limits, None, false, now()).await.unwrap();
        let made_due = ["account/overlooked", "account/too-far"];
        assert_eq!(due(&store, now()).await, made_due);
    }

    #[tokio::test]
    async fn trusted_clock_prunes_each_table_by_its_retention() {
        let store = MemoryStore::new("ledger");
        let limits = Limits::default();
        let hours = |hours| now().checked_sub(Duration::from_hours(hours)).unwrap();
        // The default retentions are a week and a day, with an hour of margin for differing clocks.
        let (week, day) = (7 * 24 + 1, 24 + 1);
        remember(
            &store,
            "over-a-week",
            hours(week).checked_sub(SECOND).unwrap(),
        )
        .await;
        remember(
            &store,
            "under-a-week",
            hours(week).checked_add(SECOND).unwrap(),
        )
        .await;
        remember(
            &store,
            "over-a-day",
            hours(day).checked_sub(SECOND).unwrap(),
        )
        .await;
        remember(
            &store,
            "under-a-day",
            hours(day).checked_add(SECOND).unwrap(),
        )
        .await;
        keep_up(&store, &limits, None, false, now()).await.unwrap();
        assert_eq!(remembered(&store, "over-a-week").await, [true; 3]);
        keep_up(&store, &limits, None, true, now()).await.unwrap();
        for (name, wanted) in [
            ("over-a-week", [false, false, false]),
            ("under-a-week", [true, true, false]),
            ("over-a-day", [true, true, false]),
            ("under-a-day", [true, true, true]),
        ] {
            assert_eq!(remembered(&store, name).await, wanted, "{name}");
        }
    }
}
