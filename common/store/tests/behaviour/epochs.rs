//! Epochs of the store, and of the events that it keeps.

use doorstep_event::{Epoch, Event};
use doorstep_store::{
    DeadLetterFilter, EpochStatus, LearnedEpoch, MAX_OWN_EPOCHS, MAX_RESTORED_SOURCES,
    NewDeadLetter, NewOutbox, OutboxKind, OwnEpoch, ReadSet, RestoredChange, RestoredSource,
    RestoredSourceChange, Store, StreamEpoch, StreamState, WriteSet, begin_epoch,
};

use crate::fixtures::*;

fn epoch(counter: u64, random: u64) -> Epoch {
    Epoch::new(counter, random).unwrap()
}

fn begins(second: i64, random: u64) -> WriteSet {
    WriteSet {
        begin_epoch: Some(random),
        ..WriteSet::at(at(second))
    }
}

fn publishes(second: i64, events: impl IntoIterator<Item = Event>) -> WriteSet {
    let new = |event| NewOutbox {
        kind: OutboxKind::Event(event),
    };
    WriteSet {
        outbox: events.into_iter().map(new).collect(),
        ..WriteSet::at(at(second))
    }
}

async fn published(store: &impl Store) -> Vec<Option<Epoch>> {
    let rows = store.outbox(at(1_000), 100).await.unwrap();
    rows.into_iter()
        .map(|row| match row.kind {
            OutboxKind::Event(event) => event.epoch,
            OutboxKind::DeadCopy { .. } => None,
        })
        .collect()
}

pub async fn each_start_begins_an_epoch(store: impl Store) {
    assert_eq!(store.epochs().await.unwrap().latest(), None);
    let first = commit(&store, begins(1, u64::MAX)).await.epoch;
    assert_eq!(first, Some(epoch(1, u64::MAX)));
    assert_eq!(commit(&store, WriteSet::at(at(2))).await.epoch, None);
    let second = commit(&store, begins(3, 7)).await.epoch;
    assert_eq!(second, Some(epoch(2, 7)));
    let own = |epoch, second| OwnEpoch {
        epoch,
        since: at(second),
    };
    let epochs = store.epochs().await.unwrap();
    assert_eq!(epochs.0, [own(epoch(2, 7), 3), own(epoch(1, u64::MAX), 1)]);
    // Two starts never begin the same epoch.
    let third = begin_epoch(&store, at(4)).await.unwrap();
    let fourth = begin_epoch(&store, at(5)).await.unwrap();
    assert_eq!((third.counter(), fourth.counter()), (3, 4));
    assert_ne!(third.random(), fourth.random());
    assert_eq!(store.epochs().await.unwrap().latest(), Some(fourth));
}

pub async fn emitted_events_carry_the_latest_epoch(store: impl Store) {
    commit(&store, publishes(1, [event("order/1", 1)])).await;
    commit(&store, begins(2, 5)).await;
    let unnumbered = event("order/1", 0);
    commit(&store, publishes(3, [event("order/1", 2), unnumbered])).await;
    let other = Event {
        epoch: Some(epoch(9, 9)),
        ..event("order/2", 1)
    };
    let both = WriteSet {
        outbox: publishes(4, [event("order/1", 3), other]).outbox,
        ..begins(4, 6)
    };
    commit(&store, both).await;
    let expected = [
        None,
        Some(epoch(1, 5)),
        None,
        Some(epoch(2, 6)),
        Some(epoch(9, 9)),
    ];
    assert_eq!(published(&store).await, expected);
}

pub async fn epochs_of_events_are_read_back(store: impl Store) {
    commit(&store, begins(1, 1)).await;
    let of = |about: &str, sequence| Event {
        epoch: Some(epoch(i64::MAX as u64, u64::MAX - 1)),
        ..event(about, sequence)
    };
    let mut changes = WriteSet::at(at(2));
    changes.defer = vec![deferred(of("order/1", 2)), deferred(event("order/2", 2))];
    let row = dead_letter("a-1", Some(of("order/3", 1)));
    changes.dead_letters = vec![NewDeadLetter { row: row.clone() }];
    commit(&store, changes).await;
    store.repair_due(at(3)).await.unwrap();
    for (about, expected) in [
        ("order/1", of("order/1", 2)),
        ("order/2", event("order/2", 2)),
    ] {
        advance(&store, 3, about, cursor(about, 1)).await;
        let due = store.due(at(9), 10, u64::MAX).await.unwrap();
        assert!(
            due.iter().any(|deferred| deferred.event == expected),
            "{due:?}"
        );
    }
    let dead = store
        .dead_letters(DeadLetterFilter::All, None, 10)
        .await
        .unwrap();
    assert_eq!(dead, [row]);
}

pub async fn old_epochs_are_pruned(store: impl Store) {
    let starts = MAX_OWN_EPOCHS as u64 + 5;
    for random in 1..=starts {
        commit(&store, begins(1, random)).await;
    }
    let epochs = store.epochs().await.unwrap();
    assert_eq!(epochs.0.len(), MAX_OWN_EPOCHS);
    assert_eq!(epochs.latest(), Some(epoch(starts, starts)));
    assert!(epochs.knows(epoch(6, 6)) && !epochs.knows(epoch(6, 5)));
    assert!(epochs.knows(epoch(5, 5)));
}

pub async fn a_restored_mark_stays_until_accepted(store: impl Store) {
    let restored = async || store.summary(at(1_000)).await.unwrap().restored;
    let change = |second, restored| WriteSet {
        restored: Some(restored),
        ..WriteSet::at(at(second))
    };
    assert_eq!(restored().await, None);
    let mark = |text: &str| RestoredChange::Mark(text.to_owned());
    commit(&store, change(1, mark("from a backup"))).await;
    commit(&store, change(2, mark("again"))).await;
    let found = restored().await.unwrap();
    assert_eq!(
        (found.since, found.detail.as_str()),
        (at(1), "from a backup")
    );
    commit(&store, change(3, RestoredChange::Accept)).await;
    assert_eq!(restored().await, None);
    commit(&store, change(4, mark(&"x".repeat(100_000)))).await;
    let found = restored().await.unwrap();
    assert_eq!((found.since, found.detail.len()), (at(4), 1_000));
}

pub async fn a_stream_keeps_the_epoch_of_its_cursor(store: impl Store) {
    let at_epoch = |from, after_gap| {
        Some(StreamEpoch {
            epoch: epoch(3, u64::MAX),
            from,
            after_gap,
        })
    };
    for (sequence, epoch) in (1..).zip([
        at_epoch(1, false),
        at_epoch(2, true),
        at_epoch(i64::MAX as u64, true),
        None,
    ]) {
        let state = StreamState {
            epoch,
            ..cursor("order/1", sequence)
        };
        advance(&store, 1, "order/1", state).await;
        assert_eq!(stream_row(&store, &stream("order/1")).await.epoch, epoch);
        assert_eq!(store.streams(None, 9).await.unwrap()[0].epoch, epoch);
    }
}

async fn restored(store: &impl Store) -> Vec<RestoredSource> {
    store.summary(at(1_000)).await.unwrap().restored_sources
}

fn learns(second: i64, about: &str, epoch: Epoch, forks: bool) -> WriteSet {
    WriteSet {
        learned: vec![LearnedEpoch {
            source: source(about),
            epoch,
            forks,
        }],
        ..WriteSet::at(at(second))
    }
}

pub async fn two_lineages_list_their_source_until_accepted(store: impl Store) {
    let standings = async |of: [Epoch; 3]| {
        let ask = ReadSet {
            epochs: vec![source("shop/1"), source("shop/9")],
            ..ReadSet::default()
        };
        let loaded = load(&store, ask).await.epochs;
        assert_eq!(loaded[1].standing(of[0]), None);
        of.map(|epoch| loaded[0].standing(epoch))
    };
    let of = [epoch(2, 1), epoch(1, 5), epoch(2, u64::MAX)];
    for (second, epoch) in (1..).zip(of) {
        commit(&store, learns(second, "shop/1", epoch, false)).await;
    }
    use EpochStatus::{Fork, InLine, Late};
    assert_eq!(standings(of).await, [Some(InLine), Some(Late), Some(Fork)]);
    let row = RestoredSource {
        source: source("shop/1"),
        since: at(3),
        last: at(3),
        epoch: of[2],
        conflicts: 0,
    };
    assert_eq!(restored(&store).await, [row]);
    let accept = WriteSet {
        restored_sources: vec![RestoredSourceChange::Accept(source("shop/1"))],
        ..WriteSet::at(at(4))
    };
    commit(&store, accept).await;
    commit(&store, learns(5, "shop/1", of[2], true)).await;
    assert_eq!(restored(&store).await, []);
    // A late epoch turns out to be of another lineage.
    commit(&store, learns(6, "shop/1", of[1], true)).await;
    assert_eq!(standings(of).await, [Some(InLine), Some(Fork), Some(Fork)]);
    assert_eq!(restored(&store).await[0].since, at(6));
}

pub async fn a_conflict_lists_its_source_once(store: impl Store) {
    let conflict = |second, of: &str, dead: &str| {
        let mut changes = WriteSet::at(at(second));
        changes.restored_sources = vec![RestoredSourceChange::Found {
            source: source(of),
            epoch: epoch(2, 2),
            dead: dead_id(dead),
        }];
        let row = dead_letter(dead, None);
        changes.dead_letters_if_absent = vec![NewDeadLetter { row }];
        changes
    };
    commit(&store, conflict(1, "shop/1", "a-1")).await;
    commit(&store, conflict(2, "shop/1", "a-1")).await;
    commit(&store, conflict(3, "shop/1", "b-1")).await;
    let row = RestoredSource {
        source: source("shop/1"),
        since: at(1),
        last: at(3),
        epoch: epoch(2, 2),
        conflicts: 2,
    };
    assert_eq!(restored(&store).await, [row]);
    for number in 0..=MAX_RESTORED_SOURCES {
        let changes = conflict(4, &format!("of/{number}"), &format!("c-{number}"));
        commit(&store, changes).await;
    }
    assert_eq!(restored(&store).await.len(), MAX_RESTORED_SOURCES);
}
