//! Dead letters: written once, resolved once.

use doorstep_store::{
    DeadLetter, DeadLetterEdit, DeadLetterFilter, DeadLetterStatus, NewDeadLetter, NewOutbox,
    OutboxKind, Resolution, Store, TaskChange, WriteSet,
};

use crate::fixtures::*;

fn add_dead_letters(rows: Vec<DeadLetter>) -> WriteSet {
    let mut changes = WriteSet::at(at(5));
    changes.dead_letters = rows.into_iter().map(|row| NewDeadLetter { row }).collect();
    changes
}

fn resolve(id: &str, expected: DeadLetterStatus, fate: Resolution) -> WriteSet {
    let mut changes = WriteSet::at(at(6));
    changes.resolve = vec![(dead_id(id), expected, fate)];
    changes
}

async fn all(store: &impl Store) -> Vec<DeadLetter> {
    store
        .dead_letters(DeadLetterFilter::All, None, 100)
        .await
        .unwrap()
}

fn ids(rows: &[DeadLetter]) -> Vec<&str> {
    rows.iter().map(|row| row.id.0.as_str()).collect()
}

pub async fn a_written_dead_letter_is_read_back(store: impl Store) {
    let mut odd = event("order/1", 7);
    odd.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    odd.time = None;
    let row = DeadLetter {
        defect: Some("type is missing".into()),
        task: None,
        attempts: 12,
        ..dead_letter("d1", Some(odd))
    };
    let loose = dead_letter("d2", Some(event("order/2", 0)));
    commit(&store, add_dead_letters(vec![row.clone(), loose.clone()])).await;
    assert_eq!(all(&store).await, [row, loose]);
}

pub async fn a_dead_letter_keeps_its_task(store: impl Store) {
    let row = DeadLetter {
        task: Some(task_id("mail/order/1")),
        blocks: false,
        ..dead_letter("d1-1", Some(event("order/1", 0)))
    };
    let usage = commit(&store, add_dead_letters(vec![row.clone()]))
        .await
        .usage;
    let mut of_event = row.clone();
    of_event.id = dead_id("d2-1");
    of_event.task = None;
    let both = commit(&store, add_dead_letters(vec![of_event.clone()]))
        .await
        .usage;
    let id = "mail/order/1".len() as u64;
    assert_eq!(both.dead_letters.bytes, 2 * usage.dead_letters.bytes - id);
    let listed = store.dead_letters(DeadLetterFilter::All, None, 9).await;
    assert_eq!(listed.unwrap(), [row, of_event]);
    // A replay resolves it and starts the task again in one commit.
    let mut replay = resolve("d1-1", DeadLetterStatus::Open, Resolution::Gone);
    replay.tasks = vec![TaskChange::Start(new_task("mail/order/1"))];
    let usage = commit(&store, replay.clone()).await.usage;
    assert_eq!((usage.dead_letters.rows, usage.tasks.rows), (1, 1));
    conflict(&store, replay).await;
}

pub async fn an_undecodable_message_is_read_back(store: impl Store) {
    let row = DeadLetter {
        body: vec![0, 255, 128].into(),
        ..dead_letter("d1", None)
    };
    commit(&store, add_dead_letters(vec![row.clone()])).await;
    assert_eq!(all(&store).await, [row]);
}

pub async fn an_existing_dead_letter_is_a_conflict(store: impl Store) {
    commit(&store, add_dead_letters(vec![dead_letter("d1", None)])).await;
    let others = vec![dead_letter("d2", None), dead_letter("d1", None)];
    conflict(&store, add_dead_letters(others)).await;
    conflict(
        &store,
        add_dead_letters(vec![dead_letter("d3", None), dead_letter("d3", None)]),
    )
    .await;
    assert_eq!(ids(&all(&store).await), ["d1"]);
}

pub async fn dead_letters_if_absent_keep_existing_ones(store: impl Store) {
    commit(&store, add_dead_letters(vec![dead_letter("d1", None)])).await;
    let again = |id| NewDeadLetter {
        row: DeadLetter {
            attempts: 9,
            ..dead_letter(id, None)
        },
    };
    let mut changes = add_dead_letters(vec![dead_letter("d2", None)]);
    changes.dead_letters_if_absent = vec![again("d1"), again("d2"), again("d3"), again("d3")];
    commit(&store, changes).await;
    let rows = all(&store).await;
    assert_eq!(ids(&rows), ["d1", "d2", "d3"]);
    let attempts: Vec<_> = rows.iter().map(|row| row.attempts).collect();
    assert_eq!(attempts, [1, 1, 9]);
    assert_eq!(
        store.summary(at(5)).await.unwrap().usage.dead_letters.rows,
        3
    );
}

pub async fn the_first_of_replay_and_skip_wins(store: impl Store) {
    use Resolution::{Gone, Replaying};
    commit(
        &store,
        add_dead_letters(vec![dead_letter("d1", None), dead_letter("d2", None)]),
    )
    .await;
    commit(&store, resolve("d1", DeadLetterStatus::Open, Replaying)).await;
    assert_eq!(all(&store).await[0].status, DeadLetterStatus::Replaying);
    conflict(&store, resolve("d1", DeadLetterStatus::Open, Gone)).await;
    conflict(&store, resolve("d1", DeadLetterStatus::Open, Replaying)).await;
    commit(&store, resolve("d1", DeadLetterStatus::Replaying, Gone)).await;
    conflict(&store, resolve("d1", DeadLetterStatus::Replaying, Gone)).await;

    conflict(&store, resolve("d2", DeadLetterStatus::Replaying, Gone)).await;
    commit(&store, resolve("d2", DeadLetterStatus::Open, Gone)).await;
    conflict(&store, resolve("d2", DeadLetterStatus::Open, Replaying)).await;
    assert_eq!(all(&store).await, []);
}

pub async fn a_new_rejection_may_reuse_the_resolved_id(store: impl Store) {
    commit(&store, add_dead_letters(vec![dead_letter("d1", None)])).await;
    commit(
        &store,
        resolve("d1", DeadLetterStatus::Open, Resolution::Replaying),
    )
    .await;
    let mut changes = resolve("d1", DeadLetterStatus::Replaying, Resolution::Gone);
    let anew = DeadLetter {
        attempts: 2,
        ..dead_letter("d1", None)
    };
    changes.dead_letters = vec![NewDeadLetter { row: anew.clone() }];
    commit(&store, changes).await;
    assert_eq!(all(&store).await, [anew]);
}

pub async fn dead_letters_are_paged_oldest_first(store: impl Store) {
    for id in ["z", "a", "m", "b"] {
        commit(&store, add_dead_letters(vec![dead_letter(id, None)])).await;
    }
    let page = async |after: Option<&str>| {
        let rows = store
            .dead_letters(DeadLetterFilter::All, after.map(dead_id), 2)
            .await;
        let rows = rows.unwrap();
        ids(&rows).join(" ")
    };
    assert_eq!(page(None).await, "z a");
    assert_eq!(page(Some("a")).await, "m b");
    assert_eq!(page(Some("b")).await, "");
    assert_eq!(page(Some("gone")).await, "z a");
}

pub async fn dead_letters_are_found_by_id_and_fingerprint(store: impl Store) {
    let other = |id| DeadLetter {
        fingerprint: "other".into(),
        ..dead_letter(id, None)
    };
    let rows = vec![
        other("d1"),
        dead_letter("d2", None),
        other("d3"),
        other("d4"),
    ];
    commit(&store, add_dead_letters(rows)).await;
    let find = async |filter: DeadLetterFilter, after: Option<&str>| {
        let rows = store
            .dead_letters(filter, after.map(dead_id), 2)
            .await
            .unwrap();
        ids(&rows).join(" ")
    };
    let kind = |name: &str| DeadLetterFilter::Fingerprint(name.into());
    assert_eq!(find(kind("other"), None).await, "d1 d3");
    assert_eq!(find(kind("other"), Some("d3")).await, "d4");
    assert_eq!(find(kind("none"), None).await, "");
    assert_eq!(find(DeadLetterFilter::Id(dead_id("d2")), None).await, "d2");
    assert_eq!(find(DeadLetterFilter::Id(dead_id("d9")), None).await, "");
}

pub async fn an_awaiting_dead_letter_stays_until_resolved(store: impl Store) {
    use Resolution::{Awaiting, Gone, Replaying};
    commit(&store, add_dead_letters(vec![dead_letter("d1", None)])).await;
    conflict(&store, resolve("d1", DeadLetterStatus::Awaiting, Gone)).await;
    commit(&store, resolve("d1", DeadLetterStatus::Open, Replaying)).await;
    commit(&store, resolve("d1", DeadLetterStatus::Replaying, Awaiting)).await;
    assert_eq!(all(&store).await[0].status, DeadLetterStatus::Awaiting);
    conflict(&store, resolve("d1", DeadLetterStatus::Open, Replaying)).await;
    commit(&store, resolve("d1", DeadLetterStatus::Awaiting, Gone)).await;
    assert_eq!(all(&store).await, []);
}

pub async fn dead_letters_are_found_by_event_digest(store: impl Store) {
    let rows = ["ab-1", "ab-10", "abc-1", "ab-1-1", "a-1", "ab.1", "ab"];
    commit(
        &store,
        add_dead_letters(rows.map(|id| dead_letter(id, None)).into()),
    )
    .await;
    let find = async |letter: &str| {
        let filter = DeadLetterFilter::Letter(letter.into());
        let rows = store.dead_letters(filter, None, 10).await.unwrap();
        ids(&rows).join(" ")
    };
    assert_eq!(find("ab").await, "ab-1 ab-10");
    assert_eq!(find("ab-1").await, "ab-1-1");
    assert_eq!(find("abcd").await, "");
}

fn edited(id: &str, before: &'static str, after: &'static str) -> WriteSet {
    let mut changes = WriteSet::at(at(7));
    changes.edit = vec![DeadLetterEdit {
        id: dead_id(id),
        before: before.into(),
        after: after.into(),
    }];
    changes
}

/// A dead letter of an event whose message body equals the event's data.
fn rejected(id: &str) -> DeadLetter {
    let event = event("order/1", 7);
    DeadLetter {
        body: event.data.clone(),
        defect: Some("not of its form".into()),
        task: None,
        ..dead_letter(id, Some(event))
    }
}

const DATA: &str = r#"{"total":"1.10"}"#;

pub async fn an_edit_keeps_the_original_body(store: impl Store) {
    commit(&store, add_dead_letters(vec![rejected("d-1")])).await;
    let bytes = async || store.summary(at(9)).await.unwrap().usage.dead_letters.bytes;
    let before = bytes().await;
    assert!(!all(&store).await[0].is_edited());
    commit(&store, edited("d-1", DATA, "{}")).await;
    let row = all(&store).await.remove(0);
    assert_eq!(
        (&row.body[..], row.defect.as_deref()),
        (DATA.as_bytes(), None)
    );
    assert_eq!(row.event.as_ref().unwrap().data, "{}");
    assert!(row.is_edited());
    let less = DATA.len() - 2 + "not of its form".len();
    assert_eq!(bytes().await, before - less as u64);
    commit(&store, edited("d-1", "{}", DATA)).await;
    assert!(!all(&store).await[0].is_edited());
    commit(
        &store,
        resolve("d-1", DeadLetterStatus::Open, Resolution::Gone),
    )
    .await;
    assert_eq!(bytes().await, 0);
}

pub async fn an_edit_of_changed_data_is_a_conflict(store: impl Store) {
    commit(
        &store,
        add_dead_letters(vec![rejected("d-1"), dead_letter("d-2", None)]),
    )
    .await;
    conflict(&store, edited("d-9", DATA, "{}")).await;
    conflict(&store, edited("d-2", "", "{}")).await;
    conflict(&store, edited("d-1", "{}", "{}")).await;
    commit(
        &store,
        resolve("d-1", DeadLetterStatus::Open, Resolution::Replaying),
    )
    .await;
    conflict(&store, edited("d-1", DATA, "{}")).await;
    assert!(!all(&store).await[0].is_edited());
}

pub async fn a_new_rejection_keeps_the_original_body(store: impl Store) {
    commit(&store, add_dead_letters(vec![rejected("d-1")])).await;
    commit(&store, edited("d-1", DATA, "{}")).await;
    commit(
        &store,
        resolve("d-1", DeadLetterStatus::Open, Resolution::Replaying),
    )
    .await;
    let mut changes = resolve("d-1", DeadLetterStatus::Replaying, Resolution::Gone);
    let mut anew = rejected("d-2");
    anew.event.as_mut().unwrap().data = "{}".into();
    anew.body = "{}".into();
    let another = DeadLetter {
        id: dead_id("e-2"),
        ..anew.clone()
    };
    changes.dead_letters = [anew, another].map(|row| NewDeadLetter { row }).into();
    commit(&store, changes).await;
    let bodies: Vec<_> = all(&store).await.into_iter().map(|row| row.body).collect();
    assert_eq!(bodies, [DATA, "{}"]);
    for id in ["d-2", "e-2"] {
        commit(
            &store,
            resolve(id, DeadLetterStatus::Open, Resolution::Gone),
        )
        .await;
    }
    assert_eq!(
        store.summary(at(9)).await.unwrap().usage.dead_letters.bytes,
        0
    );
}

pub async fn an_existing_dead_letter_gets_no_copy(store: impl Store) {
    let again = |ids: &[&str]| {
        let mut changes = WriteSet::at(at(5));
        for id in ids {
            let row = dead_letter(id, None);
            changes.outbox.push(NewOutbox {
                kind: OutboxKind::DeadCopy {
                    id: row.id.clone(),
                    headers: [].into(),
                    body: row.body.clone(),
                },
            });
            changes.dead_letters_if_absent.push(NewDeadLetter { row });
        }
        changes
    };
    assert_eq!(commit(&store, again(&["d1"])).await.dead_lettered, 1);
    assert_eq!(commit(&store, again(&["d1", "d2"])).await.dead_lettered, 1);
    let summary = store.summary(at(5)).await.unwrap();
    assert_eq!(
        (summary.tally.dead_letters, summary.tally.duplicates),
        (2, 1)
    );
    assert_eq!(summary.usage.outbox.rows, 2);
}

pub async fn kinds_are_ordered_by_their_oldest(store: impl Store) {
    let row = |id, fingerprint: &str, second| DeadLetter {
        fingerprint: fingerprint.into(),
        since: at(second),
        detail: format!("of {id}"),
        ..dead_letter(id, (fingerprint == "b").then(|| event("order/1", 7)))
    };
    commit(
        &store,
        add_dead_letters(vec![
            row("d1", "b", 5),
            row("d2", "a", 9),
            row("d3", "b", 3),
        ]),
    )
    .await;
    commit(
        &store,
        resolve("d1", DeadLetterStatus::Open, Resolution::Replaying),
    )
    .await;
    let groups = store.dead_letter_groups(10).await.unwrap();
    let listed: Vec<_> = groups
        .iter()
        .map(|g| {
            let kind = g.kind.as_ref().map(|kind| kind.as_str());
            (
                g.fingerprint.as_str(),
                g.count,
                g.open,
                kind,
                g.detail.as_str(),
            )
        })
        .collect();
    assert_eq!(
        listed,
        [
            ("b", 2, 1, Some("order.placed.v1"), "of d1"),
            ("a", 1, 1, None, "of d2")
        ]
    );
    assert_eq!((groups[0].first, groups[0].last), (at(3), at(5)));
    assert_eq!(groups[0].example, dead_id("d1"));
    assert_eq!(groups[0].reason, "broken rule");
    assert_eq!(store.dead_letter_groups(1).await.unwrap().len(), 1);
}

pub async fn blocked_events_are_listed_by_sequence(store: impl Store) {
    let mut changes = WriteSet::at(at(1));
    changes.defer = [5, 3, 9].map(|n| deferred(event("order/1", n))).into();
    changes.defer.push(deferred(event("order/2", 4)));
    commit(&store, changes).await;
    let sequences_of = async |about: &str, after, limit| {
        let deferred = store
            .deferred_sequences(stream(about), after, limit)
            .await
            .unwrap();
        deferred.into_iter().map(|n| n.get()).collect::<Vec<_>>()
    };
    assert_eq!(sequences_of("order/1", 0, 9).await, [3, 5, 9]);
    assert_eq!(sequences_of("order/1", 3, 1).await, [5]);
    assert_eq!(sequences_of("order/9", 0, 9).await, [0; 0]);
}
