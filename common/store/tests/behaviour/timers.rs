//! Timers of a role.

use doorstep_store::{
    DeferReason, DeferredEvent, DeferredRetry, NewDeferred, NewTimer, Store, StoreError,
    StoreUsage, WriteSet,
};

use crate::fixtures::*;

async fn schedule(store: &impl Store, second: i64, new: Vec<NewTimer>) {
    let mut changes = WriteSet::at(at(second));
    changes.timers = new;
    commit(store, changes).await;
}

async fn due(store: &impl Store, second: i64) -> Vec<DeferredEvent> {
    store.due(at(second), 10, u64::MAX).await.unwrap()
}

fn subjects(rows: &[DeferredEvent]) -> Vec<&str> {
    rows.iter().map(|row| row.event.subject.as_str()).collect()
}

pub async fn timers_fall_due_among_deferred_events(store: impl Store) {
    schedule(&store, 1, vec![scheduled("order/3", 30)]).await;
    schedule(
        &store,
        2,
        vec![scheduled("order/1", 10), scheduled("order/2", 10)],
    )
    .await;
    let tried = |about: &str, second| NewDeferred {
        due: Some(at(second)),
        ..deferred(event(about, 0))
    };
    defer(&store, 3, vec![tried("order/4", 20), tried("order/5", 10)]).await;
    assert_eq!(subjects(&due(&store, 9).await), Vec::<&str>::new());
    assert_eq!(store.next_due().await.unwrap(), Some(at(10)));
    let all = due(&store, 30).await;
    let expected = ["order/1", "order/2", "order/5", "order/4", "order/3"];
    assert_eq!(subjects(&all), expected);
    assert_eq!(store.due(at(30), 2, u64::MAX).await.unwrap(), all[..2]);
    assert_eq!(store.due(at(30), 9, 0).await.unwrap(), all[..1]);
    assert_eq!(due(&store, 10).await, all[..3]);

    let row = &all[0];
    assert_eq!(
        (row.reason.clone(), row.attempts),
        (DeferReason::Scheduled, 0)
    );
    assert_eq!((row.since, row.event.time), (at(2), Some(at(10))));
    assert_eq!((row.event.sequence, row.defect.as_ref()), (None, None));
    let as_scheduled = scheduled("order/1", 10);
    assert_eq!(row.event.source, as_scheduled.source);
    assert_eq!(row.event.event_type, as_scheduled.kind);
    assert_eq!(row.event.traceparent, as_scheduled.traceparent);
    assert_eq!(row.event.data, as_scheduled.data);
    // No two have the same id, even after one of them is gone.
    assert_ne!(all[0].event.id, all[1].event.id);
    let last = all[4].event.id.clone();
    let mut changes = WriteSet::at(at(31));
    changes.release = vec![all[4].id];
    changes.timers = vec![scheduled("order/3", 30)];
    commit(&store, changes).await;
    let again = due(&store, 30).await;
    assert_eq!(subjects(&again), expected);
    assert_ne!(again[4].event.id, last);
}

pub async fn a_timer_is_released_once(store: impl Store) {
    schedule(&store, 1, vec![scheduled("order/1", 10)]).await;
    let id = due(&store, 10).await[0].id;
    let mut changes = WriteSet::at(at(10));
    changes.release = vec![id];
    let written = commit(&store, changes.clone()).await;
    assert_eq!(written.usage, StoreUsage::default());
    conflict(&store, changes).await;
    assert_eq!(due(&store, 99).await, []);
    assert_eq!(store.next_due().await.unwrap(), None);
}

pub async fn a_rescheduled_timer_becomes_a_deferred_event(store: impl Store) {
    schedule(&store, 1, vec![scheduled("order/1", 10)]).await;
    let before = due(&store, 10).await.remove(0);
    let mut changes = WriteSet::at(at(11));
    changes.reschedule = vec![DeferredRetry {
        id: before.id,
        reason: DeferReason::WaitingFor(entity("stock/1")),
        due: Some(at(60)),
        attempts: 1,
        since: at(11),
    }];
    let usage = commit(&store, changes).await.usage;
    assert_eq!((usage.timers.rows, usage.deferred.rows), (0, 1));
    assert_eq!(usage.timers.bytes, 0);
    assert_eq!(due(&store, 59).await, []);
    // The entity that it waits for makes it due, like any other deferred event.
    let mut changes = WriteSet::at(at(20));
    changes.entities = vec![change_entity(&store, "stock/1", Some("{}")).await];
    commit(&store, changes).await;
    let after = due(&store, 20).await.remove(0);
    assert_eq!((after.id, after.event), (before.id, before.event));
    assert_eq!((after.attempts, after.since), (1, at(11)));
    assert_eq!(after.reason, DeferReason::WaitingFor(entity("stock/1")));
    let mut end = WriteSet::at(at(21));
    end.release = vec![after.id];
    assert_eq!(commit(&store, end).await.usage, StoreUsage::default());
}

pub async fn a_timer_is_no_gap_and_blocks_nothing(store: impl Store) {
    let distant = scheduled("order/1", 500);
    schedule(&store, 1, vec![distant, scheduled("order/1", 10)]).await;
    assert_eq!(store.streams(None, 10).await.unwrap(), []);
    assert_eq!(store.gaps(at(999), at(999), 10).await.unwrap(), []);
    assert_eq!(store.repair_due(at(999)).await.unwrap(), 0);
    let summary = store.summary(at(10)).await.unwrap();
    assert_eq!((summary.held_due, summary.gaps, summary.blocked), (0, 0, 0));
    assert_eq!((summary.scheduled_due, summary.oldest_held_ms), (1, None));
    assert_eq!(summary.usage.deferred.rows, 0);
    assert_eq!(summary.usage.timers.rows, 2);
    assert_eq!(store.summary(at(9)).await.unwrap().scheduled_due, 0);
}

pub async fn a_deferred_event_cannot_become_a_timer(store: impl Store) {
    let mut changes = WriteSet::at(at(1));
    changes.defer = vec![NewDeferred {
        reason: DeferReason::Scheduled,
        ..deferred(event("order/1", 0))
    }];
    let rejected = store.commit(changes).await.unwrap_err();
    assert!(
        matches!(rejected, StoreError::Unusable { .. }),
        "{rejected}"
    );
}
