//! Lists and counts.

use doorstep_event::StreamKey;
use doorstep_store::{
    DeadLetterStatus, EventCounts, ExpectedVersion, NewDeadLetter, NewDeferred, NewOutbox,
    OutboxKind, Resolution, Store, StoreUsage, StreamChange, WriteSet,
};

use crate::fixtures::*;

pub async fn entities_are_listed_by_key_in_pages(store: impl Store) {
    let keys = [
        "stock/b", "stock/B", "order/10", "order/9", "stock/ü", "stock/a",
    ];
    let mut changes = WriteSet::at(at(1));
    for key in keys {
        let change = change_entity(&store, key, Some(key)).await;
        changes.entities.push(change);
    }
    let read = change_entity(&store, "order/8", None).await;
    changes.entities.push(read);
    commit(&store, changes).await;
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = store.entities(after.clone(), 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        listed.extend(page);
    }
    let mut expected = keys;
    expected.sort_unstable();
    let keys: Vec<_> = listed.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, expected);
    assert!(
        listed
            .iter()
            .all(|row| row.state.as_deref() == Some(row.key.as_str().as_bytes()))
    );
    assert!(
        listed
            .iter()
            .all(|row| row.row.is_some() && row.version > 0)
    );
}

pub async fn streams_are_paged_by_source_and_subject(store: impl Store) {
    let key = |from, about| StreamKey {
        source: source(from),
        subject: subject(about),
    };
    let mut keys = vec![
        key("shop/2", "order/1"),
        key("shop/10", "order/2"),
        key("shop/2", "order/10"),
        key("shop/10", "order/1"),
        key("a", "z/z"),
    ];
    let mut changes = WriteSet::at(at(1));
    changes.streams = keys
        .iter()
        .map(|key| StreamChange {
            key: key.clone(),
            expect: ExpectedVersion {
                row: None,
                version: 0,
            },
            after: Some(blocked(key.subject.as_str(), 3, "d1")),
        })
        .collect();
    commit(&store, changes).await;
    keys.sort();
    for size in 1..=6 {
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let page = store.streams(after.clone(), size).await.unwrap();
            assert!(page.len() <= size);
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            listed.extend(page);
        }
        let found: Vec<_> = listed.iter().map(|row| row.key.clone()).collect();
        assert_eq!(found, keys);
        assert!(
            listed
                .iter()
                .all(|row| row.cursor == 3 && row.blocked == Some(dead_id("d1")))
        );
    }
    let from_elsewhere = Some(key("b", "order/1"));
    assert_eq!(store.streams(from_elsewhere, 9).await.unwrap().len(), 4);
}

pub async fn gaps_are_listed_with_missing_sequences(store: impl Store) {
    let since = |about: &str, n, second| NewDeferred {
        since: at(second),
        ..deferred(event(about, n))
    };
    advance(&store, 1, "order/1", cursor("order/1", 3)).await;
    defer(
        &store,
        1,
        vec![since("order/1", 9, 20), since("order/1", 7, 30)],
    )
    .await;
    advance(&store, 1, "order/2", blocked("order/2", 3, "d1")).await;
    defer(&store, 1, vec![since("order/2", 9, 10)]).await;
    defer(
        &store,
        1,
        vec![since("order/3", 1, 10), since("order/3", 5, 10)],
    )
    .await;
    defer(&store, 1, vec![since("order/4", 2, 40)]).await;

    let gaps = store.gaps(at(100), at(999), 10).await.unwrap();
    assert_eq!(gaps.len(), 2);
    assert_eq!(gaps[0].stream, stream("order/1"));
    assert_eq!((gaps[0].from, gaps[0].to), (4, 6));
    assert_eq!((gaps[0].deferred, gaps[0].since), (2, at(20)));
    assert_eq!(gaps[1].stream, stream("order/4"));
    assert_eq!((gaps[1].from, gaps[1].to), (1, 1));
    assert_eq!(store.gaps(at(40), at(999), 10).await.unwrap(), gaps[..1]);
    assert_eq!(store.gaps(at(20), at(999), 10).await.unwrap(), []);
    assert_eq!(store.gaps(at(100), at(999), 1).await.unwrap(), gaps[..1]);
    assert_eq!(store.summary(at(100)).await.unwrap().gaps, 2);
    // The clock was at 40 and is at 30 now: that gap counts as old.
    assert_eq!(store.gaps(at(5), at(30), 10).await.unwrap(), gaps[1..]);
}

pub async fn rows_dated_ahead_are_counted(store: impl Store) {
    let since = |about: &str, second| NewDeferred {
        since: at(second),
        ..deferred(event(about, 2))
    };
    defer(&store, 1, vec![since("order/1", 10), since("order/2", 900)]).await;
    let ahead = async |second| store.summary(at(second)).await.unwrap().dated_ahead;
    assert_eq!((ahead(20).await, ahead(1).await), (1, 2));
    // Clocks are corrected by small steps all the time.
    assert_eq!(ahead(899).await, 0);
    for second in [800, 20] {
        let mut changes = WriteSet::at(at(second));
        changes.outbox = vec![NewOutbox {
            kind: OutboxKind::Event(event("order/1", 1)),
        }];
        commit(&store, changes).await;
    }
    let summary = store.summary(at(30)).await.unwrap();
    assert_eq!(summary.dated_ahead, 2);
    assert_eq!(summary.oldest_outbox, Some(at(800)));
    assert_eq!(summary.oldest_deferred, Some(at(10)));
}

pub async fn the_summary_counts_everything(store: impl Store) {
    let empty = store.summary(at(0)).await.unwrap();
    assert_eq!(empty.usage, StoreUsage::default());
    assert_eq!((empty.oldest_outbox_ms, empty.oldest_held_ms), (None, None));
    assert_eq!(empty.oldest_dead_ms, None);

    let mut changes = WriteSet::at(at(10));
    changes.streams = vec![
        change_stream(&store, "order/1", Some(cursor("order/1", 1))).await,
        change_stream(&store, "order/2", Some(blocked("order/2", 0, "d1"))).await,
        change_stream(&store, "order/3", None).await,
    ];
    changes.entities = vec![
        change_entity(&store, "order/1", Some("{}")).await,
        change_entity(&store, "order/2", None).await,
    ];
    changes.defer = vec![
        deferred(event("order/1", 2)),
        deferred(event("order/2", 2)),
        deferred(event("order/1", 4)),
    ];
    changes.dead_letters = vec![NewDeadLetter {
        row: dead_letter("d1", Some(event("order/2", 1))),
    }];
    changes.seen = vec![(source("shop/1"), event("order/9", 0).id, at(1))];
    changes.outbox = vec![NewOutbox {
        kind: OutboxKind::Event(event("order/1", 1)),
    }];
    changes.counts = EventCounts {
        applied: 1,
        ignored: 2,
        duplicates: 3,
        deferred: 4,
        dead_letters: 5,
        replayed: 6,
        skipped: 7,
        executed: 8,
        tasks_done: 9,
    };
    let tally = changes.counts;
    let receipt = commit(&store, changes).await;
    let summary = store.summary(at(12)).await.unwrap();
    assert_eq!((summary.streams, summary.entities), (3, 1));
    assert_eq!((summary.blocked, summary.gaps), (1, 0));
    assert_eq!(summary.held_due, 1);
    assert_eq!(summary.tally, tally);
    assert_eq!(summary.usage, receipt.usage);
    let rows = |of: doorstep_store::TableUsage| (of.rows, of.bytes > 0);
    assert_eq!(rows(summary.usage.deferred), (3, true));
    assert_eq!(rows(summary.usage.dead_letters), (1, true));
    assert_eq!(rows(summary.usage.seen), (1, true));
    assert_eq!(rows(summary.usage.outbox), (1, true));
    assert_eq!(summary.oldest_outbox_ms, Some(2_000));
    assert_eq!(summary.oldest_held_ms, Some(11_000));
    assert_eq!(summary.oldest_dead_ms, Some(7_000));
    // A clock that has gone back makes no age negative.
    assert_eq!(store.summary(at(0)).await.unwrap().oldest_held_ms, Some(0));
}

pub async fn only_writes_raise_the_commit_count(store: impl Store) {
    let count = async || store.summary(at(0)).await.unwrap().commits;
    let start = count().await;
    advance(&store, 1, "order/1", cursor("order/1", 1)).await;
    let written = count().await;
    assert_ne!(written, start);

    let mut read = WriteSet::at(at(2));
    read.streams = vec![change_stream(&store, "order/1", None).await];
    commit(&store, read).await;
    commit(&store, WriteSet::at(at(2))).await;
    let mut stale = WriteSet::at(at(2));
    stale.streams = vec![StreamChange {
        key: stream("order/1"),
        expect: ExpectedVersion {
            row: None,
            version: 0,
        },
        after: Some(cursor("order/1", 1)),
    }];
    conflict(&store, stale).await;
    store.repair_due(at(3)).await.unwrap();
    store.prune_seen(at(3), 10).await.unwrap();
    store.prune_replies(at(3), 10).await.unwrap();
    store.end_holder(holder(1), at(3)).await.unwrap();
    store.beat_tasks(holder(1), vec![], at(3)).await.unwrap();
    store.take_over_tasks(holder(1), 1, at(3)).await.unwrap();
    assert_eq!(count().await, written);

    let mut tally = WriteSet::at(at(3));
    tally.counts.duplicates = 1;
    commit(&store, tally).await;
    assert_ne!(count().await, written);
}

pub async fn usage_ends_where_it_began(store: impl Store) {
    let awaiting = NewDeferred {
        reason: doorstep_store::DeferReason::WaitingFor(entity("stock/1")),
        due: Some(at(1)),
        defect: Some("type is missing".into()),
        ..deferred(event("order/1", 0))
    };
    defer(
        &store,
        1,
        vec![
            deferred(event("order/1", 1)),
            deferred(event("order/1", 3)),
            awaiting,
        ],
    )
    .await;
    let mut changes = WriteSet::at(at(1));
    changes.dead_letters = vec![NewDeadLetter {
        row: dead_letter("d1", Some(event("order/2", 1))),
    }];
    changes.seen = vec![(source("shop/1"), event("order/9", 0).id, at(1))];
    changes.outbox = vec![
        NewOutbox {
            kind: OutboxKind::Event(event("order/1", 1)),
        },
        NewOutbox {
            kind: OutboxKind::DeadCopy {
                id: dead_id("d1"),
                headers: [("reason".to_owned(), "rule".to_owned())].into(),
                body: vec![1, 2, 3].into(),
            },
        },
    ];
    commit(&store, changes).await;

    let mut end = WriteSet::at(at(2));
    end.release = store
        .due(at(2), 9, u64::MAX)
        .await
        .unwrap()
        .iter()
        .map(|h| h.id)
        .collect();
    assert_eq!(end.release.len(), 2);
    end.streams = vec![change_stream(&store, "order/1", Some(cursor("order/1", 3))).await];
    end.resolve = vec![(dead_id("d1"), DeadLetterStatus::Open, Resolution::Gone)];
    end.published = store
        .outbox(at(2), 9)
        .await
        .unwrap()
        .iter()
        .map(|o| o.id)
        .collect();
    commit(&store, end).await;
    store.prune_seen(at(2), 9).await.unwrap();
    assert_eq!(
        store.summary(at(2)).await.unwrap().usage,
        StoreUsage::default()
    );
}
