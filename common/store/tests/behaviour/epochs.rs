//! Epochs of the store, and of what it keeps.

use doorstep_event::{Epoch, Event};
use doorstep_store::{
    Changes, DeadFilter, MAX_OWN_EPOCHS, NewDead, NewOutbox, OutboxKind, OwnEpoch, RestoredChange,
    Store, begin_epoch,
};

use crate::fixtures::*;

fn epoch(counter: u64, random: u64) -> Epoch {
    Epoch::new(counter, random).unwrap()
}

fn begins(second: i64, random: u64) -> Changes {
    Changes {
        begin_epoch: Some(random),
        ..Changes::at(at(second))
    }
}

fn publishes(second: i64, events: impl IntoIterator<Item = Event>) -> Changes {
    let new = |event| NewOutbox {
        kind: OutboxKind::Event(event),
    };
    Changes {
        outbox: events.into_iter().map(new).collect(),
        ..Changes::at(at(second))
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
    assert_eq!(commit(&store, Changes::at(at(2))).await.epoch, None);
    let second = commit(&store, begins(3, 7)).await.epoch;
    assert_eq!(second, Some(epoch(2, 7)));
    let own = |epoch, second| OwnEpoch {
        epoch,
        since: at(second),
    };
    let epochs = store.epochs().await.unwrap();
    assert_eq!(epochs.0, [own(epoch(2, 7), 3), own(epoch(1, u64::MAX), 1)]);
    // Two starts never begin the same one.
    let third = begin_epoch(&store, at(4)).await.unwrap();
    let fourth = begin_epoch(&store, at(5)).await.unwrap();
    assert_eq!((third.counter(), fourth.counter()), (3, 4));
    assert_ne!(third.random(), fourth.random());
    assert_eq!(store.epochs().await.unwrap().latest(), Some(fourth));
}

pub async fn what_is_numbered_carries_the_latest_epoch(store: impl Store) {
    commit(&store, publishes(1, [event("order/1", 1)])).await;
    commit(&store, begins(2, 5)).await;
    let unnumbered = event("order/1", 0);
    commit(&store, publishes(3, [event("order/1", 2), unnumbered])).await;
    let other = Event {
        epoch: Some(epoch(9, 9)),
        ..event("order/2", 1)
    };
    let both = Changes {
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

pub async fn epochs_of_events_are_read_back_as_they_were(store: impl Store) {
    commit(&store, begins(1, 1)).await;
    let of = |about: &str, sequence| Event {
        epoch: Some(epoch(i64::MAX as u64, u64::MAX - 1)),
        ..event(about, sequence)
    };
    let mut changes = Changes::at(at(2));
    changes.hold = vec![held(of("order/1", 2)), held(event("order/2", 2))];
    let row = dead_letter("a-1", Some(of("order/3", 1)));
    changes.dead = vec![NewDead { row: row.clone() }];
    commit(&store, changes).await;
    store.sweep(at(3)).await.unwrap();
    for (about, expected) in [
        ("order/1", of("order/1", 2)),
        ("order/2", event("order/2", 2)),
    ] {
        advance(&store, 3, about, cursor(about, 1)).await;
        let due = store.due(at(9), 10, u64::MAX).await.unwrap();
        assert!(due.iter().any(|held| held.event == expected), "{due:?}");
    }
    let dead = store.dead(DeadFilter::All, None, 10).await.unwrap();
    assert_eq!(dead, [row]);
}

pub async fn old_epochs_are_forgotten(store: impl Store) {
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

pub async fn the_mark_of_a_restored_store_stays_until_it_is_accepted(store: impl Store) {
    let restored = async || store.summary(at(1_000)).await.unwrap().restored;
    let change = |second, restored| Changes {
        restored: Some(restored),
        ..Changes::at(at(second))
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
