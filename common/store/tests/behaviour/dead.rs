//! Dead letters: made once, settled once.

use doorstep_store::{Changes, DeadFate, DeadFilter, DeadRow, DeadStatus, NewDead, Store};

use crate::fixtures::*;

fn die(rows: Vec<DeadRow>) -> Changes {
    let mut changes = Changes::at(at(5));
    changes.dead = rows.into_iter().map(|row| NewDead { row }).collect();
    changes
}

fn settle(id: &str, expected: DeadStatus, fate: DeadFate) -> Changes {
    let mut changes = Changes::at(at(6));
    changes.settle = vec![(dead_id(id), expected, fate)];
    changes
}

async fn all(store: &impl Store) -> Vec<DeadRow> {
    store.dead(DeadFilter::All, None, 100).await.unwrap()
}

fn ids(rows: &[DeadRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.0.as_str()).collect()
}

pub async fn a_dead_letter_is_read_back_as_it_was(store: impl Store) {
    let mut odd = event("order/1", 7);
    odd.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    odd.time = None;
    let row = DeadRow {
        defect: Some("type is missing".into()),
        attempts: 12,
        ..dead_letter("d1", Some(odd))
    };
    let loose = dead_letter("d2", Some(event("order/2", 0)));
    commit(&store, die(vec![row.clone(), loose.clone()])).await;
    assert_eq!(all(&store).await, [row, loose]);
}

pub async fn an_unreadable_message_is_read_back_as_it_was(store: impl Store) {
    let row = DeadRow {
        body: vec![0, 255, 128].into(),
        ..dead_letter("d1", None)
    };
    commit(&store, die(vec![row.clone()])).await;
    assert_eq!(all(&store).await, [row]);
}

pub async fn a_dead_letter_that_is_there_already_is_a_conflict(store: impl Store) {
    commit(&store, die(vec![dead_letter("d1", None)])).await;
    let others = vec![dead_letter("d2", None), dead_letter("d1", None)];
    conflict(&store, die(others)).await;
    conflict(
        &store,
        die(vec![dead_letter("d3", None), dead_letter("d3", None)]),
    )
    .await;
    assert_eq!(ids(&all(&store).await), ["d1"]);
}

pub async fn a_dead_letter_that_may_be_there_is_left_as_it_is(store: impl Store) {
    commit(&store, die(vec![dead_letter("d1", None)])).await;
    let again = |id| NewDead {
        row: DeadRow {
            attempts: 9,
            ..dead_letter(id, None)
        },
    };
    let mut changes = die(vec![dead_letter("d2", None)]);
    changes.dead_if_absent = vec![again("d1"), again("d2"), again("d3"), again("d3")];
    commit(&store, changes).await;
    let rows = all(&store).await;
    assert_eq!(ids(&rows), ["d1", "d2", "d3"]);
    let attempts: Vec<_> = rows.iter().map(|row| row.attempts).collect();
    assert_eq!(attempts, [1, 1, 9]);
    assert_eq!(store.summary(at(5)).await.unwrap().usage.dead.rows, 3);
}

pub async fn of_a_replay_and_a_skip_the_first_wins(store: impl Store) {
    use DeadFate::{Gone, Replaying};
    commit(
        &store,
        die(vec![dead_letter("d1", None), dead_letter("d2", None)]),
    )
    .await;
    commit(&store, settle("d1", DeadStatus::Open, Replaying)).await;
    assert_eq!(all(&store).await[0].status, DeadStatus::Replaying);
    conflict(&store, settle("d1", DeadStatus::Open, Gone)).await;
    conflict(&store, settle("d1", DeadStatus::Open, Replaying)).await;
    commit(&store, settle("d1", DeadStatus::Replaying, Gone)).await;
    conflict(&store, settle("d1", DeadStatus::Replaying, Gone)).await;

    conflict(&store, settle("d2", DeadStatus::Replaying, Gone)).await;
    commit(&store, settle("d2", DeadStatus::Open, Gone)).await;
    conflict(&store, settle("d2", DeadStatus::Open, Replaying)).await;
    assert_eq!(all(&store).await, []);
}

pub async fn a_refusal_anew_may_have_the_id_of_the_one_that_it_settles(store: impl Store) {
    commit(&store, die(vec![dead_letter("d1", None)])).await;
    commit(&store, settle("d1", DeadStatus::Open, DeadFate::Replaying)).await;
    let mut changes = settle("d1", DeadStatus::Replaying, DeadFate::Gone);
    let anew = DeadRow {
        attempts: 2,
        ..dead_letter("d1", None)
    };
    changes.dead = vec![NewDead { row: anew.clone() }];
    commit(&store, changes).await;
    assert_eq!(all(&store).await, [anew]);
}

pub async fn dead_letters_are_listed_in_pages_the_oldest_first(store: impl Store) {
    for id in ["z", "a", "m", "b"] {
        commit(&store, die(vec![dead_letter(id, None)])).await;
    }
    let page = async |after: Option<&str>| {
        let rows = store.dead(DeadFilter::All, after.map(dead_id), 2).await;
        let rows = rows.unwrap();
        ids(&rows).join(" ")
    };
    assert_eq!(page(None).await, "z a");
    assert_eq!(page(Some("a")).await, "m b");
    assert_eq!(page(Some("b")).await, "");
    assert_eq!(page(Some("gone")).await, "z a");
}

pub async fn dead_letters_are_found_by_id_and_by_fingerprint(store: impl Store) {
    let other = |id| DeadRow {
        fingerprint: "other".into(),
        ..dead_letter(id, None)
    };
    let rows = vec![
        other("d1"),
        dead_letter("d2", None),
        other("d3"),
        other("d4"),
    ];
    commit(&store, die(rows)).await;
    let find = async |filter: DeadFilter, after: Option<&str>| {
        let rows = store.dead(filter, after.map(dead_id), 2).await.unwrap();
        ids(&rows).join(" ")
    };
    let kind = |name: &str| DeadFilter::Fingerprint(name.into());
    assert_eq!(find(kind("other"), None).await, "d1 d3");
    assert_eq!(find(kind("other"), Some("d3")).await, "d4");
    assert_eq!(find(kind("none"), None).await, "");
    assert_eq!(find(DeadFilter::Id(dead_id("d2")), None).await, "d2");
    assert_eq!(find(DeadFilter::Id(dead_id("d9")), None).await, "");
}
