//! Deferred events: sequences, due times, and the changes that make them due.

use doorstep_event::{Sequence, Timestamp};
use doorstep_store::{
    DeferReason, DeferredId, DeferredRetry, NewDeferred, ReadSet, Store, WriteSet,
};

use crate::fixtures::*;

fn awaiting(about: &str, sequence: u64, key: &str, due: Option<Timestamp>) -> NewDeferred {
    NewDeferred {
        reason: DeferReason::WaitingFor(entity(key)),
        due,
        attempts: 1,
        ..deferred(event(about, sequence))
    }
}

const NONE: [u64; 0] = [];

async fn due_at(store: &impl Store, second: i64) -> Vec<u64> {
    sequences(&store.due(at(second), 100, u64::MAX).await.unwrap())
}

pub async fn the_next_events_load_with_their_stream(store: impl Store) {
    let events = [2, 3, 4, 6, 7].map(|n| deferred(event("order/1", n)));
    defer(&store, 1, events.into()).await;
    defer(&store, 1, vec![deferred(event("order/2", 2))]).await;
    assert_eq!(deferred_next(&store, "order/1", 8).await, []);
    advance(&store, 2, "order/1", cursor("order/1", 1)).await;
    let next = deferred_next(&store, "order/1", 8).await;
    assert_eq!(sequences(&next), [2, 3, 4]);
    assert_eq!(
        sequences(&deferred_next(&store, "order/1", 2).await),
        [2, 3]
    );
    assert_eq!(deferred_next(&store, "order/1", 0).await, []);
    let row = stream_row(&store, &stream("order/1")).await;
    assert_eq!(row.deferred, 5);

    advance(&store, 3, "order/2", cursor("order/2", 1)).await;
    let ask = ReadSet {
        streams: vec![stream("order/2"), stream("order/9"), stream("order/1")],
        deferred_per_stream: 8,
        deferred_bytes: u64::MAX,
        ..ReadSet::default()
    };
    let loaded = load(&store, ask).await;
    assert_eq!(sequences(&loaded.deferred), [2, 2, 3, 4]);
    assert_eq!(loaded.deferred[0].event.subject, subject("order/2"));
}

pub async fn the_next_events_load_within_their_bytes(store: impl Store) {
    for about in ["order/1", "order/2"] {
        let events = [2, 3, 4].map(|n| deferred(event(about, n)));
        defer(&store, 1, events.into()).await;
        advance(&store, 2, about, cursor(about, 1)).await;
    }
    let one = event("order/1", 2).size() as u64;
    let brought = async |bytes| {
        let ask = ReadSet {
            streams: vec![stream("order/1"), stream("order/2")],
            deferred_per_stream: 8,
            deferred_bytes: bytes,
            ..ReadSet::default()
        };
        sequences(&load(&store, ask).await.deferred)
    };
    assert_eq!(brought(one - 1).await, NONE);
    assert_eq!(brought(one * 2).await, [2, 3]);
    assert_eq!(brought(one * 4).await, [2, 3, 4, 2]);
    // An event that exceeds the budget is never left out in favour of a later one.
    assert_eq!(brought(one * 6 - 1).await, [2, 3, 4, 2, 3]);
}

pub async fn due_events_respect_the_byte_limit_except_one(store: impl Store) {
    let one = event("order/1", 2).size() as u64;
    let events = [2, 3, 4].map(|n| NewDeferred {
        due: Some(at(n as i64)),
        ..deferred(event("order/1", n))
    });
    defer(&store, 1, events.into()).await;
    for (bytes, expected) in [
        (0, &[2][..]),
        (one, &[2]),
        (one * 2, &[2, 3]),
        (one * 9, &[2, 3, 4]),
    ] {
        let due = store.due(at(9), 10, bytes).await.unwrap();
        assert_eq!(sequences(&due), expected, "within {bytes} bytes");
    }
}

pub async fn a_blocked_stream_loads_its_replay(store: impl Store) {
    advance(&store, 1, "order/1", blocked("order/1", 3, "d1")).await;
    defer(&store, 2, vec![deferred(event("order/1", 5))]).await;
    assert_eq!(deferred_next(&store, "order/1", 8).await, []);
    let replay = NewDeferred {
        reason: DeferReason::Replay(dead_id("d1")),
        due: Some(at(3)),
        ..deferred(event("order/1", 4))
    };
    defer(&store, 3, vec![replay]).await;
    let next = deferred_next(&store, "order/1", 8).await;
    assert_eq!(sequences(&next), [4, 5]);
    assert_eq!(next[0].reason, DeferReason::Replay(dead_id("d1")));
    assert_eq!(due_at(&store, 3).await, [4]);
}

pub async fn a_deferred_event_is_read_back(store: impl Store) {
    let mut odd = event("order/2", 7);
    odd.time = Some(Timestamp::MIN);
    odd.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    odd.data = vec![0, 159, 146, 150].into();
    let mut late = event("order/3", 1);
    late.time = Some("2026-11-23T10:00:00.123456789Z".parse().unwrap());
    let mut timeless = event("order/4", 1);
    timeless.time = None;
    let all = [event("order/1", i64::MAX as u64), odd, late, timeless];
    for event in all {
        let new = NewDeferred {
            event: event.clone(),
            defect: Some("type is missing".into()),
            reason: DeferReason::WaitingFor(entity("stock/1")),
            due: Some(at(9)),
            attempts: u32::MAX,
            since: at(4),
        };
        defer(&store, 5, vec![new.clone()]).await;
        let rows = store.due(at(9), 10, u64::MAX).await.unwrap();
        let row = rows.into_iter().find(|row| row.event == event).unwrap();
        assert_eq!(row.defect, new.defect);
        assert_eq!(row.reason, new.reason);
        assert_eq!(row.attempts, new.attempts);
        assert_eq!(row.since, new.since);
    }
}

pub async fn a_sequence_shows_its_deferred_event(store: impl Store) {
    defer(&store, 1, vec![deferred(event("order/1", 5))]).await;
    let place = |about, n| (stream(about), Sequence::new(n).unwrap());
    let ask = ReadSet {
        deferred_at: vec![
            place("order/1", 4),
            place("order/1", 5),
            place("order/2", 5),
        ],
        ..ReadSet::default()
    };
    let there = load(&store, ask).await.deferred_at;
    assert_eq!(there, [None, Some((event("order/1", 5).id, None)), None]);
}

pub async fn an_occupied_sequence_is_a_conflict(store: impl Store) {
    defer(&store, 1, vec![deferred(event("order/1", 5))]).await;
    let mut changes = WriteSet::at(at(2));
    changes.defer = vec![deferred(event("order/1", 5))];
    conflict(&store, changes).await;
    let mut twice = WriteSet::at(at(2));
    twice.defer = vec![deferred(event("order/1", 6)), deferred(event("order/1", 6))];
    conflict(&store, twice).await;
    assert_eq!(stream_row(&store, &stream("order/1")).await.deferred, 1);
}

pub async fn a_release_makes_room_in_the_same_changes(store: impl Store) {
    advance(&store, 1, "order/1", cursor("order/1", 4)).await;
    defer(&store, 1, vec![deferred(event("order/1", 5))]).await;
    let before = deferred_next(&store, "order/1", 1).await.remove(0);
    let mut changes = WriteSet::at(at(2));
    changes.release = vec![before.id];
    changes.defer = vec![NewDeferred {
        attempts: 3,
        ..deferred(event("order/1", 5))
    }];
    commit(&store, changes).await;
    let after = deferred_next(&store, "order/1", 1).await.remove(0);
    assert_eq!(after.attempts, 3);
    assert_ne!(after.id, before.id);
    assert_eq!(stream_row(&store, &stream("order/1")).await.deferred, 1);
}

pub async fn a_missing_event_cannot_be_released_or_rescheduled(store: impl Store) {
    advance(&store, 1, "order/1", cursor("order/1", 4)).await;
    defer(&store, 1, vec![deferred(event("order/1", 5))]).await;
    let id = deferred_next(&store, "order/1", 1).await.remove(0).id;
    let release = |ids: &[DeferredId]| {
        let mut changes = WriteSet::at(at(2));
        changes.release = ids.into();
        changes
    };
    conflict(&store, release(&[id, id])).await;
    commit(&store, release(&[id])).await;
    conflict(&store, release(&[id])).await;
    let mut changes = WriteSet::at(at(3));
    changes.reschedule = vec![DeferredRetry {
        id,
        reason: DeferReason::OutOfOrder,
        due: None,
        attempts: 1,
        since: at(3),
    }];
    conflict(&store, changes).await;
    // A number is never reused, so that it cannot come to denote another event.
    defer(&store, 4, vec![deferred(event("order/1", 5))]).await;
    conflict(&store, release(&[id])).await;
}

pub async fn a_cursor_drops_the_events_it_passes(store: impl Store) {
    let events = [2, 3, 5, 9].map(|n| deferred(event("order/1", n)));
    defer(&store, 1, events.into()).await;
    defer(&store, 1, vec![deferred(event("order/2", 2))]).await;
    advance(&store, 2, "order/1", cursor("order/1", 5)).await;
    let row = stream_row(&store, &stream("order/1")).await;
    assert_eq!(row.deferred, 1);
    let gaps = store.gaps(at(10), at(999), 10).await.unwrap();
    assert_eq!((gaps[0].from, gaps[0].to, gaps[0].deferred), (6, 8, 1));
    assert_eq!(gaps[1].stream, stream("order/2"));
    assert_eq!(store.summary(at(2)).await.unwrap().usage.deferred.rows, 2);
}

pub async fn the_next_event_becomes_due_with_its_stream(store: impl Store) {
    defer(
        &store,
        1,
        vec![deferred(event("order/1", 2)), deferred(event("order/1", 3))],
    )
    .await;
    assert_eq!(store.next_due().await.unwrap(), None);
    advance(&store, 5, "order/1", cursor("order/1", 1)).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(5)));
    assert_eq!(due_at(&store, 4).await, NONE);
    assert_eq!(due_at(&store, 5).await, [2]);
    // An event deferred as the next one by the same changes becomes due as well.
    defer(&store, 7, vec![deferred(event("order/2", 1))]).await;
    assert_eq!(due_at(&store, 7).await, [2, 1]);
}

pub async fn the_next_event_keeps_its_own_due_time(store: impl Store) {
    defer(
        &store,
        1,
        vec![awaiting("order/1", 1, "stock/1", Some(at(60)))],
    )
    .await;
    advance(&store, 2, "order/1", cursor("order/1", 0)).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(60)));
    assert_eq!(store.repair_due(at(3)).await.unwrap(), 0);
    assert_eq!(due_at(&store, 59).await, NONE);
    assert_eq!(due_at(&store, 60).await, [1]);
}

pub async fn a_blocked_stream_makes_nothing_due(store: impl Store) {
    defer(&store, 1, vec![deferred(event("order/1", 2))]).await;
    advance(&store, 2, "order/1", blocked("order/1", 1, "d1")).await;
    assert_eq!(store.next_due().await.unwrap(), None);
    assert_eq!(store.repair_due(at(3)).await.unwrap(), 0);
    assert_eq!(stream_row(&store, &stream("order/1")).await.deferred, 1);
    advance(&store, 4, "order/1", cursor("order/1", 1)).await;
    assert_eq!(due_at(&store, 4).await, [2]);
}

pub async fn a_changed_entity_makes_waiting_events_due(store: impl Store) {
    let far = Some(at(3_600));
    let new = vec![
        awaiting("order/1", 1, "stock/1", far),
        awaiting("order/2", 1, "stock/2", far),
        awaiting("order/3", 0, "stock/1", None),
    ];
    defer(&store, 1, new).await;
    let mut read = WriteSet::at(at(2));
    read.entities = vec![change_entity(&store, "stock/1", None).await];
    commit(&store, read).await;
    assert_eq!(store.due(at(2), 10, u64::MAX).await.unwrap(), []);
    let mut changed = WriteSet::at(at(3));
    changed.entities = vec![change_entity(&store, "stock/1", Some("{}")).await];
    commit(&store, changed).await;
    let due = store.due(at(3), 10, u64::MAX).await.unwrap();
    let about: Vec<_> = due.iter().map(|h| h.event.subject.as_str()).collect();
    assert_eq!(about, ["order/1", "order/3"]);
    // An event that is due already keeps its due time.
    let mut later = WriteSet::at(at(9));
    later.entities = vec![change_entity(&store, "stock/1", Some("{}")).await];
    commit(&store, later).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(3)));
}

pub async fn deferring_beside_the_entity_change_makes_due(store: impl Store) {
    let mut changes = WriteSet::at(at(3));
    changes.entities = vec![change_entity(&store, "stock/1", Some("{}")).await];
    changes.defer = vec![awaiting("order/1", 1, "stock/1", Some(at(60)))];
    commit(&store, changes).await;
    assert_eq!(due_at(&store, 3).await, [1]);
    let id = store.due(at(3), 1, u64::MAX).await.unwrap().remove(0).id;
    let mut again = WriteSet::at(at(4));
    again.entities = vec![change_entity(&store, "stock/1", Some("[]")).await];
    again.reschedule = vec![DeferredRetry {
        id,
        reason: DeferReason::WaitingFor(entity("stock/1")),
        due: Some(at(60)),
        attempts: 2,
        since: at(2),
    }];
    commit(&store, again).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(4)));
}

pub async fn a_rescheduled_event_waits_for_another_entity(store: impl Store) {
    defer(
        &store,
        1,
        vec![awaiting("order/1", 1, "stock/1", Some(at(2)))],
    )
    .await;
    let before = store.due(at(2), 1, u64::MAX).await.unwrap().remove(0);
    let mut changes = WriteSet::at(at(2));
    changes.reschedule = vec![DeferredRetry {
        id: before.id,
        reason: DeferReason::WaitingFor(entity("stock/2")),
        due: Some(at(60)),
        attempts: 2,
        since: at(2),
    }];
    commit(&store, changes).await;
    let mut other = WriteSet::at(at(3));
    other.entities = vec![change_entity(&store, "stock/1", Some("{}")).await];
    commit(&store, other).await;
    assert_eq!(due_at(&store, 3).await, NONE);
    let mut awaited = WriteSet::at(at(4));
    awaited.entities = vec![change_entity(&store, "stock/2", Some("{}")).await];
    commit(&store, awaited).await;
    let after = store.due(at(4), 1, u64::MAX).await.unwrap().remove(0);
    assert_eq!((after.id, after.attempts), (before.id, 2));
    assert_eq!((after.since, after.event), (at(2), before.event));

    // Deferred without a time, it waits only for its stream or its entity.
    let mut behind = WriteSet::at(at(5));
    behind.reschedule = vec![DeferredRetry {
        id: before.id,
        reason: DeferReason::OutOfOrder,
        due: None,
        attempts: 2,
        since: at(2),
    }];
    commit(&store, behind).await;
    assert_eq!(store.next_due().await.unwrap(), None);
    let mut no_more = WriteSet::at(at(6));
    no_more.entities = vec![change_entity(&store, "stock/2", Some("[]")).await];
    commit(&store, no_more).await;
    assert_eq!(store.next_due().await.unwrap(), None);
}

pub async fn the_longest_due_comes_first(store: impl Store) {
    let new = [(1, 30), (2, 10), (3, 20), (4, 10)];
    for (order, due) in new {
        let about = format!("order/{order}");
        defer(
            &store,
            1,
            vec![awaiting(&about, order, "stock/1", Some(at(due)))],
        )
        .await;
    }
    assert_eq!(due_at(&store, 30).await, [2, 4, 3, 1]);
    assert_eq!(due_at(&store, 20).await, [2, 4, 3]);
    let first = store.due(at(30), 2, u64::MAX).await.unwrap();
    assert_eq!(sequences(&first), [2, 4]);
    assert_eq!(store.due(at(30), 0, u64::MAX).await.unwrap(), []);
}

pub async fn a_repair_finds_missed_events(store: impl Store) {
    // Deferred as next without a change of its stream, so no rule has made it due.
    for about in ["order/1", "order/2", "order/3"] {
        advance(&store, 1, about, cursor(about, 0)).await;
    }
    advance(&store, 1, "order/2", blocked("order/2", 0, "d1")).await;
    let mut changes = WriteSet::at(at(2));
    changes.defer = vec![
        deferred(event("order/1", 1)),
        deferred(event("order/2", 1)),
        deferred(event("order/3", 2)),
    ];
    commit(&store, changes).await;
    assert_eq!(store.next_due().await.unwrap(), None);
    assert_eq!(store.repair_due(at(7)).await.unwrap(), 1);
    assert_eq!(store.repair_due(at(8)).await.unwrap(), 0);
    let due = store.due(at(7), 10, u64::MAX).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].event, event("order/1", 1));
}

pub async fn due_times_ahead_of_the_clock_are_clamped(store: impl Store) {
    let mut changes = WriteSet::at(at(500));
    let rescheduled = |about, until| NewDeferred {
        due: Some(at(until)),
        ..deferred(event(about, 2))
    };
    changes.defer = vec![
        rescheduled("order/1", 560),
        rescheduled("order/2", 70),
        deferred(event("order/3", 2)),
    ];
    changes.timers = vec![scheduled("order/4", 900)];
    commit(&store, changes).await;
    // The clock is back at 10, and no backoff exceeds a minute.
    assert_eq!(store.clamp_due_times(at(10), at(70)).await.unwrap(), 1);
    let due = store.due(at(10), 10, u64::MAX).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].event, event("order/1", 2));
    assert_eq!(store.clamp_due_times(at(10), at(70)).await.unwrap(), 0);
    assert_eq!(store.due(at(899), 10, u64::MAX).await.unwrap().len(), 2);
}
